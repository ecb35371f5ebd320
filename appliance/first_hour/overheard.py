"""What messages of unknown sensors look like. Pure.

Everything here comes from strangers: payloads are looked at up to a size, fields up to a number.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Kind = Literal["json", "rows", "csv", "scalar", "float32", "prediction", "error", "text", "empty", "unreadable"]

LARGEST = 64 * 1024  # bytes of a payload that are looked at: bindings read no larger ones either
_FIELDS, _DEPTH = 64, 4  # of one object
_TIME_NAMES = ("ts", "time", "timestamp", "t")
_SCALES = (1.0, 1e-3, 1e-6, 1e-9)  # what makes seconds of a time
_DAY = 86_400.0
_SENSIBLE = (1e-9, 1e9)  # what a sensor's number lies between, if it is not nought
_PREDICTION, _ERROR = {"id", "model", "quality"}, {"code", "text", "model", "topic"}  # keys of what an agent says


@dataclass(frozen=True, slots=True)
class Look:
    """One payload, in the words of a binding's format where one reads it.

    `fields` are the paths of its numbers but for the time's, levels separated by dots; of numbers without names there
    are `width` in a reading. `rows` is how many readings it has. `time` is the path of the time, or for numbers without
    names the place of its column; `scale` makes seconds of it, `ts` is the latest in seconds since 1970.
    """

    kind: Kind
    fields: tuple[str, ...] = ()
    width: int = 0
    rows: int = 1
    time: str = ""
    scale: float = 1.0
    ts: float | None = None


NOTHING = Look("empty")


def look(payload: bytes, now: float) -> Look:
    """What this payload is; `now` (seconds since 1970) tells a time from other large numbers."""
    if not payload:
        return NOTHING
    if len(payload) > LARGEST:
        return Look("unreadable")
    try:
        return _json(orjson.loads(payload), now)
    except orjson.JSONDecodeError:
        return _plain(payload, now)


def _json(value: Any, now: float) -> Look:
    several: list[Any] = value if isinstance(value, list) and value else [value]
    if all(isinstance(item, dict) for item in several):
        return _object(several[-1], len(several), now)
    if isinstance(value, list) and value:
        rows = several if all(isinstance(item, list) for item in several) else [several]
        if all(row and all(map(_number, row)) and len(row) == len(rows[0]) for row in rows):
            return _table("rows", [[float(n) for n in row] for row in rows], now)
    return Look("scalar", width=1) if _number(value) else Look("text")


def _object(value: Mapping[str, object], rows: int, now: float) -> Look:
    if value.keys() >= _PREDICTION:
        return Look("prediction")
    if value.keys() >= _ERROR:
        return Look("error")
    numbers = dict(_numbers(value, "", _DEPTH))
    for name in (*_TIME_NAMES, *numbers):
        scale = _time_scale(numbers.get(name, 0.0), now)
        if scale is not None:
            fields = tuple(other for other in numbers if other != name)[:_FIELDS]
            return Look("json", fields, 0, rows, name, scale, numbers[name] * scale)
    return Look("json", tuple(numbers)[:_FIELDS], 0, rows)


def _numbers(value: Mapping[str, object], place: str, depth: int) -> Iterator[tuple[str, float]]:
    for name, item in value.items():
        if "." in name:
            continue  # no path leads there
        if isinstance(item, dict) and depth:
            yield from _numbers(item, f"{place}{name}.", depth - 1)
        elif _number(item):
            yield place + name, float(item)  # type: ignore[arg-type]  # it is a number


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time_scale(number: float, now: float) -> float | None:
    """What makes seconds of it, None if it is no time of these days."""
    return next((scale for scale in _SCALES if abs(number * scale - now) < _DAY), None)


def _table(kind: Kind, rows: Sequence[Sequence[float]], now: float) -> Look:
    """Numbers by column, of which one may be the time."""
    width, last = len(rows[0]), rows[-1]
    for place, number in enumerate(last):
        scale = _time_scale(number, now)
        if scale is not None and width > 1:
            return Look(kind, (), width - 1, len(rows), str(place), scale, number * scale)
    return Look(kind, (), width, len(rows))


def _plain(payload: bytes, now: float) -> Look:
    """What is no JSON: numbers between commas, 32-bit floats as they lie in memory, or words."""
    try:
        text = payload.decode().strip()
    except UnicodeDecodeError:
        text = ""
    rows = [[_float(cell) for cell in line.split(",")] for line in text.splitlines()]
    if rows and all(len(row) == len(rows[0]) and all(n is not None for n in row) for row in rows):
        found = [[n for n in row if n is not None] for row in rows]
        return _table("csv", found, now) if len(found[0]) > 1 or len(found) > 1 else Look("scalar", width=1)
    if text and all(sign.isprintable() or sign.isspace() for sign in text):
        return Look("text")
    if len(payload) % 4 == 0 and all(map(_sensed, struct.unpack(f"<{len(payload) // 4}f", payload))):
        return Look("float32", width=len(payload) // 4)
    return Look("unreadable")


def _float(cell: str) -> float | None:
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _sensed(number: float) -> bool:
    return number == 0 or _SENSIBLE[0] < abs(number) < _SENSIBLE[1]
