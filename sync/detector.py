"""Has this device's world changed since its model was committed? One detector a device and model, for all its streams.

Theory. The device's first drift windows after commit are its *baseline*, split in time order: the first half fixes
bins and reference histogram, the second half gives *calibration scores*. A later window's score (its distance to the
reference) is ranked among them: p = (1 + #{calibration >= score}) / (m + 1), ties counted against an alarm. A small p
becomes a bet e(p) that wins nothing on average while nothing has changed, and the Shiryaev-Roberts statistic
R = (R + 1) e collects the bets of every possible time of change. At most 16 detectors take turns: streams whose
windows stay alike for more than 8 windows need larger windows, or the promise below is not kept (docs/adr/0013).

Neighbouring windows resemble each other, which would let one odd stretch win many bets in a row. So b detectors take
turns, window t feeding detector t mod b, and the alarm is on the mean of R over streams and detectors: R >= A. If the
windows of each turn rank like calibration windows, the chance of a false alarm in n windows is at most n / A, however
the turns depend on each other (each R exceeds A within n/b windows with a chance of at most n/bA; there are b).
The calibration is a sample, and windows that stay alike count once in it: where it holds few, an unlucky device's bets
win on average, and no level keeps it quiet. Hence a baseline of some 80 lags (docs/adr/0013 has the figures).

A statistical alarm without a material effect (debiased PSI of the newest windows) is a notice, not an alarm. Only the
windows decide: cut differently into pushes, or replayed from a state, they give the same verdicts.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from sync.distances import distance, psi
from sync.manifest import Drift
from sync.sketch import (
    COUNTERS,
    MAX_STREAMS,
    Bins,
    Counts,
    Floats,
    Rows,
    Sketch,
    Stream,
    WindowCounter,
    check_rows,
    count,
    fit,
    of_array,
)

LEAST_TURNS, MOST_TURNS = 8, 16
WEAK = 0.1  # autocorrelation below which windows count as unrelated


class Status(StrEnum):
    NOT_CALIBRATED = "not_calibrated"
    QUIET = "quiet"
    NOTICE = "notice"  # statistically changed, immaterial
    ALARM = "alarm"


class Drifted(msgspec.Struct, frozen=True):
    """A stream named in a verdict: its own statistic (mean over the detectors) and its effect (debiased PSI)."""

    stream: str
    statistic: float
    effect: float


class Verdict(msgspec.Struct, frozen=True):
    """What one drift window led to. `window` counts from the commit, `statistic` is compared with A."""

    window: int
    status: Status
    statistic: float = 0.0
    drifted: tuple[Drifted, ...] = ()


class Baseline(msgspec.Struct, frozen=True):
    """What the device looked like after commit; `scores` are (m windows, streams), in time order."""

    bins: tuple[Bins, ...]
    reference: Sketch
    scores: tuple[tuple[float, ...], ...] = ()


class State(msgspec.Struct, frozen=True):
    """Everything a detector remembers. Arrays are little endian."""

    rule: Drift
    streams: tuple[Stream, ...]
    gathered: bytes = b""  # float32 (rows, streams) of the reference, until the bins are fixed
    baseline: Baseline | None = None
    partial: Sketch | None = None  # the unfinished drift window
    windows: int = 0  # finished since the commit
    collected: bytes = b""  # float64 (b, streams), the statistics R
    recent: bytes = b""  # uint16 (windows, streams, 20), the newest finished windows
    first_alarm: int | None = None  # the window of the first ALARM


def split(baseline: int) -> tuple[int, int]:
    """How many baseline windows make the reference, and how many calibrate after them."""
    return baseline // 2, baseline - baseline // 2


def e_value(p: npt.ArrayLike) -> Floats:
    """The bet (1 - p + p ln p) / (p ln^2 p): its mean is 1 for a uniform p in (0, 1], and 1/2 at p = 1."""
    p = np.asarray(p, np.float64)
    x = -np.log(p)
    near = x < 1e-4  # both sides of the fraction vanish; 1/2 + x/6 is exact to x^2 there
    safe = np.where(near, 1.0, x)
    away = (1 - p - p * safe) / (p * safe**2)
    return np.asarray(np.where(near, 0.5 + x / 6, away), np.float64)


def decorrelation_lag(scores: npt.ArrayLike) -> int:
    """Smallest lag at which the autocorrelation of `scores` (m, streams) is below 0.1, for the slowest stream.

    A stream that never comes below counts with m.
    """
    x = np.asarray(scores, np.float64)
    x = x - x.mean(axis=0)
    return max(_lag(x[:, i]) for i in range(x.shape[1]))


def _lag(x: Floats) -> int:
    power = float((x**2).mean())
    if power == 0:
        return 1
    for lag in range(1, len(x)):
        if abs(float((x[:-lag] * x[lag:]).mean())) < WEAK * power:
            return lag
    return len(x)


def turns_for(scores: npt.ArrayLike) -> int:
    """b: twice the lag after which calibration windows no longer resemble each other, kept within 8 to 16."""
    return min(max(2 * decorrelation_lag(scores), LEAST_TURNS), MOST_TURNS)


class Detector:
    """Watches the streams of one model on one device. One caller feeds it; `state` continues an earlier one.

    Raises ValueError if the state does not fit together, for a rule that cannot work, no streams, or more than 64.
    """

    def __init__(self, state: State) -> None:
        if wrong := state.rule.complaint():
            raise ValueError(wrong)
        if not 1 <= len(state.streams) <= MAX_STREAMS:
            raise ValueError(f"{len(state.streams)} streams: between 1 and {MAX_STREAMS} can be watched")
        self._rule, self._streams = state.rule, state.streams
        self._windows, self._first_alarm = state.windows, state.first_alarm
        gathered = np.frombuffer(state.gathered, "<f4").reshape(-1, len(state.streams))
        self._gathered: list[Rows] = [gathered] if len(gathered) else []
        self._counter: WindowCounter | None = None
        self._scores: list[tuple[float, ...]] = []
        recent = np.frombuffer(state.recent, "<u2").reshape(-1, len(state.streams), COUNTERS)
        self._recent = deque(recent, self._rule.recent)  # counters of the newest windows
        self._r: Floats | None = None
        if state.baseline is not None:
            self._bins, self._reference = state.baseline.bins, state.baseline.reference.array()
            self._counter = WindowCounter(self._bins, self._rule.window, state.partial)
            self._scores = list(state.baseline.scores)
            self._open_watch(state.collected)

    @property
    def turns(self) -> int | None:
        """b, once the baseline is complete."""
        return None if self._r is None else len(self._r)

    def push(self, rows: npt.ArrayLike) -> tuple[Verdict, ...]:
        """Takes rows (n, streams) in event order; returns one verdict for every drift window they complete.

        Raises ValueError if the shape does not fit; nothing is taken in then.
        """
        left = check_rows(rows, len(self._streams))
        verdicts: list[Verdict] = []
        if self._counter is None:
            left = self._gather(left, verdicts)
        if self._counter is not None:
            verdicts += self._judge(self._counter.push(left))
        return tuple(verdicts)

    def newest(self) -> Sketch | None:
        """The counters of the newest finished drift window; None before the bins are fixed."""
        return of_array(self._bins, self._recent[-1].astype(np.int64)) if self._recent else None

    def state(self) -> State:
        """All it remembers, to be kept and handed to a new detector."""
        state = State(self._rule, self._streams, windows=self._windows, first_alarm=self._first_alarm)
        if self._counter is None:
            gathered = np.concatenate(self._gathered).astype("<f4").tobytes() if self._gathered else b""
            return msgspec.structs.replace(state, gathered=gathered)
        partial = self._counter.checkpoint()
        reference = Sketch(partial.bins, tuple(map(tuple, self._reference.tolist())))
        return msgspec.structs.replace(
            state,
            baseline=Baseline(self._bins, reference, tuple(self._scores)),
            partial=partial,
            collected=b"" if self._r is None else self._r.astype("<f8").tobytes(),
            recent=b"".join(counts.astype("<u2").tobytes() for counts in self._recent),
        )

    def _gather(self, rows: Rows, verdicts: list[Verdict]) -> Rows:
        """Keeps rows until the reference is complete, then fixes the bins; returns the rows behind it."""
        have = sum(len(part) for part in self._gathered)
        need = split(self._rule.baseline)[0] * self._rule.window
        taken = rows[: need - have]
        if len(taken):
            self._gathered.append(taken.copy())
        finished = (have + len(taken)) // self._rule.window
        verdicts += [Verdict(number, Status.NOT_CALIBRATED) for number in range(self._windows, finished)]
        self._windows = finished
        if have + len(taken) == need:
            reference = np.concatenate(self._gathered)
            self._bins = fit(self._streams, reference)
            self._reference = count(self._bins, reference).array()
            self._counter = WindowCounter(self._bins, self._rule.window)
            self._gathered = []
        return rows[len(taken) :]

    def _open_watch(self, collected: bytes) -> None:
        """Once the calibration is complete: sorts its scores, chooses b, sets the statistics going."""
        need = split(self._rule.baseline)[1]
        if len(self._scores) > need or any(len(row) != len(self._streams) for row in self._scores):
            raise ValueError("the calibration scores do not fit the rule or the streams")
        if len(self._scores) < need:
            return
        scores = np.array(self._scores)
        turns = self._rule.turns or turns_for(scores)
        self._calibration = scores
        self._bets = e_value(np.arange(1, need + 2) / (need + 1))  # every value a bet can take
        kept = np.frombuffer(collected, "<f8") if collected else np.zeros(turns * len(self._streams))
        self._r = kept.reshape(turns, len(self._streams)).copy()

    def _judge(self, windows: Counts) -> list[Verdict]:
        # All at once: a score is a sum over the counters of its own window alone, so batching changes no rounding.
        scores = distance(windows, self._reference) if len(windows) else np.zeros(0)
        return [self._weigh(counts, score) for counts, score in zip(windows.astype(np.uint16), scores, strict=True)]

    def _weigh(self, counts: npt.NDArray[np.uint16], score: Floats) -> Verdict:
        number, self._windows = self._windows, self._windows + 1
        self._recent.append(counts)
        if self._r is None:
            self._scores.append(tuple(float(one) for one in score))
            self._open_watch(b"")
            return Verdict(number, Status.NOT_CALIBRATED)
        self._bet(self._r[(number - self._rule.baseline) % len(self._r)], score)
        return self._conclude(number, self._r)

    def _bet(self, r: Floats, score: Floats) -> None:
        """R = (R + 1) e, in place, for the detector whose turn it is."""
        at_least_as_far = (self._calibration >= score).view(np.uint8).sum(axis=0, dtype=np.intp)
        r[:] = (r + 1) * self._bets[at_least_as_far]
        # At this level one stream of one detector alarms alone, so no first alarm moves, and R can come down again.
        np.minimum(r, self._rule.alarm * r.size * (self.turns or 1), out=r)

    def _conclude(self, number: int, r: Floats) -> Verdict:
        statistic = float(r.mean())
        if statistic < self._rule.alarm:
            return Verdict(number, Status.QUIET, statistic)
        own = r.mean(axis=0)
        effects = psi(np.sum(self._recent, axis=0, dtype=np.int64), self._reference)
        named = tuple(
            Drifted(stream.name, float(own[i]), float(effects[i]))
            for i, stream in enumerate(self._streams)
            if own[i] >= self._rule.alarm
        )
        material = tuple(one for one in named if one.effect > self._rule.material)
        if not material:
            return Verdict(number, Status.NOTICE, statistic, named)
        if self._first_alarm is None:
            self._first_alarm = number
        return Verdict(number, Status.ALARM, statistic, material)


def watch(streams: tuple[Stream, ...], rule: Drift | None = None) -> Detector:
    """A fresh detector, to be fed from the first row after commit."""
    return Detector(State(rule or Drift(), streams))
