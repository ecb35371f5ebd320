"""A whole tenant in one process: the real steward, real agents, real folders, on the in-memory link.

What the processes of the field do around a walker (carry out its actions, bring it what happened) is done here by
hand, one thread, so that a test decides what happens between two steps.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appliance.core import jobs
from appliance.core.state import CoreFolder, catalog_key, open_keys, prepare
from appliance.core.steward import open_house as open_core
from appliance.edge.answering import Answering
from appliance.edge.enrolling import read_token
from appliance.edge.rooms import open_house, open_rooms
from appliance.edge.state import EdgeFolder, identity, install, keep
from appliance.keys import new_device_keys, tenant_keys
from appliance.settings import CoreSettings
from core.handoffs import JobSpec
from core.orders import Enrol, IssueToken
from core.steward import PersistBroker, Send, SendBlob, StartJob, Steward
from edge import proving, slots
from edge.agent import Agent, renewing
from edge.agent.ports import Outside
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.serving import Serving
from edge.states import Action, Drifted, Failure, Install, LinkChanged, Listen, Proof, Prove, Proved, Unlisten
from sync import codec, roles, topics
from sync.enrolment import ENROLMENT_TYPE, EnrolAnswer, EnrolRequest
from sync.link import Message, Publish
from sync.loopback import Hub
from sync.messages import Prediction
from sync.names import DEFAULT_TENANT, DeviceId, ModelName
from sync.reports import DriftReport
from tests.core.desk import TwoVerbs
from tests.waiting import at_once

STEP = 0.25  # seconds of story time between two rounds


def access(client: str, action: str, topic: str) -> bool:
    """The broker's rules, from the same table."""
    if client == topics.CORE_NAME:
        return topics.matches(f"{topics.tenant_root(DEFAULT_TENANT)}/#", topic)
    return topics.device_may(action, DEFAULT_TENANT, DeviceId(client), topic)  # type: ignore[arg-type]


class Box:
    """One device: agent, bindings and its answers. `restart` is what kill -9 leaves: the folder."""

    def __init__(self, home: Path, name: str, hub: Hub) -> None:
        self.folder, self.name, self.hub = EdgeFolder(home / name), name, hub
        self.answers: list[Prediction] = []
        self.errors: list[bytes] = []
        self.boots = 0
        self.last_ts = 0.0

    def start(self, now: float) -> None:
        own = identity(self.folder)
        self.boots += 1
        self.now = now
        self.drifts: list[Drifted] = []
        self.reports: list[tuple[str, str]] = []
        self.metrics = Metrics()
        self.serving = Serving(observe=self.metrics.observe)
        keys = tenant_keys(self.folder.root / "kek", self.folder.root / "device.key-wrapped", own.tenant)
        self.buffers = Buffers(self.folder.buffers, own.tenant, keys.derive("buffers"))
        self.rooms = open_rooms(
            self.folder,
            own,
            keys,
            lambda: self.now,
            self._drifted,
            lambda code, text: self.reports.append((code, text)),
            elapsed=lambda: self.now,
            counted=self.metrics.counted,
        )
        self.bindings = Bindings(
            own.tenant, own.device, self.serving, self.buffers, self._answered,
            observe=self.rooms.telemetry.observe, remember=self.rooms.remember, lookups=self.rooms.lookups,
        )  # fmt: skip
        outside = Outside(self._rebind, answer=lambda ask, seq, now: self.answering.answer(ask, seq, now))
        house = open_house(self.folder, own, self.serving, f"boot-{self.boots}", outside, self.rooms)
        self.agent = Agent(house)
        self.answering = Answering(
            house, self.rooms.predictions, self.rooms.budget, self.folder.root, lambda: self.now, self.agent.overview,
            on_walker=at_once,
        )  # fmt: skip
        self.link = self.hub.connect(own.device)
        self.carry_out(self.agent.start(now), now)
        self.link.start(lambda m: self.carry_out(self.agent.handle(m, self.now), self.now), lambda up, why: None)
        self.carry_out(self.agent.handle(LinkChanged(True), now), now)

    def kill(self) -> None:
        """The process is gone; SQLite and the folder stay as they are."""
        self.link.cut()
        house = self.agent.house
        for database in (house.journal, house.outbox, self.rooms.predictions, self.rooms.budget):
            database.close()

    def tick(self, now: float) -> None:
        self.now = now
        self.rooms.tick(self.agent.house, now)
        for told in self.drifts:
            self.carry_out(self.agent.handle(told, now), now)
        self.drifts.clear()
        self.carry_out(self.agent.tick(now), now)

    def carry_out(self, actions: list[Action], now: float) -> None:
        for action in actions:
            match action:
                case Listen(patterns):
                    self.link.subscribe(*patterns)
                case Unlisten(patterns):
                    self.link.unsubscribe(*patterns)
                case Install(certificate, authorities):
                    own = install(self.folder, self.agent.house.identity, certificate, authorities)
                    renewing.installed(self.agent.house, own, now)
                case Prove():
                    result = Proved(action.model, action.artifact, self.prove(action))
                    self.carry_out(self.agent.handle(result, now), now)
                case _:
                    self.link.publish(action.message)
        self.rooms.watch(self.agent.house)

    def prove(self, job: Prove) -> Proof | Failure:
        """The same measurement as the child's, without the child: it is tested with it elsewhere."""
        return proving.measure(job.request, time.perf_counter, time.process_time)

    def feel(self, ts: float, row: dict[str, float]) -> None:
        """One sensor message on the local broker."""
        payload = json.dumps({"ts": ts, **row}).encode()
        self.bindings.handle(f"watch/{self.name}/imu", payload, 1, lambda: None)

    def feel_many(self, ts: Sequence[float], rows: Sequence[dict[str, float]], entity: str = "") -> None:
        """Several readings in one message, of another wrist than the device's own if `entity` says so."""
        payload = json.dumps([{"ts": t, **row} for t, row in zip(ts, rows, strict=True)]).encode()
        self.bindings.handle(f"watch/{entity or self.name}/imu", payload, 1, lambda: None)

    def drift(self, model: str = "exercise") -> DriftReport | None:
        return self.rooms.telemetry.report(ModelName(model))

    def serves(self, model: str = "exercise") -> int | None:
        """The number of the release that answers."""
        loaded = self.serving.incumbent(ModelName(model))
        return loaded.slot.release.number if loaded else None

    def clock(self, now: float) -> float:
        """Event time of the next reading: sensors outrun the story's clock, and never go back."""
        return max(now, self.last_ts)

    def phase(self, model: str = "exercise") -> str:
        deployment = self.agent.house.deployments.get(ModelName(model))
        return deployment.phase.value if deployment else "unknown"

    def _drifted(self, model: ModelName, report: DriftReport) -> None:
        self.drifts.append(Drifted(model, report))

    def _rebind(self) -> None:
        for model, deployment in self.agent.house.deployments.items():
            manifest = slots.bound(deployment)
            if manifest is not None:
                self.bindings.bind(manifest)
            else:
                self.bindings.unbind(model)

    def _answered(self, message: Publish) -> None:
        if message.topic.endswith("/error"):
            self.errors.append(message.payload)
        else:
            self.answers.append(codec.decode(Prediction, message.payload))


