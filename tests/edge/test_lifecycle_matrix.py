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

import pytest

from edge.agent.leaving import give_up
from edge.artifacts import Artifacts
from edge.lifecycle import TRANSITIONS, IllegalEvent
from edge.states import Event, Failure, FailureClass, Phase, Proof, Prove, Proved
from sync.names import Digest
from tests.edge.cramped import Cramped
from tests.edge.device import Device, committed
from tests.edge.phases import CELLS, Cell, killed_in
from tests.edge.power import Fuse, PowerCut
from tests.edge.refusal import Refusal
from tests.edge.stage import HARMFUL, Stage, assert_sane
from tests.edge.world import MODEL


def goes_on(device: Device, cell: Cell) -> None:
    """Switched on without any link whoever was committed answers, or what is on trial; with one it comes to the end it
    would have had."""
    assert_sane(device)
    assert device.answering is not None or cell.before is None
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


def lives(device: Device, cell: Cell, seconds: int, ask: int = 0) -> None:
    """Somebody answers all the while: whoever was committed, or what is on trial."""
    for _ in range(seconds):
        device.settle(1, ask=ask)
        assert device.answering is not None or cell.before is None


@pytest.mark.parametrize("phase", CELLS)
def test_a_transient_error_is_waited_out(stage: Stage, ram: Path, phase: Phase) -> None:
    """Nobody answers on the uplink for a minute."""
    device = killed_in(stage, ram / "d", phase).boot(link=False)
    lives(device, CELLS[phase], 60)
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
    assert device.answering == CELLS[phase].before, "nothing could be counted or judged"
    device.connect()
    device.settle(20, ask=0)
    assert device.answering == CELLS[phase].before
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

HELD = {Phase.STAGED, Phase.SHADOW}  # phases that a person's hold file keeps a device in


def taken_off(stage: Stage, folder: Path) -> Device:
    """Switched off, and its model was taken from it."""
    device = stage.device(folder).boot()
    stage.core.assign(stage.shipped[1], device.identity, mode="off")
    device.settle(3)
    device.cut_power()
    return device


def stands_in(stage: Stage, folder: Path, phase: Phase) -> Device:
    """Switched on, without a link, and kept in this phase: by a hold file, by a child that is not through with its
    proof, or for want of memory for the release that it shall go back to."""
    device = taken_off(stage, folder) if phase is Phase.NO_MODEL else killed_in(stage, folder, phase)
    device.held = phase in HELD
    if phase is Phase.REVERTING:
        device.artifacts_kind = lambda path: Cramped(path, set(stage.shipped[1].sealed))
    device.boot(link=False)
    assert device.state.phase is phase
    assert bool(device.jobs) is (phase is Phase.PROVING)
    return device


WORDS = {"a proof": Proof(True, 0.0, 1.0, 1.0), "a refusal": Failure(FailureClass.VERDICT, "prove-crashed", "late")}


@pytest.mark.parametrize("phase", CELLS)
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_result_that_nobody_waits_for_changes_nothing(
    stage: Stage, ram: Path, phase: Phase, word: str, whose: str
) -> None:
    device = stands_in(stage, ram / "d", phase)
    under_way = device.state.candidate or device.state.serving
    artifact = under_way.release.artifact if under_way and whose == "its own" else Digest("f" * 64)
    if phase is Phase.PROVING and whose == "its own":  # once it is waited for, and no second time
        device.held = True
        device.jobs.clear()
        device.carry_out(device.agent.handle(Proved(MODEL, artifact, WORDS["a proof"]), device.now))
        assert device.state.phase is Phase.SHADOW
    before, answered, codes = device.state, device.answering, device.codes()
    for _ in range(2):
        device.carry_out(device.agent.handle(Proved(MODEL, artifact, WORDS[word]), device.now))
    assert (device.state, device.answering, device.codes()) == (before, answered, codes)
    assert answered is not None or phase in (Phase.REVERTING, Phase.NO_MODEL)
    device.cut_power()
    device.held, device.artifacts_kind = False, Artifacts
    if phase is Phase.NO_MODEL:
        CELLS[phase].order(stage, device)
    goes_on(device.boot(link=False), CELLS[phase])


def test_no_phase_knows_a_word_that_is_not_in_the_table(stage: Stage, ram: Path) -> None:
    """Whatever is said to a device that stands in a phase, only the table's events follow: all others raise, and the
    journal says what it said before."""
    for phase in CELLS:
        device = stands_in(stage, ram / phase, phase)
        before = device.house.journal.deployments()
        for event in Event:
            if (phase, event) not in TRANSITIONS:
                with pytest.raises(IllegalEvent):
                    give_up(device.house, device.state, event, "nonsense", device.now)
        assert device.house.journal.deployments() == before
        device.cut_power()
