"""What this device must remember across a power cut: one SQLite file, every write durable before it is acted on.

Journal first, act second, report third. A file that cannot be read is put aside, never deleted, and the device
starts without a past: it serves nothing until the core assigns again, and says so. A row that cannot be read is put
aside by itself, and all others count (`edge.aside`, which says what each stood for). A disk that refuses writing makes
every write raise (`edge.database.obstacle`) and changes nothing, in the file or in memory; what was written stays
readable, also for a start on such a disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from edge import aside, untold, verdicts
from edge.aside import LIMIT, Aside
from edge.database import Database, Factory, Schema, last_written
from edge.states import Counter, Deployment, HeldPiece
from edge.trust import Record, Unrecorded
from edge.untold import Saying, Untold
from edge.verdicts import EVERY, Quarantined
from sync import codec
from sync.errors import Malformed
from sync.names import LAST, ModelName
from sync.reports import WhyCard

SCHEMA = 1
CARDS = 20  # why cards kept
_FORGET_DIRECTOR = "DELETE FROM counter WHERE name IN ('epoch', 'desired_seq', 'signed_time', 'command_seq')"
_FORGET_ACCEPTED = "DELETE FROM accepted WHERE model = ? AND number NOT IN (SELECT value FROM json_each(?))"


class Journal:
    """The only pen for durable state of the agent. One thread (the walker's) uses it."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @classmethod
    def open(cls, path: Path, factory: Factory = sqlite3.Connection) -> Self:
        """Opens or creates the journal; an unreadable file is renamed to `*.unreadable` first.

        Raises sqlite3.DatabaseError where the host does not even let it be read: such a file is sound.
        """
        return cls(Database(path, _SCHEMA, _count_on, factory))

    @property
    def put_aside(self) -> Path | None:
        """Where an unreadable predecessor went, to be reported."""
        return self._db.put_aside

    def settle(self) -> None:
        """Puts an unreadable file aside where the host did not let that be done before; raises what it says."""
        self._db.settle()

    def prove(self) -> None:
        """Writes something; raises what the disk says if it does not take it."""
        self.next("proof")

    def close(self) -> None:
        self._db.close()

    # --- counters and documents ---

    def counter(self, name: Counter) -> int:
        row = self._db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def set_counter(self, name: Counter, value: int) -> None:
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    def next(self, name: Counter) -> int:
        """Counts up durably and returns the new number, so that no number is ever used twice."""
        with self._db.transaction() as db:
            (value,) = db.execute(
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
        return _bytes(row[0]) if row else None

    def take_assignment(self, envelope: bytes, epoch: int, seq: int, signed: float = 0.0) -> None:
        """The assignment, its place in the order and when it was signed, in one transaction."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM assignment")
            db.execute("INSERT INTO assignment VALUES (?)", (envelope,))
            latest = max(self.counter("signed_time"), int(min(max(signed, 0.0), LAST)))
            for name, value in (("epoch", epoch), ("desired_seq", seq), ("signed_time", latest)):
                db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))

    # --- deployments ---

    def deployments(self) -> dict[ModelName, Deployment]:
        rows = self._db.execute("SELECT document FROM deployment ORDER BY model").fetchall()
        found = [codec.decode(Deployment, bytes(row[0]), LIMIT) for row in rows]
        return {d.model: d for d in found}

    def write(
        self,
        deployment: Deployment,
        verdict: Quarantined | None = None,
        card: WhyCard | None = None,
        says: Saying | None = None,
    ) -> None:
        """One model's state and, in the same transaction, the verdict that led to it, why, and what the core must hear
        of it: never one without the others. The record of a release that is not held any more goes."""
        with self._db.transaction() as db:
            db.execute("INSERT OR REPLACE INTO deployment VALUES (?, ?)", (deployment.model, codec.encode(deployment)))
            numbers = msgspec.json.encode([slot.release.number for slot in deployment.slots()]).decode()
            db.execute(_FORGET_ACCEPTED, (deployment.model, numbers))
            if verdict is not None:
                verdicts.keep(db, deployment.model, verdict)
            if card is not None:
                db.execute("INSERT INTO why (model, document) VALUES (?, ?)", (card.model, codec.encode(card)))
                db.execute("DELETE FROM why WHERE id <= (SELECT max(id) FROM why) - ?", (CARDS,))
                untold.keep(db, Saying(card.ts, card))
            if says is not None:
                untold.keep(db, says)

    # --- trust ---

    def root(self) -> bytes | None:
        """The newest TUF root this device came to trust, None before the first that followed the enrolment's."""
        row = self._db.execute("SELECT document FROM root").fetchone()
        return _bytes(row[0]) if row else None

    def adopt(self, root: bytes, mark: Mapping[str, int], *, orders_void: bool) -> None:
        """A newer root and the high-water mark under it, in one transaction; nothing else ever lowers the mark.

        `orders_void`: no director of before is named any more, so the assignment, its place in the order, its time and
        the number of the last command go: the new director may count from anywhere, and what the old one signed is
        refused by its signature.
        """
        with self._db.transaction() as db:
            db.execute("DELETE FROM root")
            db.execute("INSERT INTO root VALUES (?)", (root,))
            db.execute("DELETE FROM high_water")
            db.executemany("INSERT INTO high_water VALUES (?, ?)", mark.items())
            if orders_void:
                db.execute("DELETE FROM assignment")
                db.execute(_FORGET_DIRECTOR)

    # --- accepted releases ---

    def accept(self, model: ModelName, number: int, record: Record, versions: dict[str, int]) -> None:
        """The accepted-release record, with the high-water mark it raises, in one transaction."""
        with self._db.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)",
                (model, number, msgspec.msgpack.encode(record)),
            )
            _raise(db, versions)

    def raise_mark(self, versions: Mapping[str, int]) -> None:
        """What was seen of the metadata, where no release was accepted by it."""
        with self._db.transaction() as db:
            _raise(db, versions)

    def forget(self, model: ModelName, number: int) -> None:
        """The accepted-release record goes: the release can never be loaded again."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM accepted WHERE model = ? AND number = ?", (model, number))

    def record(self, model: ModelName, number: int) -> Record:
        """The accepted-release record; raises Unrecorded if there is none that can be read."""
        row = self._db.execute("SELECT record FROM accepted WHERE model = ? AND number = ?", (model, number)).fetchone()
        if row is None:
            raise Unrecorded(f"no accepted-release record of {model} {number}")
        try:
            return msgspec.msgpack.decode(row[0], type=Record)
        except msgspec.DecodeError as error:
            raise Unrecorded(f"accepted-release record of {model} {number}: {error}") from error

    def accepted_roots(self) -> list[bytes]:
        """The roots under which the releases held here were accepted."""
        records = self._db.execute("SELECT record FROM accepted ORDER BY model, number").fetchall()
        return [msgspec.msgpack.decode(record, type=Record).root for (record,) in records]

    # --- quarantine ---

    def quarantined(self, model: ModelName) -> tuple[Quarantined, ...]:
        return verdicts.rows(self._db.execute(verdicts.OF_MODEL, (model, EVERY)).fetchall())

    # --- tables and config ---

    def pieces(self) -> dict[str, HeldPiece]:
        """What is held of each table and of the config, by name."""
        rows = self._db.execute("SELECT name, document FROM piece ORDER BY name").fetchall()
        return {name: codec.decode(HeldPiece, bytes(document), LIMIT) for name, document in rows}

    def put_piece(self, name: str, held: HeldPiece | None) -> None:
        """What is held now; None: nothing any more."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM piece WHERE name = ?", (name,))
            if held is not None:
                db.execute("INSERT INTO piece VALUES (?, ?)", (name, codec.encode(held)))

    # --- what could not be read ---

    def aside(self) -> list[Aside]:
        """The rows that were put aside and not told yet, oldest first."""
        return aside.rows(self._db.execute(aside.NOT_TOLD).fetchall())

    def tell_aside(self, id_: int, says: Saying) -> None:
        """What the core must hear of such a row, kept with the note that it is told."""
        with self._db.transaction() as db:
            db.execute("UPDATE aside SET told = 1 WHERE id = ?", (id_,))
            untold.keep(db, says)

    def lose_root(self, reason: str) -> None:
        """Puts the root aside: whoever believes it found that it is none."""
        with self._db.transaction() as db:
            aside.lose_root(db, reason)

    # --- why ---

    def why(self, model: ModelName | None = None) -> list[WhyCard]:
        """The newest why cards, of one model or all, newest first."""
        rows = self._db.execute(
            "SELECT document FROM why WHERE ? IS NULL OR model = ? ORDER BY id DESC", (model, model)
        ).fetchall()
        return [card for (document,) in rows if (card := _card(document)) is not None]

    def untold(self) -> list[Untold]:
        """What is not in the outbox yet, oldest first."""
        return untold.rows(self._db.execute("SELECT id, kind, ts, document FROM untold ORDER BY id").fetchall())

    def told(self, id_: int) -> None:
        """The outbox has it now."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM untold WHERE id = ?", (id_,))


def _raise(db: sqlite3.Connection, versions: Mapping[str, int]) -> None:
    db.executemany(
        "INSERT INTO high_water VALUES (?, ?)"
        " ON CONFLICT (role) DO UPDATE SET version = max(version, excluded.version)",
        versions.items(),
    )


def _bytes(document: object) -> bytes:
    """Empty, which nobody believes, where a rotten page made something else of it."""
    return document if isinstance(document, bytes) else b""


def _card(document: object) -> WhyCard | None:
    """The card, None if this version cannot read it: it is for people, nothing else depends on it."""
    try:
        return codec.decode(WhyCard, _bytes(document))
    except Malformed:
        return None


_TABLES = """
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS high_water (role TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS root (document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS assignment (envelope BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS deployment (model TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accepted (
    model TEXT, number INTEGER, record BLOB NOT NULL, PRIMARY KEY (model, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS piece (name TEXT PRIMARY KEY, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS why (id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, document BLOB NOT NULL);
"""


def _prepare(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, SCHEMA):
        raise sqlite3.DatabaseError(f"journal schema {version}")
    aside.sweep(db)
    if version != SCHEMA:  # a file that is only read must not need a write
        db.execute(f"PRAGMA user_version = {SCHEMA}")


def _count_on(db: sqlite3.Connection, aside: Path) -> None:
    """The core takes only reports that are newer than the last: to count from 1 again would be never to be heard. And
    nobody knows what was asked until then."""
    counters = [(name, last_written(aside)) for name in ("reported_seq", "command_time")]
    db.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?)", counters)


_SCHEMA = Schema(_TABLES + verdicts.TABLE + untold.TABLE + aside.TABLE, prepare=_prepare)
