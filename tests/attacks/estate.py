"""A whole tenant for attacks on trust: the real steward, its owners at their own desks, real agents, on the in-memory
link. Releases are lookup tables, so an answer tells which release gave it; nothing is trained."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from tuf.api.metadata import Metadata

from appliance.core import owner
from appliance.core.key_ring import KeyRing
from core import orders
from core.handoffs import Artifact, Candidate, Score, Scorecard, Verdict
from core.project import Model, ModelGates, Project, Rollout
from core.release import publish
from core.release.layout import Quorum
from core.release.metadata import write
from sync import codec, golden, roles, topics
from sync.features import TensorSpec
from sync.link import Publish
from sync.messages import DeviceEvent, Record, TrustIndex
from sync.names import DEFAULT_TENANT, DeviceId, Digest, TrustFile
from tests.core.world import MODEL, WINDOW, landed, project
from tests.edge.world import lookup, table_of
from tests.journey.memory import Box, World

ROUNDS = 40  # of a wait, before it is given up


@dataclass(frozen=True)
class Holders:
    """People with a folder of keys each."""

    home: Path
    names: tuple[str, ...]

    def folder(self, name: str) -> Path:
        return self.home / name

    def quorum(self, threshold: int) -> Quorum:
        publics = [KeyRing(self.folder(name)).public(str(KeyRing(self.folder(name)).make(name))) for name in self.names]
        return Quorum(tuple(publics), threshold)


class Estate:
    """A tenant with these boxes; the first is the canary. `owner` is the single owner's folder of keys."""

    def __init__(self, home: Path, *names: str) -> None:
        self._open(home)
        owner.init(self.api, self.owner, "test", self.world.now)
        base = project()
        rollout = Rollout(canary=(DeviceId(names[0]),), soak_answers=1)
        model = Model(view="windows", gates=ModelGates(min_accuracy=0.8), rollout=rollout)
        wanted = Project(sources=base.sources, contracts=base.contracts, views=base.views, models={MODEL: model})
        self.world.order(orders.ApplyProject(project=wanted, folder=str(home)))
        self.boxes = {name: self.world.join(name) for name in names}
        self.world.settle(2)

    @classmethod
    def again(cls, prepared: Path, home: Path, *names: str) -> Self:
        """A copy of an estate that was closed, to be played on: everybody starts from their folders."""
        shutil.copytree(prepared, home)
        estate = cls.__new__(cls)
        estate._open(home)
        estate.world.rejoin(*names)
        estate.boxes = dict(estate.world.boxes)
        estate.world.settle(2)
        return estate

    def close(self) -> None:
        """Everybody is switched off."""
        self.leave(*self.world.boxes)
        self.world.kill_core()

    def _open(self, home: Path) -> None:
        self.home, self.owner = home, home / "owner"
        self.world = World(home)
        self.world.held = []

    @property
    def api(self) -> Any:
        """The API's two verbs."""
        return self.world

    # --- the core and its owners ---

    def stage(self) -> int:
        """A release that awaits approval; its number."""
        job = self.world.order(orders.Ingest(source="watches"))["job"]
        self.world.order(orders.CommitRows(job=job, landed=landed(f"day-{job}.parquet")))
        job = self.world.order(orders.Train(model=MODEL))["job"]
        number = self.world.steward.house.catalog.releases.next_number(MODEL)
        return int(self.world.order(orders.CommitCandidate(job=job, candidate=self._candidate(number)))["number"])

    def release(self) -> int:
        """A release that the single owner approved and every box has committed."""
        number = self.stage()
        owner.approve(self.api, self.owner, MODEL, number, "test", self.world.now)
        self.until_serving(number)
        return number

    def _candidate(self, number: int) -> Candidate:
        store, table = self.world.steward.house.artifacts, table_of(number)
        graph = lookup(*table)
        questions = golden.pack({"i": np.array([0, 1], np.int64)})
        expected = golden.Expected(golden.pack({"y": np.array(table[:2], np.float32)}), 1e-4)
        vectors = golden.encode(golden.Golden(questions, {"fp32": expected}))
        card = Scorecard(200, (Score("fp32", 0.9, 1.0, 50.0, 80.0, len(graph)),), "fp32", "it is the only one", 1e-7)
        return Candidate(
            MODEL, "s1", "v1", Digest("4" * 64), "cnn1d", 7, ("rest", "walk", "run"), WINDOW,
            (TensorSpec("i", "INT64", (-1,)),), (TensorSpec("y", "FP32", (-1,)),),
            (Artifact("fp32", (), store.put(graph), len(graph)),), store.put(vectors), card,
            (Verdict("quality", "pass", "accuracy 0.9"),), True,
        )  # fmt: skip

    def harden(self, root: Holders, releases: Holders, need: int) -> None:
        """To profile `organisation`: everybody signs at their own desk, the owner last."""
        self.home.mkdir(exist_ok=True)
        quorums = root.quorum(2), releases.quorum(need)
        owner.harden(self.api, self.owner, *quorums, "test", self.world.now)
        for holders in (root, releases):
            for name in holders.names[:2]:
                self.sign(holders.folder(name))

    def sign(self, folder: Path) -> tuple[str, ...]:
        """A further signature under the change of keys that waits; what it still lacks."""
        shown = owner.pending(self.api, folder)
        assert shown is not None
        return owner.sign(self.api, folder, shown, "test", self.world.now).lacks

    def trust(self) -> dict[str, bytes]:
        return self.world.steward.house.catalog.releases.trust()

    def stolen(self, role: orders.OnlineRole) -> bytes:
        """The core's own key of this role, PEM: what the thief has."""
        return bytes(getattr(self.world.steward.house.keys, role))

    # --- the field ---

    def until_serving(self, number: int | None, *names: str) -> None:
        """Time passes, and everybody is asked, until these boxes (or all that are up) answer with release `number` and
        stand still."""
        wanted = names or tuple(self.world.boxes)
        for _ in range(ROUNDS):
            self.pass_time()
            if all(self.serves(n) == number and self.box(n).phase(MODEL) in ("steady", "no_model") for n in wanted):
                return
        raise AssertionError({n: (self.serves(n), self.box(n).phase(MODEL), self.codes(n)[-4:]) for n in wanted})

    def pass_time(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            self.world.now += 5.0  # what was refused is asked for again
            self.world.settle(4)
            for box in self.world.boxes.values():
                if box.serving.incumbent(MODEL) is not None:
                    box.serving.predict(MODEL, {"i": np.array([0], np.int64)})

    def box(self, name: str) -> Box:
        return self.world.boxes[name]

    def serves(self, name: str) -> int | None:
        """The number of the release that answers, as its own answer tells."""
        serving = self.box(name).serving
        if serving.incumbent(MODEL) is None:
            return None
        return math.floor(float(serving.predict(MODEL, {"i": np.array([0], np.int64)}).outputs["y"][0]))

    def mark(self, name: str) -> dict[str, int]:
        return self.box(name).agent.house.journal.high_water()

    def codes(self, name: str) -> list[str]:
        """The codes of what the box told and the core has, oldest first, then of what is still on its way."""
        told = [e.code for e in self.world.steward.house.catalog.events.newest(2000) if e.source == name]
        pending = self.box(name).agent.house.outbox.pending(10_000)
        bodies = [bytes(codec.decode(Record, document).body) for kind, _, document in pending if kind == "event"]
        return [*reversed(told), *(codec.decode(DeviceEvent, body).code for body in bodies if body.startswith(b'{"c'))]

    def refused(self) -> list[str]:
        """What boxes refused, in their own words, as far as the core has heard."""
        events = self.world.steward.house.catalog.events.newest(2000)
        return [f"{e.source}: {e.text}" for e in events if e.code.startswith("refused")]

    def core_codes(self) -> list[str]:
        return [e.code for e in reversed(self.world.steward.house.catalog.events.newest(2000)) if e.source == "core"]

    def leave(self, *names: str) -> None:
        """These boxes are switched off."""
        for name in names:
            self.world.boxes.pop(name).kill()

    def come_back(self, *names: str) -> None:
        for name in names:
            self.world.boxes[name] = self.boxes[name]
            self.boxes[name].start(self.world.now)

    def identity(self, name: str) -> dict[str, bytes]:
        """Every file of the box's identity: what somebody would have to touch."""
        folder = self.boxes[name].folder.identity
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    # --- the thief, who owns the broker besides ---

    def plant(self, files: Mapping[str, bytes]) -> None:
        """Retained on the broker in the place of the core's, the timestamp last, and the index that names them."""
        for name in sorted(files, key=lambda n: n == "timestamp.json"):
            self.say(topics.trust(DEFAULT_TENANT, TrustFile(name)), files[name])
        names = {n for n in (*publish.current(self.trust()), *files) if not n.endswith(".manifest")}
        self.say(topics.trust(DEFAULT_TENANT, TrustFile("index")), codec.encode(TrustIndex(tuple(sorted(names)))))

    def say(self, topic: str, payload: bytes) -> None:
        self.world.link.publish(Publish(topic, payload, retain=True))


def signed(metadata: Metadata[Any], key: bytes) -> bytes:
    """The file of what somebody made of it, by this key alone (PEM)."""
    metadata.signatures.clear()
    metadata.sign(roles.signer(key))
    return write(metadata)
