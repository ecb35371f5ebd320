"""How long a client waits before it tries again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sync.link import LONGEST, pause


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_pause_lies_in_the_upper_half_of_its_range(tries: int, chance: float) -> None:
    longest = min(LONGEST, 2.0**tries) if tries < 100 else LONGEST
    assert longest / 2 <= pause(tries, chance) <= longest


def test_pauses_double_and_end_at_a_minute() -> None:
    assert [pause(n, 1.0) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_fleet_that_was_lost_together_does_not_come_back_together() -> None:
    assert len({round(pause(6, n / 200), 3) for n in range(200)}) == 200
