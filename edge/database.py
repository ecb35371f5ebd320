"""A SQLite file of this device: opened in one way, checked, and never blamed for what its host does.

An error is an *obstacle* where it says something of the host (full, read-only, locked, not permitted): the file is
sound, stays where it is and is tried again. Anything else says that the file is *spoilt*: it is put aside whole, for a
person, and a new one begins. Each room says what it does with either; `Database` is the policy of those whose word
must be true: what cannot be written is not said to be, and what was written can be read all the while.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge import shape

_HOST = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
})  # fmt: skip

Values = Sequence[str | bytes | int | float | None]
Factory = type[sqlite3.Connection]
FILE_AGAIN = 64  # questions put to memory before the file is tried again


def _as_it_is(db: sqlite3.Connection) -> None:
    """Nothing to prepare."""


def _nothing(db: sqlite3.Connection, aside: Path) -> None:
    """Nothing to say of a predecessor."""


@dataclass(frozen=True)
class Schema:
    """What a file must hold.

    `script` makes what is not there yet. `prepare` then brings an older file up to date, and raises
    sqlite3.DatabaseError for content that nobody here can read. `checked`: all pages are looked at before the file is
    believed. `synchronous` FULL: a committed write survives a power cut; NORMAL: a kill.
    """

    script: str
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    checked: bool = True
    prepare: Callable[[sqlite3.Connection], None] = _as_it_is


def obstacle(error: BaseException) -> bool:
    """Whether an error is the host's doing: what was asked for may work later, and no file is to blame."""
    if isinstance(error, sqlite3.Error):
        return code(error) in _HOST
    return isinstance(error, OSError)


CACHE_KB = 256  # of pages of one file that stay in memory, where SQLite would keep 2 MB of each


def code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; of an error that carries none, that the file is spoilt."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def connect(path: Path | None, schema: Schema, factory: Factory = sqlite3.Connection) -> sqlite3.Connection:
    """Opens or makes a file that only its owner may read, checks and prepares it; None is a database in memory.

    Any thread may use it, one at a time. Raises sqlite3.Error or OSError; `obstacle` says whose fault it is.
    """
    if path is not None and not path.exists():
        path.touch(mode=0o600)
    db = sqlite3.connect(path or ":memory:", check_same_thread=False, factory=factory)
    try:
        with shape.legible():
            db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {schema.synchronous}")
        db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        shape.make_ready(db, schema.script, schema.prepare, checked=schema.checked)
    except sqlite3.Error:
        db.close()
        raise
    if path is not None and path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return db


