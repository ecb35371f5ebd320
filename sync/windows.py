"""The one window kernel: training and serving call exactly this, so their windows cannot differ.

Theory. Rows of one entity arrive with event times. A *segment* is a run of rows without a gap of more than
`max_gap`; every row has an index in its segment, counted by `round(dt / period)` from its predecessor (so
clock drift of a sensor does not add up to holes). Window j of a segment covers the indices [j*step, j*step +
size) and leaves when a row with its last index, or a later one, arrives. A window with a hole is not
`complete`: whoever serves marks it `warming`. A row that would share the index of the newest row is dropped.
A row from the past counts its index from the row before it *in the ring*; it fills a hole or is dropped
(repeated deliveries). The result depends on the order of the rows alone, never on how they were cut into
pushes. Times must be finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from sync.features import WindowSpec

Rows = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Window:
    """One window: `values` is (size, channels) float32, NaN in holes; times of the first and last index."""

    start: float
    end: float
    values: Rows
    complete: bool


class Checkpoint(msgspec.Struct, frozen=True):
    """Everything a kernel remembers, so that a restart continues mid-window."""

    last_ts: float | None
    last_index: int
    next_end: int
    ring: bytes  # float32, little endian, (size, channels), oldest first
    times: bytes  # float64, little endian, (size,), NaN where no row came


class WindowKernel:
    """Cuts the rows of one entity into windows. Not thread-safe; one caller feeds it."""

    def __init__(self, spec: WindowSpec, checkpoint: Checkpoint | None = None) -> None:
        self.spec = spec
        self._ring = np.full((spec.size, len(spec.channels)), np.nan, np.float32)
        self._times = np.full(spec.size, np.nan, np.float64)
        self._last_ts: float | None = None
        self._last_index = -1
        self._next_end = spec.size - 1
        if checkpoint is not None and self._fits(checkpoint):
            self._last_ts = checkpoint.last_ts
            self._last_index = checkpoint.last_index
            self._next_end = checkpoint.next_end
            self._ring = np.frombuffer(checkpoint.ring, "<f4").reshape(self._ring.shape).copy()
            self._times = np.frombuffer(checkpoint.times, "<f8").copy()

    def _fits(self, checkpoint: Checkpoint) -> bool:
        return len(checkpoint.ring) == self._ring.nbytes and len(checkpoint.times) == self._times.nbytes

    @property
    def last_ts(self) -> float | None:
        """The time of the newest row; None before the first."""
        return self._last_ts

    def latest(self) -> Window | None:
        """The newest `size` rows, whether or not a window ends with them; None before the first row."""
        if self._last_ts is None:
            return None
        start = self._last_ts - (self.spec.size - 1) * self.spec.period
        return Window(start, self._last_ts, self._ring.copy(), not bool(np.isnan(self._ring).all(axis=1).any()))

    def checkpoint(self) -> Checkpoint:
        ring, times = self._ring.astype("<f4").tobytes(), self._times.astype("<f8").tobytes()
        return Checkpoint(self._last_ts, self._last_index, self._next_end, ring, times)

    def push(self, ts: Times, rows: Rows) -> tuple[Window, ...]:
        """Takes n rows in arrival order, `ts` (n,) and `rows` (n, channels); returns the windows completed.

        Raises ValueError if shapes do not fit or a time is not finite; nothing is taken in then.
        """
        ts = np.asarray(ts, np.float64)
        rows = np.asarray(rows, np.float32)
        if ts.ndim != 1 or rows.shape != (len(ts), len(self.spec.channels)):
            raise ValueError(f"rows are {rows.shape}, times {ts.shape}; channels: {self.spec.channels}")
        if not np.isfinite(ts).all():
            raise ValueError("a time is not finite")
        with np.errstate(over="ignore"):  # two finite times may lie further apart than a number can say
            gaps = np.diff(ts)
        steps = np.rint(np.clip(gaps, -self.spec.max_gap, self.spec.max_gap) / self.spec.period)
        breaks = np.append(np.flatnonzero((steps < 1) | (gaps > self.spec.max_gap)) + 1, len(ts))
        windows: list[Window] = []
        at = 0
        while at < len(ts):
            first = self._place(float(ts[at]))
            if first is None:
                self._fill_hole(float(ts[at]), rows[at])
                at += 1
                continue
            stop = int(breaks[np.searchsorted(breaks, at, side="right")])
            index = first + np.concatenate(([0], np.cumsum(steps[at : stop - 1]))).astype(np.int64)
            windows += self._append(index, rows[at:stop], ts[at:stop])
            at = stop
        return tuple(windows)

    def _place(self, ts: float) -> int | None:
        """The index of a row that goes on, opening a segment where a gap asks for it; None if it does not."""
        if self._last_ts is None or ts - self._last_ts > self.spec.max_gap:
            self._open_segment()
            return 0
        ahead = round(max(ts - self._last_ts, -self.spec.max_gap) / self.spec.period)
        return self._last_index + ahead if ahead >= 1 else None

    def _open_segment(self) -> None:
        self._ring[:] = np.nan
        self._times[:] = np.nan
        self._last_index = -1
        self._next_end = self.spec.size - 1

    def _fill_hole(self, ts: float, row: Rows) -> None:
        """Counts from the row before it, not from the newest, so that a repeated row meets its own slot."""
        before = np.flatnonzero(self._times <= ts)
        if len(before) == 0:
            return  # older than the ring, or of an earlier segment
        known = int(before[-1])
        slot = known + round((ts - float(self._times[known])) / self.spec.period)
        # Not only its own slot must be free: rounding must not carry it past a row that came after it.
        if known < slot < self.spec.size and np.isnan(self._times[known + 1 : slot + 1]).all():
            self._ring[slot] = row
            self._times[slot] = ts

    def _append(self, index: npt.NDArray[np.int64], rows: Rows, ts: Times) -> list[Window]:
        """Lays ring and new rows on one grid of indices, cuts every window that is due, keeps the tail."""
        size, step = self.spec.size, self.spec.step
        base = self._last_index - size + 1  # index of the grid's first row
        head = int(index[-1])
        grid = np.full((head - base + 1, rows.shape[1]), np.nan, np.float32)
        times = np.full(head - base + 1, np.nan, np.float64)
        grid[:size], times[:size] = self._ring, self._times
        grid[index - base], times[index - base] = rows, ts
        windows = []
        while self._next_end <= head:
            stop = self._next_end - base + 1
            values = grid[stop - size : stop].copy()
            by = int(np.searchsorted(index, self._next_end))  # the row whose arrival lets this window go
            end = float(ts[by] - (index[by] - self._next_end) * self.spec.period)
            # A row is present if any channel is: a sensor may well send NaN in one of them.
            complete = not np.isnan(values).all(axis=1).any()
            windows.append(Window(end - (size - 1) * self.spec.period, end, values, complete))
            self._next_end += step
        self._ring, self._times = grid[-size:].copy(), times[-size:].copy()
        self._last_index = head
        self._last_ts = float(ts[-1])
        return windows


def cut(spec: WindowSpec, ts: Times, rows: Rows) -> tuple[Window, ...]:
    """All windows of a finished recording, by the same kernel."""
    return WindowKernel(spec).push(ts, rows)
