"""A table of values by entity, read from one file: all rows of it, or none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from core.ingest.interface import SourceError
from core.project import LookupSource
from sync import lookups
from sync.errors import Malformed, Unfit
from sync.lookups import Table
from sync.names import LookupName

SHOWN = 3  # keys that a sentence names


def read(name: LookupName, source: LookupSource, folder: Path) -> Table:
    """The table in the file, valid from the beginning; raises SourceError with what to correct."""
    path = folder / source.path
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"lookup {name}: {path} cannot be read: {error}") from error
    lacking = [c for c in (source.key, *source.columns) if c not in table.column_names]
    if lacking:
        raise SourceError(f"lookup {name}: {path} has no column {', '.join(lacking)}; it has {table.column_names}")
    keys = _keys(name, table.column(source.key))
    columns = [_numbers(name, column, table.column(column), keys) for column in source.columns]
    rows = {key: tuple(float(c[i]) for c in columns) for i, key in enumerate(keys)}
    try:
        found = lookups.table(name, tuple(source.columns), rows, 0.0)
        lookups.check(found, source.accepted(name))
    except (Malformed, Unfit) as error:
        raise SourceError(f"{error}; correct {path}") from error
    if len(lookups.encode(found)) > lookups.LIMIT:
        raise SourceError(f"lookup {name}: {len(keys)} rows take more than {lookups.LIMIT >> 20} MiB; divide it")
    return found


def _csv(path: Path) -> pa.Table:
    """Every column as text: an entity `007` must not become the number 7."""
    names = pacsv.open_csv(path).schema.names
    options = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pacsv.read_csv(path, convert_options=options)


def _keys(name: LookupName, column: pa.ChunkedArray) -> list[str]:
    keys: list[str | None] = pc.cast(column, pa.string()).to_pylist()
    if not all(keys):
        raise SourceError(f"lookup {name}: row {1 + next(i for i, k in enumerate(keys) if not k)} has no key")
    known = [key for key in keys if key]
    if len(set(known)) != len(known):
        twice = sorted(key for key, count in Counter(known).items() if count > 1)[:SHOWN]
        raise SourceError(f"lookup {name}: more than one row for {', '.join(twice)}; each key has one")
    return known


def _numbers(name: LookupName, column: str, values: pa.ChunkedArray, keys: list[str]) -> list[float]:
    """Text is read as Python reads a number; what is none is told with its key."""
    found: list[float] = []
    for key, value in zip(keys, values.to_pylist(), strict=True):
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            raise SourceError(f"lookup {name}: {column} of {key!r} is {value!r}, no number") from None
    if not np.isfinite(found).all():
        key = keys[int(np.flatnonzero(~np.isfinite(found))[0])]
        raise SourceError(f"lookup {name}: {column} of {key!r} is no finite number")
    return found
