"""CSV files by a glob. One file is one unit: it lands as a whole or not at all.

A file counts as whole only if its last line ends with a newline, every line has as many fields as the
header, the header names exactly the columns of the contract and every field can be read as its column's
type.
"""

from __future__ import annotations

import csv
import difflib
import glob
import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from core.handoffs import Rejection
from core.ingest.interface import SourceError, Unit, has_landed, is_done, looks_done
from core.project import Contract

RACY = 3.0  # seconds: within them a file may change again without another time, as disks count it (FAT: by twos)

_BLOCK = 1 << 30  # bytes read at once; the reader counts them in 32 bits

TYPES = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "string": pa.string()}


class CsvFiles:
    """The files that match `pattern` below `folder`, in order of their names. What changed less than RACY before `now`
    (or after it) is read again the next time, however it looks then."""

    def __init__(self, folder: Path, pattern: str, contract: Contract, now: float) -> None:
        self._folder, self._settled = folder, now - RACY
        self._pattern = pattern
        self._contract = contract

    def count(self) -> int:
        return len(self._origins())

    def units(self, position: Mapping[str, str]) -> Iterator[Unit | None]:
        for origin in self._origins():
            path, mark = self._folder / origin, position.get(origin)
            looks, changed = _look(path)  # before its bytes: what is written meanwhile is found the next time
            if looks_done(mark, looks):
                yield None
                continue
            seen = looks if changed < self._settled else ""
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            if is_done(mark, digest):
                yield Unit(origin, digest, None, seen) if seen else None
            elif has_landed(mark):
                yield Unit(origin, digest, _changed(origin), seen)
            else:
                yield Unit(origin, digest, parse(data, self._contract, origin), seen)

    def _origins(self) -> list[str]:
        found = glob.glob(self._pattern, root_dir=self._folder, recursive=True)
        origins = sorted(f for f in found if (self._folder / f).is_file())
        if not origins:
            raise SourceError(f"no file matches {self._pattern!r} in {self._folder}; check the source's `path`")
        return origins


def _look(path: Path) -> tuple[str, float]:
    """What a file looks like, and when it changed last, in seconds: one that looks the same is not read again. Programs
    set the time of a change as they like, `cp -p` and `rsync` among them: the time of the inode is the kernel's."""
    found = path.stat()
    looks = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return "-".join(map(str, looks)), max(found.st_mtime, found.st_ctime)


def parse(data: bytes, contract: Contract, origin: str) -> pa.Table | Rejection:
    """The rows of one CSV file with the contract's columns and types, in the contract's order, or its
    refusal.
    """
    if not data:
        return Rejection(origin, -1, "truncated", "the file is empty; copy it again, as a whole")
    if not data.endswith(b"\n"):
        text = "the last line is incomplete: no newline at its end; copy the file again, as a whole"
        return Rejection(origin, -1, "truncated", text)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = data.count(b"\n", 0, error.start) + 1
        return Rejection(origin, -1, "type", f"line {where} is not UTF-8 text; save the file as UTF-8 CSV")
    header = next(csv.reader(io.StringIO(text.partition("\n")[0])), [])
    complaint = _compare(header, list(contract.columns))
    if complaint:
        return Rejection(origin, -1, "columns", complaint)
    return _read(data, contract, origin)


def _read(data: bytes, contract: Contract, origin: str) -> pa.Table | Rejection:
    wanted = {name: TYPES[column.type] for name, column in contract.columns.items()}
    odd: list[pacsv.InvalidRow] = []
    try:
        table = _read_as(data, wanted, odd)
    except pa.ArrowInvalid as error:
        return Rejection(origin, -1, "type", _find_unreadable(data, wanted) or str(error))
    if odd:
        # Line numbers are only known to a reader on one thread, which is how _read_as reads.
        first = odd[0]
        text = (
            f"line {first.number} has {first.actual_columns} fields instead of {first.expected_columns}; "
            "copy the file again, as a whole, or repair that line"
        )
        return Rejection(origin, -1, "truncated", text)
    return table.select(list(wanted))


def _read_as(data: bytes, types: dict[str, pa.DataType], odd: list[pacsv.InvalidRow]) -> pa.Table:
    def note(row: pacsv.InvalidRow) -> str:
        odd.append(row)
        return "skip"

    return pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(use_threads=False, block_size=min(max(len(data), 1), _BLOCK)),
        parse_options=pacsv.ParseOptions(invalid_row_handler=note),
        convert_options=pacsv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


def _find_unreadable(data: bytes, wanted: dict[str, pa.DataType]) -> str:
    """Names the first value that is not of its column's type; the slow way, taken only after a refusal.

    Empty if the lines cannot even be split into fields.
    """
    try:
        raw = _read_as(data, dict.fromkeys(wanted, pa.string()), [])
    except pa.ArrowInvalid:
        return ""
    for name, kind in wanted.items():
        column = raw.column(name).combine_chunks()
        for row, value in enumerate(column.to_pylist()):
            if not _reads_as(value, kind):
                return f"column {name!r}, row {row + 1}: {value!r} is no {kind}; correct it or drop the row"
    return ""


def _reads_as(value: str, kind: pa.DataType) -> bool:
    line = '"' + value.replace('"', '""') + '"\n'
    options = pacsv.ConvertOptions(column_types={"x": kind}, strings_can_be_null=False)
    try:
        pacsv.read_csv(pa.BufferReader(f"x\n{line}".encode()), convert_options=options)
    except pa.ArrowInvalid:
        return False
    return True


def _compare(header: list[str], wanted: list[str]) -> str:
    """What is wrong with the header, naming columns and the nearest known name; empty if it fits."""
    if len(header) == 1 and len(wanted) > 1 and (sign := next((s for s in ";\t|" if s in header[0]), None)):
        return f"columns are separated by {sign!r}; save the file with commas between them"
    missing = [name for name in wanted if name not in header]
    extra = [name for name in header if name not in wanted]
    twice = sorted({name for name in header if header.count(name) > 1})
    parts = []
    for name in extra:
        near = difflib.get_close_matches(name, missing or wanted, 1, 0.4)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        parts.append(f"column {name!r} is not in the contract{hint}")
    parts += [f"column {name!r} is missing" for name in missing]
    parts += [f"column {name!r} appears more than once" for name in twice]
    return "; ".join(parts)


def _changed(origin: str) -> Rejection:
    text = "taken in before with other bytes; put new rows into a new file, so that none land twice"
    return Rejection(origin, -1, "changed", text)
