"""A core and boxes that never meet but in folders that somebody carries: the real walkers, files, crypto and ONNX
Runtime. The core's clock is the story's; a box has none of its own and starts each time in 1970.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from appliance import certificates
from appliance.core import owner
from appliance.core.state import CoreFolder, catalog_key, open_keys, prepare
from appliance.core.steward import open_house as open_core
from appliance.core.trips import Trip, trip
from appliance.edge import folder_enrolling
from appliance.edge.rooms import open_house
from appliance.edge.state import EdgeFolder, identity, install
from appliance.edge.trips import Visited, visit
from appliance.edge.visits import Visits
from appliance.settings import CoreSettings
from appliance.stick import Stick
from core.handoffs import Artifact, Candidate, Score, Scorecard, Verdict
from core.orders import ApplyProject, CommitCandidate, CommitRows, Ingest, IssueToken, Train
from core.project import Model, ModelGates, Project, Rollout
from core.steward import Steward
from edge import proving, runtime
from edge.agent import Agent, renewing
from edge.agent.ports import Outside
from edge.serving import Answer, Serving
from edge.states import Action, Install, LinkChanged, Prove, Proved
from sync import codec, golden
from sync.features import TensorSpec
from sync.link import Message
from sync.messages import ALARM, EVENT, DeviceEvent, Record
from sync.names import DeviceId, Digest
from tests.core import world
from tests.core.desk import TwoVerbs
from tests.core.world import DAY, MODEL, WINDOW, landed
from tests.edge.world import lookup

POWERED_ON = 100.0  # what the clock of a box says at its start, seconds since 1970


def project(canary: tuple[DeviceId, ...]) -> Project:
    return replace(
        world.project(),
        models={
            MODEL: Model(
                view="windows", gates=ModelGates(min_accuracy=0.5), rollout=Rollout(canary=canary, soak_answers=5)
            )
        },
    )


class FarCore(TwoVerbs):
    """The core of one tenant."""

    def __init__(self, home: Path, now: float, *, certificate_days: int = 90) -> None:
        self.home, self.now = home, now
        settings = CoreSettings(certificate_days=certificate_days)
        self.folder = CoreFolder(home / "core", settings.tenant)
        keys = open_keys(self.folder)
        prepare(self.folder, settings, keys, now)
        self.steward = Steward(open_core(self.folder, settings, keys))
        self.steward.start(now)
        super().__init__(self.folder.catalog, catalog_key(keys), self._ask, lambda: self.now)
        owner.init(self, home / "owner", "test", now)  # type: ignore[arg-type] - the API's two verbs

    @property
    def catalog(self) -> Any:
        return self.steward.house.catalog

    def pass_time(self, days: float) -> None:
        """The schedule of the steward's process, once a simulated day."""
        for _ in range(max(1, round(days))):
            self.now += DAY * days / max(1, round(days))
            self.steward.tick(self.now)
            self.steward.renew(self.now)

    def token(self, name: DeviceId) -> str:
        return str(self.order(IssueToken(device=name, minutes=7 * 24 * 60))["token"])

    def release(self, number: int, table: tuple[float, ...], claims: tuple[float, ...] | None = None) -> None:
        """A release that answers index i with `table[i]`, committed, signed by its owner and on its way."""
        if not self.catalog.datasets.files("watches"):
            job = self.order(Ingest(source="watches"))["job"]
            self.order(CommitRows(job=job, landed=landed()))
        job = self.order(Train(model=MODEL))["job"]
        found = self.order(CommitCandidate(job=job, candidate=self._candidate(table, claims or table)))
        assert found["number"] == number
        owner.approve(self, self.home / "owner", MODEL, number, "test", self.now)  # type: ignore[arg-type]

    def trip(self, stick: Path, *names: DeviceId) -> Trip:
        """`falaj device carry`."""
        house = self.steward.house
        return trip(Stick(stick, house.tenant), self, house.blobs.get, names, lambda text: None)

    def codes(self, source: str | None = None) -> list[str]:
        """The codes of all events, oldest first."""
        events = reversed(self.catalog.events.newest(10_000))
        return [e.code for e in events if source in (None, e.source)]

    def serving(self, name: DeviceId) -> int | None:
        """The release that the device said it serves."""
        row = self.catalog.fleet.device(name)
        report = row.report.models.get(MODEL) if row and row.report else None
        return report.serving.number if report and report.serving else None

    def _ask(self, order: Any) -> Any:
        return self.steward.order(order, self.now)[0]

    def _candidate(self, table: tuple[float, ...], claims: tuple[float, ...]) -> Candidate:
        store, graph = self.steward.house.artifacts, lookup(*table)
        asked = {"i": np.array([0, 1], np.int64)}
        answers = golden.Expected(golden.pack({"y": np.array(claims[:2], np.float32)}), 1e-4)
        vectors = golden.encode(golden.Golden(golden.pack(asked), {"fp32": answers}))
        artifact = Artifact("fp32", (), store.put(graph), len(graph))
        card = Scorecard(200, (Score("fp32", 0.9, 1.0, 50.0, 80.0, len(graph)),), "fp32", "it is the best", 1e-7)
        return Candidate(
            MODEL, "s1", "v1", Digest("4" * 64), "cnn1d", 7, (), WINDOW, (TensorSpec("i", "INT64", (-1,)),),
            (TensorSpec("y", "FP32", (-1,)),), (artifact,), store.put(vectors), card,
            (Verdict("quality", "pass", "accuracy 0.9"),), True,
        )  # fmt: skip


