"""Whose records an outbox gives up when it is full: never an alarm while there is anything else.

The bounds are declared here, in records and in bytes, for all kinds together: a box that nobody reaches for months must
not fill its own disk with what it would say.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from sync.messages import ALARM
from sync.names import Kind

CAPACITY = 10_000  # records of all kinds
ROOM = 64 * 1024 * 1024  # bytes of their documents; the file may be larger by a fifth, for its own pages


class Held(NamedTuple):
    """What lies in the outbox of one kind."""

    kind: Kind
    records: int
    bytes: int


def victim(held: Iterable[Held], capacity: int = CAPACITY, room: int = ROOM) -> Kind | None:
    """The kind whose two oldest records are to become one gap; None where all fits, or no kind has two.

    It is the one that takes most of what there is too much of. Alarms go when of all else one record each is left.
    """
    all_held = list(held)
    records, size = sum(h.records for h in all_held), sum(h.bytes for h in all_held)
    if records <= capacity and size <= room:
        return None
    given = [h for h in all_held if h.records > 1]
    given = [h for h in given if h.kind != ALARM] or given
    most = max(given, key=lambda h: h.records if records > capacity else h.bytes, default=None)
    return most.kind if most is not None else None


def prepare(db: sqlite3.Connection) -> None:
    """Takes away what a rotten page made of records where SQLite sees nothing wrong: nobody can send what has no kind,
    no number or no bytes. Others keep their places, and the core is led over the hole as over any (`edge.outbox`).
    Then counts anew in a file whose own count is wrong, or that was written before there was one."""
    kinds = [kind for (kind,) in db.execute("SELECT DISTINCT kind FROM record") if not _named(kind)]
    with db:
        db.executemany("DELETE FROM record WHERE kind IS ?", [(kind,) for kind in kinds])
        db.execute("DELETE FROM record WHERE typeof(n) <> 'integer' OR typeof(document) <> 'blob'")
    _count(db)


def _named(kind: object) -> bool:
    return isinstance(kind, str) and Kind.shape.fullmatch(kind) is not None


def _count(db: sqlite3.Connection) -> None:
    query = "SELECT kind, count(*), sum(length(document)) FROM record GROUP BY kind"
    found = db.execute(query).fetchall()
    if set(found) != set(db.execute("SELECT kind, records, bytes FROM held WHERE records OR bytes")):
        with db:
            db.execute("DELETE FROM held")
            db.executemany("INSERT INTO held VALUES (?, ?, ?)", found)


# Counted by the table itself, in whatever transaction changes it: adding all up with each new record is too slow.
TABLE = """
CREATE TABLE IF NOT EXISTS held (kind TEXT PRIMARY KEY, records INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS record_came AFTER INSERT ON record BEGIN
    INSERT INTO held VALUES (new.kind, 1, length(new.document))
        ON CONFLICT (kind) DO UPDATE SET records = records + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS record_changed AFTER UPDATE OF document ON record BEGIN
    UPDATE held SET bytes = bytes + length(new.document) - length(old.document) WHERE kind = new.kind;
END;
CREATE TRIGGER IF NOT EXISTS record_went AFTER DELETE ON record BEGIN
    UPDATE held SET records = records - 1, bytes = bytes - length(old.document) WHERE kind = old.kind;
END;
"""
