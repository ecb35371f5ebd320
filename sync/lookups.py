"""Tables of values by entity, and the variables of a device: what travels sealed beside releases, and what both sides
make of it. Training and serving fill a graph input by `vector`, so their vectors cannot differ.

A table is canonical: the same rows always give the same bytes, hence the same digest. Keys are sorted text, values
float32, little endian, row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from sync import codec
from sync.errors import Malformed, Unfit
from sync.manifest import Binding, Lookup, LookupColumn, Variable
from sync.names import LookupName

LIMIT = 4 * 1024 * 1024  # bytes of one table or config
_LEVEL = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # of a topic: no wildcard, no separator, no `$`
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Floats = npt.NDArray[np.float32]
_T = TypeVar("_T", bound=msgspec.Struct)


# --- tables -----------------------------------------------------------------------------------------------------


class Table(msgspec.Struct, frozen=True):
    """Rows by key. `valid_from` is when these values began to hold: what training goes by."""

    name: LookupName
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    values: bytes
    valid_from: float = 0.0
    v: int = 1

    def rows(self) -> Floats:
        """(keys, columns), read-only."""
        return np.frombuffer(self.values, "<f4").reshape(len(self.keys), len(self.columns))


def table(
    name: LookupName, columns: tuple[str, ...], rows: Mapping[str, tuple[float, ...]], valid_from: float
) -> Table:
    """The canonical table of these rows; raises Malformed for a value that 32 bits do not hold."""
    keys = tuple(sorted(rows))
    values = np.array([rows[key] for key in keys], np.float64).reshape(len(keys), len(columns))
    if not (np.abs(values) <= _FLOAT32_MAX).all():
        raise Malformed(f"lookup {name}: every value is a finite number that fits 32 bits")
    return Table(name, columns, keys, values.astype("<f4").tobytes(), valid_from)


def encode(document: Table | Config) -> bytes:
    """The bytes of a table or config, always the same for the same content."""
    return msgspec.msgpack.encode(document, enc_hook=str)


def decode(data: bytes) -> Table:
    """The table in `data`; raises Malformed unless it is canonical and every value finite."""
    found = _decode(data, Table)
    if len(found.values) != 4 * len(found.keys) * len(found.columns) or not found.columns:
        raise Malformed(f"lookup {found.name}: its values do not fit {len(found.keys)} rows of {len(found.columns)}")
    if any(a >= b for a, b in zip(found.keys, found.keys[1:], strict=False)):
        raise Malformed(f"lookup {found.name}: its keys are not sorted, each once")
    if not np.isfinite(found.rows()).all():
        raise Malformed(f"lookup {found.name}: a value is not a finite number")
    return found


def check(found: Table, accepted: Lookup) -> None:
    """Raises Unfit unless a release that declares `accepted` takes this table."""
    names = tuple(column.name for column in accepted.columns)
    if found.name != accepted.name or found.columns != names:
        raise Unfit(f"lookup {found.name} has {', '.join(found.columns)}; {accepted.name} takes {', '.join(names)}")
    rows = found.rows()
    for i, column in enumerate(accepted.columns):
        wrong = np.flatnonzero(_beyond(rows[:, i], column))
        if len(wrong):
            at = int(wrong[0])
            text = f"lookup {found.name}: {column.name} of {found.keys[at]!r} is {rows[at, i]:g}, {_bounds(column)}"
            raise Unfit(text)


def takes(accepted: Lookup, found: Table) -> bool:
    """Whether `check` has nothing against it."""
    try:
        check(found, accepted)
    except Unfit:
        return False
    return True


class Index:
    """A table by key, for quick questions."""

    def __init__(self, found: Table) -> None:
        self.table = found
        self._place = {key: i for i, key in enumerate(found.keys)}
        self._rows = found.rows()

    def vector(self, entity: str, accepted: Lookup) -> Floats | None:
        """The graph input for one entity, (1, columns) float32: its row, else the default; None without either."""
        at = self._place.get(entity)
        if at is not None:
            return self._rows[at : at + 1]
        return None if accepted.default is None else np.array([accepted.default], np.float32)


def _beyond(values: Floats, column: LookupColumn) -> npt.NDArray[np.bool_]:
    low = -np.inf if column.min is None else column.min
    high = np.inf if column.max is None else column.max
    return ~((values >= np.float32(low)) & (values <= np.float32(high)))


def _bounds(column: LookupColumn) -> str:
    low = "" if column.min is None else f"at least {column.min:g}"
    high = "" if column.max is None else f"at most {column.max:g}"
    return f"allowed is {' and '.join(part for part in (low, high) if part)}"


# --- config -----------------------------------------------------------------------------------------------------


class Config(msgspec.Struct, frozen=True):
    """The variables of one device."""

    variables: dict[str, str | float]
    v: int = 1


def decode_config(data: bytes) -> Config:
    """The config in `data`; raises Malformed."""
    return _decode(data, Config)


def complaint(variable: Variable, value: str | float) -> str:
    """Why a release does not take this value for a variable it declares; empty if it does."""
    if isinstance(variable.default, str) != isinstance(value, str):
        return f"{variable.name} is {'text' if isinstance(variable.default, str) else 'a number'}, not {value!r}"
    if isinstance(value, str):
        fits = _LEVEL.fullmatch(value) is not None
        return "" if fits else f"{variable.name} is {value!r}; it must be one level of a topic (A-Z, a-z, 0-9, _ . : -)"
    low = -math.inf if variable.min is None else variable.min
    high = math.inf if variable.max is None else variable.max
    fits = math.isfinite(value) and low <= value <= high
    return "" if fits else f"{variable.name} is {value:g}; allowed is {low:g} to {high:g}"


def check_config(config: Config, variables: tuple[Variable, ...]) -> None:
    """Raises Unfit if it gives a declared variable a value that the release's owner did not allow; variables that
    nobody declares are ignored, for they may be another model's."""
    said = [complaint(v, config.variables[v.name]) for v in variables if v.name in config.variables]
    if any(said):
        raise Unfit("; ".join(text for text in said if text))


def filled(binding: Binding, variables: tuple[Variable, ...], config: Config) -> Binding:
    """The binding with every `{variable}` replaced: by the config's value where it fits, else by the default."""
    words: dict[str, str] = {}
    for variable in variables:
        given = config.variables.get(variable.name, variable.default)
        value = variable.default if complaint(variable, given) else given
        words[f"{{{variable.name}}}"] = value if isinstance(value, str) else f"{value:g}"
    return msgspec.convert(_replaced(msgspec.to_builtins(binding), words), Binding) if words else binding


def _replaced(part: Any, words: Mapping[str, str]) -> Any:
    if isinstance(part, str):
        for word, value in words.items():
            part = part.replace(word, value)
        return part
    if isinstance(part, dict):
        return {key: _replaced(one, words) for key, one in part.items()}
    return [_replaced(one, words) for one in part] if isinstance(part, list | tuple) else part


def _decode(data: bytes, kind: type[_T]) -> _T:
    if len(data) > LIMIT:
        raise Malformed(f"{kind.__name__}: {len(data)} bytes, more than the {LIMIT} allowed")
    try:
        document = msgspec.msgpack.decode(data, type=kind, dec_hook=lambda wanted, value: wanted(value))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Malformed(f"{kind.__name__}: {error}") from error
    codec.check_version(document)
    return document
