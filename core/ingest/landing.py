"""Landing: what is new at a source goes through its contract into the lake.

The result is only a proposal until the steward commits it, rows and position in one catalog transaction. A
crash before that leaves files no reader knows of, and the rerun writes them again under the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
import pyarrow as pa

from core.handoffs import LakeFile, Landed, Rejection
from core.ingest.contract import check
from core.ingest.interface import Feed, refused, taken
from core.lake import Lake
from core.project import Contract, Source

ROWS_PER_WRITE = 1_000_000
ROWS_TOLD = 1_000  # rejected rows of one unit that are listed one by one; the commit is a message of limited size


def land(
    name: str,
    source: Source,
    contract: Contract,
    feed: Feed,
    lake: Lake,
    position: Mapping[str, str],
    progress: Callable[[float], None],
) -> Landed:
    """Takes in all units that `feed` has of source `name` and `position` does not know; `progress` hears 0 to 1.

    The `position` returned is whole: it replaces the old one. Raises SourceError, ContractError.
    """
    total = feed.count()
    marks = dict(position)
    harvest = _Harvest(name, source.time, lake)
    for done, unit in enumerate(feed.units(position), start=1):
        if unit is not None and isinstance(unit.rows, Rejection):
            harvest.rejections.append(unit.rows)
            # A changed file keeps the mark of what landed: it is reported until someone puts it right.
            if unit.rows.reason != "changed":
                marks[unit.origin] = refused(unit.digest)
        elif unit is not None:
            checked = check(unit.rows, contract, source.time, unit.origin)
            harvest.rejections += shorten(checked.rejections)
            harvest.add(checked.good, f"{unit.origin} {unit.digest}")
            marks[unit.origin] = taken(unit.digest)
        progress(min(done / max(total, 1), 1.0))
    harvest.write()
    files = tuple(harvest.files)
    return Landed(name, files, tuple(harvest.rejections), marks, sum(file.rows for file in files))


def shorten(rejections: tuple[Rejection, ...]) -> tuple[Rejection, ...]:
    """The rejections of one unit, at most ROWS_TOLD; the last one then tells how many more there are."""
    if len(rejections) <= ROWS_TOLD:
        return rejections
    last = rejections[ROWS_TOLD - 1]
    more = f"{last.text}; {len(rejections) - ROWS_TOLD} more rows of this file were turned away after this one"
    return (*rejections[: ROWS_TOLD - 1], msgspec.structs.replace(last, text=more))


class _Harvest:
    """Gathers small units, so that the lake gets few large files."""

    def __init__(self, name: str, time: str, lake: Lake) -> None:
        self.files: list[LakeFile] = []
        self.rejections: list[Rejection] = []
        self._name = name
        self._time = time
        self._lake = lake
        self._tables: list[pa.Table] = []
        self._batch: list[str] = []

    def add(self, table: pa.Table, unit: str) -> None:
        self._tables.append(table)
        self._batch.append(unit)
        if sum(t.num_rows for t in self._tables) >= ROWS_PER_WRITE:
            self.write()

    def write(self) -> None:
        tables = [table for table in self._tables if table.num_rows]
        if tables:
            batch = hashlib.sha256("\n".join(self._batch).encode()).hexdigest()
            self.files += self._lake.append(self._name, pa.concat_tables(tables), self._time, batch)
        self._tables.clear()
        self._batch.clear()
