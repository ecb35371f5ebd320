"""Act two in memory, scene by scene, so that tests can interrupt it: the demo's own project on the in-memory link.

`Tale` begins where act one ended: every device has committed release 1, which knows right wrists only. Each scene goes
on until what it waits for has happened, and fails if that does not come; `interrupt` is called once, in its middle.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.core import owner
from appliance.core.project_file import read_project
from appliance.demo.recordings import Recording, write_csv
from core.orders import ApplyProject, Force, Ingest, Override, Train
from sync.names import ModelName
from tests.journey.memory import Box, World
from tests.journey.wearing import Wearing

MODEL = ModelName("exercise")
PROJECT = Path(__file__).parents[2] / "appliance" / "demo" / "falaj.toml"
LEAD = 3600.0  # seconds of event time behind act one
ROUNDS = 60  # of a scene, before it is given up
ON_TRIAL, AT_REST = 4000, 300  # samples of a round

Interrupt = Callable[[], None]
Change = Callable[[str], str]


def _never() -> None:
    """No interruption."""


class Tale:
    """Act two on the world below `home`; `recordings` are everybody's, both wrists."""

    def __init__(self, home: Path, recordings: tuple[Recording, ...], seed: int = 0) -> None:
        self.world = World(home)
        self.subjects = tuple(dict.fromkeys(r.subject for r in recordings))
        self.world.rejoin(*(f"watch-{s}" for s in self.subjects))
        self.world.settle(4)
        self.people = {
            box.name: Wearing(box, _of(recordings, int(box.name[6:])), self.world.now + LEAD, 1000 * seed + i)
            for i, box in enumerate(self.world.boxes.values())
        }

    # --- scenes ---

    def stream(self, samples: int, people: tuple[Wearing, ...] | None = None) -> None:
        """Everybody, or these, so many samples each; every window that came of it was answered."""
        for wearing in people or tuple(self.people.values()):
            before = len(wearing.box.answers)
            wearing.stream(samples)
            assert len(wearing.box.answers) > before
        self.flawless()
        self.world.settle(2)

    def flawless(self) -> None:
        """Nothing that was sent was turned away or led to no answer."""
        wrong = {name: w.box.errors[:2] for name, w in self.people.items() if w.box.errors}
        assert not wrong, wrong

    def drifted(self) -> set[str]:
        """Whose device says so."""
        return {name for name, w in self.people.items() if (report := w.box.drift()) and report.status == "alarm"}

    def learn(self, number: int, interrupt: Interrupt = _never) -> None:
        """Labels come for all that was answered; the core takes samples in and makes candidate `number` by itself."""
        for wearing in self.people.values():
            wearing.label()
        for round_ in range(ROUNDS):
            self.world.now += 2.0
            self.world.settle(2)
            if round_ == 2:
                interrupt()
            if self.release(number) is not None:
                return
        raise AssertionError(f"no release {number}: {self.world.get('/v1/retraining')}")

    def approve(self, number: int) -> None:
        owner.approve(self.world, self.world.home / "owner", MODEL, number, "test", self.world.now)  # type: ignore[arg-type]

    def roll(self, number: int, canary: str, end: str, interrupt: Interrupt = _never, when: str = "shadow") -> None:
        """The rollout to its `end`: the canary's labels come as it goes, and who has a release on trial wears the watch
        longer. `interrupt` falls into phase `when`, once a few pairs or answers are there."""
        self.world.settle(4)
        pending = [interrupt]
        for _ in range(ROUNDS):
            box = self.world.boxes[canary]
            if pending and box.phase() == when:
                self.people[canary].stream(1500)
                pending.pop()()
            for name, wearing in self.people.items():
                wearing.stream(ON_TRIAL if self.world.boxes[name].phase() != "steady" else AT_REST)
            self.people[canary].label()
            self.world.settle(4)
            found = self.rollout()
            assert found["number"] == number
            if found["state"] == end and not self._moving():
                self.flawless()
                return
            assert found["state"] not in {"complete", "reversed"} - {end}, found["reason"]
        raise AssertionError(f"release {number} is {self.rollout()['state']}: {self.rollout()['reason']}")

    def bad(self, canary: str) -> int:
        """A candidate of left wrists only, refused by the gate, overridden; its number."""
        self.apply(lambda text: text.replace('samples = "add"', 'samples = "only"').replace('"watch-1"', f'"{canary}"'))
        job = self.world.order(Train(model=MODEL))["job"]
        found = self.world.get(f"/v1/jobs/{job}")["result"]
        assert not found["accepted"], "the gate let a model of left wrists pass"
        return int(self.world.order(Override(candidate=found["candidate"], reason="a test"))["number"])

    def force(self, number: int) -> None:
        self.world.order(Force(model=MODEL, number=number, reason="a test"))

    # --- what can be asked ---

    def release(self, number: int) -> dict[str, Any] | None:
        found = [r for r in self.world.get("/v1/releases")["releases"] if r["number"] == number]
        return found[0] if found else None

    def rollout(self) -> dict[str, Any]:
        return dict(self.world.get("/v1/rollouts")["rollouts"][0])

    def whys(self) -> list[dict[str, Any]]:
        return list(self.world.get(f"/v1/why?model={MODEL}")["whys"])

    def codes(self) -> list[str]:
        return [e["code"] for e in self.world.get("/v1/events?limit=500")["events"]]

    def apply(self, change: Change) -> None:
        path = self.world.home / "falaj.toml"
        path.write_text(change(path.read_text()))
        self.world.order(ApplyProject(project=read_project(path), folder=str(self.world.home)))

    def kill(self, name: str) -> None:
        """kill -9 of an agent, and its start."""
        box: Box = self.world.boxes[name]
        box.kill()
        box.start(self.world.now)

    def kill_core(self) -> None:
        self.world.kill_core()
        self.world.start_core()

    def _moving(self) -> bool:
        """Whether some device is still on its way."""
        return any(box.phase() != "steady" for box in self.world.boxes.values())


def act_one(home: Path, recordings: tuple[Recording, ...], change: Change) -> None:
    """Everybody enrolled, release 1 trained on right wrists and committed by all, in the folder `home`."""
    world = World(home)
    owner.init(world, home / "owner", "test", world.now)  # type: ignore[arg-type] - the API's two verbs
    people = {}
    for subject in dict.fromkeys(r.subject for r in recordings):
        box = world.join(f"watch-{subject}")
        people[box.name] = Wearing(box, _of(recordings, subject), world.now, 0)
    write_csv(tuple(r for r in recordings if r.side == "right"), home / "recordings")
    path = home / "falaj.toml"
    path.write_text(change(PROJECT.read_text()))
    world.order(ApplyProject(project=read_project(path), folder=str(home)))
    world.order(Ingest(source="watches"))
    world.order(Train(model=MODEL))
    owner.approve(world, home / "owner", MODEL, 1, "test", world.now)  # type: ignore[arg-type]
    for _ in range(8):
        world.settle(4)
        for wearing in people.values():
            wearing.stream(2500)
    world.settle(4)
    assert {box.phase() for box in world.boxes.values()} == {"steady"}
    for box in world.boxes.values():
        box.kill()
    world.kill_core()


def again(prepared: Path, home: Path) -> Path:
    """A copy of a prepared folder, to be played on."""
    shutil.copytree(prepared, home)
    return home


def _of(recordings: tuple[Recording, ...], subject: int) -> tuple[Recording, ...]:
    return tuple(r for r in recordings if r.subject == subject)
