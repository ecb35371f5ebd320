"""Which parts of the core itself cannot be kept up now, as its supervisor told last: state, beside the events that say
when it began and ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class FailingPart(msgspec.Struct, frozen=True):
    """A part that fails since `since` (seconds since 1970; 0: not known); `text` says what is in the way, and what to
    do."""

    part: str
    since: float
    text: str


class Failing:
    """Shelf of what fails now."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def all(self) -> tuple[FailingPart, ...]:
        """By part."""
        rows = self._db.execute("SELECT part, since, text FROM failing ORDER BY part")
        return tuple(FailingPart(*row) for row in rows)

    def put(self, parts: Mapping[str, str], now: float) -> None:
        """These and no others fail now; what failed before keeps its time."""
        since = {row.part: row.since for row in self.all()}
        self._db.execute("DELETE FROM failing")
        rows = [(part, since.get(part, now), text) for part, text in parts.items()]
        self._db.executemany("INSERT INTO failing VALUES (?, ?, ?)", rows)
