"""How a release does on a device, in counters: answers, errors, times and what it thinks of itself. The body of
`up/metrics`, and how such counters add up.

Theory. Every counter is a whole number, so tallies add up exactly, in any order, over intervals and devices. A time is
known by its bucket; whoever asks for a quantile is told the bucket's upper bound, which needs no assumption. The top
probability of an answer is counted by predicted class in 20 bins, each with the sum of what fell into it in millionths:
where the outputs are probabilities, and as honest as they claim to be, their mean is the share of right answers,
without any label. It cannot see a world in which the classes mean something else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

import msgspec

from sync.names import LAST, Count, ModelName
from sync.sketch import MAX_STREAMS, MISSING, Sketch

BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)  # seconds
BUCKETS = len(BOUNDS) + 1  # the last holds what took longer
BINS = 20
UNIT = 1_000_000  # of a probability
MOST_CLASSES = 64  # told apart; of models with more, all answers count as one class, whose name is empty
NAME = 256  # characters of the name of a class or a stream
LONGEST = 366 * 86_400.0  # seconds of an interval
FARTHEST = 1e11  # seconds since 1970: beyond any year that a clock can say
_NONE = (0,) * BINS


class Confidence(msgspec.Struct, frozen=True):
    """Answers of one predicted class by their top probability, and the sums of these, in millionths."""

    counts: tuple[Count, ...] = _NONE
    sums: tuple[Count, ...] = _NONE

    def __post_init__(self) -> None:
        if (len(self.counts), len(self.sums)) != (BINS, BINS):
            raise ValueError(f"a class has {BINS} counters and {BINS} sums")


class Tally(msgspec.Struct, frozen=True):
    """What was counted of one release. `latency` is of answers and errors, as each asker waited; `confidence` of the
    answers that were looked at, by predicted class; `unlike` are those whose outputs are no probabilities."""

    answers: Count = 0
    errors: Count = 0
    latency: tuple[Count, ...] = (0,) * BUCKETS
    confidence: dict[str, Confidence] = {}
    unlike: Count = 0

    def __post_init__(self) -> None:
        if len(self.latency) != BUCKETS:
            raise ValueError(f"a tally has {BUCKETS} buckets of time")

    def merge(self, other: Tally) -> Tally:
        """The sum of both; associative and commutative, also where a counter is full."""
        return _each(self, other, lambda a, b: min(a + b, LAST))

    def minus(self, earlier: Tally) -> Tally:
        """What came since `earlier`, which is part of this."""
        return _each(self, earlier, lambda a, b: a - b)

    def together(self) -> Tally:
        """The same with all classes as one."""
        whole = Tally()
        for one in self.confidence.values():
            whole = whole.merge(Tally(confidence={"": one}))
        return msgspec.structs.replace(self, confidence=whole.confidence)

    def __bool__(self) -> bool:
        return bool(self.answers or self.errors or self.confidence or self.unlike)


class Interval(msgspec.Struct, frozen=True):
    """One release on one device for `span` seconds that ended at `until` (its clock). Intervals of a release never
    overlap. `sketch` has the counters of the newest finished drift window, of the inputs in the order of `streams`,
    in bins that are this device's own."""

    model: ModelName
    number: Count
    until: float
    span: float
    tally: Tally
    streams: tuple[str, ...] = ()
    sketch: Sketch | None = None
    v: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.span <= LONGEST and 0 <= self.until <= FARTHEST):
            raise ValueError(f"an interval of {self.span} s that ended at {self.until} was never")
        if len(self.tally.confidence) > MOST_CLASSES:
            raise ValueError(f"at most {MOST_CLASSES} classes are told apart")
        if any(len(name) > NAME for name in (*self.tally.confidence, *self.streams)):
            raise ValueError(f"a class or a stream has a name of more than {NAME} characters")
        if not all(map(_possible, self.tally.confidence.values())):
            raise ValueError("a sum of probabilities is not what fell into its bin")
        if len(self.streams) > MAX_STREAMS or len(self.streams) != (len(self.sketch.counts) if self.sketch else 0):
            raise ValueError("the streams are not those of the sketch")


def share_bin(probability: float) -> int:
    """Where a probability is counted, one beyond 1 by a rounding in the last bin."""
    return min(max(int(probability * BINS), 0), BINS - 1)


def within(tally: Tally, share: float) -> float | None:
    """Seconds in which this share of the askers was answered: the upper bound of the bucket in which the last of them
    is, infinite beyond the last bound; None where nobody asked."""
    total = sum(tally.latency)
    if not total:
        return None
    least = math.ceil(share * total)
    place = next(i for i, n in enumerate(accumulate(tally.latency)) if n >= least)
    return BOUNDS[place] if place < len(BOUNDS) else math.inf


def believed(tally: Tally) -> tuple[float, int] | None:
    """(estimated accuracy, answers it is of): the mean top probability. None without any, and where outputs were seen
    that are no probabilities."""
    seen = sum(sum(one.counts) for one in tally.confidence.values())
    if not seen or tally.unlike:
        return None
    return sum(sum(one.sums) for one in tally.confidence.values()) / UNIT / seen, seen


def outside(interval: Interval) -> dict[str, float]:
    """The share of each stream's newest drift window that is missing, or not like anything the baseline had."""
    if interval.sketch is None or not interval.sketch.rows:
        return {}
    shares = (sum(counts[MISSING:]) / max(sum(counts), 1) for counts in interval.sketch.counts)
    return dict(zip(interval.streams, shares, strict=True))


def _each(one: Tally, other: Tally, reckon: Callable[[int, int], int]) -> Tally:
    every = {}
    for name in sorted({*one.confidence, *other.confidence}):
        a, b = one.confidence.get(name, Confidence()), other.confidence.get(name, Confidence())
        every[name] = Confidence(tuple(map(reckon, a.counts, b.counts)), tuple(map(reckon, a.sums, b.sums)))
    return Tally(
        reckon(one.answers, other.answers),
        reckon(one.errors, other.errors),
        tuple(map(reckon, one.latency, other.latency)),
        {name: found for name, found in every.items() if any(found.counts)},
        reckon(one.unlike, other.unlike),
    )


def _possible(one: Confidence) -> bool:
    """Whether each sum lies between the bounds of its bin, but for the rounding of each probability."""
    width, pairs = UNIT // BINS, enumerate(zip(one.counts, one.sums, strict=True))
    return all(i * width * n - n <= s <= (i + 1) * width * n + n for i, (n, s) in pairs)
