"""Rollouts: laws that hold for every fleet and every order of events, then the steps one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.handoffs import Rollout, SplitPlan
from core.handoffs import RolloutState as State
from core.quorum import quorum
from core.rollout.controller import Decision, decide
from core.rollout.waiting import waits_for
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName
from sync.reports import ANY, ModelReport, Release, TrialReport

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
MODEL = ModelName("motion")
DEVICES = tuple(DeviceId(f"d{i}") for i in range(5))
NOW = 1000.0
Fleet = dict[DeviceId, ModelReport | None]

NEXT = {
    State.APPROVED: {State.APPROVED, State.SHADOW, State.CANARY},
    State.SHADOW: {State.SHADOW, State.CANARY, State.REVERSING, State.PAUSED},
    State.SPLIT: {State.SPLIT, State.CANARY, State.REVERSING, State.PAUSED},
    State.PAUSED: {State.PAUSED},
    State.CANARY: {State.CANARY, State.RAMP, State.REVERSING},
    State.RAMP: {State.RAMP, State.COMPLETE, State.REVERSING},
    State.COMPLETE: {State.COMPLETE},
    State.REVERSING: {State.REVERSING, State.REVERSED},
    State.REVERSED: {State.REVERSED},
    State.SUPERSEDED: {State.SUPERSEDED},
}
PAIRED = Gates("labels", margin=0.1, block=10)


def release(manifest: Digest) -> Release:
    return Release(1, manifest, Digest("c" * 64))


def trial(plus: int = 0, zero: int = 0, minus: int = 0, retry: int = 0) -> TrialReport:
    return TrialReport(NEW, OLD, retry, "labels", 10, plus, zero, minus, pairs=10 * (plus + zero + minus))


def says(
    phase: str,
    serving: Digest | None,
    candidate: Digest | None = None,
    *,
    verdicts: dict[Digest, int] | None = None,
    pairs: TrialReport | None = None,
) -> ModelReport:
    return ModelReport(
        phase, NOW, release(serving) if serving else None, release(candidate) if candidate else None,
        quarantined=verdicts or {}, reason="p99 of 80 ms" if verdicts else "", trial=pairs,
    )  # fmt: skip


COMMITTED, ON_TRIAL = says("steady", NEW), says("probation", NEW)
BEFORE, FETCHING = says("steady", OLD), says("fetching", OLD, NEW)
HARMED, OTHER_VERDICT = says("steady", OLD, verdicts={NEW: 0}), says("steady", NEW, verdicts={OLD: 0})
UNDECIDED, NO_WORSE, WORSE = (says("shadow", OLD, NEW, pairs=t) for t in (trial(1, 9), trial(0, 100), trial(20, 0)))
RUNNING = (COMMITTED, ON_TRIAL, FETCHING, OTHER_VERDICT, UNDECIDED, NO_WORSE, WORSE)
REPORTS = [None, *RUNNING, BEFORE, HARMED, says("no_model", None), says("steady", OLD, verdicts={ANY: 0})]
reports = st.sampled_from(REPORTS)
fleets = st.dictionaries(st.sampled_from(DEVICES), reports, max_size=5)
some = st.lists(st.sampled_from(DEVICES), unique=True, max_size=3).map(tuple)
gates_of_all = st.sampled_from((Gates(), PAIRED))


def rollout(
    state: State = State.APPROVED, canary: tuple[DeviceId, ...] = DEVICES[:1], gates: Gates = PAIRED, **more: object
) -> Rollout:
    return replace(Rollout(MODEL, 2, NEW, canary, gates, state, NOW, 1), **more)


def committed(report: ModelReport | None) -> bool:
    return report in (COMMITTED, OTHER_VERDICT)


def check_step(before: Rollout, fleet: Fleet, decision: Decision) -> None:
    """What holds at every single step."""
    after = decision.rollout
    assert after.state in NEXT[before.state]
    assert (after.number, after.manifest, after.canary, after.previous) == (2, NEW, before.canary, 1)
    assert (after.gates, after.retry, after.forced) == (before.gates, before.retry, before.forced)
    assert set(before.assigned) <= set(after.assigned), "nobody is forgotten"
    assert set(decision.assign) <= set(fleet) and not (decision.assign and decision.take_back)
    if before.state is State.SHADOW and after.state is State.CANARY:
        assert decision.assign == after.assigned == before.canary, "the same devices are told to serve it"
    else:
        joined_late = decision.take_back if before.state is State.REVERSED else ()
        assert after.assigned == (*before.assigned, *decision.assign, *joined_late), "nobody is assigned twice"
    canaries_committed = bool(before.canary) and all(committed(fleet.get(d)) for d in before.canary)
    if before.state in (State.APPROVED, State.SHADOW, State.CANARY) and set(after.assigned) - set(after.canary):
        assert canaries_committed, "beyond the canary only when every canary has committed"
    if after.state is State.RAMP and before.state is State.CANARY:
        assert canaries_committed and set(after.assigned) >= set(fleet)
    if after.state is State.COMPLETE:
        assert all(committed(fleet.get(d)) for d in after.assigned) or before.state is State.COMPLETE
    check_gates(before, decision)
    check_reversal(before, fleet, decision)


def check_gates(before: Rollout, decision: Decision) -> None:
    """Shadow only where pairs decide and nobody forced it; pairs are asked for once, and never on the way back."""
    asked = bool(decision.assign) and before.state is State.APPROVED
    if decision.assign:
        paired = before.gates.evidence != "guardrails" and not before.forced
        assert (decision.mode == "shadow") == (asked and paired)
    if decision.assign or decision.take_back:
        assert decision.gates == (before.gates if asked else replace(before.gates, evidence="guardrails"))


def check_reversal(before: Rollout, fleet: Fleet, decision: Decision) -> None:
    """Everybody who was assigned goes back, for a verdict of this generation or for pairs that say harm."""
    after = decision.rollout
    there = [d for d in before.assigned if d in fleet]
    harmed = [d for d in there if d in before.held or (fleet[d] is HARMED and before.retry == 0)]
    open_ = before.state in (State.SHADOW, State.CANARY, State.RAMP)
    if open_ and harmed and len(harmed) >= quorum(len(there)):
        assert after.state is State.REVERSING and decision.take_back == before.assigned
        assert "gave a verdict against it" in after.reason
    elif open_ and harmed and after.state is not State.REVERSING:
        assert (after.state, after.assigned, after.held) == (before.state, before.assigned, tuple(harmed))
        assert decision.assign == decision.take_back == (), "one alone moves nothing, and nothing goes on over it"
    elif before.state is State.SHADOW and after.state is State.REVERSING:
        assert decision.take_back == before.assigned and after.decided != {}
        assert decision.heard == tuple(dict.fromkeys((*harmed, *after.decided))), (
            "a verdict that stood alone is kept too"
        )
    elif before.state is State.REVERSED:
        assert set(decision.take_back) == set(fleet) - set(before.assigned), "who comes late goes back too"
    else:
        assert decision.take_back == ()
    if after.state is State.REVERSED and before.state is not State.REVERSED:
        assert not any(fleet.get(d) in RUNNING for d in before.assigned)


@settings(max_examples=300)
@given(st.lists(fleets, max_size=12), some, gates_of_all, st.integers(0, 1), st.sampled_from(("", "me: now")))
def test_whatever_the_fleet_says_the_laws_hold(
    history: list[Fleet], canary: tuple[DeviceId, ...], gates: Gates, retry: int, forced: str
) -> None:
    current = rollout(canary=canary, gates=gates, retry=retry, forced=forced)
    enrolled: Fleet = {}
    for moment in history:
        enrolled = enrolled | moment  # devices join, and never leave
        decision = decide(current, enrolled, NOW)
        assert decision == decide(current, dict(enrolled), NOW), "the same inputs give the same decision"
        check_step(current, enrolled, decision)
        current = decision.rollout


@given(fleets, some, st.sampled_from(State), some, gates_of_all)
def test_a_fleet_that_stays_as_it_is_comes_to_rest(
    fleet: Fleet, canary: tuple[DeviceId, ...], state: State, assigned: tuple[DeviceId, ...], gates: Gates
) -> None:
    split = SplitPlan("seed", 2000, OLD) if state is State.SPLIT else None
    current = rollout(state, canary, gates, assigned=assigned, split=split)
    for _ in range(6):
        decision = decide(current, fleet, NOW)
        if decision.rollout == current:
            assert decision.assign == decision.take_back == ()
            return
        current = decision.rollout
    raise AssertionError(f"no rest after six rounds: {current}")


@given(fleets, some)
def test_devices_that_are_silent_only_hold(fleet: Fleet, canary: tuple[DeviceId, ...]) -> None:
    silent: Fleet = dict.fromkeys((*fleet, *canary))
    for state in (State.SHADOW, State.CANARY, State.RAMP):
        current = rollout(state, canary, assigned=tuple(silent))
        assert decide(current, silent, NOW) == Decision(current)


def test_the_straight_way() -> None:
    one, two, three = DEVICES[:3]
    fleet: Fleet = {one: BEFORE, two: BEFORE, three: None}
    first = decide(rollout(gates=Gates()), fleet, NOW)
    assert (first.rollout.state, first.assign, first.mode) == (State.CANARY, (one,), "live")
    assert decide(first.rollout, fleet | {one: ON_TRIAL}, NOW).rollout == first.rollout, "received is not committed"
    second = decide(first.rollout, fleet | {one: COMMITTED}, NOW + 5)
    assert (second.rollout.state, second.assign, second.rollout.since) == (State.RAMP, (two, three), NOW + 5)
    almost: Fleet = {one: COMMITTED, two: COMMITTED, three: None}
    assert decide(second.rollout, almost, NOW) == Decision(second.rollout), "the one that is offline is waited for"
    done = decide(second.rollout, almost | {three: COMMITTED}, NOW)
    assert done.rollout.state is State.COMPLETE


def test_a_canary_that_is_not_enrolled_is_waited_for_and_named() -> None:
    decision = decide(rollout(canary=DEVICES[:2]), {DEVICES[0]: BEFORE}, NOW)
    assert decision.rollout.state is State.APPROVED and decision.assign == ()
    assert "d1" in decision.rollout.reason
    assert decide(decision.rollout, {DEVICES[0]: BEFORE}, NOW).rollout == decision.rollout


def test_without_a_canary_nothing_moves() -> None:
    assert decide(rollout(canary=()), dict.fromkeys(DEVICES), NOW).rollout.state is State.APPROVED


def test_who_enrols_after_the_ramp_is_assigned_too() -> None:
    for state in (State.RAMP, State.COMPLETE):
        before = rollout(state, assigned=DEVICES[:1])
        decision = decide(before, {DEVICES[0]: COMMITTED, DEVICES[1]: None}, NOW)
        assert (decision.rollout.state, decision.assign) == (state, DEVICES[1:2])


def test_who_enrols_after_a_reversal_gets_what_the_others_went_back_to() -> None:
    before = rollout(State.REVERSED, assigned=DEVICES[:1])
    decision = decide(before, {DEVICES[0]: BEFORE, DEVICES[1]: None}, NOW)
    assert (decision.rollout.state, decision.assign, decision.take_back) == (State.REVERSED, (), DEVICES[1:2])
    assert decide(decision.rollout, {DEVICES[0]: BEFORE, DEVICES[1]: None}, NOW) == Decision(decision.rollout)


def test_in_a_fleet_of_two_one_verdict_takes_everybody_back() -> None:
    before = rollout(State.RAMP, assigned=DEVICES[:2])
    fleet: Fleet = {DEVICES[0]: COMMITTED, DEVICES[1]: HARMED}
    decision = decide(before, fleet, NOW)
    assert (decision.rollout.state, decision.take_back) == (State.REVERSING, DEVICES[:2])
    again = decide(decision.rollout, fleet, NOW)
    assert again == Decision(decision.rollout), "the first still runs it"
    assert decide(decision.rollout, fleet | {DEVICES[0]: BEFORE}, NOW).rollout.state is State.REVERSED


def test_a_verdict_of_a_device_that_was_not_assigned_says_nothing() -> None:
    before = rollout(State.CANARY, assigned=DEVICES[:1])
    assert decide(before, {DEVICES[0]: ON_TRIAL, DEVICES[1]: HARMED}, NOW) == Decision(before)


def test_a_verdict_after_completion_stays_that_devices_own() -> None:
    before = rollout(State.COMPLETE, assigned=DEVICES[:2])
    assert decide(before, {DEVICES[0]: COMMITTED, DEVICES[1]: HARMED}, NOW) == Decision(before)


# --- shadow -----------------------------------------------------------------------------------------------------


def test_the_way_through_the_shadow() -> None:
    one, two, three = DEVICES[:3]
    fleet: Fleet = {one: BEFORE, two: BEFORE, three: BEFORE}
    first = decide(rollout(canary=(one, two)), fleet, NOW)
    assert (first.rollout.state, first.assign, first.mode, first.gates) == (State.SHADOW, (one, two), "shadow", PAIRED)
    held = decide(first.rollout, fleet | {one: UNDECIDED}, NOW)
    assert held == Decision(first.rollout), "the pairs have not spoken"
    second = decide(first.rollout, fleet | {one: NO_WORSE}, NOW + 5)
    assert (second.rollout.state, second.assign, second.mode) == (State.CANARY, (one, two), "live")
    assert second.gates == replace(PAIRED, evidence="guardrails"), "the pairs have spoken"
    assert (second.rollout.decided, second.heard) == ({one: trial(0, 100)}, (one,))
    assert "no worse than release 1: worse in 0, equal in 100, better in 0 of 100 blocks" in second.rollout.reason
    third = decide(second.rollout, fleet | {one: COMMITTED, two: COMMITTED}, NOW + 9)
    assert (third.rollout.state, third.assign, third.gates.evidence) == (State.RAMP, (three,), "guardrails")


def test_several_devices_decide_together_what_none_could_alone() -> None:
    half = says("shadow", OLD, NEW, pairs=trial(0, 35))
    before = rollout(State.SHADOW, DEVICES[:2], assigned=DEVICES[:2])
    alone: Fleet = {DEVICES[0]: half, DEVICES[1]: None}
    assert decide(before, alone, NOW) == Decision(before), "who is offline adds nothing, and harms nothing"
    assert decide(before, alone | {DEVICES[1]: half}, NOW).rollout.state is State.CANARY


def test_pooled_harm_takes_the_shadow_back() -> None:
    before = rollout(State.SHADOW, assigned=DEVICES[:1])
    decision = decide(before, {DEVICES[0]: WORSE, DEVICES[1]: BEFORE}, NOW)
    assert (decision.rollout.state, decision.take_back) == (State.REVERSING, DEVICES[:1])
    assert decision.rollout.decided == {DEVICES[0]: trial(20, 0)} and decision.judgement is not None
    assert "worse than release 1: worse in 20, equal in 0, better in 0 of 20 blocks" in decision.rollout.reason
    assert decide(decision.rollout, {DEVICES[0]: WORSE}, NOW) == Decision(decision.rollout), "still its candidate"
    assert decide(decision.rollout, {DEVICES[0]: BEFORE}, NOW).rollout.state is State.REVERSED


def test_a_device_that_refused_it_in_shadow_needs_no_pooling() -> None:
    before = rollout(State.SHADOW, DEVICES[:2], assigned=DEVICES[:2])
    decision = decide(before, {DEVICES[0]: NO_WORSE, DEVICES[1]: HARMED}, NOW)
    assert (decision.rollout.state, decision.take_back) == (State.REVERSING, DEVICES[:2])
    assert decision.heard == (DEVICES[1], DEVICES[0])


def test_who_enrols_in_the_shadow_waits_for_the_ramp() -> None:
    before = rollout(State.SHADOW, assigned=DEVICES[:1])
    assert decide(before, {DEVICES[0]: UNDECIDED, DEVICES[1]: None}, NOW) == Decision(before)


def test_canary_devices_without_an_incumbent_serve_at_once_and_nothing_hangs() -> None:
    before = rollout(State.SHADOW, assigned=DEVICES[:1])
    moved = decide(before, {DEVICES[0]: COMMITTED}, NOW).rollout
    assert moved.state is State.CANARY and moved.decided == {} and "without an incumbent" in moved.reason


def test_a_forced_rollout_serves_at_once_under_the_gates_of_its_plan() -> None:
    forced = rollout(forced="salma: the labels are wrong", retry=1)
    fleet: Fleet = {DEVICES[0]: HARMED, DEVICES[1]: HARMED}
    first = decide(forced, fleet, NOW)
    assert (first.rollout.state, first.mode, first.gates) == (State.CANARY, "live", PAIRED)
    assert "salma: the labels are wrong" in first.rollout.reason
    assert decide(first.rollout, fleet, NOW) == Decision(first.rollout), "that verdict was of another generation"
    again = says("steady", OLD, verdicts={NEW: 1})
    assert decide(first.rollout, fleet | {DEVICES[0]: again}, NOW).rollout.state is State.REVERSING
    second = decide(first.rollout, fleet | {DEVICES[0]: COMMITTED}, NOW)
    assert (second.assign, second.gates.evidence) == (DEVICES[1:2], "guardrails")


# --- a verdict that a device cannot read any more ---

BARRED = says("steady", OLD, verdicts={ANY: 0})


@pytest.mark.parametrize("state", [State.SHADOW, State.CANARY, State.RAMP])
@pytest.mark.parametrize("devices", [1, 2, 5])
def test_one_that_may_be_against_any_release_is_told_to_a_person_and_takes_nobody_back(
    state: State, devices: int
) -> None:
    assigned = DEVICES[:devices]
    before = rollout(state, assigned[:1], gates=Gates(), assigned=assigned)
    fleet: Fleet = dict.fromkeys(assigned, COMMITTED) | {DEVICES[0]: BARRED}
    decision = decide(before, fleet, NOW)
    assert (decision.rollout.state, decision.take_back, decision.barred) == (state, (), DEVICES[:1])
    assert (decision.rollout.held, decision.rollout.reason) == ((), before.reason)
    assert decision.rollout.barred == DEVICES[:1] and "waits for a person: d0 cannot read" in waits_for(DEVICES[:1])
    assert decide(decision.rollout, fleet, NOW) == decision, "it is said once"
    read = decide(decision.rollout, fleet | {DEVICES[0]: says("steady", OLD)}, NOW)
    assert read.barred == () and read.rollout.barred == DEVICES[:1], "waited for no more, and told once all the same"
    aside = replace(decision.rollout, aside=DEVICES[:1])
    assert decide(aside, fleet, NOW).barred == ()


def test_what_is_told_of_a_large_fleet_has_an_end() -> None:
    fleet = tuple(DeviceId(f"d{n}") for n in range(1000))
    assert len(waits_for(fleet)) < 200 and "and 990 more" in waits_for(fleet)


def test_one_that_may_be_against_any_is_not_against_what_runs_nor_against_a_higher_attempt() -> None:
    for phase, serving, candidate in (("steady", NEW, None), ("fetching", OLD, NEW)):
        runs: Fleet = {DEVICES[0]: says(phase, serving, candidate, verdicts={ANY: 0})}
        assert decide(rollout(State.CANARY, assigned=DEVICES[:1]), runs, NOW).barred == ()
    again = rollout(State.CANARY, assigned=DEVICES[:1], retry=1)
    assert decide(again, {DEVICES[0]: BARRED}, NOW) == Decision(again)
    real = says("steady", OLD, verdicts={ANY: 0, NEW: 0})
    taken = decide(rollout(State.CANARY, assigned=DEVICES[:1]), {DEVICES[0]: real}, NOW)
    assert taken.rollout.state is State.REVERSING, "one that can be read counts as ever"
