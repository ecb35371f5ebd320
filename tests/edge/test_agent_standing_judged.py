"""What a first release that stands in for the next one is held to: its growth, the generation it was ordered in,
floors, and orders that say that it is wanted no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.states import Deployment, Phase
from sync.names import ModelName
from tests.edge.device import Device, committed
from tests.edge.stage import HARMFUL, Stage
from tests.edge.test_agent_standing import SOAK, never_silent, on_trial
from tests.edge.world import MODEL


def test_one_that_was_refused_is_tried_again_in_a_higher_generation(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    stage.core.assign(stage.shipped[3], device.identity, gates=SOAK)
    never_silent(device, 6)
    assert device.codes().count("release-offered") == 2
    stage.core.assign(stage.shipped[3], device.identity, gates=SOAK, retry=1)
    never_silent(device, 6)
    assert device.codes().count("release-offered") == 3
    assert device.reported().models[MODEL].quarantined == {stage.shipped[3].digest: 1}
    never_silent(device, 40)
    assert committed(device, 1)
    device.cut_power()


def test_one_that_is_taken_back_for_a_release_that_was_refused_here_leaves_without_a_verdict(
    stage: Stage, ram: Path
) -> None:
    """The fleet goes back to what this device refused before: to commit the other would keep what nobody wants."""
    device = stage.device(ram / "d", settled=False)
    stage.core.assign(stage.shipped[3], device.identity)
    device.boot().settle(6)
    stage.core.assign(stage.shipped[1], device.identity, gates=SOAK)
    device.settle(4, ask=0)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1)
    stage.core.assign(stage.shipped[3], device.identity)
    device.settle(50, ask=0)
    assert (device.state.phase, device.answering) == (Phase.NO_MODEL, None)
    assert device.reported().models[MODEL].quarantined == {stage.shipped[3].digest: 0}
    device.cut_power()


def test_it_does_not_commit_while_another_is_ordered_that_cannot_be_begun_with(stage: Stage, ram: Path) -> None:
    """As where the clock is off; it is held to its guardrails meanwhile, and waits."""
    device = on_trial(stage, ram / "d", 4)
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK)
    device.house.journal.set_counter("signed_time", int(device.now) + 10 * 86_400)
    never_silent(device, 50)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 4)
    device.settle(1, ask=HARMFUL)
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {stage.shipped[4].digest}
    device.cut_power()


class Memory:
    """What the process holds, and the share of a release, in MiB."""

    def __init__(self, device: Device) -> None:
        assert device.state.serving is not None
        self.held_mb, self.share_mb = 100.0, device.state.serving.manifest.profile.rss_mb
        device.house.guard.memory = lambda: self.held_mb

    def grows(self) -> None:
        self.held_mb += self.share_mb + 1.0


def test_back_on_trial_its_growth_is_held_against_it(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    memory = Memory(device)
    device.held = True
    stage.core.assign(stage.shipped[3], device.identity, gates=SOAK)
    never_silent(device, 4)
    memory.grows()  # what another may have taken meanwhile
    device.held = False
    never_silent(device, 5)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1)
    memory.grows()
    device.settle(1, ask=0)
    assert device.answering is None
    assert stage.shipped[1].digest in {q.manifest for q in device.house.journal.quarantined(MODEL)}
    device.cut_power()


def test_back_on_trial_beside_another_model_it_is_counted_once_it_is_alone(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    memory, other = Memory(device), ModelName("other")
    stage.core.assign(stage.shipped[3], device.identity, gates=SOAK)
    never_silent(device, 6)
    device.house.deployments[other] = Deployment(other, Phase.PROVING)
    for _ in range(3):
        memory.grows()
        never_silent(device, 1)
    del device.house.deployments[other]
    never_silent(device, 2)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1)
    memory.grows()
    device.settle(1)
    assert device.answering is None
    device.cut_power()


def test_what_it_grows_by_is_not_held_against_the_one_beside_it(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    memory = Memory(device)
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK, mode="shadow")
    never_silent(device, 6)
    assert device.state.phase is Phase.SHADOW
    memory.grows()
    never_silent(device, 2)
    assert (device.state.phase, device.answering) == (Phase.PROBATION, 1)
    assert device.house.journal.quarantined(MODEL) == () and "memory-unclear" in device.codes()
    memory.grows()
    device.settle(1)
    assert {q.manifest for q in device.house.journal.quarantined(MODEL)} == {stage.shipped[1].digest}
    device.cut_power()


@pytest.mark.parametrize("next_one", [5, 3], ids=["standing in", "back on trial"])
def test_a_verdict_against_it_holds_for_the_generation_it_was_ordered_in(
    stage: Stage, ram: Path, next_one: int
) -> None:
    device = stage.device(ram / "d", settled=False)
    for retry in (0, 1):
        stage.core.assign(stage.shipped[4], device.identity, gates=SOAK, retry=retry)
        if not retry:
            device.boot()
        device.settle(4, ask=0)
    device.held = next_one == 5
    stage.core.assign(stage.shipped[next_one], device.identity, gates=SOAK)
    never_silent(device, 6)
    assert device.state.phase is (Phase.STAGED if device.held else Phase.PROBATION) and device.answering == 4
    device.settle(1, ask=HARMFUL)
    assert {q.manifest: q.retry for q in device.house.journal.quarantined(MODEL)}[stage.shipped[4].digest] == 1
    stage.core.assign(stage.shipped[4], device.identity, gates=SOAK, retry=1)
    device.settle(6, ask=0)
    assert device.answering is None, "it is not tried a second time in that generation"
    device.cut_power()


def test_a_floor_that_is_raised_above_it_later_takes_it_off(stage: Stage, ram: Path) -> None:
    device = on_trial(stage, ram / "d")
    device.held = True
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK)
    never_silent(device, 4)
    assert device.state.phase is Phase.STAGED
    stage.core.assign(stage.shipped[2], device.identity, gates=SOAK, floor=2)
    device.settle(4)
    assert device.answering is None and device.house.journal.quarantined(MODEL) == ()
    device.held = False
    device.settle(50, ask=0)
    assert committed(device, 2)
    device.cut_power()
