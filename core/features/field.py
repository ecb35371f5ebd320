"""Windows as devices saw them: labelled samples of the lake, each prediction once, split in time.

A sample is a whole window under one prediction id (`core.ingest.samples` has its columns). The same prediction may have
come up several times, with other labels, and the same readings under several ids where a stream was sent twice: the
newest label counts, and equal windows count once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.project import SAMPLE_BATCH, SAMPLE_COLUMNS, View
from core.quorum import quorum
from sync.names import DeviceId

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
    stream = np.char.add(np.char.add(rows.device.of(last), "/"), rows.entity.of(last))
    seen = Seen(x, rows.label.of(last), stream, rows.time[last])
    finite = np.flatnonzero(np.isfinite(x).all(axis=(1, 2)))
    seen = _once(seen.take(finite), {fingerprint(window) for window in known})
    return seen.take(np.lexsort((seen.end, seen.stream)))


def split(seen: Seen, stretches: Iterable[tuple[float, float]], length: float, period: float) -> list[Seen]:
    """These stretches of the windows of each label in each stream, as fractions of their number.

    By label, for what is done one after the other would otherwise be learned or judged, never both. A window is
    `length` seconds from its first row to its last; one that shares readings with a window of a stretch before its
    own is left out.
    """
    groups = _groups(seen.stream, seen.label)
    parts: list[npt.NDArray[np.intp]] = []
    for stretch in stretches:
        part, taken = _stretch(groups, stretch), np.concatenate([np.empty(0, np.intp), *parts])
        parts.append(part[~_touching(seen, part, taken, length + period / 2)])
    return [seen.take(part) for part in parts]


def capped(seen: Seen) -> tuple[Seen, Seen]:
    """(kept, left out): where no device may decide alone (`core.quorum`), none gives more windows than all others
    together. What is kept of one that does lies evenly over its windows, in their order."""
    device = np.char.partition(seen.stream, "/")[:, 0] if len(seen.stream) else seen.stream
    names, count = np.unique(device, return_counts=True)
    if quorum(len(names)) == 1 or 2 * count.max() <= len(device):
        return seen, seen.take(np.empty(0, np.intp))
    largest = np.flatnonzero(device == names[count.argmax()])
    most = len(device) - len(largest)
    keep = np.ones(len(device), bool)
    keep[largest] = False
    keep[largest[np.arange(most) * len(largest) // most]] = True
    return seen.take(np.flatnonzero(keep)), seen.take(np.flatnonzero(~keep))


def by_device(seen: Seen) -> dict[DeviceId, int]:
    """How many of the windows each device gave, by name."""
    found = Counter(str(stream).partition("/")[0] for stream in seen.stream)
    return {DeviceId(name): found[name] for name in sorted(found)}


def _groups(*names: npt.NDArray[np.str_]) -> list[npt.NDArray[np.intp]]:
    """Which places have the same names, in order of place each: sorted once, for a device may send any number of
    streams."""
    if not len(names[0]):
        return []
    codes = [np.unique(name, return_inverse=True)[1] for name in names]
    order = np.lexsort((np.arange(len(names[0])), *codes[::-1]))
    new = np.any([code[order][1:] != code[order][:-1] for code in codes], axis=0)
    return np.split(order, 1 + np.flatnonzero(new))


def _stretch(groups: list[npt.NDArray[np.intp]], stretch: tuple[float, float]) -> npt.NDArray[np.intp]:
    """Which windows lie in this stretch of their group, in the order they have."""
    chosen = [index[int(len(index) * stretch[0]) : int(len(index) * stretch[1])] for index in groups]
    return np.sort(np.concatenate(chosen or [np.empty(0, np.intp)]))


def _touching(
    seen: Seen, some: npt.NDArray[np.intp], others: npt.NDArray[np.intp], reach: float
) -> npt.NDArray[np.bool_]:
    """Which of `some` end less than `reach` seconds from one of `others` in the same stream."""
    found = np.zeros(len(some), bool)
    place = np.concatenate((some, others)).astype(np.intp)
    for group in _groups(seen.stream[place]):
        here, there = group[group < len(some)], group[group >= len(some)]
        if len(here) and len(there):
            ends = np.sort(seen.end[place[there]])
            mine = seen.end[place[here]]
            after = np.searchsorted(ends, mine)
            gap = np.minimum(abs(mine - ends[after.clip(max=len(ends) - 1)]), abs(mine - ends[(after - 1).clip(min=0)]))
            found[here] = gap < reach
    return found


def fingerprint(window: npt.NDArray[np.float32]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(window, "<f4").tobytes(), digest_size=_FINGERPRINT).digest()


@dataclass(frozen=True)
class _Words:
    """A column of text: places among its sorted names. An array of text is in each row as wide as its longest."""

    names: npt.NDArray[np.object_]
    code: npt.NDArray[np.int32]

    def of(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.str_]:
        chosen, places = np.unique(self.code[rows], return_inverse=True)
        return self.names[chosen].astype(np.str_)[places] if len(chosen) else np.empty(0, np.str_)

    def take(self, order: npt.NDArray[np.intp]) -> _Words:
        return _Words(self.names, self.code[order])


@dataclass(frozen=True)
class _Rows:
    """Columns in order of (device, prediction, batch, time); `order` brings those of the table into it."""

    order: npt.NDArray[np.intp]
    device: _Words
    prediction: npt.NDArray[np.int32]
    entity: _Words
    label: _Words
    batch: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]


def _order(table: pa.Table, time: str) -> _Rows:
    prediction, device, entity, label = (_words(table.column(c)) for c in SAMPLE_COLUMNS)
    batch = np.asarray(table.column(SAMPLE_BATCH), np.int64)
    seconds = np.asarray(table.column(time), np.float64)
    order = np.lexsort((seconds, batch, prediction.code, device.code))
    return _Rows(
        order, device.take(order), prediction.code[order], entity.take(order), label.take(order), batch[order],
        seconds[order],
    )  # fmt: skip


def _words(column: pa.ChunkedArray) -> _Words:
    found = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    names = np.array(found.dictionary.to_pylist(), np.object_)
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return _Words(names[order], rank[np.asarray(found.indices)] if len(names) else np.empty(0, np.int32))


def _whole(rows: _Rows, size: int) -> npt.NDArray[np.intp]:
    """Where each sample begins that has all its rows and a label."""
    if not len(rows.batch):
        return np.empty(0, np.intp)
    new = (
        (rows.device.code[1:] != rows.device.code[:-1])
        | (rows.prediction[1:] != rows.prediction[:-1])
        | (rows.batch[1:] != rows.batch[:-1])
    )
    starts = np.concatenate(([0], 1 + np.flatnonzero(new)))
    whole = np.diff(np.append(starts, len(rows.batch))) == size
    kept: npt.NDArray[np.intp] = starts[whole & (rows.label.of(starts) != "")].astype(np.intp)
    return kept


def _newest(rows: _Rows, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Of the samples of one prediction, which stand side by side, the one of the newest batch."""
    if not len(starts):
        return starts
    same = (rows.device.code[starts[1:]] == rows.device.code[starts[:-1]]) & (
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
