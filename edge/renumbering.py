"""An outbox whose file lost its end, and with it the newest numbers it had given out: they would be given out again,
and the core, which has other records under them, would take the new ones for repetitions.

Nobody but the core can tell. Either it acknowledges more than the file knows of: then all that this start of the agent
wrote is new. Or it acknowledges a number that another start wrote than the one that wrote it here: then all is new that
was written here since that one began. What is new, under numbers that the core has, gets numbers after the last; what
is older, and still waits, the core has, as far as anybody can tell.
"""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from edge.gaps import is_gap
from sync import codec
from sync.errors import Malformed
from sync.messages import Record
from sync.names import LAST, Kind

FURTHEST = LAST // 2  # no box counts that far, and an acknowledgement is not signed: numbers must not run out by one


# Records leave in the order of their rows.
_BEHIND_ALL = "UPDATE record SET rowid = (SELECT max(rowid) + 1 FROM record), n = ?, document = ? WHERE rowid = ?"


def missing(db: sqlite3.Connection, epoch: int, kind: Kind, n: int, boot: str, now: str) -> str:
    """Which start of the agent, `now` being this one, was the first to write after the file had lost what the core has
    up to `n`, of which `boot` wrote the last (empty: not told); empty where nothing was lost, or nobody can tell."""
    if _last(db, epoch, kind) < n:
        return now
    row = db.execute("SELECT document FROM record WHERE epoch = ? AND kind = ? AND n = ?", (epoch, kind, n)).fetchone()
    record = _real(bytes(row[0])) if row is not None and boot else None
    return record.boot if record is not None and record.boot != boot else ""


def renumber(db: sqlite3.Connection, epoch: int, kind: Kind, n: int, boot: str) -> None:
    """Gives what `boot` wrote under numbers up to `n` those after the last, or after `n`; in a transaction of the
    outbox's, which then deletes what has a number up to `n`. What has a higher one keeps it: it may be on its way."""
    query = "SELECT rowid, n, document FROM record WHERE epoch = ? AND kind = ? ORDER BY n"
    last = max(n, _last(db, epoch, kind))
    for row, number, document in db.execute(query, (epoch, kind)).fetchall():
        record = _real(bytes(document))
        if record is not None and record.boot == boot and number <= n:
            last += 1
            again = codec.encode(replace(record, n=last))
            db.execute(_BEHIND_ALL, (last, again, row))
    db.execute("INSERT OR REPLACE INTO numbered VALUES (?, ?, ?)", (epoch, kind, last))


def _last(db: sqlite3.Connection, epoch: int, kind: Kind) -> int:
    row = db.execute("SELECT n FROM numbered WHERE epoch = ? AND kind = ?", (epoch, kind)).fetchone()
    return int(row[0]) if row else 0


def _real(document: bytes) -> Record | None:
    """None for a gap, which stands for numbers that are over, and for what nobody can read."""
    try:
        record = codec.decode(Record, document, len(document))
    except Malformed:
        return None
    return None if is_gap(document) else record