def put_aside(path: Path) -> Path:
    """Renames a file and its write-ahead log to the first free `*.unreadable`: nothing is lost to a person.

    Raises OSError if the host does not let it.
    """
    number, aside = 1, path.with_suffix(".unreadable")
    while aside.exists():
        number += 1
        aside = path.with_suffix(f".unreadable-{number}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def open_or_memory(path: Path, schema: Schema, lost: Callable[[str, bool], None]) -> sqlite3.Connection:
    """For rooms that may forget: a new file where the old one was spoilt, and memory where the host refuses; `lost` is
    told why, and whether it is memory."""
    for _ in range(2):
        try:
            return connect(path, schema)
        except (sqlite3.Error, OSError) as error:
            if obstacle(error):
                lost(f"{path.name} cannot be written: {error}; memory serves, check the disk", True)
                break
            try:
                lost(f"{path.name} was damaged and is kept as {put_aside(path).name}: {error}", False)
            except OSError as refusal:
                lost(f"{path.name} is damaged and cannot be put aside: {refusal}; memory serves, check the disk", True)
                break
    return connect(None, schema)


class FileOrMemory:
    """The database of a room that may forget: its file, or memory in its place until the file can be written again.
    `lost` as `open_or_memory` has it. Any thread may use it, one at a time."""

    def __init__(self, path: Path, schema: Schema, lost: Callable[[str, bool], None]) -> None:
        self.forgets = False  # memory serves
        self._path, self._schema, self._lost, self._until = path, schema, lost, FILE_AGAIN
        self.db = open_or_memory(path, schema, self._begin)

    def returned(self) -> bool:
        """Whether the file has just taken over from memory, with all that memory held; tried now and then."""
        self._until -= self.forgets
        if self._until:
            return False
        self._until = FILE_AGAIN
        file = back_to_file(self.db, self._path, self._schema)
        if file is None:
            return False
        self.db, self.forgets = file, False
        return True

    def _begin(self, text: str, memory: bool) -> None:
        self.forgets = memory
        self._lost(text, memory)


def back_to_file(memory: sqlite3.Connection, path: Path, schema: Schema) -> sqlite3.Connection | None:
    """The file in place of memory, where the host lets it be written again, with all that memory holds (of rows with
    the same key, memory's); None while it does not."""
    try:
        db = connect(path, schema)
    except (sqlite3.Error, OSError):
        return None  # told when memory began to serve; a spoilt file is for the next start
    try:
        with db:
            tables = memory.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = memory.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a name of our own schema
                if not rows:
                    continue
                marks = ", ".join("?" * len(rows[0]))
                db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608
    except sqlite3.Error:
        db.close()
        return None
    memory.close()
    return db


def last_written(aside: Path) -> int:
    """Milliseconds since 1970 at which a file put aside was last written: more than any device ever counted to."""
    parts = (aside.with_name(aside.name + suffix) for suffix in ("", "-wal"))
    return max(int(part.stat().st_mtime * 1000) for part in parts if part.exists())


def copy(path: Path | None, schema: Schema) -> sqlite3.Connection:
    """What a file holds, in memory, refusing every write (SQLITE_READONLY); empty for None, or where there is no file.

    Raises sqlite3.Error where it cannot even be read.
    """
    db = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        if path is not None and path.exists():
            log = path.with_name(path.name + "-wal")
            # A file without a log is whole, and then SQLite needs no other file beside it, which it could not make.
            whole = "" if log.exists() and log.stat().st_size else "&immutable=1"
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{whole}", uri=True)) as file:
                file.backup(db)
        shape.make_ready(db, schema.script, schema.prepare, checked=schema.checked)
        db.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        db.close()
        raise
    return db


class Database:
    """One file of a room whose word must be true; used by one thread.

    A spoilt file is put aside (`put_aside`), and `replaced` is written into the new one's first transaction. Where the
    host refuses writing, the room goes on reading: every write raises the obstacle, and tries the file anew first.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        replaced: Callable[[sqlite3.Connection, Path], None] = _nothing,
        factory: Factory = sqlite3.Connection,
    ) -> None:
        self.put_aside: Path | None = None  # where an unreadable predecessor went, to be reported
        self._path, self._schema, self._replaced, self._factory = path, schema, replaced, factory
        self.unreadable = False  # it is spoilt, and the host does not let it be put aside yet: nothing is known
        self._owed = False  # `replaced` is not written yet
        self._reads_only = False
        self._db = self._open()

    def execute(self, query: str, values: Values = ()) -> sqlite3.Cursor:
        """Reads; within a transaction it may write too. Raises sqlite3.Error."""
        return self._db.execute(query, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in it is durable when it ends, or nothing is: then it raises sqlite3.Error or OSError."""
        if self._reads_only:
            self._begin_anew()
            fresh = self._connect()
            self._db.close()
            self._db, self._reads_only = fresh, False
        try:
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            if code(error) == sqlite3.SQLITE_READONLY:
                self._let_go()
            raise

    def settle(self) -> None:
        """Puts an unreadable file aside if that is still owed; raises sqlite3.Error or OSError while it cannot."""
        if self.unreadable:
            with self.transaction():
                pass  # a new file begins with it

    def close(self) -> None:
        self._db.close()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except (sqlite3.Error, OSError) as error:
            self.unreadable = not obstacle(error)
        try:
            self._begin_anew()
            return self._connect()
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return self._copy()

    def _begin_anew(self) -> None:
        if self.unreadable:
            self.put_aside, self._owed = put_aside(self._path), True
            self.unreadable = False

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = connect(self._path, self._schema, self._factory)
        if self._owed and self.put_aside is not None:
            try:
                with db:
                    self._replaced(db, self.put_aside)
            except sqlite3.Error:
                db.close()
                raise
            self._owed = False
        return db

    def _let_go(self) -> None:
        """A file that was opened on a read-only disk stays read-only for this process until nobody has it open."""
        copied = copy(self._path, self._schema)
        self._db.close()
        self._db, self._reads_only = copied, True

    def _copy(self) -> sqlite3.Connection:
        self._reads_only = True
        try:
            return copy(None if self.unreadable else self._path, self._schema)
        except sqlite3.Error as error:
            if obstacle(error):
                raise
            self.unreadable = True
            return copy(None, self._schema)
