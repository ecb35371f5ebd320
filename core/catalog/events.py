"""What happened, in the order it was committed: by the core itself (`source` = core) or told by a device."""

from __future__ import annotations

import json
from typing import Any

import msgspec


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

    def __init__(self, db: Any) -> None:
        self._db = db

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
        self._db.execute(
            "INSERT INTO event (ts, source, code, severity, model, text, facts) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (ts, source, code, severity, model, text, json.dumps(facts or {})),
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
