"""A whole tenant that can be killed at any moment: the real steward on its catalog, one real device on its files, and
a broker in memory that loses its sessions, its store or both. Nothing moves by itself: a test delivers.

Everything is made once (`prepare`): trust, three releases, the device enrolled and committed on the first. A history
starts on a copy of these folders.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import cast

import numpy as np

from core import orders
from core.fleet import enrolment
from core.handoffs import Artifact, Candidate, Score, Scorecard, Verdict
from core.project import Column, Contract, Model, ModelGates, Project, Rollout, Source, View
from core.steward import Action, PersistBroker, Send, SendBlob
from edge.agent import Identity
from edge.artifacts import Artifacts
from edge.outbox import Outbox
from edge.states import LinkChanged, Proved
from edge.untold import Untold
from sync import chunks, codec, golden, topics
from sync.features import TensorSpec
from sync.link import Message
from sync.loopback import Hub
from sync.messages import WHY, DeviceEvent
from sync.names import Digest, Kind
from sync.reports import WhyCard
from tests.core.world import Device as Papers
from tests.core.world import World
from tests.edge.device import Device, committed
from tests.edge.refusal import Refusal
from tests.edge.world import CLASSES, DEVICE, MODEL, NOW, TENANT, WINDOW, Core, speaking, table_of
from tests.faults.one_broker import OneBroker, access

RELEASES = (1, 2, 3)
SAYS = (0, 1, 2)
AUTHORITY = enrolment.create_authority(TENANT, NOW)


class Steward(World):
    """The core whose process says on the broker what its steward wants said."""

    hub: OneBroker | None = None
    up = False
    mute = False  # it is killed before it says what it has committed

    def take(self, actions: list[Action]) -> list[Action]:
        for action in super().take(actions):
            if isinstance(action, Send | SendBlob) and self.up and not self.mute:
                for message in self.said([action]):
                    self.link.publish(message)
            elif isinstance(action, PersistBroker) and self.hub is not None:
                self.hub.save()
        return actions

    def connect(self, hub: OneBroker) -> None:
        self.hub, self.up = hub, True
        self.link = hub.connect(topics.CORE_NAME)
        self.link.subscribe(*topics.core_subscriptions(TENANT))
        self.link.start(self._heard, lambda up, reason: None)
        self.take(self.steward.link_changed(True, self.now))

    def _heard(self, message: Message) -> None:
        self.hear(message)

    def lose_link(self) -> None:
        if self.up and self.hub is not None:
            self.up = False
            self.link.cut()
            self.hub.drop(topics.CORE_NAME)
            self.take(self.steward.link_changed(False, self.now))

    def restart(self, hub: OneBroker) -> None:
        """kill -9 and a new start: the catalog is all there is."""
        self.up = False
        self.link.cut()
        hub.drop(topics.CORE_NAME)
        self.reopen()
        self.connect(hub)

    def ship(self, number: int) -> None:
        """A real release through the steward's own hands: candidate, staging, the owner's signature."""
        graph = speaking(table_of(number), SAYS)
        asked = {"window": np.array([0, 1], np.float32).reshape(2, 1, 1)}
        claims = {"probabilities": np.eye(len(CLASSES), dtype=np.float32)[list(SAYS[:2])],
                  "y": np.array(table_of(number)[:2], np.float32)}  # fmt: skip
        vectors = golden.Golden(golden.pack(asked), {"fp32": golden.Expected(golden.pack(claims), 1e-4)})
        store = self.house.artifacts
        artifact = Artifact("fp32", (), store.put(graph), len(graph))
        card = Scorecard(200, (Score("fp32", 0.9, 1.0, 50.0, 80.0, len(graph)),), "fp32", "the only one", 1e-7)
        candidate = Candidate(
            MODEL, "s1", "v1", Digest("4" * 64), "cnn1d", 7, CLASSES, WINDOW,
            (TensorSpec("window", "FP32", (-1, 1, 1)),), (TensorSpec("probabilities", "FP32", (-1, len(CLASSES))),),
            (artifact,), store.put(golden.encode(vectors)), card, (Verdict("quality", "pass", "good"),), True,
        )  # fmt: skip
        answer = self.must(orders.CommitCandidate(job=self.job(), candidate=candidate))
        self.must(self.approval(int(answer["number"])))


def project() -> Project:
    """One model whose canary is the one device: it is judged by guardrails, after three answers."""
    columns = {"ts": Column(type="float64"), "who": Column(type="string"), "label": Column(type="string"),
               "i": Column(type="float32")}  # fmt: skip
    return Project(
        sources={"watches": Source(kind="files", path="*.csv", contract="rows", time="ts")},
        contracts={"rows": Contract(columns=columns)},
        views={"windows": View(source="watches", entity="who", label="label", window=WINDOW)},
        models={MODEL: Model(view="windows", gates=ModelGates(min_accuracy=0.8),
                             rollout=Rollout(canary=(DEVICE,), soak_answers=3))},
    )  # fmt: skip


@dataclass(frozen=True)
class Written:
    """One record that the producer was told is kept."""

    kind: Kind
    n: int
    body: object


class Witness:
    """Everything any producer on the device was ever told is kept, over all its starts."""

    def __init__(self) -> None:
        self.owed: list[Written] = []
        self.denied: list[Written] = []  # what the disk refused: it may be there all the same after a kill

    def outbox(self, refusal: Refusal) -> Callable[[Path, int, str], Outbox]:
        owed, denied = self.owed, self.denied

        class Witnessed(Outbox):
            _fresh: list[Written]

            def add(self, kind: Kind, body: object, now: float) -> bool:
                self._fresh = []
                kept = super().add(kind, body, now)
                (owed if kept else denied).extend(self._fresh)
                return kept

            def move(self, saying: Untold) -> bool:
                self._fresh = []
                kept = super().move(saying)
                read = codec.decode(WhyCard if saying.kind == WHY else DeviceEvent, bytes(saying.body))
                mine = [replace(w, body=read) if w.body is saying.body else w for w in self._fresh]
                (owed if kept else denied).extend(mine)
                return kept

            def quarantine(self, kind: Kind, n: int, why: str, now: float) -> bool:
                self._fresh = []
                done = super().quarantine(kind, n, why, now)
                (owed if done else denied).extend(self._fresh)
                return done

            def _append(self, kind: Kind, body: object, now: float) -> tuple[int, bytes]:
                n, document = super()._append(kind, body, now)
                self._fresh.append(Written(kind, n, body))
                return n, document

        return lambda path, epoch, boot: Witnessed(path, epoch, boot, refusal.factory())


@dataclass
class Box(Device):
    """The device; its session is cut by hand, and what the broker has for it waits for its next session."""

    papers: Papers = field(kw_only=True)
    witness: Witness = field(default_factory=Witness)
    refusal: Refusal = field(default_factory=Refusal)
    on: bool = False
    up: bool = False

    def __post_init__(self) -> None:
        self.journal_kind = self.refusal.journal()
        self.outbox_kind = self.witness.outbox(self.refusal)
        self.artifacts_kind = Artifacts

    def boot(self, *, link: bool = True) -> Box:
        super().boot(link=False)
        self.on, self.up = True, False
        if link:
            self.connect()
        return self

    def connect(self) -> None:
        self.up = True
        super().connect()

    def lose_link(self) -> None:
        if self.up:
            self.up = False
            self.link.cut()
            cast(OneBroker, self.core.hub).drop(DEVICE)
            self.carry_out(self.agent.handle(LinkChanged(False), self.now))

    def cut_power(self) -> None:
        self.on = self.up = False
        self.core.hub._clients.pop(DEVICE, None)
        self.house.journal.close()
        self.house.outbox.close()

    def live(self, seconds: float, asked: int = 1) -> None:
        """Time passes: a tick, the proofs it asked for, and questions to whoever answers."""
        self.now += seconds
        self.carry_out(self.agent.tick(self.now))
        while self.jobs:
            job = self.jobs.pop(0)
            outcome = self.prover(job)
            if outcome is not None:
                self.carry_out(self.agent.handle(Proved(job.model, job.artifact, outcome), self.now))
        if self.house.serving.incumbent(MODEL) is not None:
            for _ in range(asked):
                self.ask()

    @property
    def owed(self) -> list[Written]:
        return self.witness.owed


@dataclass
class Tenant:
    """One core, one device and their broker, on folders of their own."""

    hub: OneBroker
    core: Steward
    box: Box

    def deliver(self, most: int = 1_000) -> int:
        """Brings up to so many messages to whom they are for; how many it were."""
        return self.hub.deliver(most)

    def heal(self, rounds: int = 200) -> None:
        """All that was cut is whole again, and everybody lives until nothing is left to tell."""
        box, core = self.box, self.core
        box.refusal.heal()
        if not core.up:
            core.connect(self.hub)
        if not box.on:
            box.boot()
        if not box.up:
            box.connect()
        for _ in range(rounds):
            self.deliver()
            box.live(31.0, asked=2)
            self.deliver()
            core.tick(1.0)
            self.deliver()
            if not box.house.outbox.pending() and not box.house.disk.reason and self.agreed():
                return
        raise AssertionError(f"not settled: {box.house.deployments}, {box.house.outbox.pending()[:3]}")

    def agreed(self) -> bool:
        """Whether the device stands where the core wants it, and the core knows."""
        (wanted,) = self.core.catalog.fleet.wanted(DEVICE)
        row = self.core.catalog.fleet.device(DEVICE)
        said = row.report.models.get(MODEL) if row and row.report else None
        told = said is not None and said.serving is not None and said.serving.number == wanted.number
        return told and committed(self.box, wanted.number)

    def close(self) -> None:
        if self.box.on:
            self.box.cut_power()
        self.core.catalog.close()


def assemble(folder: Path, papers: Papers, root: bytes, rng: Random, now: float) -> Tenant:
    """The tenant on these folders; core and device are started, and connected."""
    hub = OneBroker(rng=rng, access=access)
    core = Steward(folder / "core", authority=AUTHORITY, now=now)
    keys = papers.keys
    identity = Identity(TENANT, DEVICE, papers.epoch, root, keys.signing, keys.sealing)
    box = Box(cast(Core, _OnHub(hub)), folder / "box", identity, now=now, papers=papers)
    (folder / "box").mkdir(parents=True, exist_ok=True)
    core.connect(hub)
    box.boot()
    return Tenant(hub, core, box)


@dataclass
class _OnHub:
    """All that a device of the small world needs of its core."""

    hub: Hub


@dataclass(frozen=True)
class Prepared:
    """What was made once."""

    folder: Path
    papers: Papers
    root: bytes
    artifacts: frozenset[str]  # plaintext digests that were ever approved
    now: float

    def copy(self, folder: Path, rng: Random) -> Tenant:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return assemble(folder, self.papers, self.root, rng, self.now)


def prepare(folder: Path) -> Prepared:
    """Trust begun, the device enrolled, three releases rolled out one after the other, each committed."""
    core = Steward(folder / "core", authority=AUTHORITY, now=NOW)
    root, targets = core.root_and_targets()
    core.must(orders.TrustInit(root=root.decode(), targets=targets.decode()))
    core.must(orders.ApplyProject(project=project(), folder=str(folder)))
    papers = core.enrol(DEVICE)
    core.catalog.close()
    tenant = assemble(folder, papers, root, Random(0), NOW)
    for number in RELEASES:
        tenant.core.ship(number)
        tenant.heal()
    digests = frozenset(chunks.digest(speaking(table_of(number), SAYS)) for number in RELEASES)
    now = max(tenant.core.now, tenant.box.now)
    tenant.close()
    return Prepared(folder, papers, root, digests, now)
