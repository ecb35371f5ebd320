"""The file of the ring of predictions (`edge.predictions`): its tables, and what is asked of them."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from edge.database import Schema, Values
from sync.remembered import Remembered


class Waiting(msgspec.Struct, frozen=True):
    """A prediction that did not go upstream yet; `words`: how often its label had changed when it was read."""

    content: Remembered
    words: int


class Found(NamedTuple):
    """Predictions in order of event time, and whether older ones were left out."""

    predictions: list[Remembered]
    more: bool


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
_ADDED = {"ts": "REAL", "draw": "REAL", "words": "INTEGER NOT NULL DEFAULT 0", "sent": "INTEGER NOT NULL DEFAULT 0"}
_INDICES = """
CREATE INDEX IF NOT EXISTS prediction_labelled ON prediction (model, release) WHERE agreed IS NOT NULL;
CREATE INDEX IF NOT EXISTS prediction_to_go ON prediction (model, draw, ts, release) WHERE sent = 0;
CREATE INDEX IF NOT EXISTS prediction_told ON prediction (model, draw, ts, release)
    WHERE sent = 0 AND agreed IS NOT NULL;
CREATE INDEX IF NOT EXISTS prediction_when ON prediction (ts);
"""
# Not all pages are looked at: the ring is large, and every record in it is sealed, so that a changed one is noticed.
SCHEMA = Schema(_TABLE, "NORMAL", checked=False, prepare=_prepare)
AGREED = (
    "SELECT agreed FROM prediction WHERE model = ? AND release = ? AND agreed IS NOT NULL ORDER BY rowid DESC LIMIT ?"
)
REMEMBER = "INSERT OR IGNORE INTO prediction (id, model, release, sealed, ts, draw) VALUES (?, ?, ?, ?, ?, ?)"
LABEL = "UPDATE prediction SET sealed = ?, agreed = ?, words = words + 1, sent = 0 WHERE id = ?"
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
