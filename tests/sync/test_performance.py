"""Tallies add up exactly, in any order; what they are asked is true of what was counted; no other is let in."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sync import codec
from sync.errors import Malformed
from sync.names import LAST, ModelName
from sync.performance import (
    BINS,
    BOUNDS,
    BUCKETS,
    MOST_CLASSES,
    NAME,
    UNIT,
    Confidence,
    Interval,
    Tally,
    believed,
    outside,
    share_bin,
    within,
)
from sync.sketch import Sketch

_count = st.one_of(st.integers(0, 1000), st.integers(LAST - 3, LAST))


def _row(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(_count, min_size=size, max_size=size).map(tuple)


_classes = st.dictionaries(st.sampled_from("abc"), st.builds(Confidence, _row(BINS), _row(BINS)), max_size=3)
tallies = st.builds(Tally, _count, _count, _row(BUCKETS), _classes, _count)


def counted(probabilities: list[float], seconds: list[float], name: str = "walk") -> Tally:
    """As a device counts."""
    counts, sums, latency = [0] * BINS, [0] * BINS, [0] * BUCKETS
    for one in probabilities:
        counts[share_bin(one)] += 1
        sums[share_bin(one)] += round(one * UNIT)
    for spent in seconds:
        latency[bisect_left(BOUNDS, spent)] += 1
    classes = {name: Confidence(tuple(counts), tuple(sums))} if probabilities else {}
    return Tally(len(seconds), 0, tuple(latency), classes)


def interval(**other: Any) -> Interval:
    tally = counted([0.9, 1.0, 0.52], [0.001])
    return replace(Interval(ModelName("motion"), 1, 1.8e9, 3600.0, tally), **other)


@settings(max_examples=25)
@given(tallies, tallies, tallies)
def test_tallies_add_up_in_any_order_and_stay_what_can_be_kept(a: Tally, b: Tally, c: Tally) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert codec.decode(Tally, codec.encode(a.merge(b).merge(c))) == a.merge(b).merge(c)


@given(st.lists(st.floats(0, 1), max_size=20), st.lists(st.floats(0, 1), max_size=20), st.integers(0, 20))
def test_what_came_since_is_the_rest(first: list[float], more: list[float], errors: int) -> None:
    earlier = counted(first, first)
    later = earlier.merge(replace(counted(more, more, "rest"), errors=errors))
    assert earlier.merge(later.minus(earlier)) == later
    assert not later.minus(later), "nothing is told twice"


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=30), min_size=1, max_size=4))
def test_the_estimate_of_a_fleet_is_the_mean_over_all_its_answers(devices: list[list[float]]) -> None:
    whole = Tally()
    for name, probabilities in zip("abcd", devices, strict=False):
        whole = whole.merge(counted(probabilities, [], name))
    every = [one for probabilities in devices for one in probabilities]
    found = believed(whole)
    assert found is not None and found[1] == len(every)
    assert found[0] == pytest.approx(np.mean(every), abs=1 / UNIT)
    assert believed(whole.together()) == found


def test_without_probabilities_there_is_no_estimate() -> None:
    assert believed(Tally(answers=5)) is None
    assert believed(replace(counted([0.9], []), unlike=1)) is None


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_bounded_by_the_end_of_its_bucket(seconds: list[float], share: float) -> None:
    least = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    bound = within(counted([], seconds), share)
    assert bound is not None and bound >= least
    assert bound == next((one for one in BOUNDS if one >= least), math.inf)
    assert within(Tally(), share) is None


def test_the_share_outside_is_of_each_stream() -> None:
    known, strange = (10, *[0] * 19), (5, *[0] * 15, 1, 2, 1, 1)
    found = interval(streams=("x", "y"), sketch=Sketch("b", (known, strange)))
    assert outside(found) == {"x": 0.0, "y": 0.5}
    assert outside(interval()) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"span":3600.0', '"span":-1'), ('"span":3600.0', '"span":1e999'), ('"span":3600.0', '"span":NaN'),
        ('"span":3600.0', '"span":1e12'), ('"until":1800000000.0', '"until":1e18'), ('"number":1', '"number":-1'),
        ('"number":1', f'"number":{2**63}'), ('"answers":1', '"answers":-1'), ('"answers":1', '"answers":1e300'),
        ('"unlike":0', '"unlike":-7'), ('"latency":[', '"latency":[0,'), ('"counts":[', '"counts":[0,'),
        ('"sums":[0', '"sums":[-1'), ('"sums":[0', '"sums":[1'), ("1000000", "1000002"), ('"v":1', '"v":2'),
        ('"streams":[]', '"streams":["x"]'), ('"model":"motion"', '"model":"a/b"'),
        ('"walk"', f'"{"w" * (NAME + 1)}"'), ('"streams":[]', '"sketch":{"bins":"b","counts":[[1,2]]}'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(old: str, new: str) -> None:
    said = codec.encode(interval()).decode()
    assert codec.decode(Interval, said.encode()) == interval()
    assert old in said
    with pytest.raises(Malformed):
        codec.decode(Interval, said.replace(old, new, 1).encode())


def test_no_more_classes_than_can_be_told_apart() -> None:
    many = {str(i): Confidence() for i in range(MOST_CLASSES + 1)}
    with pytest.raises(ValueError, match="told apart"):
        interval(tally=Tally(confidence=many))
