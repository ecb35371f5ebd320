"""The file of the ring of predictions (`edge.predictions`): its tables, how a record in them is sealed, and what is
asked of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from edge.database import Schema, Values
from edge.steady import JUMP, Run
from sync import codec
from sync.names import TenantId
from sync.remembered import Remembered
from sync.sealing import NONCE_BYTES, seal_small, unseal_small


class Waiting(msgspec.Struct, frozen=True):
    """A prediction that did not go upstream yet; `words`: how often its label had changed when it was read."""

    content: Remembered
    words: int


class Found(NamedTuple):
    """Predictions in order of event time, and whether older ones were left out."""

    predictions: list[Remembered]
    more: bool


class Sealer:
    """Seals each prediction in its place: under another id, or on another tenant's device, it does not open."""

    def __init__(self, tenant: TenantId, key: bytes, nonces: Callable[[int], bytes]) -> None:
        self._tenant, self._key, self._nonces = tenant, key, nonces

    def seal(self, content: Remembered) -> bytes:
        aad = self._aad(content.prediction.id)
        return seal_small(codec.encode(content), self._key, aad, self._nonces(NONCE_BYTES))

    def unseal(self, prediction_id: str, sealed: bytes) -> Remembered:
        """The prediction again; raises Damaged or Malformed if the record is not as it was written."""
        plain = unseal_small(bytes(sealed), self._key, self._aad(prediction_id))
        return codec.decode(Remembered, plain, len(plain))

    def _aad(self, prediction_id: str) -> bytes:
        return f"falaj/1 prediction {self._tenant} {prediction_id}".encode()


def _prepare(db: sqlite3.Connection) -> None:
    known = {row[1] for row in db.execute("PRAGMA table_info(prediction)")}
    for column, kind in _ADDED.items():
        if column not in known:
            db.execute(f"ALTER TABLE prediction ADD COLUMN {column} {kind}")
    db.executescript(_INDICES)


_TABLE = """
CREATE TABLE IF NOT EXISTS prediction (id TEXT UNIQUE NOT NULL, model TEXT NOT NULL, release INTEGER NOT NULL,
    sealed BLOB NOT NULL, agreed INTEGER);
"""
_ADDED = {
    "ts": "REAL", "draw": "REAL", "words": "INTEGER NOT NULL DEFAULT 0", "sent": "INTEGER NOT NULL DEFAULT 0",
    "arrived": "REAL",
}  # fmt: skip
_INDICES = """
CREATE INDEX IF NOT EXISTS prediction_labelled ON prediction (model, release) WHERE agreed IS NOT NULL;
CREATE INDEX IF NOT EXISTS prediction_to_go ON prediction (model, draw, ts, release) WHERE sent = 0;
CREATE INDEX IF NOT EXISTS prediction_told ON prediction (model, draw, ts, release)
    WHERE sent = 0 AND agreed IS NOT NULL;
CREATE INDEX IF NOT EXISTS prediction_when ON prediction (ts);
CREATE INDEX IF NOT EXISTS prediction_came ON prediction (arrived) WHERE agreed IS NULL;
"""
# Not all pages are looked at: the ring is large, and every record in it is sealed, so that a changed one is noticed.
SCHEMA = Schema(_TABLE, "NORMAL", checked=False, prepare=_prepare)
AGREED = (
    "SELECT agreed FROM prediction WHERE model = ? AND release = ? AND agreed IS NOT NULL ORDER BY rowid DESC LIMIT ?"
)
SENT, NEVER = 1, -1  # in the column `sent`; 0 may still go
REMEMBER = (
    "INSERT OR IGNORE INTO prediction (id, model, release, sealed, ts, draw, arrived, sent)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
LABEL = "UPDATE prediction SET sealed = ?, agreed = ?, words = words + 1, sent = min(sent, 0) WHERE id = ?"
# The indices cover the conditions: what may go is found without reading the sealed records.
UNSENT = (
    "SELECT id, words, sealed FROM prediction WHERE rowid IN (SELECT rowid FROM prediction WHERE sent = 0"
    " AND model = ? AND draw < ? AND ts >= ? AND release IN (SELECT value FROM json_each(?)) ORDER BY rowid LIMIT ?)"
    " ORDER BY rowid"
)
COUNT = (
    "SELECT count(*) FROM prediction WHERE sent = 0"
    " AND model = ? AND draw < ? AND ts >= ? AND release IN (SELECT value FROM json_each(?))"
)
UNSENT_LABELLED = UNSENT.replace("sent = 0", "sent = 0 AND agreed IS NOT NULL")
COUNT_LABELLED = COUNT.replace("sent = 0", "sent = 0 AND agreed IS NOT NULL")
# By event time; the newest of those that fit, in the order they happened.
BETWEEN = (
    "SELECT id, sealed FROM prediction WHERE ts >= ? AND ts <= ? AND (? IS NULL OR model = ?)"
    " ORDER BY ts DESC, rowid DESC LIMIT ?"
)
SPAN = "SELECT min(ts), max(ts) FROM prediction"
LOT = 200  # predictions that are forgotten at once: whoever waits for the file waits for no more
_OLD = "agreed IS NULL AND arrived >= :right AND arrived < :cut"
# What came at a time that cannot be right, or when an earlier version did not write it: it is old when something that
# came after it is, or when the clock has run for that long.
_UNCLEAR = (
    "agreed IS NULL AND (arrived IS NULL OR arrived < :right OR arrived > :ahead)"
    " AND (:began < :cut OR rowid < (SELECT max(rowid) FROM prediction WHERE OLD))"
).replace("OLD", _OLD)
_FORGET = tuple(
    f"DELETE FROM prediction WHERE rowid IN (SELECT rowid FROM prediction WHERE {which} LIMIT {LOT})"  # noqa: S608
    for which in (_UNCLEAR, _OLD)
)


def forget(db: sqlite3.Connection, now: float, age: float, run: Run) -> bool:
    """Drops what came more than `age` seconds before `now` and has no label, `LOT` at most; whether there may be more.
    `run` is of the clock that says `now`."""
    told = {"right": run.right, "began": run.began, "cut": now - age, "ahead": now + 2 * JUMP}
    # A generator: what is unclear goes first, for it is the old ones that tell its age.
    return any(db.execute(query, told).rowcount == LOT for query in _FORGET)


def newest(db: sqlite3.Connection, asked: Values, most: int, room: int) -> tuple[list[tuple[str, bytes]], bool]:
    """Rows of `BETWEEN`, oldest first: the newest `most` at most, and so many as fit into `room` bytes but for one; and
    whether older ones are left out."""
    rows = list[tuple[str, bytes]]()
    for prediction_id, sealed in db.execute(BETWEEN, asked):
        room -= len(sealed)
        if len(rows) == most or (room < 0 and rows):
            return rows[::-1], True
        rows.append((prediction_id, bytes(sealed)))
    return rows[::-1], False
