"""The verbs on a deployment, driven in any legal order: who serves is always who should."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge import slots
from edge.agent import standing
from edge.lifecycle import AT_REST
from edge.states import Deployment, Event, Phase, Proof, Slot
from sync.chunks import digest
from sync.messages import ModelOrder
from sync.names import ModelName
from sync.reports import Release, Validated
from tests.edge import graphs

MODEL = ModelName("motion")
VALIDATED = Validated(digest(b""), 1.0, 1.0)
PROOF = Proof(True, 0.0, 1.5, 1.0)
FAILED = {
    Phase.FETCHING: Event.REFUSED,
    Phase.STAGED: Event.REFUSED,
    Phase.PROVING: Event.REFUSED,
    Phase.SHADOW: Event.DEGRADED,
    Phase.PROBATION: Event.DEGRADED,
}


def slot(number: int) -> Slot:
    manifest = digest(str(number).encode())
    return Slot(Release(number, manifest, digest(b"model")), graphs.manifest(number), {})


def order(number: int, floor: int = 1) -> ModelOrder:
    return ModelOrder(digest(str(number).encode()), number, {}, floor)


def number_of(held: Slot | None) -> int | None:
    return held.release.number if held else None


@dataclass
class Ledger:
    """What must be so, kept by simpler means: the releases that answered, as a stack."""

    committed: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    standing: set[int] = field(default_factory=set)  # answered on trial, and a newer order came
    last: int = 0
    floor: int = 1


class AnyLegalOrder(RuleBasedStateMachine):
    """Offers, trials, failures, restarts and withdrawals as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.d = Deployment(MODEL)
        self.ledger = Ledger()
        self.clock = 0.0

    def now(self) -> float:
        self.clock += 1
        return self.clock

    @precondition(lambda self: self.d.phase in AT_REST)
    @rule(raise_floor=st.booleans())
    def offer(self, raise_floor: bool) -> None:
        self.ledger.last += 1
        if raise_floor:
            self.ledger.floor = max(1, self.ledger.last - 1)
        self.d = slots.offer(self.d, order(self.ledger.last, self.ledger.floor), self.now())

    @precondition(lambda self: self.d.phase is Phase.PROBATION)
    @rule()
    def follow(self) -> None:
        """A newer order on a release that is on trial: it stays where nothing else would answer."""
        wanted, before = order(self.ledger.last + 1, self.ledger.floor), self.d.serving
        if standing.stays(self.d, wanted):
            assert before is not None and not slots.fallbacks(self.d)
            self.ledger.last += 1
            self.ledger.standing.add(before.release.number)
            self.d = slots.offer(self.d, wanted, self.now())
            assert number_of(self.d.serving) == before.release.number

    @precondition(lambda self: self.d.phase is Phase.FETCHING)
    @rule()
    def fetch(self) -> None:
        self.d = slots.complete(slots.admit(self.d, slot(self.ledger.last)), self.now())

    @precondition(lambda self: self.d.phase is Phase.STAGED)
    @rule()
    def prove(self) -> None:
        self.d = slots.begin_proving(self.d, self.now())

    @precondition(lambda self: self.d.phase is Phase.PROVING)
    @rule(obstacle=st.booleans())
    def measure(self, obstacle: bool) -> None:
        before = self.d.starts
        self.d = slots.prove_again(self.d) if obstacle else slots.proved(self.d, PROOF, self.now())
        assert self.d.starts == (before if obstacle else 0)

    @precondition(lambda self: self.d.phase is Phase.SHADOW)
    @rule()
    def trial(self) -> None:
        before = self.d
        self.d = slots.begin_trial(self.d, VALIDATED, self.now())
        assert self.d.serving == before.candidate
        assert self.d.previous[:1] == ((before.serving,) if before.serving else before.previous[:1])

    @precondition(lambda self: self.d.phase is Phase.PROBATION)
    @rule()
    def commit(self) -> None:
        self.d = slots.mark_good(self.d, self.now())
        assert self.d.serving is not None
        self.ledger.committed.append(self.d.serving.release.number)

    @precondition(lambda self: self.d.phase in FAILED)
    @rule(withdrawn=st.booleans())
    def fail(self, withdrawn: bool) -> None:
        on_trial = self.d.phase is Phase.PROBATION
        before = self.d.previous[:1] if on_trial else ((self.d.serving,) if self.d.serving else ())
        tried = self.d.serving if on_trial else None
        self.d = slots.give_up(self.d, Event.WITHDRAWN if withdrawn else FAILED[self.d.phase], "because", self.now())
        self.ledger.refused.add(tried.release.number if tried else self.ledger.last)
        if before and (not on_trial or before[0].release.number >= self.ledger.floor):
            assert self.d.serving == before[0], "who answered before stays or comes back"
        assert self.d.candidate is None and self.d.reason == "because"

    @precondition(lambda self: self.d.phase is Phase.REVERTING)
    @rule()
    def settle(self) -> None:
        self.d = slots.returned(self.d, VALIDATED if self.d.serving else None, self.now())
        committed = number_of(self.d.serving) in self.ledger.committed
        rests = Phase.STEADY if committed else Phase.PROBATION
        assert self.d.phase is (rests if self.d.serving else Phase.NO_MODEL)

    @precondition(lambda self: self.d.phase is Phase.REVERTING and self.d.serving is not None)
    @rule()
    def it_does_not_load_either(self) -> None:
        gone = self.d.serving
        self.d = slots.drop_previous(self.d)
        assert self.d.serving != gone

    @precondition(lambda self: self.d.phase is Phase.STEADY)
    @rule()
    def take_off(self) -> None:
        self.d = slots.take_off(self.d, "off", self.now())
        assert self.d.serving is None and self.d.previous == ()

    @rule()
    def restart(self) -> None:
        before = self.d
        self.d = slots.resumed(self.d)
        assert self.d.starts == before.starts + 1
        assert (self.d.serving, self.d.candidate, self.d.previous) == (
            before.serving, before.candidate, before.previous,
        )  # fmt: skip

    @invariant()
    def no_more_than_two_are_pinned_and_none_twice(self) -> None:
        numbers = [number_of(held) for held in (self.d.serving, *self.d.previous) if held]
        assert len(self.d.previous) <= slots.PINNED
        assert len(set(numbers)) == len(numbers)

    @invariant()
    def a_refused_release_never_serves(self) -> None:
        held = {number_of(one) for one in (self.d.serving, self.d.candidate, *self.d.previous)}
        assert not held & self.ledger.refused

    @invariant()
    def only_committed_releases_answer_outside_the_trial(self) -> None:
        behind = [number_of(one) for one in self.d.previous]
        if self.d.phase is not Phase.PROBATION and self.d.serving:
            behind.append(number_of(self.d.serving))
        assert set(behind) <= {*self.ledger.committed, *self.ledger.standing}
        assert self.d.phase is not Phase.STEADY or number_of(self.d.serving) in self.ledger.committed

    @invariant()
    def at_rest_says_whether_something_answers(self) -> None:
        if self.d.phase in AT_REST:
            assert (self.d.phase is Phase.STEADY) is (self.d.serving is not None)


AnyLegalOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyLegalOrder = AnyLegalOrder.TestCase


def test_a_trial_needs_a_candidate() -> None:
    with pytest.raises(RuntimeError, match="without a candidate"):
        slots.begin_trial(Deployment(MODEL, phase=Phase.SHADOW), VALIDATED, 1.0)


def test_going_back_never_leads_below_the_floor() -> None:
    d = Deployment(
        MODEL, phase=Phase.PROBATION, serving=slot(5), previous=(slot(2), slot(4)), order=order(5, floor=3)
    )  # fmt: skip
    back = slots.give_up(d, Event.DEGRADED, "guardrail", 1.0)
    assert (number_of(back.serving), back.previous) == (4, ())


def test_a_new_phase_counts_its_starts_anew_but_for_proving() -> None:
    d = Deployment(MODEL, phase=Phase.STAGED, starts=2, candidate=slot(1), order=order(1))
    proving = slots.begin_proving(d, 1.0)
    assert proving.starts == 2
    assert slots.proved(proving, PROOF, 2.0).starts == 0
