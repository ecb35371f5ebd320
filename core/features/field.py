"""Windows as devices saw them: labelled samples of the lake, each prediction once, split in time.

A sample is a whole window under one prediction id (`core.ingest.samples` has its columns). The same prediction may have
come up several times, with other labels, and the same readings under several ids where a stream was sent twice: the
newest label counts, and equal windows count once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.project import View

COLUMNS = ("prediction", "device", "entity", "label")
BATCH = "batch"  # rises with every batch of a device
_FINGERPRINT = 16  # bytes of a digest: two different windows never meet


@dataclass(frozen=True)
class Seen:
    """Windows of one stretch or of all: x (n, size, channels) float32; label, stream (`device/entity`) and the event
    time of the last row (n,)."""

    x: npt.NDArray[np.float32]
    label: npt.NDArray[np.str_]
    stream: npt.NDArray[np.str_]
    end: npt.NDArray[np.float64]

    def take(self, index: npt.NDArray[np.intp]) -> Seen:
        return Seen(self.x[index], self.label[index], self.stream[index], self.end[index])


def windows(view: View, table: pa.Table, time: str, known: Iterable[npt.NDArray[np.float32]] = ()) -> Seen:
    """The labelled windows of a samples table, in order of (stream, time), each once.

    Left out are samples without a label, with a missing row or a value that is not finite, and those whose window is
    one of `known`.
    """
    rows = _order(table, time)
    starts = _whole(rows, view.window.size)
    chosen = _newest(rows, starts)
    index = chosen[:, None] + np.arange(view.window.size)
    channels = [np.asarray(table.column(c)).astype(np.float32)[rows.order] for c in view.window.channels]
    x = np.stack(channels, axis=1)[index]
    last = index[:, -1]
    stream = np.char.add(np.char.add(rows.device[last], "/"), rows.entity[last])
    seen = Seen(x, rows.label[last], stream, rows.time[last])
    finite = np.flatnonzero(np.isfinite(x).all(axis=(1, 2)))
    seen = _once(seen.take(finite), {fingerprint(window) for window in known})
    return seen.take(np.lexsort((seen.end, seen.stream)))


def split(seen: Seen, fit: tuple[float, float], gate: tuple[float, float], length: float, period: float) -> list[Seen]:
    """[fit, gate]: the two stretches of the windows of each label in each stream, as fractions of their number.

    By label, for what is done one after the other would otherwise be learned or judged, never both. A window is
    `length` seconds from its first row to its last; a gate window that shares readings with a fit window is left out.
    """
    parts = [_stretch(seen, fit), _stretch(seen, gate)]
    parts[1] = parts[1][~_touching(seen, parts[1], parts[0], length + period / 2)]
    return [seen.take(part) for part in parts]


def _stretch(seen: Seen, stretch: tuple[float, float]) -> npt.NDArray[np.intp]:
    """Which windows lie in this stretch of their label in their stream, in the order they have."""
    chosen = []
    for stream in np.unique(seen.stream):
        for label in np.unique(seen.label[seen.stream == stream]):
            index = np.flatnonzero((seen.stream == stream) & (seen.label == label))
            chosen.append(index[int(len(index) * stretch[0]) : int(len(index) * stretch[1])])
    return np.sort(np.concatenate(chosen or [np.empty(0, np.intp)]))


def _touching(
    seen: Seen, some: npt.NDArray[np.intp], others: npt.NDArray[np.intp], reach: float
) -> npt.NDArray[np.bool_]:
    """Which of `some` end less than `reach` seconds from one of `others` in the same stream."""
    found = np.zeros(len(some), bool)
    for stream in np.unique(seen.stream[some]):
        here = np.flatnonzero(seen.stream[some] == stream)
        ends = np.sort(seen.end[others[seen.stream[others] == stream]])
        if len(ends):
            mine = seen.end[some[here]]
            after = np.searchsorted(ends, mine)
            gap = np.minimum(abs(mine - ends[after.clip(max=len(ends) - 1)]), abs(mine - ends[(after - 1).clip(min=0)]))
            found[here] = gap < reach
    return found


def fingerprint(window: npt.NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(window, "<f4").tobytes(), digest_size=_FINGERPRINT).digest()


@dataclass(frozen=True)
class _Rows:
    """Columns in order of (device, prediction, batch, time); `order` brings those of the table into it."""

    order: npt.NDArray[np.intp]
    device: npt.NDArray[np.str_]
    prediction: npt.NDArray[np.str_]
    entity: npt.NDArray[np.str_]
    label: npt.NDArray[np.str_]
    batch: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]


def _order(table: pa.Table, time: str) -> _Rows:
    prediction, device, entity, label = (_text(table.column(c)) for c in COLUMNS)
    batch = np.asarray(table.column(BATCH), np.int64)
    seconds = np.asarray(table.column(time), np.float64)
    order = np.lexsort((seconds, batch, prediction, device))
    return _Rows(order, device[order], prediction[order], entity[order], label[order], batch[order], seconds[order])


def _text(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    return np.asarray(pc.fill_null(column, "").to_pylist(), np.str_)


def _whole(rows: _Rows, size: int) -> npt.NDArray[np.intp]:
    """Where each sample begins that has all its rows and a label."""
    if not len(rows.batch):
        return np.empty(0, np.intp)
    new = (
        (rows.device[1:] != rows.device[:-1])
        | (rows.prediction[1:] != rows.prediction[:-1])
        | (rows.batch[1:] != rows.batch[:-1])
    )
    starts = np.concatenate(([0], 1 + np.flatnonzero(new)))
    whole = np.diff(np.append(starts, len(rows.batch))) == size
    kept: npt.NDArray[np.intp] = starts[whole & (rows.label[starts] != "")].astype(np.intp)
    return kept


def _newest(rows: _Rows, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of the samples of one prediction, which stand side by side, the one of the newest batch."""
    if not len(starts):
        return starts
    same = (rows.device[starts[1:]] == rows.device[starts[:-1]]) & (
        rows.prediction[starts[1:]] == rows.prediction[starts[:-1]]
    )
    last: npt.NDArray[np.intp] = starts[np.append(~same, True)]
    return last


def _once(seen: Seen, known: set[bytes]) -> Seen:
    """Of equal windows the latest, none that is known."""
    kept: dict[bytes, int] = {}
    for i in np.lexsort((seen.stream, seen.end)):
        mark = fingerprint(seen.x[i])
        if mark not in known:
            kept[mark] = int(i)
    return seen.take(np.array(sorted(kept.values()), np.intp))
