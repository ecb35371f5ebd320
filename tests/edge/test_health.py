"""The local judge: hard guardrails first, patience otherwise, and a loop of crashes is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.health import PACED, Pace, judge, looping, pace
from edge.states import Event, Health
from sync.messages import Gates

counts = st.integers(0, 100)


@pytest.mark.parametrize(
    ("health", "event"),
    [
        (Health(), None),
        (Health(19), None),
        (Health(20), Event.SOAKED),
        (Health(20, errors=2), Event.SOAKED),
        (Health(20, errors=3), Event.DEGRADED),
        (Health(0, errors=1, not_finite=1), Event.DEGRADED),
    ],
)
def test_the_judgement(health: Health, event: Event | None) -> None:
    found, reason = judge(health, Gates(soak_answers=20, max_errors=2))
    assert found is event
    assert bool(reason) is (event is not None)


@given(counts, counts, counts, counts)
def test_no_number_of_good_answers_outweighs_a_breach(answers: int, errors: int, not_finite: int, most: int) -> None:
    event, _ = judge(Health(answers, errors, not_finite), Gates(soak_answers=1, max_errors=most))
    if not_finite or errors > most:
        assert event is Event.DEGRADED
    else:
        assert event is (Event.SOAKED if answers else None)


def test_a_release_that_takes_the_agent_down_is_given_up_at_the_third_start() -> None:
    assert [bool(looping(starts, Gates(crashes=3))) for starts in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(("new", "old", "found"), [
    ([90.0] * PACED, [1.0] * PACED, Pace.RELEASE),
    ([90.0] * PACED, [90.0] * PACED, Pace.HOST),
    ([90.0] * PACED, [1.0] * (PACED - 2) + [90.0] * 2, Pace.HOST),  # the other one was late twice as well
    ([90.0] * 9 + [1.0] * (PACED - 9), [1.0] * PACED, Pace.HOST),  # not most of its runs, so it is not the graph
    ([90.0] * (PACED - 1), [1.0] * PACED, Pace.UNKNOWN),
    ([90.0] * PACED, [], Pace.UNKNOWN),
])  # fmt: skip
def test_who_is_slow(new: list[float], old: list[float], found: Pace) -> None:
    assert pace(new, old, allowed_ms=50.0) is found
