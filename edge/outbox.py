"""Store and forward: what the core must know lies here until the core says it is committed.

Numbers rise without a gap within (epoch, kind). Full means the oldest records of some kind are dropped and counted
(`edge.overflow`; alarms last): telling new things late beats never telling them. The core waits for each number in
turn, so those that will never come are stood for by one *gap* (`edge.gaps`). There is one where records were dropped,
where an unreadable file was put aside (nobody knows how far it had counted), and where the core knows less than it
once acknowledged (it was restored from a backup). A disk that refuses costs records, counted in `dropped`, never the
agent: what lies here already is read all the while.

Alarms are a kind of their own, to leave first. A core that does not know it would keep of one only its size, so they
are events among others until an assignment says otherwise (`alarms_apart`).

A record that nobody can take in would hold up all behind it for good. It is *quarantined*: kept aside for a person,
its number stood for by a gap, told by an event. That happens at once to one that is no document the wire lets through,
and to any other when the core has said often enough that it stands right before it (`edge.agent.reporting` counts).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from edge import gaps, overflow
from edge.database import Database, Factory, Schema, last_written, obstacle
from edge.renumbering import FURTHEST, missing, renumber
from edge.untold import Untold
from sync import codec
from sync.commands import ANSWER
from sync.errors import Malformed
from sync.messages import ALARM, CSR, EVENT, METRICS, SAMPLE, WHY, DeviceEvent, Record
from sync.names import LAST, Kind

MOST = 32 * 1024 * 1024  # bytes of records read at once: for a folder each is held several times over
ASIDE = 20  # quarantined records kept, the newest
OURS = frozenset((ALARM, ANSWER, CSR, EVENT, METRICS, SAMPLE, WHY))  # kinds that this agent tells
POISONED = "record-poisoned"  # the event that tells of one


class Outbox:
    """One SQLite file; used by the walker's thread only."""

    def __init__(self, path: Path, epoch: int, boot: str, factory: Factory = sqlite3.Connection) -> None:
        self._refused = 0  # records the disk did not take
        self._behind: dict[Kind, int] = {}  # where the core said it stands, though we are further
        self._answers: dict[Kind, int] = {}  # where it said it stands, and nobody has asked `answer` since
        self._db = Database(path, _SCHEMA, _lose, factory)
        self.epoch, self.boot = epoch, boot
        self.alarms_apart = False  # whether the core knows that kind

    @property
    def put_aside(self) -> Path | None:
        """Where an unreadable predecessor went, to be reported."""
        return self._db.put_aside

    def settle(self) -> None:
        """Puts an unreadable file aside where the host did not let that be done before; raises what it says."""
        self._db.settle()

    def add(self, kind: Kind, body: object, now: float) -> bool:
        """Stores one record durably; false for one that the disk refuses, which is counted as dropped."""
        if self._add(kind, body, now):
            return True
        self._refused += 1
        return False

    def move(self, saying: Untold) -> bool:
        """Stores what another file keeps until then; false if the disk refuses: it stays there. The last one that was
        moved is known again, for a power cut may come before it is struck off there."""
        return self._add(saying.kind, saying.body, saying.ts, saying.key)

    def _add(self, wanted: Kind, body: object, now: float, key: str = "") -> bool:
        kind = self._known(wanted)
        try:
            with self._db.transaction() as db:
                if key and db.execute("SELECT 1 FROM moved WHERE key = ?", (key,)).fetchone():
                    return True
                if key:
                    db.execute("INSERT OR REPLACE INTO moved VALUES (1, ?)", (key,))
                n, document = self._append(kind, body, now)
                if (why := _unfit(document)) is not None:
                    self._set_aside(kind, n, document, why, now)
                self._trim(now)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return False
        return True

    def waiting(self, kind: Kind | None = None) -> int:
        """How many records of this kind, or of all, the core has not acknowledged."""
        query, of = ("SELECT count(*) FROM record WHERE epoch = ?", (self.epoch,))
        found = self._db.execute(f"{query} AND kind = ?", (*of, kind)) if kind else self._db.execute(query, of)
        return int(found.fetchone()[0])

    def pending(self, limit: int = 100, most: int = MOST) -> list[tuple[Kind, int, bytes]]:
        """(kind, number, document) of records not acknowledged yet, `most` bytes of them or a single one, oldest first:
        alarms and what renews the certificate, then the few of other kinds, then events, of which there may be
        thousands, then metrics; samples and answers, which are large, last."""
        found: list[tuple[Kind, int, bytes]] = []
        for kind, n, document in self._db.execute(_PENDING, (self.epoch, *_ORDER, limit)):
            most -= len(document)
            if found and most < 0:
                break
            found.append((Kind(kind), n, bytes(document)))
        return found

    def acknowledged(self, kind: Kind, epoch: int, n: int, boot: str = "") -> bool:
        """The core committed everything of this kind up to `n`, which that `boot` wrote. Unsigned: another epoch or an
        impossible `n` is ignored. True where the core has what this file knows nothing of: it lost its end."""
        if epoch != self.epoch or not 0 <= n <= LAST:
            return False
        self._answers[kind] = n
        try:
            with self._db.transaction() as db:
                since = missing(db, epoch, kind, n, boot, self.boot) if kind in OURS and n <= FURTHEST else ""
                if since:
                    renumber(db, epoch, kind, n, since)
                db.execute("DELETE FROM record WHERE epoch = ? AND kind = ? AND n <= ?", (epoch, kind, n))
                self._bridge(kind, n)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return False  # the core acknowledges again when it is sent again
        return bool(since)

    def answer(self, kind: Kind) -> int | None:
        """Where the core said it stands, once: None until it says so again."""
        return self._answers.pop(kind, None)

    def quarantine(self, kind: Kind, n: int, why: str, now: float) -> bool:
        """Takes a record out of the way that the core will never take in, with an event; a gap is left alone. `why` is
        for people. False where the disk refuses: then the record stays as it is."""
        try:
            with self._db.transaction() as db:
                query = "SELECT document FROM record WHERE epoch = ? AND kind = ? AND n = ?"
                row = db.execute(query, (self.epoch, kind, n)).fetchone()
                if row is not None and not gaps.is_gap(bytes(row[0])):
                    self._set_aside(kind, n, bytes(row[0]), why, now)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return False
        return True

    def quarantined(self) -> list[tuple[Kind, int, str, bytes]]:
        """(kind, number, why, document) of the newest that were, oldest first."""
        rows = self._db.execute("SELECT kind, n, why, document FROM poison ORDER BY id")
        return [(Kind(kind), n, why, bytes(document)) for kind, n, why, document in rows]

    def aside(self) -> int:
        """How many are kept aside."""
        return int(self._db.execute("SELECT count(*) FROM poison").fetchone()[0])

    def last(self, kind: Kind) -> int:
        """The newest number of this kind; 0 before the first."""
        row = self._db.execute("SELECT n FROM numbered WHERE epoch = ? AND kind = ?", (self.epoch, kind)).fetchone()
        return int(row[0]) if row else 0

    def after(self, kind: Kind, n: int) -> list[bytes]:
        """The documents of this kind with higher numbers that wait, oldest first."""
        query = "SELECT document FROM record WHERE epoch = ? AND kind = ? AND n > ? ORDER BY n"
        return [bytes(document) for (document,) in self._db.execute(query, (self.epoch, kind, n))]

    def mark(self) -> tuple[int, int]:
        """Another one whenever a record came or went: whoever has said all that waits need not read it again."""
        changes, newest = self._db.execute("SELECT total_changes(), max(rowid) FROM record").fetchone()
        return int(changes), int(newest or 0)

    def size(self) -> int:
        """Bytes of the records that the core has not acknowledged."""
        query = "SELECT coalesce(sum(length(document)), 0) FROM record WHERE epoch = ?"
        return int(self._db.execute(query, (self.epoch,)).fetchone()[0])

    def dropped(self) -> int:
        """How many records were given up for want of room, here or on the disk."""
        row = self._db.execute("SELECT n FROM dropped").fetchone()
        return (int(row[0]) if row else 0) + self._refused

    def close(self) -> None:
        self._db.close()

    def _known(self, kind: Kind) -> Kind:
        return EVENT if kind == ALARM and not self.alarms_apart else kind

    def _append(self, kind: Kind, body: object, now: float) -> tuple[int, bytes]:
        """The record under the next number of its kind; in a transaction."""
        (n,) = self._db.execute(_NEXT, (self.epoch, kind)).fetchone()
        if n == 1:
            n = self._begin(kind, now)
        document = self._record(n, now, msgspec.Raw(codec.encode(body)))
        self._put(kind, n, document)
        return n, document

    def _begin(self, kind: Kind, now: float) -> int:
        """The first number of a kind: after an unreadable predecessor a gap stands for all it may have given out."""
        row = self._db.execute("SELECT upto FROM lost").fetchone()
        if row is None:
            return 1
        self._put(kind, row[0], self._gap(1, row[0], now))
        self._db.execute("UPDATE numbered SET n = ? WHERE epoch = ? AND kind = ?", (row[0] + 1, self.epoch, kind))
        return int(row[0]) + 1

    def _trim(self, now: float) -> None:
        """Room for what is new: two that are the oldest of a kind become one gap, as often as it takes."""
        if self._victim() is None:
            return
        self._db.execute("DELETE FROM record WHERE epoch <> ?", (self.epoch,))  # nobody asks for them
        while (kind := self._victim()) is not None:
            oldest = "SELECT rowid, n, document FROM record WHERE epoch = ? AND kind = ? ORDER BY n LIMIT 2"
            (row, n, document), (_, last, _) = victims = self._db.execute(oldest, (self.epoch, kind)).fetchall()
            real = sum(not gaps.is_gap(bytes(document)) for _, _, document in victims)
            self._db.execute("DELETE FROM record WHERE epoch = ? AND kind = ? AND n <= ?", (self.epoch, kind, last))
            self._put(kind, last, self._gap(gaps.first_of(n, bytes(document)), last, now), rowid=row)
            self._db.execute(_COUNT, (real,))

    def _victim(self) -> Kind | None:
        rows = self._db.execute("SELECT kind, records, bytes FROM held")
        return overflow.victim(overflow.Held(Kind(kind), records, size) for kind, records, size in rows)

    def _set_aside(self, kind: Kind, n: int, document: bytes, why: str, now: float) -> None:
        """In a transaction: the record is kept, a gap takes its place, an event tells."""
        self._db.execute("INSERT INTO poison (kind, n, why, document) VALUES (?, ?, ?, ?)", (kind, n, why, document))
        self._db.execute("DELETE FROM poison WHERE id <= (SELECT max(id) FROM poison) - ?", (ASIDE,))
        where = (self._gap(n, n, now), self.epoch, kind, n)
        self._db.execute("UPDATE record SET document = ? WHERE epoch = ? AND kind = ? AND n = ?", where)
        text = f"record {n} of kind {kind} ({len(document)} bytes) can never be taken in and is kept aside: {why}"
        facts: dict[str, str | int | float] = {"kind": kind, "number": n, "bytes": len(document)}
        self._append(self._known(ALARM), DeviceEvent(POISONED, text, None, "alarm", facts), now)

    def _bridge(self, kind: Kind, n: int) -> None:
        """Where the core stands at `n` and the next record is further on, a gap leads there."""
        where = "SELECT rowid, n, document FROM record WHERE epoch = ? AND kind = ? ORDER BY n LIMIT 1"
        row = self._db.execute(where, (self.epoch, kind)).fetchone()
        if row is None or gaps.first_of(row[1], bytes(row[2])) <= n + 1:
            return
        if self._behind.get(kind) != n:  # once may be an old acknowledgement on its way; twice is an answer
            self._behind[kind] = n
            return
        ts = codec.decode(Record, bytes(row[2])).ts
        if gaps.first_of(row[1], bytes(row[2])) != row[1]:
            self._db.execute("UPDATE record SET document = ? WHERE rowid = ?", (self._gap(n + 1, row[1], ts), row[0]))
            return
        (front,) = self._db.execute("SELECT min(rowid) FROM record").fetchone()
        self._put(kind, row[1] - 1, self._gap(n + 1, row[1] - 1, ts), rowid=front - 1)

    def _put(self, kind: Kind, n: int, document: bytes, rowid: int | None = None) -> None:
        self._db.execute(
            "INSERT INTO record (rowid, epoch, kind, n, document) VALUES (?, ?, ?, ?, ?)",
            (rowid, self.epoch, kind, n, document),
        )

    def _record(self, n: int, now: float, body: msgspec.Raw) -> bytes:
        return codec.encode(Record(self.epoch, n, now, self.boot, body))

    def _gap(self, first: int, last: int, now: float) -> bytes:
        return self._record(last, now, msgspec.Raw(codec.encode(gaps.body(first, last))))


