"""The lake: immutable, encrypted Parquet files, one folder a source, one sub-folder a day of event time.

A file is written under a temporary name, flushed to disk and renamed; it exists for readers once the
catalog names it, so what a crash leaves behind is never read and is overwritten by the rerun (names follow
from the content). Every file has a fresh data key, wrapped by the caller's `wrap`. The name of a file also
stands in its encrypted footer: exchanging two files on disk is noticed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from core.handoffs import LakeFile, Merged
from sync import durable
from sync.names import Digest, Name

KeyChange = Callable[[bytes], bytes]

FIRST_SECOND = -62_135_596_800.0  # 0001-01-01, the first day that has a folder name
LAST_SECOND = 253_402_300_799.0  # 9999-12-31

_NAME = re.compile(r"day=\d{4}-\d{2}-\d{2}/[0-9a-f]{32}\.parquet")
_MASTER_KEY = "lake"
_FILE_MARK = b"falaj.file"
_CONFIGURATION = pe.EncryptionConfiguration(
    _MASTER_KEY, uniform_encryption=True, double_wrapping=False, data_key_length_bits=256
)


class LakeError(Exception):
    """A file of the lake is not what the catalog says; the message says what to do."""

    code = "lake-unreadable"


class _Keys(pe.KmsClient):  # type: ignore[misc]
    """Lends the caller's key wrapping to the Parquet library."""

    def __init__(self, wrap: KeyChange, unwrap: KeyChange) -> None:
        super().__init__()
        self._wrap = wrap
        self._unwrap = unwrap

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(self._wrap(key_bytes))

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        try:
            return self._unwrap(base64.b64decode(wrapped_key))
        except Exception as error:
            # Which errors a key provider has is not ours to know; all of them mean that this file stays shut.
            raise LakeError("a file does not open with this tenant's key; is it from another tenant?") from error


class Lake:
    """One tenant's lake below `folder`. `wrap` and `unwrap` change a 32-byte data key with the tenant's
    key.
    """

    def __init__(self, folder: Path, wrap: KeyChange, unwrap: KeyChange) -> None:
        self.folder = folder
        self._factory = pe.CryptoFactory(lambda _config: _Keys(wrap, unwrap))
        self._connection = pe.KmsConnectionConfig()

    def append(self, source: str, table: pa.Table, time: str, batch: str) -> tuple[LakeFile, ...]:
        """Writes `table`, one file for each day of the column `time` (seconds since 1970, finite), durably.

        `batch` names what the rows were read from: the same rows of the same batch get the same file name,
        so a rerun replaces what a crash left over, and equal rows of another batch stay rows of their own.
        """
        return tuple(self._write(source, day, rows, batch) for day, rows in _by_day(table, time))

    def read(self, source: str, names: Iterable[str], columns: Sequence[str]) -> pa.Table:
        """The rows of the named files, in order of file name, with the given columns.

        Raises LakeError if a file is missing, cannot be opened with this tenant's key, is another file than
        its name says or lacks a column, and ValueError without any name.
        """
        tables = [self._read(source, name, columns) for name in sorted(names)]
        if not tables:
            raise ValueError(f"source {source!r} has no files to read")
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise LakeError(
                f"files of source {source!r} have different types ({error}); when a contract changes a type, "
                "take the rows in under a new source"
            ) from error

    def merge(self, source: str, names: Iterable[str]) -> tuple[Merged, ...]:
        """Writes the rows of these files of one day, in order of file name, into one file, durably; of files with other
        columns into one of their own. The same files give the same name. Raises LakeError as `read` does."""
        alike: dict[str, list[tuple[str, pa.Table]]] = {}
        for name in sorted(names):
            table = self._read(source, name, None)
            alike.setdefault(str(table.schema), []).append((name, table))
        found = []
        for parts in alike.values():
            replaced = tuple(name for name, _ in parts)
            if len(parts) > 1:
                day = replaced[0].partition("/")[0].removeprefix("day=")
                rows = pa.concat_tables([table for _, table in parts])
                found.append(Merged(self._write(source, day, rows, "\n".join(replaced)), replaced))
        return tuple(found)

    def remove(self, source: str, names: Iterable[str]) -> None:
        """Takes files off the disk, as far as they are there."""
        for name in names:
            self._path(source, name).unlink(missing_ok=True)

    def _path(self, source: str, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise LakeError(f"{name!r} is no name of a lake file; restore the catalog from its backup")
        return self.folder / Name(source) / name

    def _write(self, source: str, day: str, rows: pa.Table, batch: str) -> LakeFile:
        content = content_digest(rows)
        key = hashlib.sha256(f"{batch}\n{content}".encode()).hexdigest()[:32]
        name = f"day={day}/{key}.parquet"
        path = self._path(source, name)
        marked = rows.replace_schema_metadata({_FILE_MARK: f"{source}/{name}".encode()})
        secret = self._factory.file_encryption_properties(self._connection, _CONFIGURATION)
        with durable.writing(path) as file:
            pq.write_table(marked, file, compression="zstd", encryption_properties=secret)
        return LakeFile(name, rows.num_rows, content)

    def _read(self, source: str, name: str, columns: Sequence[str] | None) -> pa.Table:
        """The given columns, or all."""
        path = self._path(source, name)
        try:
            secret = self._factory.file_decryption_properties(self._connection)
            with path.open("rb") as file, pq.ParquetFile(file, decryption_properties=secret) as parquet:
                schema = parquet.schema_arrow
                mark = (schema.metadata or {}).get(_FILE_MARK, b"").decode()
                if mark != f"{source}/{name}":
                    raise LakeError(f"{path} is really {mark or 'a foreign file'}; restore it from the backup")
                columns = schema.names if columns is None else columns
                absent = [c for c in columns if c not in schema.names]
                if absent:
                    raise LakeError(f"{path} has no column {', '.join(absent)}; it has {', '.join(schema.names)}")
                return parquet.read(columns=list(columns)).replace_schema_metadata(None)
        except FileNotFoundError as error:
            raise LakeError(f"{path} is missing; restore it from the backup") from error
        except (OSError, pa.ArrowException) as error:
            raise LakeError(f"{path} does not open ({error}); restore it from the backup") from error


def content_digest(table: pa.Table) -> Digest:
    """SHA-256 of the rows as they stand: names, types, values and nulls; chunks and encryption do not
    matter.
    """
    found = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        found.update(msgspec.json.encode((name, str(column.type), len(column))))
        found.update(np.packbits(np.asarray(pc.is_null(column))).tobytes())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            plain = pc.fill_null(column, "")
            found.update(np.asarray(pc.binary_length(plain), "<i8").tobytes())
            found.update("".join(plain.to_pylist()).encode())
        else:
            values = np.asarray(pc.fill_null(column, pa.scalar(0, column.type)))
            found.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return Digest(found.hexdigest())


def snapshot_id(files: Iterable[LakeFile]) -> str:
    """The name of a set of files: equal sets, in any order, have equal ids; SHA-256 in hex."""
    lines = sorted(f"{file.name} {file.rows} {file.content}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _by_day(table: pa.Table, time: str) -> list[tuple[str, pa.Table]]:
    seconds = np.asarray(table.column(time), np.float64)
    if not ((seconds >= FIRST_SECOND) & (seconds <= LAST_SECOND)).all():
        raise ValueError(f"column {time!r} has times outside the years 1 to 9999; check rows by their contract first")
    days = np.floor(seconds / 86_400).astype(np.int64)
    parts = []
    for day in np.unique(days):
        text = str(np.datetime64(int(day), "D"))
        parts.append((text, table.filter(pa.array(days == day))))
    return parts
