"""A first release that a newer order follows while it is on trial: it answers until the next is proved, or is taken
off; it never counts as committed by that, and is held to its guardrails all the while."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from edge.states import Phase
from sync.messages import Arm, Gates
from tests.edge.device import Device, committed
from tests.edge.power import Fuse, PowerCut
from tests.edge.stage import HARMFUL, Stage, assert_sane
from tests.edge.world import MODEL

SOAK = Gates(soak_answers=40)


def on_trial(stage: Stage, folder: Path, number: int = 1) -> Device:
    """A device without a past, whose first release answers and is on trial."""
    device = stage.device(folder, settled=False)
    stage.core.assign(stage.shipped[number], device.identity, gates=SOAK)
    device.boot().settle(4, ask=0)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, number)
    return device


def never_silent(device: Device, seconds: int, ask: int = 0) -> list[Phase]:
    """The phases of that many seconds; somebody answers in each of them."""
    seen = []
    for _ in range(seconds):
        device.settle(1, ask=ask)
        assert device.answering is not None and device.house.serving.health(MODEL).errors == 0
        assert_sane(device)
        seen.append(device.state.phase)
    return seen


def test_a_first_release_on_trial_answers_until_the_next_one_does(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    stage.core.assign(stage.shipped[2], device.identity)
    phases = never_silent(device, 8)
    assert committed(device, 2) and Phase.REVERTING not in phases and Phase.NO_MODEL not in phases
    assert "returned" not in device.codes() and device.codes().count("release-committed") == 1
    assert [slot.unsoaked for slot in device.state.previous] == [True], "it is there to go back to, on trial"
    device.cut_power()


def test_where_the_next_one_is_refused_it_goes_on_with_its_trial(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    asked = device.house.serving.health(MODEL).answers
    stage.core.assign(stage.shipped[3], device.identity, gates=SOAK)
    never_silent(device, 6)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1), "that another one failed proves nothing"
    assert device.house.serving.health(MODEL).answers > asked, "it never stopped, and goes on counting"
    never_silent(device, 40)
    assert committed(device, 1) and device.state.serving and not device.state.serving.unsoaked
    assert device.reported().models[MODEL].quarantined == {stage.shipped[3].digest: 0}
    device.cut_power()


def test_the_next_one_goes_back_to_it_and_its_trial_goes_on(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    stage.core.assign(stage.shipped[4], device.identity, gates=SOAK)
    never_silent(device, 5)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 4)
    device.settle(1, ask=HARMFUL)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1)
    never_silent(device, 45)
    assert committed(device, 1)
    device.cut_power()


def test_one_that_is_wanted_again_goes_on_with_its_trial(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    device.held = True
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK)
    never_silent(device, 4)
    assert device.state.phase is Phase.STAGED
    stage.core.assign(stage.shipped[1], device.identity, gates=SOAK)
    never_silent(device, 2)
    assert device.state.phase is Phase.PROBATION and device.state.order
    assert device.state.order.manifest == stage.shipped[1].digest
    never_silent(device, 45)
    assert committed(device, 1)
    device.cut_power()


def test_as_the_incumbent_of_a_split_it_is_tried_first(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    device.held = True
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK)
    never_silent(device, 4)
    own = stage.core.order(stage.shipped[2], device.identity)
    arms = (Arm(own.manifest, 2, own.keys, 0, 5000),)
    stage.core.assign(stage.shipped[1], device.identity, mode="split", arms=arms, seed="seed", gates=SOAK)
    never_silent(device, 2)
    device.held = False
    assert device.state.phase is Phase.PROBATION
    never_silent(device, 45)
    assert device.state.phase is Phase.LIVE_SPLIT
    assert device.codes().index("release-committed") < device.codes().index("arm-joined")
    device.cut_power()


@pytest.mark.parametrize("how", ["off", "floor"])
def test_one_that_is_taken_back_goes_at_once(stage: Stage, ram: Path, how: str) -> None:
    device = on_trial(stage, ram / "d")
    if how == "off":
        stage.core.assign(stage.shipped[1], device.identity, mode="off")
    else:
        stage.core.assign(stage.shipped[2], device.identity, floor=2)
    device.core.hub.run()
    assert device.answering is None
    device.settle(8, ask=0)
    assert device.answering == (None if how == "off" else 2)
    device.cut_power()


def test_one_that_breaks_a_guardrail_while_it_stands_in_leaves_with_a_verdict(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d", 4)
    device.held = True
    stage.core.assign(stage.shipped[5], device.identity, gates=SOAK)
    never_silent(device, 4)
    assert (device.state.phase, device.answering) == (Phase.STAGED, 4)
    device.settle(1, ask=HARMFUL)
    assert device.answering is None
    (verdict,), (card,) = device.house.journal.quarantined(MODEL), device.house.journal.why()
    assert verdict.manifest == stage.shipped[4].digest == card.new.manifest and card.new.errors == 1
    assert (card.criterion, card.phase) == ("guardrail", "staged")
    device.held = False
    device.settle(50, ask=0)
    assert committed(device, 5)
    device.cut_power()


def test_one_that_crashes_the_agent_while_it_stands_in_leaves(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    device.held = True
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK)
    never_silent(device, 4)
    assert device.state.serving is not None
    device.found = frozenset({device.state.serving.release.artifact})
    for _ in range(3):
        assert device.answering == 1
        device.cut_power()
        device.boot(link=False).settle(1)
    assert device.answering is None
    (card,) = device.house.journal.why()
    assert card.criterion == "crash-loop" and card.new.manifest == stage.shipped[1].digest
    device.found, device.held = frozenset(), False
    device.connect()
    device.settle(50, ask=0)
    assert committed(device, 2)
    device.cut_power()


def test_no_power_cut_silences_it(stage: Stage, ram: Path) -> None:
    for n in count(1):
        fuse = Fuse(n)
        fuse.left = None
        device = on_trial(stage, ram / str(n))
        device.cut_power()
        device.journal_kind, device.outbox_kind = fuse.journal(), fuse.outbox()
        device.boot()
        stage.core.assign(stage.shipped[2], device.identity)
        fuse.left = n
        try:
            device.settle(8, ask=0)
        except PowerCut:
            device.cut_power()
            fuse.left = None
            device.boot(link=False)
            assert device.answering in (1, 2)
            device.connect()
            never_silent(device, 8)
        assert committed(device, 2)
        device.cut_power()
        if not fuse.blown:
            break
    assert n > 5


def test_a_committed_one_that_crashes_the_agent_while_another_is_fetched_leaves_too(stage: Stage, ram: Path) -> None:
    """Before it is loaded again: loading it may be what crashes."""
    device = stage.device(ram / "d").boot().commit(stage.shipped[2])
    device.held = True
    stage.core.assign(stage.shipped[5], device.identity)
    never_silent(device, 4)
    assert device.state.phase is Phase.STAGED and device.state.serving is not None
    device.found = frozenset({device.state.serving.release.artifact})
    for _ in range(3):
        assert device.answering == 2
        device.cut_power()
        device.boot(link=False)
    assert device.answering == 1
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {stage.shipped[2].digest}
    device.found, device.held = frozenset(), False
    device.connect()
    never_silent(device, 8)
    assert committed(device, 5)
    device.cut_power()


def test_a_committed_one_is_not_tried_again_while_another_is_fetched(stage: Stage, ram: Path) -> None:
    """Failed answers are a guardrail of a trial, and its trial is over."""
    device = stage.device(ram / "d").boot().commit(stage.shipped[4])
    device.held = True
    stage.core.assign(stage.shipped[5], device.identity)
    device.settle(4, ask=HARMFUL)
    assert (device.state.phase, device.answering) == (Phase.STAGED, 4)
    assert device.house.journal.quarantined(MODEL) == ()
    device.cut_power()
