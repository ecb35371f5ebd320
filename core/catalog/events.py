"""What happened, in the order it was committed: by the core itself (`source` = core), at the door for new devices
(`enrolment`), or told by or of a device. Each source has room of its own, so that a noisy one fills neither the disk
nor the place of the others."""

from __future__ import annotations

import json
from typing import Any

import msgspec

KEPT = 10_000  # events of one source
FORGET_EVERY = 64  # events of all sources between two looks at whoever adds just then


class Event(msgspec.Struct, frozen=True):
    """One thing that happened, under a stable code."""

    id: int
    ts: float
    source: str
    code: str
    severity: str
    model: str | None
    text: str
    facts: dict[str, Any]


class Events:
    """Shelf of events."""

    def __init__(self, db: Any, kept: int = KEPT) -> None:
        self._db, self._kept = db, kept

    def add(
        self,
        ts: float,
        source: str,
        code: str,
        text: str,
        *,
        severity: str = "info",
        model: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        cursor = self._db.execute(
            "INSERT INTO event (ts, source, code, severity, model, text, facts) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (ts, source, code, severity, model, text, json.dumps(facts or {})),
        )
        if cursor.lastrowid % FORGET_EVERY == 0:
            self._forget(source)

    def _forget(self, source: str) -> None:
        self._db.execute(
            "DELETE FROM event WHERE source = ? AND id <="
            " (SELECT id FROM event WHERE source = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (source, source, self._kept),
        )

    def newest(self, limit: int = 50) -> list[Event]:
        """Newest first."""
        rows = self._db.execute("SELECT * FROM event ORDER BY id DESC LIMIT ?", (limit,))
        return [
            Event(
                r["id"],
                r["ts"],
                r["source"],
                r["code"],
                r["severity"],
                r["model"],
                r["text"],
                json.loads(r["facts"]),
            )
            for r in rows
        ]
