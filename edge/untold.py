"""What the core must hear of a change of state, kept in the journal's own transaction until the outbox has it.

Journal and outbox are two files, and no transaction holds both: a record that was only put into the outbox after the
journal had changed would be lost by a power cut between the two, and the core would never hear of it.
"""

from __future__ import annotations

import sqlite3

import msgspec

from sync import codec
from sync.messages import ALARM, EVENT, WHY, DeviceEvent
from sync.names import Kind
from sync.reports import WhyCard

MOST = 1000  # kept while the outbox takes nothing; beyond, the oldest go, counted as `untold_lost`

TABLE = """
CREATE TABLE IF NOT EXISTS untold (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, ts REAL NOT NULL, document BLOB NOT NULL
);
"""


_COUNT = "INSERT INTO counter VALUES ('untold_lost', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"


class Saying(msgspec.Struct, frozen=True):
    """One event or why card, and when it was (seconds since 1970)."""

    ts: float
    body: DeviceEvent | WhyCard

    @property
    def kind(self) -> Kind:
        if isinstance(self.body, WhyCard):
            return WHY
        return ALARM if self.body.severity == "alarm" else EVENT


class Untold(msgspec.Struct, frozen=True):
    """A saying as it is kept: its number here, and its body as it was encoded then."""

    id: int
    kind: Kind
    ts: float
    body: msgspec.Raw

    @property
    def key(self) -> str:
        """Its own for good, also beside those of a journal that was put aside: by it the outbox knows it again."""
        return f"{self.id}@{self.ts!r}"


def keep(db: sqlite3.Connection, saying: Saying) -> None:
    """In a transaction of the journal's, which has the counters."""
    row = (saying.kind, saying.ts, codec.encode(saying.body))
    db.execute("INSERT INTO untold (kind, ts, document) VALUES (?, ?, ?)", row)
    gone = db.execute("DELETE FROM untold WHERE id <= (SELECT max(id) FROM untold) - ?", (MOST,)).rowcount
    if gone:
        db.execute(_COUNT, (gone,))


def rows(found: list[tuple[int, str, float, bytes]]) -> list[Untold]:
    """Rows of `SELECT id, kind, ts, document`."""
    return [Untold(id_, Kind(kind), ts, msgspec.Raw(bytes(document))) for id_, kind, ts, document in found]
