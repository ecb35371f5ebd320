"""What a stream looks like, in 20 counters: additive over rows, devices and time, and small enough to send.

Theory. `Bins` are fixed once, from reference rows, and never move; from then on a row falls into exactly one of 20
counters of each stream: 16 bins of equal reference mass, *missing*, *below* the reference's minimum, *above* its
maximum, and *unseen*. A categorical stream uses the 16 bins for its 15 most frequent categories and "other", and
*unseen* for what the reference never had. Because the counters only add up, `merge` is associative and commutative.

A *drift window* is exactly W rows. Distances depend on the number of rows (fewer rows, larger distance), so a window
is never scored short: `WindowCounter` carries the unfinished one over.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from sync.errors import Malformed

Rows = npt.NDArray[np.float32]  # (rows, streams)
Counts = npt.NDArray[np.int64]  # (..., streams, COUNTERS)
Floats = npt.NDArray[np.float64]

BINS = 16
COUNTERS = 20
MISSING, BELOW, ABOVE, UNSEEN = 16, 17, 18, 19
MAX_CATEGORIES = 256  # remembered ones; the rarer rest counts as unseen, in the reference too
MAX_STREAMS = 64

Kind = Literal["numeric", "categorical"]
Packed = TypeVar("Packed")


class Stream(msgspec.Struct, frozen=True):
    """One monitored stream: a channel, a declared statistic of a tensor, or an output."""

    name: str
    kind: Kind = "numeric"


class Bins(msgspec.Struct, frozen=True):
    """Where the values of one stream fall. Fixed from reference rows by `fit`.

    `points` of a numeric stream: minimum, 15 inner edges, maximum; bin k holds (edge k-1, edge k]. It is empty where
    the reference had no finite value; every value is then unseen. `points` of a categorical stream: its categories,
    the most frequent first.
    """

    stream: Stream
    points: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.stream.kind == "numeric" and len(self.points) not in (0, BINS + 1):
            raise ValueError(f"bins of {self.stream.name}: {len(self.points)} points, not {BINS + 1}")
        if len(self.points) > MAX_CATEGORIES:
            raise ValueError(f"bins of {self.stream.name}: more than {MAX_CATEGORIES} categories")


# By how many of its 17 edges a value has passed: none, 1 to 16, all.
_COUNTER = np.array([BELOW, *range(BINS), ABOVE], np.int64)


class Sketch(msgspec.Struct, frozen=True):
    """How many rows fell into each counter: `counts` is (streams, 20). `bins` is the `identity` of the bins used."""

    bins: str
    counts: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if any(len(row) != COUNTERS or min(row) < 0 for row in self.counts):
            raise ValueError(f"a sketch has {COUNTERS} counters a stream, none below 0")

    @property
    def rows(self) -> int:
        """Rows counted; every row counts once in every stream."""
        return sum(self.counts[0]) if self.counts else 0

    def add(self, bins: tuple[Bins, ...], rows: Rows) -> Sketch:
        """This sketch and `rows` (n, streams); raises ValueError if `bins` are not the ones it was made with."""
        return self.merge(count(bins, rows))

    def merge(self, other: Sketch) -> Sketch:
        """The sum of both; raises ValueError if they were counted in different bins."""
        if (self.bins, len(self.counts)) != (other.bins, len(other.counts)):
            raise ValueError(f"sketches of different bins cannot be merged: {self.bins} and {other.bins}")
        pairs = zip(self.counts, other.counts, strict=True)
        return Sketch(self.bins, tuple(tuple(a + b for a, b in zip(x, y, strict=True)) for x, y in pairs))

    def array(self) -> Counts:
        return np.array(self.counts, np.int64).reshape(-1, COUNTERS)


def identity(bins: tuple[Bins, ...]) -> str:
    """A short name of these bins: 16 hex digits; equal bins have equal names on every machine."""
    return hashlib.sha256(pack(bins)).hexdigest()[:16]


def check_rows(rows: npt.ArrayLike, streams: int) -> Rows:
    """`rows` as float32 (n, streams); raises ValueError if they have another shape."""
    # A value beyond float32 becomes infinite, which is what it is to the model.
    with np.errstate(over="ignore"):
        array = np.asarray(rows, np.float32)
    if array.ndim != 2 or array.shape[1] != streams:
        raise ValueError(f"rows are {array.shape}, expected (rows, {streams} streams)")
    return array


def fit(streams: tuple[Stream, ...], rows: npt.ArrayLike) -> tuple[Bins, ...]:
    """Bins of equal mass (or the most frequent categories) of the reference `rows` (n, streams).

    Raises ValueError for other shapes, no streams, or more than 64.
    """
    if not 1 <= len(streams) <= MAX_STREAMS:
        raise ValueError(f"{len(streams)} streams: between 1 and {MAX_STREAMS} can be watched")
    array = check_rows(rows, len(streams))
    return tuple(Bins(stream, _points(stream.kind, array[:, i])) for i, stream in enumerate(streams))


def _points(kind: Kind, values: Rows) -> tuple[float, ...]:
    finite = values[np.isfinite(values)].astype(np.float64)
    if len(finite) == 0:
        return ()
    if kind == "numeric":
        # An edge is a value that occurred, so that it is exact in float32 and values on it stay on one side.
        edges = np.quantile(finite, np.linspace(0, 1, BINS + 1), method="inverted_cdf")
        return tuple(float(edge) for edge in edges)
    categories, often = np.unique(finite, return_counts=True)
    order = np.lexsort((categories, -often))[:MAX_CATEGORIES]
    return tuple(float(category) for category in categories[order])


def place(bins: tuple[Bins, ...], rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The counter (0 to 19) of every value of `rows` (n, streams), in the same shape."""
    return Placer(bins).place(check_rows(rows, len(bins)))


