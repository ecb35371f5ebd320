"""An outbox whose file lost its end, and with it the newest numbers it had given out: they would be given out again,
and the core, which has other records under them, would take the new ones for repetitions.

Nobody but the core can tell: it acknowledges more than the file knows of. What this start of the agent wrote since gets
the numbers after that; what is older, and still waits, the core has.
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


def renumber(db: sqlite3.Connection, epoch: int, kind: Kind, n: int, boot: str) -> None:
    """Gives the records of this start the numbers after `n`, up to which the core has all; in a transaction of the
    outbox's, which then deletes what has a number up to `n`."""
    query = "SELECT rowid, document FROM record WHERE epoch = ? AND kind = ? ORDER BY n"
    last = n
    for row, document in db.execute(query, (epoch, kind)).fetchall():
        record = _written_by(boot, bytes(document))
        if record is not None:
            last += 1
            fresh = codec.encode(replace(record, n=last))
            db.execute("UPDATE record SET n = ?, document = ? WHERE rowid = ?", (last, fresh, row))
    db.execute("INSERT OR REPLACE INTO numbered VALUES (?, ?, ?)", (epoch, kind, last))


def _written_by(boot: str, document: bytes) -> Record | None:
    """None for another start's, for a gap, which stands for numbers that are over, and for what nobody can read."""
    try:
        record = codec.decode(Record, document, len(document))
    except Malformed:
        return None
    return record if record.boot == boot and not is_gap(document) else None
