"""What a sensor's payload says: readings, in the form its binding names. Pure.

A payload is taken in whole or not at all. What is wrong with it is said without quoting it: readings are nobody's
business but the model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from sync.arrays import in_units
from sync.bindings import Binding
from sync.features import WindowSpec
from sync.windows import Rows

LARGEST = 64 * 1024  # bytes of one sensor message
MOST = 1000  # readings of one message
LEADS = 2 * MOST  # windows that one message may lead to, beside those of one gap: as if half its readings were lost
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class BadReading(ValueError):
    """A sensor message that cannot be read as its binding says; `code` is stable."""

    code = "bad-reading"


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings of one message in the order they were taken: `ts` seconds since 1970, None if they bring no time;
    `rows` (n, channels) in the model's units, finite and within 32 bits."""

    ts: Sequence[float] | None
    rows: Sequence[tuple[float, ...]] | Rows


_Raw = tuple[list[float] | None, list[tuple[float, ...]] | Rows]  # as they came, times and rows


def read(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> Readings:
    """The readings of a sensor message. Raises BadReading."""
    if len(payload) > LARGEST:
        raise BadReading(f"{len(payload)} bytes, more than the {LARGEST} allowed")
    times, rows = _READERS[binding.format](payload, binding, channels)
    if not 1 <= len(rows) <= MOST:
        raise BadReading(f"{len(rows)} readings in one message; 1 to {MOST} are taken")
    if times is not None and (unit := binding.units.get(binding.time_field)) is not None:
        times = [ts * unit.scale + unit.offset for ts in times]
        if not all(map(math.isfinite, times)):
            raise BadReading(f"{binding.time_field!r} is not a finite number in seconds")
    if binding.units or isinstance(rows, np.ndarray):
        rows = in_units(rows, channels, binding.units)
        if not np.isfinite(rows).all():
            raise BadReading("a number is not finite, or in the model's units beyond what a 32-bit float holds")
    return Readings(times, rows)


def check_gaps(ts: Sequence[float], last: float | None, spec: WindowSpec) -> None:
    """Raises BadReading if readings of these times, after the row that was taken at `last`, would lead to far more
    windows than there are readings: each gap that ends no segment is cut into windows with holes."""
    gap = spec.max_gap / spec.period  # indices that a single reading may go ahead
    most = LEADS + gap / spec.step
    if len(ts) * max(gap, 1.0) / spec.step <= most:
        return
    newest = np.maximum.accumulate(np.array([ts[0] if last is None else last, *ts], np.float64))
    with np.errstate(over="ignore"):
        gaps = np.diff(newest)
    ahead = np.where(gaps > spec.max_gap, 1.0, np.minimum(gaps, spec.max_gap) / spec.period)
    if ahead.sum() / spec.step > most:
        raise BadReading(f"its gaps would lead to more than {most:.0f} windows; send it as several messages")


def timed(count: int, last: float | None, arrival: float, spec: WindowSpec) -> list[float]:
    """Event times of `count` readings that came without, when the entity's row before them was taken at `last`.

    They follow it a `period` apart, for a sensor samples more evenly than a network delivers. Where that leads more
    than `max_gap` away from the arrival, the last of them was taken when it arrived.
    """
    span = (count - 1) * spec.period
    first = arrival - span
    if last is not None and abs(last + spec.period - first) <= spec.max_gap:
        first = last + spec.period
    return [first + i * spec.period for i in range(count)]


def _json(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> _Raw:
    given = _loaded(payload)
    items: list[Any] = given if isinstance(given, list) else [given]
    if not all(isinstance(item, dict) for item in items):
        raise BadReading("not a JSON object, nor a list of them")
    clock, find = binding.time_field, _finder(binding)
    times = [_finite(find(item, clock), clock) for item in items[: MOST + 1]] if clock else None
    return times, [tuple([_number(find(item, name), name) for name in channels]) for item in items[: MOST + 1]]


def _finder(binding: Binding) -> Callable[[dict[str, object], str], object]:
    """What finds a channel, or the time, in an object; None where it is not."""
    if not binding.fields:
        return dict.get

    def find(item: dict[str, object], name: str) -> object:
        path = binding.fields.get(name)
        return item.get(name) if path is None else _at(item, path)

    return find


def _rows(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> _Raw:
    given = _loaded(payload)
    if not isinstance(given, list):
        raise BadReading("not a JSON list of numbers, nor a list of such lists")
    lists = given if given and isinstance(given[0], list) else [given]
    return _by_columns([item if isinstance(item, list) else [] for item in lists[: MOST + 1]], binding, channels)


def _csv(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> _Raw:
    lines = [line for line in _text(payload).splitlines() if line.strip()]
    return _by_columns([[_parsed(cell) for cell in line.split(",")] for line in lines[: MOST + 1]], binding, channels)


def _scalar(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> _Raw:
    if len(channels) != 1:
        raise BadReading(f"one number, for a window of {len(channels)} channels")
    return None, [(_number(_parsed(_text(payload)), channels[0]),)]


def _float32(payload: bytes, binding: Binding, channels: tuple[str, ...]) -> _Raw:
    columns = _columns(binding, channels)
    if len(payload) % (4 * len(columns)):
        raise BadReading(f"{len(payload)} bytes, no whole rows of {len(columns)} 32-bit numbers")
    rows = np.frombuffer(payload, "<f4").reshape(-1, len(columns))
    return None, rows[:, [columns.index(channel) for channel in channels]]


_READERS: dict[str, Callable[[bytes, Binding, tuple[str, ...]], _Raw]] = {
    "json": _json,
    "rows": _rows,
    "csv": _csv,
    "scalar": _scalar,
    "float32": _float32,
}


def _by_columns(rows: list[list[object]], binding: Binding, channels: tuple[str, ...]) -> _Raw:
    columns = _columns(binding, channels)
    for row in rows:
        if len(row) != len(columns):
            raise BadReading(f"{len(row)} numbers in a row that has {len(columns)}: {', '.join(columns)}")
    places = [columns.index(channel) for channel in channels]
    found = [tuple([_number(row[i], name) for i, name in zip(places, channels, strict=True)]) for row in rows]
    if not binding.timed():
        return None, found
    at = columns.index(binding.time_field)
    return [_finite(row[at], binding.time_field) for row in rows], found


def _columns(binding: Binding, channels: tuple[str, ...]) -> tuple[str, ...]:
    """What stands in each column of a row. Raises BadReading for a binding that does not fit its model: where the
    project is read that is refused, here it must not end the session."""
    columns = binding.laid_out(channels)
    wanted = (*channels, binding.time_field) if binding.timed() else channels
    if lacking := [name for name in wanted if name not in columns]:
        raise BadReading(f"the binding's columns lack {', '.join(lacking)}")
    return columns


def _loaded(payload: bytes) -> object:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise BadReading(f"not JSON: {error}") from error


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise BadReading(f"not text: {error.reason} at byte {error.start}") from error


def _parsed(cell: str) -> float | None:
    """None for what is no plain decimal number; Python would also take underscores."""
    try:
        return float(cell) if "_" not in cell else None
    except ValueError:
        return None


def _at(item: object, path: str) -> object:
    """What stands at `a.b` of nested objects, None if nothing does."""
    for level in path.split("."):
        item = item.get(level) if isinstance(item, dict) else None
    return item


def _finite(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadReading(f"{name!r} is {'missing' if value is None else 'not a finite number'}")
    return float(value)


def _number(value: object, name: str) -> float:
    if (value.__class__ is float or value.__class__ is int) and -_FLOAT32_MAX <= value <= _FLOAT32_MAX:
        return float(value)
    _finite(value, name)
    raise BadReading(f"{name!r} is beyond what a 32-bit float holds")