class World(TwoVerbs):
    """The core and its devices, with a story clock that starts now (tuf reads the real one)."""

    def __init__(self, home: Path, hub: Hub | None = None, now: float | None = None) -> None:
        self.home, self.now = home, time.time() if now is None else now
        self.hub = hub or Hub(access=access)
        self.settings = CoreSettings()
        self.core = CoreFolder(home / "core", self.settings.tenant)
        self.keys = open_keys(self.core)
        prepare(self.core, self.settings, self.keys, self.now)
        self.boxes: dict[str, Box] = {}
        self.held: list[JobSpec] | None = None  # a list: jobs are not run but kept here
        super().__init__(self.core.catalog, catalog_key(self.keys), self._ask, lambda: self.now)
        self.start_core()

    def start_core(self) -> None:
        """The steward from its folder, and its session with the broker."""
        self.steward = Steward(open_core(self.core, self.settings, self.keys))
        self.link = self.hub.connect(topics.CORE_NAME)
        self.link.subscribe(*topics.core_subscriptions(DEFAULT_TENANT))
        self.link.start(self._heard, lambda up, why: None)
        self._carry_out(self.steward.start(self.now))
        self._carry_out(self.steward.link_changed(True, self.now))
        self._carry_out(self.steward.renew(self.now))

    def kill_core(self) -> None:
        """The steward is gone, and with it the jobs that were under way."""
        self.link.cut()
        self.steward.house.catalog.close()
        if self.held is not None:
            self.held.clear()

    def _ask(self, order: Any) -> Any:
        answer, actions = self.steward.order(order, self.now)
        self._carry_out(actions)
        return answer

    def join(self, name: str) -> Box:
        """Enrols a device, and starts its agent."""
        box = self.enrol(name)
        box.start(self.now)
        return box

    def enrol(self, name: str) -> Box:
        """By a token, as `falaj edge enrol` does."""
        token = read_token(self.order(IssueToken(device=DeviceId(name)))["token"])
        keys = new_device_keys(name)
        sealing = base64.b64encode(keys.sealing_public).decode()
        request = EnrolRequest(token.tenant, token.device, token.secret, keys.csr.decode(), sealing)
        envelope = roles.sign(request, ENROLMENT_TYPE, keys.signing)
        result = self.order(Enrol(envelope=envelope.decode()))
        box = self.boxes[name] = Box(self.home, name, self.hub)
        keep(box.folder, keys, codec.decode(EnrolAnswer, json.dumps(result).encode(), 1 << 20))
        return box

    def rejoin(self, *names: str) -> None:
        """Starts the agents whose folders are here already."""
        for name in names:
            box = self.boxes[name] = Box(self.home, name, self.hub)
            box.start(self.now)

    def settle(self, rounds: int = 8) -> None:
        """Lets messages flow and time pass, a step a round."""
        for _ in range(rounds):
            self.now += STEP
            self._carry_out(self.steward.tick(self.now))
            for box in self.boxes.values():
                box.tick(self.now)
            self.hub.run()

    def _heard(self, message: Message) -> None:
        self._carry_out(self.steward.handle(message, self.now))

    def _carry_out(self, actions: list[Any]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.link.publish(message)
                case SendBlob():
                    for message in self.steward.house.chunks(action):
                        self.link.publish(message)
                case StartJob(spec) if self.held is not None:
                    self.held.append(spec)
                case StartJob(spec):
                    self._ask(jobs.work(self.core, self.keys, spec, lambda stage, done: None))
                case PersistBroker():
                    pass
