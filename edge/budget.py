"""What the line may still take of a day: bytes of each account and UTC day, safe from a power cut. The road upstream
has an account for each model, what comes down has one (`edge.metering`).

One small SQLite file of its own, for it must be surer than the ring of predictions. Where it was lost, nobody knows
what went upstream today: that day counts as spent. A disk that refuses closes the road, and is told once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.database import FileOrMemory, Schema
from sync.names import ModelName

DAY = 86_400  # seconds of a UTC day; days are counted since 1970
_ALL = 2**53  # bytes: more than any budget


class Budget:
    """The accounts of one device; used by one thread. `report` is told of trouble under a stable code."""

    def __init__(self, path: Path, today: int, report: Callable[[str, str], None]) -> None:
        self._report, self._failing = report, False
        self._today = today
        self._file = self._open(path)

    def spend(self, model: str, day: int, size: int) -> bool:
        """Takes `size` bytes from a day; false if that cannot be written: then nothing may go."""
        return self._write(_SPEND, (model, day, size))

    def spent(self, model: str, day: int) -> int:
        """Bytes taken from a day; of a day that cannot be read there is nothing left."""
        if self._file.returned():
            self._report("budget-lost", "the disk takes the accounts again: what is left of today may go")
        if self._file.forgets and day == self._today:
            return _ALL
        return self._read("SELECT sum(bytes) FROM spent WHERE model IN (?, '') AND day = ?", (model, day), _ALL)

    def exhausted(self, model: str, day: int) -> bool:
        """Notes that a day's budget did not suffice; true the first time, also over restarts."""
        if self._read("SELECT told FROM spent WHERE model = ? AND day = ?", (model, day), 1):
            return False
        return self._write(_TELL, (model, day))

    def count(self, model: ModelName, samples: int) -> None:
        """So many more samples were handed to the outbox."""
        self._write(_COUNT, (model, samples))

    def handed(self, model: ModelName) -> int:
        """Samples handed to the outbox, ever."""
        return self._read("SELECT samples FROM handed WHERE model = ?", (model,), 0)

    def close(self) -> None:
        self._db.close()

    @property
    def _db(self) -> sqlite3.Connection:
        return self._file.db

    def _open(self, path: Path) -> FileOrMemory:
        lost: list[tuple[str, bool]] = []
        file = FileOrMemory(path, _SCHEMA, lambda text, memory: lost.append((text, memory)))
        if lost:
            text, memory = lost[-1]
            if memory:
                file.db.execute("PRAGMA query_only = ON")  # what the next start would not know of must not go
            else:
                with file.db:
                    file.db.execute("INSERT INTO spent VALUES ('', ?, ?, 1)", (self._today, _ALL))
            until = "the disk works" if memory else "tomorrow"
            self._report("budget-lost", f"what has a budget, samples and downloads, waits till {until}: {text}")
        return file

    def _write(self, statement: str, values: tuple[str | int, ...]) -> bool:
        try:
            with self._db:
                self._db.execute(statement, values)
        except sqlite3.Error as error:
            self._complain(error)
            return False
        self._failing = False
        return True

    def _read(self, query: str, values: tuple[str | int, ...], otherwise: int) -> int:
        try:
            row = self._db.execute(query, values).fetchone()
        except sqlite3.Error as error:
            self._complain(error)
            return otherwise
        return int(row[0] or 0) if row else 0

    def _complain(self, error: sqlite3.Error) -> None:
        if not self._failing:
            self._failing = True
            text = f"what a day has a budget for waits, samples and downloads: {error}; check the disk"
            self._report("budget-not-kept", text)


_TABLES = """
CREATE TABLE IF NOT EXISTS spent (model TEXT, day INTEGER, bytes INTEGER NOT NULL, told INTEGER NOT NULL,
    PRIMARY KEY (model, day)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS handed (model TEXT PRIMARY KEY, samples INTEGER NOT NULL) WITHOUT ROWID;
"""
_SCHEMA = Schema(_TABLES)
_SPEND = "INSERT INTO spent VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes"
_TELL = "INSERT INTO spent VALUES (?, ?, 0, 1) ON CONFLICT DO UPDATE SET told = 1"
_COUNT = "INSERT INTO handed VALUES (?, ?) ON CONFLICT DO UPDATE SET samples = samples + excluded.samples"
