"""Landing: what is new at a source goes through its contract into the lake.

The result is only a proposal until the steward commits it, rows and position in one catalog transaction. A
crash before that leaves files no reader knows of, and the rerun writes them again under the same names.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
import pyarrow as pa

from core.handoffs import LakeFile, Landed, Rejection
from core.ingest.contract import check
from core.ingest.interface import Feed, refused, renewed, taken
from core.lake import Lake
from core.project import Contract, Source

ROWS_PER_WRITE = 1_000_000
MARKS = 20_000  # units that one run takes in ...
WORDS = 4 << 20  # ... and bytes of their marks and of what is told of them: the commit is a message of limited size
ROWS_TOLD = 1_000  # rejected rows of one origin that are listed one by one ...
TOLD_IN_ALL = 10_000  # ... and of all of a run
TEXT_TOLD = 300  # characters of a rejection's text
CHANGED_TOLD = 1_000  # files that landed with other bytes, listed one by one ...
CHANGED_WORDS = 1 << 20  # ... and bytes of that list


def land(
    name: str,
    source: Source,
    contract: Contract,
    feed: Feed,
    lake: Lake,
    position: Mapping[str, str],
    progress: Callable[[float], None],
    most: int = MARKS,
) -> Landed:
    """Takes in the units that `feed` has of source `name` and `position` does not know, up to `most` or until
    the commit has WORDS to carry, and says whether there are `more`; `progress` hears 0 to 1.

    The `position` returned is what is new in it. Raises SourceError, ContractError.
    """
    total, more = feed.count(), False
    harvest = _Harvest(name, source.time, lake)
    for done, unit in enumerate(feed.units(position), start=1):
        if unit is not None and (len(harvest.marks) >= most or harvest.words >= WORDS):
            more = True
            break
        if unit is not None and unit.rows is None:
            harvest.mark(unit.origin, renewed(position[unit.origin], unit))
        elif unit is not None and isinstance(unit.rows, Rejection):
            # A changed file keeps the mark of what landed: it is reported until someone puts it right.
            if unit.rows.reason == "changed":
                harvest.find_changed(unit.rows)
            else:
                harvest.reject((unit.rows,))
                harvest.mark(unit.origin, refused(unit))
        elif unit is not None:
            checked = check(unit.rows, contract, source.time, unit.origin)
            harvest.reject(checked.rejections)
            harvest.add(checked.good, f"{unit.origin} {unit.digest}")
            harvest.mark(unit.origin, taken(unit))
        progress(min(done / max(total, 1), 1.0))
    harvest.write()
    files = tuple(harvest.files)
    return Landed(name, files, harvest.rejections(), harvest.marks, sum(file.rows for file in files), more=more)


class _Harvest:
    """Gathers small units, so that the lake gets few large files, and what was turned away, no more than a message
    bears. `words` are the bytes of `marks` and of the rejections, but for those of changed files: these come in each
    run anew, and would leave no room for others."""

    def __init__(self, name: str, time: str, lake: Lake) -> None:
        self.files: list[LakeFile] = []
        self.marks: dict[str, str] = {}
        self.words = 0
        self._changed: list[Rejection] = []
        self._changed_words = self._changed_more = 0
        self._told: dict[str, list[Rejection]] = {}
        self._room = TOLD_IN_ALL
        self._more: Counter[str] = Counter()
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

    def mark(self, origin: str, mark: str) -> None:
        self.marks[origin] = mark
        self.words += _size((origin, mark))

    def find_changed(self, one: Rejection) -> None:
        size = _size(one)
        if len(self._changed) < CHANGED_TOLD and self._changed_words + size <= CHANGED_WORDS:
            self._changed.append(one)
            self._changed_words += size
        else:
            self._changed_more += 1

    def reject(self, found: Iterable[Rejection]) -> None:
        for one in found:
            told = self._told.setdefault(one.origin, [])
            brief = msgspec.structs.replace(one, text=one.text[:TEXT_TOLD])
            size = _size(brief)
            # One of each origin is always listed: what it says of the rest needs a place.
            if not told or (len(told) < ROWS_TOLD and self._room > 0 and self.words + size <= WORDS):
                told.append(brief)
                self._room -= 1
                self.words += size
            else:
                self._more[one.origin] += 1

    def rejections(self) -> tuple[Rejection, ...]:
        """In order of origins as they came, the last of an origin tells how many more there are; then the files that
        changed, the last tells the same."""
        for origin, more in self._more.items():
            _add(self._told[origin], f"{more} more rows of it were turned away after this one")
        if self._changed_more:
            _add(self._changed, f"{self._changed_more} more files of this source changed like it")
        return (*(one for told in self._told.values() for one in told), *self._changed)

    def write(self) -> None:
        tables = [table for table in self._tables if table.num_rows]
        if tables:
            batch = hashlib.sha256("\n".join(self._batch).encode()).hexdigest()
            self.files += self._lake.append(self._name, pa.concat_tables(tables), self._time, batch)
        self._tables.clear()
        self._batch.clear()


def _add(told: list[Rejection], text: str) -> None:
    told[-1] = msgspec.structs.replace(told[-1], text=f"{told[-1].text}; {text}")


def _size(part: object) -> int:
    """Bytes of it in an order."""
    return len(msgspec.json.encode(part))
