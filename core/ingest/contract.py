"""The contract's check: good rows on one side, on the other each bad row with the first reason it gives.

All of it is vectorised; only rows that are turned away cost more than a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from core.handoffs import Rejection
from core.lake import FIRST_SECOND, LAST_SECOND
from core.project import Column, Contract

Mask = npt.NDArray[np.bool_]


class ContractError(Exception):
    """A contract that cannot be applied to its own columns; the message names the place in the project
    file.
    """

    code = "contract-unusable"


@dataclass(frozen=True)
class Checked:
    """The good rows as a table, and one Rejection for each of the others, in order of rows."""

    good: pa.Table
    rejections: tuple[Rejection, ...]


@dataclass(frozen=True)
class _Fault:
    """Rows that break one rule; `says` tells of one value why."""

    reason: str
    rows: Mask
    says: Callable[[object], str]


def check(table: pa.Table, contract: Contract, time: str, origin: str) -> Checked:
    """Sorts the rows of `table`, which has the contract's columns and types.

    A missing value is a null, a NaN or an empty text. `time` (event time, seconds since 1970) must be
    finite and within the years 1 to 9999; it need not rise. Rows are counted from 0. Raises ContractError.
    """
    bad = np.zeros(table.num_rows, np.bool_)
    rejections: list[Rejection] = []
    for name, column in contract.columns.items():
        values = table.column(name)
        for fault in _faults(name, values, column, name == time):
            for row in np.flatnonzero(fault.rows & ~bad):
                said = fault.says(values[int(row)].as_py())
                rejections.append(Rejection(origin, int(row), fault.reason, f"{name} {said}"))
            bad |= fault.rows
    rejections.sort(key=lambda rejection: rejection.row)
    return Checked(table.filter(pa.array(~bad)) if bad.any() else table, tuple(rejections))


def _faults(name: str, values: pa.ChunkedArray, column: Column, is_time: bool) -> Iterator[_Fault]:
    missing = _missing(values)
    if is_time:
        yield _Fault("time", missing, lambda _v: "is missing; every row needs its event time")
    elif not column.nullable:
        yield _Fault("null", missing, lambda _v: "is missing, and the contract does not allow that")
    if column.type == "string":
        if is_time:
            raise ContractError(f"column {name!r} is the event time, so its type must be a number of seconds")
    else:
        yield from _number_faults(values, column, is_time, missing)
    if column.values is not None:
        allowed = _allowed(name, values.type, column)
        strange = ~missing & ~np.asarray(pc.is_in(values, value_set=allowed))
        listed = ", ".join(map(str, column.values))
        yield _Fault("value", strange, lambda v: f"= {v!r} is not one of {listed}")


def _number_faults(values: pa.ChunkedArray, column: Column, is_time: bool, missing: Mask) -> Iterator[_Fault]:
    numbers = np.asarray(pc.fill_null(values, pa.scalar(0, values.type)))
    there = ~missing
    endless = there & ~np.isfinite(numbers)
    yield _Fault("time" if is_time else "range", endless, lambda v: f"= {v} is not finite")
    if is_time:
        outside = there & ~((numbers >= FIRST_SECOND) & (numbers <= LAST_SECOND))
        yield _Fault("time", outside, lambda v: f"= {v} lies outside the years 1 to 9999 (seconds since 1970)")
    # The bound takes the column's own precision: 0.1 written as float32 must not exceed a maximum of 0.1.
    if column.min is not None:
        low = _bound(column.min, numbers.dtype)
        yield _Fault("range", there & (numbers < low), lambda v: f"= {v} is below its min {column.min:g}")
    if column.max is not None:
        high = _bound(column.max, numbers.dtype)
        yield _Fault("range", there & (numbers > high), lambda v: f"= {v} is above its max {column.max:g}")


def _bound(value: float, dtype: np.dtype[np.generic]) -> float:
    return float(dtype.type(value)) if dtype.kind == "f" else value


def _missing(values: pa.ChunkedArray) -> Mask:
    if pa.types.is_string(values.type):
        return np.asarray(pc.fill_null(pc.equal(values, ""), True))
    return np.asarray(pc.is_null(values, nan_is_null=True))


def _allowed(name: str, kind: pa.DataType, column: Column) -> pa.Array:
    try:
        return pa.array(column.values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ContractError(f"column {name!r}: `values` must all be of its type {column.type}: {error}") from error