def _unfit(document: bytes) -> str | None:
    """Why no core could read it, None if one could."""
    if len(document) > codec.LIMIT:
        return f"a record has {codec.LIMIT} bytes at most"
    try:
        codec.decode(Record, document)
    except Malformed as error:
        return str(error)[:200]
    return None


_PENDING = """
SELECT kind, n, document FROM record WHERE epoch = ?
ORDER BY kind NOT IN (?, ?), kind IN (?, ?), kind = ?, kind = ?, rowid LIMIT ?
"""
# The first two go first, the others after what is not named. Without a certificate no alarm would leave.
_ORDER = (ALARM, CSR, SAMPLE, ANSWER, METRICS, EVENT)
_NEXT = "INSERT INTO numbered VALUES (?, ?, 1) ON CONFLICT (epoch, kind) DO UPDATE SET n = n + 1 RETURNING n"
_COUNT = "INSERT INTO dropped VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET n = n + excluded.n"


def _lose(db: sqlite3.Connection, aside: Path) -> None:
    """Nobody knows how far the predecessor had counted; it cannot have been further than this."""
    db.execute("INSERT INTO lost VALUES (1, ?)", (last_written(aside),))


_TABLES = """
CREATE TABLE IF NOT EXISTS record (epoch INTEGER, kind TEXT, n INTEGER, document BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS record_kind ON record (epoch, kind, n);
CREATE TABLE IF NOT EXISTS numbered (epoch INTEGER, kind TEXT, n INTEGER, PRIMARY KEY (epoch, kind));
CREATE TABLE IF NOT EXISTS dropped (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS poison (id INTEGER PRIMARY KEY, kind TEXT, n INTEGER, why TEXT, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS moved (id INTEGER PRIMARY KEY, key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lost (id INTEGER PRIMARY KEY, upto INTEGER NOT NULL);
"""
_SCHEMA = Schema(_TABLES + overflow.TABLE, prepare=overflow.prepare)
