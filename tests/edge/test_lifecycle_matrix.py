"""Every phase under every blow: an error of each class, a kill, two kills in a row, and words that do not belong there.

A kill is the end of all objects right after the write that leads into a phase; the second one strikes after any write
of the start that follows (n = 1, 2, ... until none is left). Whoever was committed answers after each, verified anew,
and what was under way comes to the end it would have had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edge.journal import Journal
from edge.states import Deployment, Failure, FailureClass, Phase, Proof, Prove, Proved
from sync.messages import Arm, Gates
from tests.edge.device import Device, committed
from tests.edge.power import Fuse, PowerCut
from tests.edge.refusal import Refusal
from tests.edge.stage import HARMFUL, Stage, assert_sane
from tests.edge.world import MODEL

LONG = Gates(soak_answers=10_000)


@dataclass(frozen=True)
class Cell:
    """How a device comes to stand in a phase: the release it is given (as an `arm` beside release 1, or in its place),
    what it is asked, and who answers in the end."""

    number: int = 2
    ask: int = 0
    ends_with: int = 2
    arm: bool = False

    def order(self, stage: Stage, device: Device) -> None:
        if not self.arm:
            stage.core.assign(stage.shipped[self.number], device.identity)
            return
        own = stage.core.order(stage.shipped[self.number], device.identity)
        arms = (Arm(own.manifest, self.number, own.keys, 0, 5000),)
        stage.core.assign(stage.shipped[1], device.identity, mode="split", arms=arms, seed="seed")

    def ended(self, device: Device) -> bool:
        """Whether it came to the end it would have had without any blow."""
        if not self.arm:
            return committed(device, self.ends_with)
        arms = {lane.slot.release.number: lane.share for lane in device.state.lanes if not lane.fallen}
        loaded = set(device.house.serving.arms(MODEL))
        return (device.state.phase, arms, loaded) == (Phase.LIVE_SPLIT, {self.number: 5000}, {self.number})


CELLS = {
    Phase.STEADY: Cell(),
    Phase.FETCHING: Cell(),
    Phase.STAGED: Cell(),
    Phase.PROVING: Cell(),
    Phase.SHADOW: Cell(),
    Phase.PROBATION: Cell(),
    Phase.LIVE_SPLIT: Cell(ends_with=1, arm=True),
    Phase.REVERTING: Cell(4, HARMFUL, 1),
}


def dies_in(phase: Phase) -> Callable[[Path], Journal]:
    """A journal whose device loses power right after the write that leads into `phase`."""

    class Dying(Journal):
        def write(self, deployment: Deployment, *because: Any) -> None:
            super().write(deployment, *because)
            if deployment.phase is phase:
                raise PowerCut

    return Dying.open


def killed_in(stage: Stage, folder: Path, phase: Phase) -> Device:
    """A device that is switched off, and stood in `phase` when its power was cut; release 1 was committed before."""
    cell = CELLS[phase]
    device = stage.device(folder)
    cell.order(stage, device)
    device.journal_kind = dies_in(phase)
    with pytest.raises(PowerCut):
        _play(device, cell)
    device.cut_power()
    device.journal_kind = Journal.open
    return device


def _play(device: Device, cell: Cell) -> None:
    device.boot()
    device.settle(6, ask=cell.ask)


def goes_on(device: Device, cell: Cell) -> None:
    """Switched on without any link it serves; with one it comes to the end it would have had."""
    assert_sane(device)
    assert device.answering is not None
    device.connect()
    for _ in range(9):
        device.settle(1, ask=cell.ask)
        assert_sane(device)
    assert cell.ended(device)
    device.cut_power()


@pytest.mark.parametrize("phase", CELLS)
def test_a_kill(stage: Stage, ram: Path, phase: Phase) -> None:
    device = killed_in(stage, ram / "d", phase)
    goes_on(device.boot(link=False), CELLS[phase])


@pytest.mark.parametrize("phase", CELLS)
def test_two_kills_in_a_row(stage: Stage, ram: Path, phase: Phase) -> None:
    for n in count(1):
        fuse = Fuse(n)
        device = killed_in(stage, ram / str(n), phase)
        device.journal_kind, device.outbox_kind = fuse.journal(), fuse.outbox()
        try:
            device.boot(link=False)
        except PowerCut:
            device.cut_power()
            device.boot(link=False)
        fuse.left = None
        goes_on(device, CELLS[phase])
        if not fuse.blown:
            break
    assert n > 1, "a start writes"


# --- errors, by class ---


def lives(device: Device, seconds: int, ask: int = 0) -> None:
    """Somebody answers all the while: whoever was committed, or what is on trial."""
    for _ in range(seconds):
        device.settle(1, ask=ask)
        assert device.answering is not None


@pytest.mark.parametrize("phase", CELLS)
def test_a_transient_error_is_waited_out(stage: Stage, ram: Path, phase: Phase) -> None:
    """Nobody answers on the uplink for a minute."""
    device = killed_in(stage, ram / "d", phase).boot(link=False)
    lives(device, 60)
    expected = {stage.shipped[4].digest} if phase is Phase.REVERTING else set()
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == expected, "no verdict comes of it"
    goes_on(device, CELLS[phase])


@pytest.mark.parametrize("phase", CELLS)
def test_an_error_of_the_host_is_no_verdict(stage: Stage, ram: Path, phase: Phase) -> None:
    """The disk refuses every write from the start on, and takes them again."""
    refusal = Refusal()
    device = killed_in(stage, ram / "d", phase)
    device.journal_kind, device.outbox_kind = refusal.journal(), refusal.outbox()
    refusal.left = 1
    device.boot(link=False)
    assert device.answering == 1, "the one that was committed: nothing could be counted or judged"
    device.connect()
    device.settle(20, ask=0)
    assert device.answering == 1
    refusal.heal()
    device.settle(45, ask=CELLS[phase].ask)
    assert CELLS[phase].ended(device)
    quarantined = {q.manifest for q in device.house.journal.quarantined(MODEL)}
    assert quarantined == ({stage.shipped[4].digest} if phase is Phase.REVERTING else set())
    device.cut_power()


def deceived(job: Prove) -> Proof:
    return Proof(True, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Fault:
    """What a release turns out to be in a phase."""

    number: int
    ask: int = 0
    prover: Callable[[Prove], Proof | Failure] | None = None
    keys: dict[str, str] | None = None


VERDICTS = {
    Phase.FETCHING: Fault(2, keys={}),  # signed bytes that do not open
    Phase.PROVING: Fault(3),  # golden vectors that differ
    Phase.SHADOW: Fault(3, prover=deceived),  # the same, seen at the load in this process alone
    Phase.PROBATION: Fault(4, ask=HARMFUL),  # a number that is none
}


@pytest.mark.parametrize("phase", VERDICTS)
def test_an_error_of_the_release_is_a_verdict(stage: Stage, ram: Path, phase: Phase) -> None:
    fault = VERDICTS[phase]
    device = stage.device(ram / "d")
    device.prover = fault.prover or device.prover
    shipped = stage.shipped[fault.number]
    changes = {} if fault.keys is None else {"keys": fault.keys}
    stage.core.assign(shipped, device.identity, **changes)
    device.boot()
    device.settle(8, ask=fault.ask)
    assert committed(device, 1)
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {shipped.digest}
    (card,) = device.house.journal.why()
    assert card.phase == phase.value
    device.cut_power()


def test_a_release_that_ends_every_start_in_staged_is_a_verdict(stage: Stage, ram: Path) -> None:
    device = killed_in(stage, ram / "d", Phase.STAGED)
    device.prover = lambda job: None
    for _ in range(3):
        device.boot()
        device.settle(1)
        device.cut_power()
    device.boot().settle(3)
    assert committed(device, 1)
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {stage.shipped[2].digest}
    device.cut_power()


# --- words that do not belong there ---


@pytest.mark.parametrize("phase", CELLS)
@pytest.mark.parametrize("word", ["a proof", "a refusal"])
def test_a_result_that_nobody_waits_for_changes_nothing(stage: Stage, ram: Path, phase: Phase, word: str) -> None:
    device = killed_in(stage, ram / "d", phase).boot(link=False)
    device.jobs.clear()
    before = device.state
    under_way = before.candidate or before.serving
    assert under_way is not None
    outcome = (
        Proof(True, 0.0, 1.0, 1.0) if word == "a proof" else Failure(FailureClass.VERDICT, "prove-crashed", "late")
    )
    if before.phase is not Phase.PROVING:  # there it is waited for
        device.agent.handle(Proved(MODEL, under_way.release.artifact, outcome), device.now)
    assert device.state == before and device.answering is not None
    device.cut_power()