class Placer:
    """`place` for bins that are used again and again.

    Numeric streams are placed all at once, by one comparison with every edge: numpy compares a block faster than it
    begins to search in one column. The lowest edge is moved to the float32 below it, so that what lies on it is above.
    """

    def __init__(self, bins: tuple[Bins, ...]) -> None:
        self._bins = bins
        exact = [one.stream.kind == "numeric" and _exact(one.points) for one in bins]
        self._others = [i for i, fits in enumerate(exact) if not fits]
        points = [one.points if fits else (0.0,) * (BINS + 1) for one, fits in zip(bins, exact, strict=True)]
        self._edges = np.array(points, np.float32).T.reshape(BINS + 1, len(bins)).copy()
        self._edges[0] = np.nextafter(self._edges[0], np.float32(-np.inf))

    def place(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The counter of every value of `rows`, float32 (n, streams)."""
        passed = np.zeros(rows.shape, np.uint8)
        above = np.empty(rows.shape, np.bool_)
        for edge in self._edges:
            np.greater(rows, edge, out=above)
            np.add(passed, above.view(np.uint8), out=passed)
        found = _COUNTER[passed]
        missing = np.isnan(rows)
        if missing.any():
            found[missing] = MISSING
        for i in self._others:
            found[:, i] = _place(self._bins[i], rows[:, i].astype(np.float64))
        return found


def _exact(points: tuple[float, ...]) -> bool:
    """Whether these are all edges of a numeric stream, finite, in order, and not rounded by float32."""
    single = np.array(points, np.float64).astype(np.float32)
    return len(points) == BINS + 1 and bool(np.isfinite(single).all()) and single.tolist() == sorted(points)


def _place(bins: Bins, values: Floats) -> npt.NDArray[np.int64]:
    found = np.full(len(values), UNSEEN, np.int64)
    if bins.stream.kind == "categorical" and bins.points:
        known = np.array(bins.points)
        order = np.argsort(known)
        at = np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)
        hit = known[order[at]] == values
        found[hit] = np.minimum(order[at[hit]], BINS - 1)  # beyond the 15 most frequent: "other"
    elif bins.points:
        points = np.array(bins.points)
        found = np.searchsorted(points[1:-1], values, side="left").astype(np.int64)
        found[values < points[0]] = BELOW
        found[values > points[-1]] = ABOVE
    found[np.isnan(values)] = MISSING
    return found


def count_windows(bins: tuple[Bins, ...], rows: npt.ArrayLike, size: int) -> Counts:
    """Counters of consecutive windows of `size` rows, (windows, streams, 20); the number of rows must divide."""
    return _count(place(bins, rows), size)


def _count(where: npt.NDArray[np.int64], size: int) -> Counts:
    windows, streams = len(where) // size, where.shape[1]
    if windows * size != len(where):
        raise ValueError(f"{len(where)} rows are no whole number of windows of {size}")
    cell = (np.arange(len(where))[:, None] // size * streams + np.arange(streams)) * COUNTERS + where
    counts = np.bincount(cell.ravel(), minlength=windows * streams * COUNTERS)
    return counts.astype(np.int64).reshape(windows, streams, COUNTERS)


def count(bins: tuple[Bins, ...], rows: npt.ArrayLike) -> Sketch:
    """The sketch of `rows` (n, streams); of no rows, the empty sketch."""
    array = check_rows(rows, len(bins))
    counts = count_windows(bins, array, len(array)) if len(array) else np.zeros((1, len(bins), COUNTERS), np.int64)
    return of_array(bins, counts[0])


def of_array(bins: tuple[Bins, ...], counts: Counts) -> Sketch:
    """The sketch with these counters, (streams, 20)."""
    return Sketch(identity(bins), tuple(map(tuple, counts.tolist())))


class WindowCounter:
    """Cuts the rows of one stream set into drift windows of exactly `size` rows; one caller feeds it.

    `partial` is the sketch of the unfinished window, from `checkpoint`; ValueError if it is of other bins or full.
    """

    def __init__(self, bins: tuple[Bins, ...], size: int, partial: Sketch | None = None) -> None:
        self.bins, self.size = bins, size
        self._placer = Placer(bins)
        self._partial = np.zeros((len(bins), COUNTERS), np.int64)
        self._rows = 0
        if partial is not None:
            if partial.bins != identity(bins) or len(partial.counts) != len(bins) or partial.rows >= size:
                raise ValueError("the unfinished window was counted in other bins, or is full")
            self._partial, self._rows = partial.array(), partial.rows

    def push(self, rows: npt.ArrayLike) -> Counts:
        """Takes rows (n, streams) in; returns the counters of the windows they complete, (windows, streams, 20)."""
        array = check_rows(rows, len(self.bins))
        first = min(self.size - self._rows, len(array))
        self._take(array[:first])
        if self._rows < self.size:
            return np.zeros((0, *self._partial.shape), np.int64)
        whole = (len(array) - first) // self.size * self.size
        done = [self._partial[None], self._count(array[first : first + whole], self.size)]
        self._partial, self._rows = np.zeros_like(self._partial), 0
        self._take(array[first + whole :])
        return np.concatenate(done)

    def _take(self, rows: Rows) -> None:
        if len(rows):
            self._partial = self._partial + self._count(rows, len(rows))[0]
            self._rows += len(rows)

    def _count(self, rows: Rows, size: int) -> Counts:
        return _count(self._placer.place(rows), size)

    def checkpoint(self) -> Sketch:
        return of_array(self.bins, self._partial)


# --- bytes ------------------------------------------------------------------------------------------------------


def pack(value: object) -> bytes:
    """A sketch, bins or state in MessagePack: about 25 bytes a stream for a window of 50 rows."""
    return msgspec.msgpack.encode(value)


def unpack(kind: type[Packed], payload: bytes) -> Packed:
    """The `kind` in `payload`; raises Malformed, naming the field that is wrong."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise Malformed(f"{kind.__name__}: {error}") from error
