"""The emit rules: what is told is a matter of the predictions alone, and a restart changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bindings.emitting import Told, decide
from sync.bindings import Binding, When
from sync.messages import Prediction
from tests.edge.graphs import MODEL

CLASSES = ("fault", "fine")


def said(ts: float, fault: float | None, quality: str = "ok") -> Prediction:
    """A prediction by its probability of a fault; None where nobody answered."""
    if fault is None:
        return Prediction("id", MODEL, ts, "no_model" if quality == "ok" else quality)  # type: ignore[arg-type]
    value = CLASSES[int(fault < 0.5)]
    return Prediction("id", MODEL, ts, quality, value, (fault, 1 - fault), CLASSES)  # type: ignore[arg-type]


def rule(emit: str, **more: object) -> Binding:
    return Binding("a/{entity}", "b/{entity}", emit=emit, **more)  # type: ignore[arg-type]


def told(binding: Binding, stream: Iterable[Prediction]) -> list[tuple[float, bool]]:
    """(event time, whether the condition holds) of what is told. What is remembered goes through bytes each time."""
    before, found = None, []
    for prediction in stream:
        after, tell = decide(binding, before, prediction)
        before = msgspec.msgpack.decode(msgspec.msgpack.encode(after), type=Told)
        assert before == after
        if tell:
            found.append((prediction.ts, after.holds))
    return found


FAULTS = st.lists(st.floats(0, 1) | st.none(), max_size=60)


def stream(faults: list[float | None]) -> list[Prediction]:
    return [said(float(i), fault) for i, fault in enumerate(faults)]


def test_every_tells_one_in_so_many_seconds_of_event_time() -> None:
    every = rule("every", every=10.0)
    assert [ts for ts, _ in told(every, stream([0.1] * 35))] == [0.0, 10.0, 20.0, 30.0]
    back = [said(100.0, 0.1), said(5.0, 0.1), said(6.0, 0.1)]
    assert [ts for ts, _ in told(every, back)] == [100.0, 5.0], "a clock that was put back silences nobody"


def test_on_change_with_every_is_a_sign_of_life() -> None:
    faults: list[float | None] = [0.1] * 12 + [0.9] * 12
    assert [ts for ts, _ in told(rule("on-change", every=10.0), stream(faults))] == [0.0, 10.0, 12.0, 22.0]


def test_three_of_five_begins_and_ends_the_condition() -> None:
    when = When(0.8, "fault", of=3, within=5)
    faults = [0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.9]
    assert told(rule("when", when=when), stream(faults)) == [(0.0, False), (4.0, True), (9.0, False)]


def test_between_the_thresholds_nothing_changes() -> None:
    when = When(0.8, "fault", below=0.3)
    faults = [0.5, 0.7, 0.81, 0.5, 0.31, 0.7, 0.3, 0.7, 0.5]
    assert told(rule("when", when=when), stream(faults)) == [(0.0, False), (2.0, True), (6.0, False)]


def test_that_nobody_answers_is_told_and_keeps_the_condition() -> None:
    when = When(0.8, "fault")
    faults = [0.9, None, None, 0.9, 0.1]
    assert told(rule("when", when=when), stream(faults)) == [(0.0, True), (1.0, True), (3.0, True), (4.0, False)]


def test_a_model_without_classes_is_compared_by_its_value() -> None:
    values = [Prediction("id", MODEL, float(i), "ok", value) for i, value in enumerate((3.0, 8.0, 9.0, 2.0))]
    assert told(rule("when", when=When(5.0)), values) == [(0.0, False), (1.0, True), (3.0, False)]


def test_a_class_that_the_release_does_not_have_never_holds() -> None:
    assert told(rule("when", when=When(0.1, "flaw")), stream([0.9] * 9)) == [(0.0, False)]


WHENS = st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 6), st.integers(0, 6)).map(
    lambda t: When(max(t[0], t[1]), "fault", min(t[0], t[1]), t[2], t[2] + t[3])
)


def by_hand(when: When, faults: list[float | None]) -> list[bool]:
    """Whether the condition holds after each prediction, looked up in the whole past instead of remembered."""
    holds, since, past = False, 0, [fault for fault in faults if fault is not None]
    found, seen = [], 0
    for fault in faults:
        if fault is not None:
            seen += 1
            newest = past[max(since, seen - when.within) : seen]
            below = when.above if when.below is None else when.below
            if sum(f <= below if holds else f > when.above for f in newest) >= when.of:
                holds, since = not holds, seen
        found.append(holds)
    return found


@given(WHENS, FAULTS)
def test_the_condition_is_that_of_the_whole_past(when: When, faults: list[float | None]) -> None:
    before, found = None, []
    for prediction in stream(faults):
        before, _ = decide(rule("when", when=when), before, prediction)
        found.append(before.holds)
        assert len(before.turning) <= when.within
    assert found == by_hand(when, faults)


RULES = st.one_of(
    st.just(rule("on-change")),
    st.floats(0.5, 20).map(lambda s: rule("every", every=s)),
    st.floats(0.5, 20).map(lambda s: rule("on-change", every=s)),
    st.builds(lambda when, s: rule("when", when=when, every=s), WHENS, st.none() | st.floats(0.5, 20)),
)


@given(RULES, FAULTS)
def test_whoever_hears_what_is_told_knows_what_all_said(binding: Binding, faults: list[float | None]) -> None:
    """The last that was told says what the newest says, as far as the rule goes, and is no older than `every`."""
    before, last = None, None
    for prediction in stream(faults):
        before, tell = decide(binding, before, prediction)
        if tell:
            last = (prediction, before)
        assert last is not None
        assert last[1].said == before.said and last[1].holds == before.holds
        assert binding.every is None or prediction.ts - last[0].ts < binding.every or tell


@pytest.mark.parametrize("wrong", [{"of": 0}, {"of": 3, "within": 2}, {"within": 101}, {"below": 0.9}])
def test_conditions_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="when: "):
        When(0.8, "fault", **wrong)  # type: ignore[arg-type]
