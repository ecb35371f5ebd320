"""The one table of transitions: complete, closed, always able to come to rest, and drawn as documented."""

from __future__ import annotations

from itertools import product

import pytest

from edge import slots
from edge.lifecycle import AT_REST, RESUME, TRANSITIONS, IllegalEvent, drawing, step
from edge.states import Deployment, Event, Phase
from sync.names import ModelName
from tests.edge.drawing import FENCED, PAGE

PAIRS = list(product(Phase, Event))


def reachable(start: Phase) -> set[Phase]:
    found, edge = {start}, [start]
    while edge:
        here = edge.pop()
        fresh = {b for (a, _), b in TRANSITIONS.items() if a is here} - found
        found |= fresh
        edge += fresh
    return found


@pytest.mark.parametrize(("phase", "event"), PAIRS)
def test_a_pair_is_in_the_table_or_illegal(phase: Phase, event: Event) -> None:
    if (phase, event) in TRANSITIONS:
        assert step(phase, event) is TRANSITIONS[phase, event]
    else:
        with pytest.raises(IllegalEvent, match=f"{event} cannot happen in {phase}"):
            step(phase, event)


@pytest.mark.parametrize("phase", Phase)
def test_an_illegal_verb_leaves_the_deployment_as_it_was(phase: Phase) -> None:
    before = Deployment(ModelName("motion"), phase=phase, since=5.0, starts=2, reason="so far")
    if (phase, Event.SOAKED) not in TRANSITIONS:
        with pytest.raises(IllegalEvent):
            slots.mark_good(before, 9.0)
    assert before == Deployment(ModelName("motion"), phase=phase, since=5.0, starts=2, reason="so far")


def test_every_phase_says_how_it_goes_on_after_a_power_cut() -> None:
    assert set(RESUME) == set(Phase)
    assert all(RESUME[after] is after for after in RESUME.values()), "a second cut must not lead elsewhere"


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_reached_and_comes_to_rest(phase: Phase) -> None:
    assert phase in reachable(Phase.NO_MODEL)
    assert reachable(phase) & AT_REST


@pytest.mark.parametrize("phase", sorted(set(Phase) - AT_REST - {Phase.REVERTING}))
def test_whatever_is_under_way_can_be_withdrawn(phase: Phase) -> None:
    assert step(phase, Event.WITHDRAWN) is Phase.REVERTING


def test_only_reverting_settles_who_answers_after_a_failure() -> None:
    for bad in (Event.REFUSED, Event.DEGRADED, Event.WITHDRAWN):
        assert {b for (_, event), b in TRANSITIONS.items() if event is bad} == {Phase.REVERTING}


def test_the_documented_drawing_is_the_table() -> None:
    page = PAGE.read_text()
    assert FENCED.findall(page) == [drawing()], "run `python -m tests.edge.drawing`"
    for phase in Phase:
        assert f"| `{phase.name}` |" in page
