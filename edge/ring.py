"""The file of the ring of predictions (`edge.predictions`): its tables, and what is asked of them."""

from __future__ import annotations

import sqlite3

from edge.database import Schema


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
    "SELECT id, sealed FROM (SELECT id, sealed, ts, rowid AS place FROM prediction WHERE ts >= ? AND ts <= ?"
    " AND (? IS NULL OR model = ?) ORDER BY ts DESC, rowid DESC LIMIT ?) ORDER BY ts, place"
)
SPAN = "SELECT min(ts), max(ts) FROM prediction"
