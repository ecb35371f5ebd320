"""How the releases of this device do, told in intervals: what was counted of each since the last one.

Answers, errors and times are counted on the way of every answer, once, for /metrics as well (`Counted`). How sure a
model is of its answers is counted here, of those that are remembered: all that bindings answer, and of what programs
ask the sample that `edge.recording` drains. Nothing is kept on disk: a kill costs what was not told yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sync import codec
from sync.messages import Prediction
from sync.names import ModelName
from sync.performance import (
    BINS,
    FARTHEST,
    LONGEST,
    MOST_CLASSES,
    NAME,
    UNIT,
    Confidence,
    Interval,
    Tally,
    share_bin,
)

EVERY = 3600.0  # seconds of an interval, unless another release takes over before
NAMES = 4096  # bytes that the names of a model's classes may take; of longer ones all answers count as one class
ROUNDED = 0.02  # by so much outputs of quantized graphs may miss 1 together, and are probabilities all the same

Key = tuple[ModelName, int]
Counted = Callable[[], Mapping[Key, Tally]]  # answers, errors and times since this process began


@dataclass(slots=True)
class _Seen:
    """What was seen of one release since this process began."""

    told_apart: bool  # its classes
    classes: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    unlike: int = 0

    def tally(self) -> Tally:
        classes = {name: Confidence(tuple(counts), tuple(sums)) for name, (counts, sums) in self.classes.items()}
        return Tally(confidence=classes, unlike=self.unlike)


@dataclass(frozen=True, slots=True)
class _Turn:
    """Which release answered when the interval of its model began, and when that was."""

    release: int | None
    began: float


class Performance:
    """The counters of one device. `see` may be called from any thread, all else by the walker's."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted
        self._lock = threading.Lock()
        self._seen: dict[Key, _Seen] = {}
        self._told: dict[Key, Tally] = {}
        self._turns: dict[ModelName, _Turn] = {}

    def see(self, prediction: Prediction) -> None:
        """Counts how sure a release was of an answer; nothing where it did not choose from classes."""
        odds, value, release = prediction.probabilities, prediction.value, prediction.release
        if release is None or len(odds) < 2 or not isinstance(value, str):
            return
        top = max(odds)
        sure = min(odds) >= 0 and abs(sum(odds) - 1) <= ROUNDED
        with self._lock:
            seen = self._seen.get((prediction.model, release))
            if seen is None:
                seen = self._seen[prediction.model, release] = _Seen(_told_apart(prediction.classes))
            if not sure:
                seen.unlike += 1
                return
            counts, sums = seen.classes.setdefault(value if seen.told_apart else "", ([0] * BINS, [0] * BINS))
            place = share_bin(top)
            counts[place] += 1
            sums[place] += round(min(top, 1.0) * UNIT)

    def due(
        self, answering: Mapping[ModelName, int | None], now: float, elapsed: float, *, ending: bool = False
    ) -> tuple[Interval, ...]:
        """The intervals that are over, of every release that was asked in them: an hour after the last, where another
        release took over, and all at the end of the process. `answering` is the release that answers for each model;
        `elapsed` counts seconds and never jumps. Whoever takes one says so (`told`), else it comes again."""
        over = {model for model in (*self._turns, *answering) if ending or self._is_over(model, answering, elapsed)}
        if not over:
            return ()
        found = []
        for key, tally in self._totals(over).items():
            fresh = tally.minus(self._told.get(key, Tally()))
            if fresh:
                began = self._turns[key[0]].began if key[0] in self._turns else elapsed
                span, until = min(max(elapsed - began, 0.0), LONGEST), min(max(now, 0.0), FARTHEST)
                found.append(Interval(*key, until, span, fresh))
        return tuple(found)

    def told(self, interval: Interval) -> None:
        """It lies in the outbox: what is in it is not told again."""
        key = interval.model, interval.number
        self._told[key] = self._told.get(key, Tally()).merge(interval.tally)

    def turn(self, answering: Mapping[ModelName, int | None], elapsed: float) -> None:
        """All that was due was told: intervals that are over begin anew."""
        for model in (*self._turns, *answering):
            if self._is_over(model, answering, elapsed):
                self._turns[model] = _Turn(answering.get(model), elapsed)

    def _is_over(self, model: ModelName, answering: Mapping[ModelName, int | None], elapsed: float) -> bool:
        turn = self._turns.get(model)
        return turn is None or turn.release != answering.get(model) or elapsed - turn.began >= EVERY

    def _totals(self, models: Iterable[ModelName]) -> dict[Key, Tally]:
        with self._lock:
            seen = {key: one.tally() for key, one in self._seen.items() if key[0] in models}
        found = {key: tally for key, tally in self._counted().items() if key[0] in models}
        return {key: found.get(key, Tally()).merge(seen.get(key, Tally())) for key in (*found, *seen)}


def _told_apart(classes: tuple[str, ...]) -> bool:
    short = all(len(name) <= NAME for name in classes) and len(codec.encode(classes)) <= NAMES
    return short and len(classes) <= MOST_CLASSES
