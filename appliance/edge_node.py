"""One agent's process: the walker on its pump, the uplink, the local broker, HTTP, and the proving child.

Threads: the pump owns the walker; each MQTT session has one of paho's; HTTP has its loop. They meet in
`edge.serving` (locked inside) and in the pump's queue, nowhere else.
"""

from __future__ import annotations

import importlib.metadata
import logging
import secrets
import signal
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from appliance import clock
from appliance.broker import Broker, local_config, write_passwords
from appliance.edge_state import EdgeFolder, identity
from appliance.keys import tenant_keys
from appliance.notify import notify
from appliance.processes import check_port_free, hold
from appliance.pump import Pump
from appliance.settings import EdgeSettings
from edge import proving
from edge.agent import Agent, House, Identity
from edge.agent.reporting import overview
from edge.artifacts import Artifacts
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.journal import Journal
from edge.outbox import Outbox
from edge.predictions import Predictions
from edge.runtime import cpu_flags
from edge.serving import Serving
from edge.states import Action, Drifted, LinkChanged, Listen, Phase, Prove, Proved, Send, Unlisten
from edge.telemetry import Telemetry
from sync import codec, topics
from sync.link import Message, Publish
from sync.messages import DriftReport, Status
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import ModelName

log = logging.getLogger("falaj.edge")

TICK = 0.25  # seconds: how soon a soak or a stall is seen
PROOF_DEADLINE = 60.0  # seconds until the proving child is killed
LOCAL_USERS = ("falaj", "app")  # the agent's own and the applications'


def open_house(
    folder: EdgeFolder, own: Identity, serving: Serving, boot: str, bindings_changed: Callable[[], None]
) -> House:
    """What one agent's walker holds, from its folder."""
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal.open(folder.journal)
    return House(
        identity=own,
        journal=journal,
        artifacts=Artifacts(folder.artifacts),
        outbox=Outbox(folder.outbox, own.epoch, boot),
        trust_folder=folder.trust,
        serving=serving,
        cpu_flags=cpu_flags(),
        boot=boot,
        agent_version=importlib.metadata.version("falaj"),
        deployments=journal.deployments(),
        bindings_changed=bindings_changed,
    )


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
        self.telemetry = Telemetry(
            folder.root / "drift", own.tenant, keys.derive("drift"), self._drifted, self._report, secrets.token_bytes
        )
        self.predictions = Predictions(
            folder.root / "predictions.db", own.tenant, keys.derive("predictions"), secrets.token_bytes, self._report
        )
        self.bindings = Bindings(
            own.tenant, own.device, self.serving, self.buffers, self.local.publish, clock.now,
            self.telemetry.observe, self.predictions.remember, lambda: self.local.settled,
        )  # fmt: skip
        self.house = open_house(folder, own, self.serving, self.boot, self._rebind)
        self.house.drift, self.house.labelled = self.telemetry.report, self.predictions.report
        self.agent = Agent(self.house)
        self.uplink = self._uplink()
        self._status: dict[str, object] = {}
        pages = Pages(
            self.serving, self.metrics, self._document, self.house.agent_version, label=self.predictions.label
        )
        self.http = HttpServer(pages.handle, port=settings.http_port)
        self._ended = threading.Event()

    def run(self) -> None:
        """Until SIGTERM: local serving first, the uplink last; it is not needed to answer."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())
        check_port_free("127.0.0.1", self.settings.http_port, "http_port in edge.toml")
        self._start_local_broker()
        self.pump.start()
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
        self.buffers.close()
        self.telemetry.close()
        self.predictions.close()
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
            self.local_broker = Broker(self.folder.broker, "127.0.0.1", at.port, "local_broker.port in edge.toml")
            self.local_broker.start(local_config(self.folder.broker, at.port))

    # --- the pump's thread ---

    def _tick(self) -> None:
        self._carry_out(self.agent.tick(clock.now()))
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
                case Prove():
                    threading.Thread(target=self._prove, args=(action,), name="prover", daemon=True).start()
        for deployment in self.house.deployments.values():
            if deployment.phase is Phase.STEADY and deployment.serving is not None:
                self.telemetry.watch(deployment.serving.manifest)  # a baseline begins with the commit
        self._status = overview(self.house)

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
        return {**self._status, "listening": sorted(self.local.listening)}
