"""A person overrules the machine: with a reason, on record, and never past what a device finds out by itself."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from core import orders
from core.answers import Answer
from core.handoffs import Learned
from core.handoffs import RolloutState as State
from core.orders import AnyOrder
from core.project import Project
from core.steward.staging import stage
from sync import codec
from sync.manifest import LIMIT, Manifest
from sync.reports import ModelReport
from tests.core.pairs import Fleet, paired, shadowing
from tests.core.world import MODEL, ONE, TWO, World, serving


def refused(world: World, order: AnyOrder, code: str) -> Answer:
    """Refused with this code, a hint, and nothing done."""
    before, events = len(world.sent), world.codes()
    answer = world.order(order)
    assert (answer.ok, answer.code) == (False, code), answer
    assert (len(world.sent), world.codes()) == (before, events)
    return answer


# --- a candidate against a gate's word --------------------------------------------------------------------------


def candidate(world: World, *, accepted: bool = False) -> int:
    made = world.candidate(accepted=accepted)
    return int(world.must(orders.CommitCandidate(job=world.job(), candidate=made))["candidate"])


def test_a_refused_candidate_is_staged_with_who_and_why(world: World) -> None:
    key = candidate(world)
    result = world.must(orders.Override(candidate=key, reason=" the gate set  is stale ", actor="salma"))
    assert result == {"model": MODEL, "number": 1, "failed": {"G2": "accuracy 0.9, wanted 0.95"}}
    row, payload = world.catalog.releases.release(MODEL, 1) or pytest.fail("no release")
    assert (row.state, row.candidate) == ("staged", key), "its owner has still to sign it"
    assert codec.decode(Manifest, payload, LIMIT).lineage.override == "salma: the gate set is stale"
    event = next(e for e in world.catalog.events.newest() if e.code == "gates-overridden")
    assert (event.severity, event.model) == ("alarm", MODEL)
    assert event.facts["gate G2"] == "accuracy 0.9, wanted 0.95" and event.facts["actor"] == "salma"
    world.must(world.approval(1))
    hint = refused(world, orders.Override(candidate=key, reason="again"), "candidate-staged").hint
    assert "falaj trust approve motion@1" in hint


def test_an_override_that_makes_no_sense_is_refused(world: World) -> None:
    key = candidate(world)
    refused(world, orders.Override(candidate=key, reason=" \n"), "no-reason")
    refused(world, orders.Override(candidate=key + 1, reason="why not"), "no-such-candidate")
    good = candidate(world, accepted=True)
    refused(world, orders.Override(candidate=good, reason="why not"), "candidate-accepted")
    world.must(orders.ApplyProject(project=Project(), folder="/p"))
    refused(world, orders.Override(candidate=key, reason="why not"), "no-such-model")


def test_a_release_by_override_leaves_the_next_one_without(world: World) -> None:
    world.must(orders.Override(candidate=candidate(world), reason="once"))
    found = world.catalog.releases.release(MODEL, world.stage())
    assert found is not None and codec.decode(Manifest, found[1], LIMIT).lineage.override == ""


# --- a release without a shadow's word --------------------------------------------------------------------------


def turned_back(fleet: Fleet) -> tuple[tuple[int, Any], ModelReport]:
    """A release that the canary refused in shadow, and what the canary says since."""
    bad = fleet.world.release(b"bad")
    said = serving(fleet.old[1], fleet.old[0], quarantined={bad[1]: 0}, reason="worse in 14 of 15 blocks")
    fleet.world.hear(fleet.one.report({MODEL: said}))
    fleet.world.tick()
    assert fleet.rollout().state is State.REVERSED
    return bad, said


def force(number: int, reason: str = "the labels were swapped") -> orders.Force:
    return orders.Force(model=MODEL, number=number, reason=reason, actor="salma")


def test_a_forced_release_serves_at_once_and_again_where_it_was_refused(fleet: Fleet) -> None:
    bad, said = turned_back(fleet)
    result = fleet.world.must(force(bad[0]))
    assert (result["canary"], result["retry"], result["needs"]["blocks"]) == ([ONE], 1, 68)
    order = fleet.told()
    assert (order.manifest, order.mode, order.retry, order.gates.evidence) == (bad[1], "live", 1, "labels")
    assert (fleet.rollout().state, fleet.rollout().forced) == (State.CANARY, "salma: the labels were swapped")
    event = fleet.event("rollout-forced")
    assert event.severity == "alarm" and "the labels were swapped" in event.text
    fleet.world.hear(fleet.one.report({MODEL: said}))
    assert fleet.rollout().state is State.CANARY, "the verdict before was lifted"


def test_a_forced_release_that_harms_is_taken_back_and_can_be_forced_once_more(fleet: Fleet) -> None:
    bad, said = turned_back(fleet)
    fleet.world.must(force(bad[0]))
    fleet.world.hear(fleet.one.report({MODEL: replace(said, quarantined={bad[1]: 1})}))
    assert (fleet.rollout().state, fleet.told().manifest) == (State.REVERSING, fleet.old[1])
    assert fleet.world.must(force(bad[0]))["retry"] == 2, "also while it is being taken back"
    states = [r.state for _, r in fleet.world.catalog.fleet.rollouts(active=False)]
    assert states[:3] == [State.CANARY, State.REVERSED, State.REVERSED]


def test_a_forced_release_reaches_the_others_when_the_canary_committed(fleet: Fleet) -> None:
    bad, _ = turned_back(fleet)
    fleet.world.must(force(bad[0]))
    fleet.world.hear(fleet.one.report({MODEL: serving(bad[1], bad[0], quarantined={bad[1]: 0})}))
    order = fleet.told(TWO)
    assert (order.manifest, order.mode, order.retry, order.gates.evidence) == (bad[1], "live", 1, "guardrails")
    fleet.world.hear(fleet.two.report({MODEL: serving(bad[1], bad[0])}))
    assert fleet.rollout().state is State.COMPLETE


def test_forcing_ends_the_rollout_that_is_under_way(fleet: Fleet) -> None:
    world = fleet.world
    new = world.release(b"new")
    assert (fleet.rollout().state, fleet.told().mode) == (State.SHADOW, "shadow")
    world.must(force(new[0]))
    assert (fleet.told().mode, fleet.told().retry) == ("live", 1)
    assert [r.state for _, r in world.catalog.fleet.rollouts(active=False)][1] is State.SUPERSEDED
    assert fleet.event("rollout-superseded").text.endswith("was forced")
    world.hear(fleet.one.report({MODEL: shadowing(new, fleet.old, 0, plus=40)}))
    assert fleet.rollout().state is State.CANARY, "the old trial has no word in this one"


def test_forcing_that_makes_no_sense_is_refused(fleet: Fleet) -> None:
    world, number = fleet.world, fleet.old[0]
    refused(world, force(number, " "), "no-reason")
    refused(world, force(9), "no-such-release")
    assert "every device" in refused(world, force(number), "serves-everywhere").error
    staged = world.stage(b"new")
    assert "trust approve" in refused(world, force(staged), "not-approved").hint
    with world.catalog.transaction():
        world.catalog.releases.set_state(MODEL, number, "revoked")
    assert "never comes back" in refused(world, force(number), "not-approved").hint


def test_what_serves_everywhere_can_be_forced_where_another_was_ordered(fleet: Fleet) -> None:
    """Somebody who takes an order back must not be told that there is nothing to do, and see it carried out."""
    world, (number, _) = fleet.world, fleet.old
    new = world.release(b"new")
    world.must(force(new[0]))
    again = world.order(force(number))
    assert again.ok, again
    wanted = [world.catalog.fleet.wanted(row.device) for row in world.catalog.fleet.devices()]
    assert {one.number for models in wanted for one in models} == {number}


def test_a_forced_release_must_be_able_to_decide_too(fleet: Fleet) -> None:
    bad, _ = turned_back(fleet)
    fleet.world.must(orders.ApplyProject(project=paired(margin=0.0), folder=str(fleet.world.folder)))
    refused(fleet.world, force(bad[0]), "never-decides")


def test_a_release_that_one_device_lacks_can_be_forced(fleet: Fleet) -> None:
    """Complete, but one device refused it afterwards: forcing is the way to have it take the release up again."""
    fleet.world.hear(fleet.two.report({MODEL: serving(fleet.old[1], phase="no_model", quarantined={fleet.old[1]: 0})}))
    assert fleet.rollout().state is State.COMPLETE
    assert fleet.world.must(force(fleet.old[0]))["retry"] == 1


def test_no_manifest_of_a_refused_candidate_hides_it(world: World) -> None:
    refused = world.candidate(accepted=False)
    with pytest.raises(ValueError, match="by override only"), world.catalog.transaction():
        stage(world.house, refused, 1, world.now)
    assert world.catalog.releases.releases() == []


def test_whose_windows_a_candidate_was_made_of_is_told(world: World) -> None:
    learned = Learned({ONE: 90, TWO: 10}, {ONE: 20}, {TWO: 5})
    made = replace(world.candidate(), learned=learned)
    world.must(orders.CommitCandidate(job=world.job(), candidate=made))
    event = next(e for e in world.catalog.events.newest() if e.code == "learned-from-field")
    assert event.severity == "notice"
    assert event.text == (
        "candidate 1 learned from 100 windows of the field: watch-1 90%, watch-2 10%; "
        "5 were left out, labelled as no row is: watch-2 100%"
    )
    kept = world.catalog.releases.candidate(1)
    assert kept is not None and kept.learned == learned
