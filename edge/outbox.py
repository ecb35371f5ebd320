"""Store and forward: what the core must know lies here until the core says it is committed.

Numbers rise without a gap within (epoch, kind). Full means the oldest records are dropped and counted: telling
new things late beats never telling them. Priorities and gap records come with the delivery room's next step. A
file that cannot be read is put aside; the device serves without it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from sync import codec
from sync.messages import Record
from sync.names import Kind

CAPACITY = 10_000  # records of all kinds


class Outbox:
    """One SQLite file; used by the walker's thread only."""

    def __init__(self, path: Path, epoch: int, boot: str) -> None:
        self.put_aside: Path | None = None  # where an unreadable predecessor went, to be reported
        try:
            self._db = _connect(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _UNREADABLE:
                raise
            self.put_aside = _put_aside(path)
            self._db = _connect(path)
        self.epoch, self.boot = epoch, boot

    def add(self, kind: Kind, body: object, now: float) -> None:
        """Stores one record durably."""
        with self._db:
            (n,) = self._db.execute(
                "INSERT INTO numbered VALUES (?, ?, 1) ON CONFLICT (epoch, kind) DO UPDATE SET n = n + 1 RETURNING n",
                (self.epoch, kind),
            ).fetchone()
            record = Record(self.epoch, n, now, self.boot, msgspec.Raw(codec.encode(body)))
            self._db.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (self.epoch, kind, n, codec.encode(record)))
            self._trim()

    def pending(self, limit: int = 100) -> list[tuple[Kind, int, bytes]]:
        """(kind, number, document) of records not acknowledged yet, oldest first."""
        rows = self._db.execute(
            "SELECT kind, n, document FROM record WHERE epoch = ? ORDER BY rowid LIMIT ?", (self.epoch, limit)
        )
        return [(Kind(kind), n, bytes(document)) for kind, n, document in rows]

    def acknowledged(self, kind: Kind, epoch: int, n: int) -> None:
        """The core committed everything of this kind up to `n`."""
        with self._db:
            self._db.execute("DELETE FROM record WHERE epoch = ? AND kind = ? AND n <= ?", (epoch, kind, n))

    def dropped(self) -> int:
        """How many records were given up for want of room."""
        row = self._db.execute("SELECT n FROM dropped").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        self._db.close()

    def _trim(self) -> None:
        (count,) = self._db.execute("SELECT count(*) FROM record").fetchone()
        surplus = count - CAPACITY
        if surplus > 0:
            self._db.execute(
                "DELETE FROM record WHERE rowid IN (SELECT rowid FROM record ORDER BY rowid LIMIT ?)",
                (surplus,),
            )
            self._db.execute(
                "INSERT INTO dropped VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET n = n + excluded.n",
                (surplus,),
            )


_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"outbox: {found}")
        db.executescript(_TABLES)
    except sqlite3.DatabaseError:
        db.close()
        raise
    path.chmod(0o600)
    return db


def _put_aside(path: Path) -> Path:
    """Renames the file; the newest unreadable one is kept, for it may be large."""
    aside = path.with_suffix(".unreadable")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path.replace(aside)


_TABLES = """
CREATE TABLE IF NOT EXISTS record (epoch INTEGER, kind TEXT, n INTEGER, document BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS record_kind ON record (epoch, kind, n);
CREATE TABLE IF NOT EXISTS numbered (epoch INTEGER, kind TEXT, n INTEGER, PRIMARY KEY (epoch, kind));
CREATE TABLE IF NOT EXISTS dropped (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
"""
