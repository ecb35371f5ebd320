"""One agent's process: the walker on its pump, the uplink, the local broker, HTTP, and the proving child.

Threads: the pump owns the walker; each MQTT session has one of paho's; HTTP has its loop; another pump asks the
release that is compared with the one that answers, however slow it is. They meet in the pumps' queues and in rooms
that are locked inside (serving, buffers and bindings, and those of `appliance.edge_rooms`), nowhere else.
"""

from __future__ import annotations

import logging
import math
import random
import signal
import threading
import uuid
from pathlib import Path

from appliance import certificates, clock
from appliance.broker import Broker, local_config, write_passwords
from appliance.certificates import WrongCertificate
from appliance.edge_rooms import open_house, open_rooms
from appliance.edge_state import EdgeFolder, identity, install
from appliance.errors import Trouble
from appliance.keys import tenant_keys
from appliance.notify import notify
from appliance.processes import check_port_free, hold
from appliance.pump import Pump
from appliance.settings import EdgeSettings
from edge import proving
from edge.agent import Agent, renewing
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.serving import Serving
from edge.states import Action, Drifted, Install, LinkChanged, Listen, Prove, Proved, Send, Unlisten
from sync import codec, topics
from sync.link import Message, Publish
from sync.messages import DriftReport, Status
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import ModelName

log = logging.getLogger("falaj.edge")

IDLE = 60.0  # seconds; whoever compares releases has nothing to do but what it is given
TICK = 0.25  # seconds: how soon a soak or a stall is seen
BROKER_AGAIN = 30.0  # seconds between two tries to start the local broker
PROOF_DEADLINE = 60.0  # seconds until the proving child is killed
LOCAL_USERS = ("falaj", "app")  # the agent's own and the applications'