@dataclass
class FarBox:
    """A box that never had a network; between visits it is switched off and on as the test likes."""

    home: Path
    name: DeviceId
    clock: float = POWERED_ON  # its own idea of the time
    boots: int = 0

    @property
    def folder(self) -> EdgeFolder:
        return EdgeFolder(self.home / self.name)

    def ask_to_join(self, stick: Path, token: str) -> str:
        """`falaj edge enrol --folder`."""
        return folder_enrolling.ask(self.folder, stick, token, self.clock)

    def complete(self, stick: Path) -> bool:
        """What `falaj edge sync` does first on a box that has asked."""
        return folder_enrolling.complete(self.folder, stick) is not None

    def boot(self) -> FarBox:
        """Power comes: the clock begins in 1970."""
        self.boots += 1
        self.clock = POWERED_ON
        self.serving = Serving()
        own = identity(self.folder)
        outside = Outside(csr=lambda: certificates.request(own.device, own.signing_key))
        self.house = open_house(self.folder, own, self.serving, f"boot-{self.boots}", outside)
        self.agent = Agent(self.house)
        self.visits = Visits(
            self.house, self._happened, lambda: LinkChanged(False), self._now, self._now, self.agent.overview
        )
        self.carry_out(self.agent.start(self.clock))
        return self

    def cut_power(self) -> None:
        self.house.journal.close()
        self.house.outbox.close()

    def visit(self, stick: Path) -> Visited:
        """`falaj edge sync`."""
        pause = self._pause
        return visit(Stick(stick, self.house.identity.tenant), self.name, self.visits.turn, lambda text: None, pause)

    def serve(self, answers: int, index: int = 0) -> list[float | None]:
        """What it answers when it is asked so often, with time passing."""
        found: list[float | None] = []
        for _ in range(answers):
            found.append(self.ask(index))
            self.tick(1.0)
        return found

    def ask(self, index: int = 0) -> float | None:
        try:
            answer: Answer = self.serving.predict(MODEL, {"i": np.array([index], np.int64)})
        except runtime.ModelError:
            return None
        return float(answer.outputs["y"][0])

    def tick(self, seconds: float) -> None:
        self.clock += seconds
        self.carry_out(self.agent.tick(self.clock))

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            self.visits.carry(action)
            match action:
                case Prove():
                    outcome = proving.measure(action.request, time.perf_counter, time.process_time)
                    self._happened(Proved(action.model, action.artifact, outcome))
                case Install(certificate, authorities):
                    own = install(self.folder, self.house.identity, certificate, authorities)
                    renewing.installed(self.house, own, self.clock)

    def codes(self) -> list[str]:
        """The codes of the events that no acknowledgement has come for, oldest first."""
        waiting = [bytes(document) for kind, _, document in self.house.outbox.pending(10_000) if kind in (ALARM, EVENT)]
        return [codec.decode(DeviceEvent, bytes(codec.decode(Record, document).body)).code for document in waiting]

    @property
    def phase(self) -> str:
        return self.house.deployments[MODEL].phase.value

    def _now(self) -> float:
        return self.clock

    def _happened(self, happened: Message | LinkChanged | Proved) -> None:
        self.carry_out(self.agent.handle(happened, self.clock))

    def _pause(self, seconds: float) -> None:
        self.tick(max(seconds, 0.3))


def far_tenant(home: Path, name: DeviceId) -> tuple[FarCore, FarBox, Path]:
    """A core, a box that serves its first release, and the stick between them, just packed at the core."""
    core, box, stick = FarCore(home, float(int(time.time()))), FarBox(home, name), home / "stick"
    stick.mkdir()
    core.order(ApplyProject(project=project((name,)), folder=str(home)))
    box.ask_to_join(stick, core.token(name))
    core.trip(stick)
    assert box.complete(stick)
    box.boot().visit(stick)
    core.release(1, (1.0, 1.5, 1.25))
    core.trip(stick)
    round_trip(core, box, stick)
    assert box.phase == "steady" and core.serving(name) == 1
    return core, box, stick


def round_trip(core: FarCore, box: FarBox, stick: Path) -> Trip:
    """A visit, answers enough for a commit, a second visit, and back at the core an hour later."""
    box.visit(stick)
    box.serve(8)
    box.visit(stick)
    core.now += 3601.0
    box.clock += 3601.0
    return core.trip(stick)
