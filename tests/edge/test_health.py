"""The local judge: hard guardrails first, patience otherwise, and a loop of crashes is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.health import judge, looping
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