class EdgeNode:
    """Everything around one agent."""

    def __init__(self, folder: EdgeFolder, settings: EdgeSettings) -> None:
        self.folder, self.settings = folder, settings
        self._lock = hold(folder.root)
        self.identity = identity(folder)
        self.boot = uuid.uuid4().hex
        own = self.identity
        keys = tenant_keys(folder.root / "kek", folder.root / "device.key-wrapped", own.tenant)
        self.pump = Pump("agent", self._tick, TICK)  # first: a room that finds its file damaged tells it by the pump
        self.metrics = Metrics()
        self.serving = Serving(observe=self.metrics.observe)
        self.buffers = Buffers(folder.buffers, own.tenant, keys.derive("buffers"), report=self._report)
        self.local_broker: Broker | None = None
        self.local = self._local_link()
        self.pairs = Pump("trials", lambda: None, IDLE)
        self.rooms = open_rooms(folder, own, keys, clock.now, self._drifted, self._report, self.pairs.submit)
        self.bindings = Bindings(
            own.tenant, own.device, self.serving, self.buffers, self.local.publish, clock.now,
            self.rooms.telemetry.observe, self.rooms.remember, lambda: self.local.settled,
        )  # fmt: skip
        self.house = open_house(folder, own, self.serving, self.boot, self._rebind, self.rooms)
        self.house.csr = lambda: certificates.request(own.device, own.signing_key)
        self.agent = Agent(self.house)
        self.uplink = self._uplink()
        self._status: dict[str, object] = {}
        self._broker_due = math.inf  # when the local broker is tried again
        self._disk = ""  # what the disk said when it was last logged
        pages = Pages(self.serving, self.metrics, self._document, self.house.agent_version, label=self.rooms.label)
        self.http = HttpServer(pages.handle, port=settings.http_port)
        self._ended = threading.Event()

    def run(self) -> None:
        """Until SIGTERM: local serving first, the uplink last; it is not needed to answer."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())
        check_port_free("127.0.0.1", self.settings.http_port, "http_port in edge.toml")
        self._start_local_broker()
        self.pump.start()
        self.pairs.start()
        self.pump.submit(lambda: self._carry_out(self.agent.start(clock.now()))).result()
        self.http.start()
        self.local.start(self._local_received, lambda up, reason: log.info("local broker: %s", reason))
        self.uplink.start(self._received, self._link_changed)
        notify("READY=1")
        log.info("agent of %s/%s answers on port %s", self.identity.tenant, self.identity.device, self.http.port)
        self._ended.wait()
        self._stop()

    def _stop(self) -> None:
        notify("STOPPING=1")
        own = self.identity
        status = Status("stopped", clock.now(), self.boot, self.house.journal.counter("session"))
        self.uplink.publish(Publish(topics.status(own.tenant, own.device), codec.encode(status), retain=True))
        self.http.stop()
        self.local.stop()
        self.uplink.stop()
        self.pump.stop()
        self.pairs.stop()
        self.buffers.close()
        self.rooms.close()
        self.house.outbox.close()
        self.house.journal.close()
        if self.local_broker is not None:
            self.local_broker.stop()

    # --- composing ---

    def _uplink(self) -> MqttLink:
        own, kept = self.identity, self.folder.enrolment()
        will = Status("offline", clock.now(), self.boot, self.house.journal.counter("session") + 1)
        return MqttLink(
            At(kept.uplink_host, kept.uplink_port, own.device, tls=self.folder.tls()),
            Publish(topics.status(own.tenant, own.device), codec.encode(will), retain=True),
            refused=lambda text: log.warning("uplink: %s", text),
            chance=random.random,
        )

    def _local_link(self) -> MqttLink:
        """Readings count as received when they are checkpointed; predictions wait for the broker in memory."""
        at = self.settings.local_broker
        if at.managed and not (self.folder.broker / "passwords").exists():
            write_passwords(self.folder.broker, LOCAL_USERS)
        given = self.folder.broker / "falaj.password" if at.managed else at.password_file
        password = Path(given).read_text().strip() if given else None
        broker = At(
            at.host, at.port, f"falaj-{self.identity.device}", user=at.user if password else None,
            password=password, session_expiry=7 * 86_400,
        )  # fmt: skip
        return MqttLink(
            broker,
            manual_ack=True,
            queue_when_down=True,
            refused=lambda text: log.warning("local broker: %s", text),
            confirmed=lambda: self.pump.submit(self.bindings.settle),
        )

    def _start_local_broker(self) -> None:
        at = self.settings.local_broker
        if at.managed:
            broker = Broker(self.folder.broker, "127.0.0.1", at.port, "local_broker.port in edge.toml")
            self._broker_due = 0.0
            try:
                broker.start(local_config(self.folder.broker, at.port))
            except OSError as error:  # the disk refuses: no reason not to answer
                log.error("the local broker does not start, HTTP serves without it: %s; check the disk", error)
                return
            self.local_broker, self._broker_due = broker, math.inf

    def _start_local_broker_again(self, now: float) -> None:
        """The disk kept it from starting; here nothing about it ends the agent, which answers already."""
        try:
            self._start_local_broker()
        except Trouble as error:
            log.error("the local broker does not start: %s", error)
        if self.local_broker is None:
            self._broker_due = now + BROKER_AGAIN

    # --- the pump's thread ---

    def _tick(self) -> None:
        now = clock.now()
        self.rooms.tick(self.house, now)
        self._carry_out(self.agent.tick(now))
        if now >= self._broker_due and not self.house.disk.reason:
            self._start_local_broker_again(now)
        self.bindings.settle(everything=True)  # readings of a stream that fell silent are acknowledged too
        notify("WATCHDOG=1")

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.uplink.publish(message)
                case Listen(patterns):
                    self.uplink.subscribe(*patterns)
                case Unlisten(patterns):
                    self.uplink.unsubscribe(*patterns)
                case Install(certificate):
                    self._install(certificate)
                case Prove():
                    threading.Thread(target=self._prove, args=(action,), name="prover", daemon=True).start()
        self.rooms.watch(self.house)
        self._status = self.agent.overview()
        self._log_disk(self.house.disk.reason)

    def _install(self, certificate: str) -> None:
        """The next certificate; the session is opened anew with it, and begins as after any cut."""
        try:
            own = install(self.folder, self.house.identity, certificate)
        except (WrongCertificate, OSError) as error:
            log.error("the certificate of before is kept: %s", error)
            renewing.refused(self.house, str(error), clock.now())
            return
        renewing.installed(self.house, own, clock.now())
        self.uplink.stop()
        self.uplink = self._uplink()
        self.uplink.start(self._received, self._link_changed)

    def _log_disk(self, said: str) -> None:
        if said and not self._disk:
            log.error("the disk refuses, nothing is installed or reported, serving goes on: %s; check the disk", said)
        elif self._disk and not said:
            log.warning("the disk works again")
        self._disk = said

    def _rebind(self) -> None:
        for deployment in self.house.deployments.values():
            slot = deployment.serving or deployment.candidate
            if slot is not None:
                self.bindings.bind(slot.manifest)
        wanted = self.bindings.subscriptions()
        self.local.unsubscribe(*(self.local.listening - set(wanted)))
        self.local.subscribe(*wanted)

    # --- other threads ---

    def _prove(self, job: Prove) -> None:
        outcome = proving.prove(job.request, PROOF_DEADLINE)
        result = Proved(job.model, job.artifact, outcome)
        self.pump.submit(lambda: self._carry_out(self.agent.handle(result, clock.now())))

    def _received(self, message: Message) -> None:
        self.pump.post(lambda: self._carry_out(self.agent.handle(message, clock.now())))

    def _link_changed(self, up: bool, reason: str) -> None:
        log.info("uplink: %s", reason)
        if not up and renewing.state(self.house.identity, clock.now()) == "ended":
            log.error("the certificate %s", renewing.words(self.house.identity, clock.now()))
        self.pump.submit(lambda: self._carry_out(self.agent.handle(LinkChanged(up), clock.now())))

    def _local_received(self, message: Message) -> None:
        def ack() -> None:
            if message.qos:
                self.local.acknowledge(message.receipt, message.qos)

        if message.retained:  # an old reading, stored by the broker: it says nothing of now
            ack()
            return
        self.bindings.handle(message.topic, message.payload, message.qos, ack)

    def _drifted(self, model: ModelName, found: DriftReport) -> None:
        told = Drifted(model, found)
        self.pump.submit(lambda: self._carry_out(self.agent.handle(told, clock.now())))

    def _report(self, code: str, text: str) -> None:
        log.warning("%s: %s", code, text)
        self.pump.submit(lambda: self.house.event(clock.now(), code, text, severity="notice"))

    def _document(self) -> dict[str, object]:
        own, now = self.house.identity, clock.now()
        paper = {"state": renewing.state(own, now), "text": renewing.words(own, now)}
        return {**self._status, "certificate": paper, "listening": sorted(self.local.listening)}
