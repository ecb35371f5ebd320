"""Since when a clock can tell ages."""

from __future__ import annotations

import pytest

from edge.states import CLOCK_FLOOR
from edge.steady import JUMP, Run, Steady

NOW = 1_790_000_000.0


def test_while_the_clock_goes_as_the_ticks_do_it_is_one_run() -> None:
    clock = Steady()
    assert clock.look(NOW, 5.0, vouched=True) == Run(CLOCK_FLOOR, NOW)
    assert clock.look(NOW + 90_000, 90_005.0, vouched=False) == Run(CLOCK_FLOOR, NOW)
    assert clock.look(NOW + 90_000 - JUMP, 90_005.0, vouched=False) == Run(CLOCK_FLOOR, NOW), "as time servers do"


@pytest.mark.parametrize("by", [86_400.0, JUMP + 1, -JUMP - 1, -86_400.0])
def test_a_jump_begins_anew_and_believes_nothing_of_before(by: float) -> None:
    clock = Steady()
    clock.look(NOW, 5.0, vouched=True)
    assert clock.look(NOW + by, 5.0, vouched=True) == Run(NOW + by, NOW + by)


def test_small_steps_are_a_jump_when_they_are_one_together() -> None:
    clock = Steady()
    runs = {clock.look(NOW + n * JUMP, 0.0, vouched=True) for n in range(4)}
    assert runs == {Run(CLOCK_FLOOR, NOW), Run(NOW + 2 * JUMP, NOW + 2 * JUMP)}


def test_at_the_start_what_nobody_vouches_for_is_not_believed_and_an_unset_clock_is_no_look() -> None:
    assert Steady().look(NOW, 5.0, vouched=False) == Run(NOW, NOW)
    clock = Steady()
    clock.stop()
    assert clock.look(NOW, 5.0, vouched=True) == Run(CLOCK_FLOOR, NOW), "the first time that it can be right"
    clock.stop()
    assert clock.look(NOW + 1, 6.0, vouched=True) == Run(NOW + 1, NOW + 1)
