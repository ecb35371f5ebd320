"""Whether a SQLite file has the tables that its room works with. A page that rotted may still be a sound page: where it
is the one that names tables and columns, every query after that would fail, at every start anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

_COLUMNS = (
    "SELECT table_.name, column_.name FROM sqlite_master AS table_, pragma_table_info(table_.name) AS column_"
    " WHERE table_.type = 'table'"
)


@contextmanager
def legible() -> Iterator[None]:
    """Where SQLite's own complaint quotes bytes that are no text, Python raises another error in its place."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(f"what it says of its tables is no text: {error}") from error


@legible()
def make_ready(
    db: sqlite3.Connection, script: str, prepare: Callable[[sqlite3.Connection], None], *, checked: bool
) -> None:
    """Looks at all pages if they are to be `checked`, makes by `script` what is not there yet, has an older file
    brought up to date, and looks whether all columns are there. Raises sqlite3.Error."""
    if checked:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    db.executescript(script)
    prepare(db)
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(script)
        lacking = _columns(fresh) - _columns(db)
    if lacking:
        table, column = min(lacking)
        raise sqlite3.DatabaseError(f"table {table!r} has no column {column!r}")


def _columns(db: sqlite3.Connection) -> set[tuple[bytes, bytes]]:
    """As bytes: a name may not even be text any more."""
    before, db.text_factory = db.text_factory, bytes
    try:
        return set(db.execute(_COLUMNS))
    finally:
        db.text_factory = before
