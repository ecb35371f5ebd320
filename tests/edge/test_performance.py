"""What a device counts of its releases: once, in intervals that add up to all that was asked of them."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from edge.http.metrics import Metrics
from edge.performance import EVERY, Performance
from sync import codec
from sync.messages import Prediction
from sync.performance import MOST_CLASSES, Interval, Tally, believed
from tests.edge.graphs import MODEL

NOW = 1.8e9


def said(probabilities: tuple[float, ...] = (0.1, 0.9), release: int | None = 1, **other: object) -> Prediction:
    classes = tuple(f"c{i}" for i in range(len(probabilities)))
    value = classes[probabilities.index(max(probabilities))]
    found = Prediction("p", MODEL, NOW, "ok", value, probabilities, classes, release=release)
    return replace(found, **other)  # type: ignore[arg-type]


class Counter:
    """One model's counters, and what was told of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.performance = Performance(self.metrics.counted)
        self.release: int | None = 1
        self.elapsed = 0.0
        self.told: list[Interval] = []
        self.go_on(0.0)

    def go_on(self, seconds: float, *, ending: bool = False, takes: bool = True) -> list[Interval]:
        self.elapsed += seconds
        answering = {MODEL: self.release}
        found = list(self.performance.due(answering, NOW + self.elapsed, self.elapsed, ending=ending))
        if takes:
            for one in found:
                self.performance.told(one)
            self.performance.turn(answering, self.elapsed)
            self.told += found
        return found

    def answer(self, times: int = 1, release: int = 1) -> None:
        for _ in range(times):
            self.metrics.observe(MODEL, release, 0.002, 1)
            self.performance.see(said(release=release))


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_an_interval_is_told_when_it_is_over_and_once(counter: Counter) -> None:
    counter.answer(3)
    counter.metrics.observe(MODEL, 1, 0.5, 0)
    assert counter.go_on(EVERY - 1) == []
    (found,) = counter.go_on(1)
    assert (found.number, found.span, found.until) == (1, EVERY, NOW + EVERY)
    assert (found.tally.answers, found.tally.errors, sum(found.tally.latency)) == (3, 1, 4)
    assert believed(found.tally) == (pytest.approx(0.9), 3)
    assert counter.go_on(EVERY) == [], "who is not asked costs nothing"


def test_what_was_not_taken_comes_again_with_what_came_since(counter: Counter) -> None:
    counter.answer(2)
    assert counter.go_on(EVERY, takes=False)[0].tally.answers == 2
    counter.answer()
    (found,) = counter.go_on(1)
    assert (found.tally.answers, found.span) == (3, EVERY + 1)


def test_another_release_ends_the_interval_and_neither_counts_for_the_other(counter: Counter) -> None:
    counter.answer(2)
    counter.go_on(100)
    counter.release = 2
    counter.answer(1, release=2)  # before anybody looked
    told = {one.number: one.tally.answers for one in counter.go_on(1)}
    assert told == {1: 2, 2: 1}
    counter.answer(4, release=2)
    (found,) = counter.go_on(50, ending=True)
    assert (found.number, found.tally.answers, found.span) == (2, 4, 50)


def test_intervals_add_up_to_all_that_was_counted(counter: Counter) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        counter.release = int(rng.integers(1, 4))
        counter.answer(int(rng.integers(0, 5)), release=int(rng.integers(1, 4)))
        counter.go_on(float(rng.choice([1.0, 900.0, 4000.0])), takes=bool(rng.integers(0, 2)))
    counter.go_on(1, ending=True)
    sums: dict[int, Tally] = {}
    for one in counter.told:
        sums[one.number] = sums.get(one.number, Tally()).merge(one.tally)
    for (_, release), whole in counter.metrics.counted().items():
        found = sums[release]
        assert (found.answers, found.latency) == (whole.answers, whole.latency)
        assert believed(found) == (pytest.approx(0.9), whole.answers)


@pytest.mark.parametrize(
    "quiet", [said(release=None), said(value=3.0), said((1.0,)), replace(said(), probabilities=(), classes=())]
)
def test_what_is_no_choice_from_classes_is_not_counted(counter: Counter, quiet: Prediction) -> None:
    counter.performance.see(quiet)
    assert counter.go_on(EVERY) == []


def test_outputs_that_are_no_probabilities_give_no_estimate(counter: Counter) -> None:
    counter.answer(5)
    counter.performance.see(said((-3.0, 4.0)))
    (found,) = counter.go_on(EVERY)
    assert found.tally.unlike == 1 and believed(found.tally) is None


def test_many_classes_or_long_names_count_as_one(counter: Counter) -> None:
    odds = (0.9, *[0.1 / MOST_CLASSES] * MOST_CLASSES)
    counter.performance.see(said(odds))
    counter.performance.see(said((0.2, 0.8), release=2, classes=("a", "b" * 5000), value="b" * 5000))
    assert [list(one.tally.confidence) for one in counter.go_on(EVERY)] == [[""], [""]]


def test_a_clock_that_says_any_time_costs_no_count(counter: Counter) -> None:
    for now in (-1e18, 1e18):
        counter.answer()
        (found,) = counter.performance.due({MODEL: 2}, now, 1e12)
        assert codec.decode(Interval, codec.encode(found)) == found
