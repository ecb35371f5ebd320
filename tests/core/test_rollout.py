"""Rollouts: laws that hold for every fleet and every order of events, then the steps one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.project import Rollout as Settings
from core.rollout.controller import Decision, decide
from core.rollout.plans import fallback, plan
from sync.messages import Gates, ModelReport, Release
from sync.names import DeviceId, Digest, ModelName

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
MODEL = ModelName("motion")
DEVICES = tuple(DeviceId(f"d{i}") for i in range(5))
NOW = 1000.0
Fleet = dict[DeviceId, ModelReport | None]

NEXT = {
    State.APPROVED: {State.APPROVED, State.CANARY},
    State.CANARY: {State.CANARY, State.RAMP, State.REVERSING},
    State.RAMP: {State.RAMP, State.COMPLETE, State.REVERSING},
    State.COMPLETE: {State.COMPLETE},
    State.REVERSING: {State.REVERSING, State.REVERSED},
    State.REVERSED: {State.REVERSED},
}


def release(manifest: Digest) -> Release:
    return Release(1, manifest, Digest("c" * 64))


def says(phase: str, serving: Digest | None, candidate: Digest | None = None, *verdicts: Digest) -> ModelReport:
    return ModelReport(
        phase, NOW, release(serving) if serving else None, release(candidate) if candidate else None,
        quarantined=verdicts, reason="p99 of 80 ms" if verdicts else "",
    )  # fmt: skip


COMMITTED, ON_TRIAL = says("steady", NEW), says("probation", NEW)
BEFORE, FETCHING = says("steady", OLD), says("fetching", OLD, NEW)
HARMED, OTHER_VERDICT = says("steady", OLD, None, NEW), says("steady", NEW, None, OLD)
REPORTS = [None, COMMITTED, ON_TRIAL, BEFORE, FETCHING, HARMED, OTHER_VERDICT, says("no_model", None)]
reports = st.sampled_from(REPORTS)
fleets = st.dictionaries(st.sampled_from(DEVICES), reports, max_size=5)
some = st.lists(st.sampled_from(DEVICES), unique=True, max_size=3).map(tuple)


def rollout(state: State = State.APPROVED, canary: tuple[DeviceId, ...] = DEVICES[:1], **more: object) -> Rollout:
    return Rollout(MODEL, 2, NEW, canary, Gates(), state, NOW, 1, **more)  # type: ignore[arg-type]


def committed(report: ModelReport | None) -> bool:
    return report in (COMMITTED, OTHER_VERDICT)


def check_step(before: Rollout, fleet: Fleet, decision: Decision) -> None:
    """What holds at every single step."""
    after = decision.rollout
    assert after.state in NEXT[before.state]
    assert (after.number, after.manifest, after.canary, after.previous) == (2, NEW, before.canary, 1)
    assert set(before.assigned) <= set(after.assigned), "nobody is forgotten"
    joined_late = decision.take_back if before.state is State.REVERSED else ()
    assert after.assigned == (*before.assigned, *decision.assign, *joined_late), "nobody is assigned twice"
    assert set(decision.assign) <= set(fleet) and not set(decision.assign) & set(before.assigned)
    assert not (decision.assign and decision.take_back)
    canaries_committed = bool(before.canary) and all(committed(fleet.get(d)) for d in before.canary)
    if before.state in (State.APPROVED, State.CANARY) and set(after.assigned) - set(after.canary):
        assert canaries_committed, "beyond the canary only when every canary has committed"
    if after.state is State.RAMP and before.state is State.CANARY:
        assert canaries_committed and set(after.assigned) >= set(fleet)
    harmed = any(fleet.get(d) is HARMED for d in before.assigned)
    if harmed and before.state in (State.CANARY, State.RAMP):
        assert after.state is State.REVERSING and decision.take_back == before.assigned
        assert "p99 of 80 ms" in after.reason
    elif before.state is State.REVERSED:
        assert set(decision.take_back) == set(fleet) - set(before.assigned), "who comes late goes back too"
    else:
        assert decision.take_back == ()
    if after.state is State.REVERSED and before.state is not State.REVERSED:
        running = (COMMITTED, ON_TRIAL, FETCHING, OTHER_VERDICT)
        assert not any(fleet.get(d) in running for d in before.assigned)
    if after.state is State.COMPLETE:
        assert all(committed(fleet.get(d)) for d in after.assigned) or before.state is State.COMPLETE


@settings(max_examples=300)
@given(st.lists(fleets, max_size=12), some)
def test_whatever_the_fleet_says_the_laws_hold(history: list[Fleet], canary: tuple[DeviceId, ...]) -> None:
    current = rollout(canary=canary)
    enrolled: Fleet = {}
    for moment in history:
        enrolled = enrolled | moment  # devices join, and never leave
        decision = decide(current, enrolled, NOW)
        assert decision == decide(current, dict(enrolled), NOW), "the same inputs give the same decision"
        check_step(current, enrolled, decision)
        current = decision.rollout


@given(fleets, some, st.sampled_from(State), some)
def test_a_fleet_that_stays_as_it_is_comes_to_rest(
    fleet: Fleet, canary: tuple[DeviceId, ...], state: State, assigned: tuple[DeviceId, ...]
) -> None:
    current = rollout(state, canary, assigned=assigned)
    for _ in range(5):
        decision = decide(current, fleet, NOW)
        if decision.rollout == current:
            assert decision.assign == decision.take_back == ()
            return
        current = decision.rollout
    raise AssertionError(f"no rest after five rounds: {current}")


@given(fleets, some)
def test_devices_that_are_silent_only_hold(fleet: Fleet, canary: tuple[DeviceId, ...]) -> None:
    silent: Fleet = dict.fromkeys((*fleet, *canary))
    for state in (State.CANARY, State.RAMP):
        current = rollout(state, canary, assigned=tuple(silent))
        assert decide(current, silent, NOW) == Decision(current)


def test_the_straight_way() -> None:
    one, two, three = DEVICES[:3]
    fleet: Fleet = {one: BEFORE, two: BEFORE, three: None}
    first = decide(rollout(), fleet, NOW)
    assert (first.rollout.state, first.assign) == (State.CANARY, (one,))
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


def test_one_verdict_takes_everybody_back() -> None:
    before = rollout(State.RAMP, assigned=DEVICES[:3])
    fleet: Fleet = {DEVICES[0]: COMMITTED, DEVICES[1]: HARMED, DEVICES[2]: None, DEVICES[3]: None}
    decision = decide(before, fleet, NOW)
    assert (decision.rollout.state, decision.take_back) == (State.REVERSING, DEVICES[:3])
    again = decide(decision.rollout, fleet, NOW)
    assert again == Decision(decision.rollout), "the first still runs it"
    assert decide(decision.rollout, fleet | {DEVICES[0]: BEFORE}, NOW).rollout.state is State.REVERSED


def test_a_verdict_of_a_device_that_was_not_assigned_says_nothing() -> None:
    before = rollout(State.CANARY, assigned=DEVICES[:1])
    assert decide(before, {DEVICES[0]: ON_TRIAL, DEVICES[1]: HARMED}, NOW) == Decision(before)


def test_a_verdict_after_completion_stays_that_devices_own() -> None:
    before = rollout(State.COMPLETE, assigned=DEVICES[:2])
    assert decide(before, {DEVICES[0]: COMMITTED, DEVICES[1]: HARMED}, NOW) == Decision(before)


def test_a_plan_fixes_its_gates() -> None:
    wish = Settings(canary=DEVICES[:1], evidence="guardrails", soak_answers=7, max_errors=2)
    made = plan(MODEL, 3, NEW, wish, 2, NOW)
    assert made == Rollout(MODEL, 3, NEW, DEVICES[:1], Gates("guardrails", 7, 2), State.APPROVED, NOW, 2)


def test_devices_go_back_to_the_newest_release_that_was_not_reversed() -> None:
    assert fallback(1, [1], []) is None
    assert fallback(3, [1, 2, 3, 4], []) == 2
    bad = [replace(rollout(state), number=number) for number, state in ((2, State.REVERSED), (3, State.REVERSING))]
    assert fallback(4, [1, 2, 3, 4], bad) == 1
    assert fallback(4, [2, 3, 4], bad) is None
