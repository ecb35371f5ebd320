"""One agent's process: the walker on its pump, the uplink, the local broker, HTTP, and the proving child.

Threads: the pump owns the walker; each MQTT session has one of paho's; HTTP has its loop; another pump asks the
release that is compared with the one that answers, however slow it is; a third checkpoints readings and acknowledges
them, however long the walker loads a model. They meet in the pumps' queues and in rooms that are locked inside
(serving, buffers and bindings, and those of `appliance.edge.rooms`), nowhere else.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

from appliance import certificates, clock
from appliance.certificates import WrongCertificate
from appliance.edge import answering
from appliance.edge.answering import Answering
from appliance.edge.doors import Doors
from appliance.edge.guard import Guard
from appliance.edge.local_broker import LocalBroker
from appliance.edge.local_session import LocalSession
from appliance.edge.log_tail import LogTail
from appliance.edge.proofs import Proofs
from appliance.edge.rooms import log_disk, open_house, open_rooms
from appliance.edge.state import EdgeFolder, identity, install
from appliance.edge.visits import Visits
from appliance.keys import tenant_keys
from appliance.notify import notify
from appliance.processes import hold
from appliance.pump import Pump, breathe, settled
from appliance.reopening import Reopening
from appliance.settings import EdgeSettings
from edge import slots
from edge.agent import Agent, accounting, renewing
from edge.agent.ports import Outside
from edge.bindings import Bindings, Requests
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.metering import Meter
from edge.serving import Serving
from edge.states import Action, Drifted, Install, LinkChanged, Listen, Prove, Proved, Send, Unlisten
from sync import codec, topics
from sync.link import Message, Publish
from sync.manifest import all_labels
from sync.messages import Status
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import ModelName
from sync.reports import DriftReport

log = logging.getLogger("falaj.edge")

UNACKED = 48  # readings that may wait for a checkpoint: our own broker has up to 64 on their way ...
UNACKED_ELSEWHERE = 16  # ... and Mosquitto, as a site may run it, 20
IDLE = 60.0  # seconds; whoever compares releases has nothing to do but what it is given
TICK = 0.25  # seconds: how soon a soak or a stall is seen


class EdgeNode:
    """Everything around one agent."""

    def __init__(self, folder: EdgeFolder, settings: EdgeSettings) -> None:
        self.folder, self.settings = folder, settings
        self._lock = hold(folder.root)
        self.log = LogTail()
        logging.getLogger("falaj").addHandler(self.log)
        own = self.identity = identity(folder)
        self.boot = uuid.uuid4().hex
        keys = tenant_keys(folder.root / "kek", folder.root / "device.key-wrapped", own.tenant)
        self.pump = Pump("agent", self._tick, TICK)  # first: a room that finds its file damaged tells it by the pump
        self.metrics = Metrics()
        self.serving = Serving(observe=self.metrics.observe)
        self.buffers = Buffers(
            folder.buffers, own.tenant, keys.derive("buffers"), report=self._report, ticks=clock.ticks,
            max_unacked=UNACKED if settings.local_broker.managed else UNACKED_ELSEWHERE,
        )  # fmt: skip
        self.local_broker = LocalBroker(folder.broker, settings.local_broker, self._report)
        password = self.local_broker.password()
        self.local = LocalSession(settings.local_broker, password, own.device, self._confirmed, self._report)
        self.guard = Guard(folder)
        self.pairs = Pump("trials", lambda: None, IDLE, rest=breathe)
        self.proofs = Proofs(self._proved)
        self.rooms = open_rooms(
            folder, own, keys, clock.now, self._drifted, self._report, self.pairs.submit, rest=breathe,
            counted=self.metrics.counted,
        )  # fmt: skip
        self.bindings = Bindings(
            own.tenant, own.device, self.serving, self.buffers, self.local.publish, clock.now,
            self.rooms.telemetry.observe, self.rooms.remember, lambda: self.local.settled,
            self.rooms.lookups,
        )  # fmt: skip
        self.settling = Pump("bindings", self.bindings.settle, TICK)
        record, heard = self.rooms.recorder.record, self.bindings.subscriptions
        self.requests = Requests(own.device, self.serving, self.local.publish, clock.now, record, heard)
        self.local.listen(self.bindings, self.requests)
        labels = all_labels(settings.labels, folder.enrolment().labels)
        self.house = open_house(folder, own, self.serving, self.boot, self._outside(), self.rooms, labels)
        self.house.line.meter = Meter(settings.uplink.daily_bytes, settings.uplink.bytes_per_second, self.rooms.budget)
        self.agent = Agent(self.house)
        self.uplink = self._uplink()
        self.reopening = Reopening(self.pump, lambda: self.uplink.stop(), self._open_uplink)
        self._status: dict[str, object] = {}
        self._disk = ""  # what the disk said when it was last logged
        pages = Pages(
            self.serving, self.metrics, self._document, self.house.box.agent_version, label=self.rooms.label,
            record=record, predict=self.bindings.predict, said=self.rooms.predictions.said,
        )  # fmt: skip
        self.http = Doors(settings, folder.root, pages.handle, pages.handle_all, self._report)
        self.guard.watch(self.house, settings.models_mb, self.http.answers)
        self.answering = Answering(
            self.house, self.rooms.predictions, self.rooms.budget, folder.root, clock.now, self._document, settings,
            self.log.lines, self.pump.submit,
        )  # fmt: skip
        self.visits = Visits(
            self.house, lambda said: self._carry_out(self.agent.handle(said, clock.now())),
            self._uplink_stands, clock.now, clock.ticks, self._document, self.pump.submit,
            {answering.PATH: self.answering.serve},
        )  # fmt: skip
        self._ended = threading.Event()

    def run(self) -> None:
        """Until SIGTERM: local serving first, the uplink last; it is not needed to answer."""
        signal.signal(signal.SIGTERM, lambda *_: self._ended.set())
        signal.signal(signal.SIGINT, lambda *_: self._ended.set())
        self.http.check()
        self.guard.start()
        self.pump.start()
        self.pairs.start()
        self.settling.start()
        self.pump.submit(lambda: self._carry_out(self.agent.start(clock.now()))).result()
        self.http.start()
        self.local_broker.start()  # after HTTP, which needs none: a restart is an outage only until that answers
        self.local.start(self.bindings, self.requests)
        self.uplink.start(self._received, self._link_changed)
        self.visits.listen(self.folder.door)
        settled()
        notify("READY=1")
        log.info("agent of %s/%s answers on %s", self.identity.tenant, self.identity.device, self.http.place)
        self._ended.wait()
        self._stop()

    def _stop(self) -> None:
        notify("STOPPING=1")
        logging.getLogger("falaj").removeHandler(self.log)
        own, session = self.identity, self.house.journal.counter("session")
        status = codec.encode(Status("stopped", clock.now(), self.boot, session))
        self.uplink.publish(Publish(topics.status(own.tenant, own.device), status, retain=True))
        self.visits.close()
        with ThreadPoolExecutor() as links:  # up to a second each
            links.map(lambda stop: stop(), (self.local.stop, self.uplink.stop))
        self.http.stop()  # whoever asks is answered all the while
        self.pump.submit(self._last)
        self.pump.stop()
        self.pairs.stop()
        self.settling.stop()
        self.guard.stop()
        self.buffers.close()
        self.rooms.close()
        self.house.outbox.close()
        self.house.journal.close()
        self.local_broker.stop()

    # --- composing ---

    def _outside(self) -> Outside:
        own = self.identity
        return Outside(
            self._rebind,
            lambda: self.uplink.unconfirmed,
            lambda: certificates.request(own.device, own.signing_key),
            lambda ask, seq, now: self.answering.answer(ask, seq, now),
        )

    def _uplink(self) -> MqttLink:
        own, kept = self.identity, self.folder.enrolment()
        will = Status("offline", clock.now(), self.boot, self.house.journal.counter("session") + 1)
        return MqttLink(
            At(kept.uplink_host, kept.uplink_port, own.device, tls=self.folder.tls()),
            Publish(topics.status(own.tenant, own.device), codec.encode(will), retain=True),
            refused=lambda text: log.warning("uplink: %s", text),
            chance=random.random,
        )

    # --- the pump's thread ---

    def _tick(self) -> None:
        now = clock.now()
        self.visits.expire()
        self.rooms.tick(self.house, self.house.time.at(now))
        self._carry_out(self.agent.tick(now))
        self._status = self.agent.overview()  # not for every message: a download has many
        self.local_broker.tend(disk_works=not self.house.disk.reason)
        self.guard.walked()

    def _last(self) -> None:
        """What was counted since the last interval is kept for the core; then the end is noted."""
        rooms = self.rooms
        rooms.write_down()
        accounting.account(self.house, rooms.performance, rooms.telemetry, self._now(), rooms.elapsed(), ending=True)
        self.agent.stop(clock.now())

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            self.visits.carry(action)
            match action:
                case Send(message):
                    self.uplink.publish(message)
                case Listen(patterns, session):
                    self.uplink.subscribe(*self.visits.leaves(patterns), session=session)
                case Unlisten(patterns):
                    self.uplink.unsubscribe(*patterns)
                case Install():
                    self._install(action)
                case Prove():
                    self.proofs.begin(action)
        self.rooms.watch(self.house)
        self._status = self._status or self.agent.overview()
        self._disk = log_disk(self._disk, self.house.disk.reason)

    def _install(self, asked: Install) -> None:
        """The next certificate; the session is opened anew with it, and begins as after any cut."""
        try:
            own = install(self.folder, self.house.identity, asked.certificate, asked.authorities)
        except (WrongCertificate, OSError) as error:
            log.error("the certificate of before is kept: %s", error)
            renewing.refused(self.house, str(error), self._now(), again=not isinstance(error, WrongCertificate))
            return
        renewing.installed(self.house, own, self._now())
        self.reopening.ask()

    def _open_uplink(self) -> None:
        self.uplink = self._uplink()
        self.uplink.start(self._received, self._link_changed)

    def _rebind(self) -> None:
        for model, deployment in self.house.deployments.items():
            if (manifest := slots.bound(deployment)) is not None:
                for why in self.bindings.bind(manifest):
                    text = f"release {manifest.number} answers, and not here: {why}; correct it and publish it anew"
                    self.house.events.complain(self._now(), "bad-binding", text, model)
            else:
                self.bindings.unbind(model)
        self.local.listen(self.bindings, self.requests)

    def _now(self) -> float:
        """The time, on a box without a clock as well."""
        return self.house.time.at(clock.now())

    # --- other threads ---

    def _proved(self, result: Proved) -> None:
        self.pump.submit(lambda: self._carry_out(self.agent.handle(result, clock.now())))

    def _received(self, message: Message) -> None:
        self.pump.post(lambda: self._carry_out(self.agent.handle(message, clock.now())))

    def _link_changed(self, up: bool, reason: str) -> None:
        log.info("uplink: %s", reason)
        refused = "" if up else certificates.unproven(reason)
        changed = LinkChanged(up, False, self.uplink.session, self.uplink.limit, refused)
        if not up and renewing.state(self.house.identity, clock.now()) == "ended":
            log.error("the certificate %s", renewing.words(self.house.identity, clock.now()))
        self.pump.submit(lambda: self._carry_out(self.agent.handle(self.visits.beside(changed), clock.now())))

    def _uplink_stands(self) -> LinkChanged:
        return LinkChanged(self.uplink.wait_until_up(0), False, self.uplink.session, self.uplink.limit)

    def _confirmed(self) -> None:
        if self.bindings.waits:
            self.settling.submit(self.bindings.settle)

    def _drifted(self, model: ModelName, found: DriftReport) -> None:
        self.pump.submit(lambda: self._carry_out(self.agent.handle(Drifted(model, found), clock.now())))

    def _report(self, code: str, text: str) -> None:
        log.warning("%s: %s", code, text)
        self.pump.submit(lambda: self.house.events.report(self._now(), code, text, severity="notice"))

    def _document(self) -> dict[str, object]:
        own, now = self.house.identity, self._now()
        paper = {"state": renewing.state(own, now), "text": renewing.words(own, now)}
        return {**self._status, "certificate": paper, "listening": self.local.listening}
