"""What this device must remember across a power cut: one SQLite file, every write durable before it is acted on.

Journal first, act second, report third. A file that cannot be read is put aside, never deleted, and the device
starts without a past: it serves nothing until the core assigns again, and says so.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal, Self

import msgspec

from edge.states import Deployment
from edge.trust import Record
from sync import codec
from sync.errors import Malformed
from sync.names import Digest, ModelName

SCHEMA = 1
_LIMIT = 16 * 1024 * 1024
_LAST = 2**63 - 1  # what a column holds
_OBSTACLES = frozenset({  # these say something of the host, nothing of the file: it must stay where it is
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
})  # fmt: skip

Counter = Literal["epoch", "desired_seq", "reported_seq", "session"]


class Quarantined(msgspec.Struct, frozen=True):
    """A verdict against one artifact on this device, lifted by a higher retry generation."""

    artifact: Digest
    manifest: Digest
    retry: int
    reason: str


class Journal:
    """The only pen for durable state of the agent. One thread (the walker's) uses it."""

    def __init__(self, connection: sqlite3.Connection, put_aside: Path | None) -> None:
        self._db = connection
        self.put_aside = put_aside  # where an unreadable predecessor went, to be reported

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens or creates the journal; an unreadable file is renamed to `*.unreadable` first.

        Raises sqlite3.DatabaseError where the host is in the way (locked, full, not permitted): such a file is sound.
        """
        try:
            return cls(_connect(path), None)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF in _OBSTACLES:
                raise
            aside = _put_aside(path)
        journal = cls(_connect(path), aside)
        # The core takes only reports that are newer than the last: to count from 1 again would be never to be heard.
        journal.set_counter("reported_seq", _last_written(aside))
        return journal

    def close(self) -> None:
        self._db.close()

    # --- counters and documents ---

    def counter(self, name: Counter) -> int:
        row = self._db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_counter(self, name: Counter, value: int) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    def next(self, name: Counter) -> int:
        """Counts up durably and returns the new number, so that no number is ever used twice."""
        with self._db:
            (value,) = self._db.execute(
                "INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
                (name,),
            ).fetchone()
        return int(value)

    def high_water(self) -> dict[str, int]:
        """Role -> highest version of TUF metadata ever accepted."""
        return dict(self._db.execute("SELECT role, version FROM high_water"))

    # --- assignment ---

    def assignment(self) -> bytes | None:
        """The newest assignment taken in, as it was signed."""
        row = self._db.execute("SELECT envelope FROM assignment").fetchone()
        return bytes(row[0]) if row else None

    def take_assignment(self, envelope: bytes, epoch: int, seq: int) -> None:
        """The assignment and its place in the order, in one transaction; raises Malformed for a place beyond 63
        bits."""
        if not 0 <= epoch <= _LAST or not 0 <= seq <= _LAST:
            raise Malformed(f"assignment ({epoch}, {seq}) is beyond what a place may be")
        with self._db:
            self._db.execute("DELETE FROM assignment")
            self._db.execute("INSERT INTO assignment VALUES (?)", (envelope,))
            for name, value in (("epoch", epoch), ("desired_seq", seq)):
                self._db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    # --- deployments ---

    def deployments(self) -> dict[ModelName, Deployment]:
        rows = self._db.execute("SELECT document FROM deployment ORDER BY model").fetchall()
        found = [codec.decode(Deployment, bytes(row[0]), _LIMIT) for row in rows]
        return {d.model: d for d in found}

    def write(self, deployment: Deployment, verdict: Quarantined | None = None) -> None:
        """One model's state and, in the same transaction, the verdict that led to it: never one without the other."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO deployment VALUES (?, ?)",
                (deployment.model, codec.encode(deployment)),
            )
            if verdict is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?)",
                    (deployment.model, verdict.manifest, verdict.artifact, min(verdict.retry, _LAST), verdict.reason),
                )

    # --- accepted releases ---

    def accept(self, model: ModelName, number: int, record: Record, versions: dict[str, int]) -> None:
        """The accepted-release record, with the high-water mark it raises, in one transaction."""
        with self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)",
                (model, number, msgspec.msgpack.encode(record)),
            )
            for role, version in versions.items():
                self._db.execute(
                    "INSERT INTO high_water VALUES (?, ?) ON CONFLICT (role)"
                    " DO UPDATE SET version = max(version, excluded.version)",
                    (role, version),
                )

    def record(self, model: ModelName, number: int) -> Record:
        """The accepted-release record; raises Malformed if there is none that can be read."""
        row = self._db.execute("SELECT record FROM accepted WHERE model = ? AND number = ?", (model, number)).fetchone()
        if row is None:
            raise Malformed(f"no accepted-release record of {model} {number}")
        try:
            return msgspec.msgpack.decode(row[0], type=Record)
        except msgspec.DecodeError as error:
            raise Malformed(f"accepted-release record of {model} {number}: {error}") from error

    # --- quarantine ---

    def quarantined(self, model: ModelName) -> tuple[Quarantined, ...]:
        rows = self._db.execute(
            "SELECT artifact, manifest, retry, reason FROM quarantine WHERE model = ? ORDER BY manifest",
            (model,),
        )
        return tuple(Quarantined(Digest(a), Digest(m), retry, reason) for a, m, retry, reason in rows)


_TABLES = """
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS high_water (role TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS assignment (envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS deployment (model TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accepted (
    model TEXT, number INTEGER, record BLOB NOT NULL, PRIMARY KEY (model, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS quarantine (
    model TEXT, manifest TEXT, artifact TEXT NOT NULL, retry INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (model, manifest)
) WITHOUT ROWID;
"""


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if found != "ok" or version not in (0, SCHEMA):
            raise sqlite3.DatabaseError(f"journal schema {version}: {found}")
        db.executescript(_TABLES)
        for (document,) in db.execute("SELECT document FROM deployment"):
            codec.decode(Deployment, bytes(document), _LIMIT)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    except Malformed as error:
        db.close()
        raise sqlite3.DatabaseError(f"journal: {error}") from error
    except sqlite3.DatabaseError:
        db.close()
        raise
    path.chmod(0o600)
    return db


def _put_aside(path: Path) -> Path:
    """Renames the file and its write-ahead log to the first free `*.unreadable`: nothing is lost to a person."""
    number, aside = 1, path.with_suffix(".unreadable")
    while aside.exists():
        number += 1
        aside = path.with_suffix(f".unreadable-{number}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


def _last_written(aside: Path) -> int:
    """Milliseconds since 1970 at which a file put aside was last written: more than any device ever counted to."""
    parts = (aside.with_name(aside.name + suffix) for suffix in ("", "-wal"))
    return max(int(part.stat().st_mtime * 1000) for part in parts if part.exists())
