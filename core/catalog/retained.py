"""Which sealed blobs lie on the broker, as far as this core has told it to keep or to clear them."""

from __future__ import annotations

from typing import Any

from sync.names import Digest


class Retained:
    """Shelf of blobs on the broker; a blob's size lies with its key (`Releases.keep_key`)."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def put(self, sealed: Digest) -> None:
        """The broker was told to keep it."""
        self._db.execute("INSERT OR REPLACE INTO retained VALUES (?, NULL)", (sealed,))

    def clear(self, sealed: Digest, now: float) -> None:
        """The broker was told to clear it; it may not have heard so."""
        self._db.execute("UPDATE retained SET cleared = ? WHERE sealed = ?", (now, sealed))

    def forget(self, before: float) -> None:
        """Those that it was told to clear before this time are gone."""
        self._db.execute("DELETE FROM retained WHERE cleared < ?", (before,))

    def here(self) -> dict[Digest, int]:
        """What it keeps: sealed digest -> bytes."""
        rows = self._db.execute("SELECT sealed, length FROM retained JOIN blob USING (sealed) WHERE cleared IS NULL")
        return {Digest(sealed): length for sealed, length in rows}

    def clearing(self) -> tuple[Digest, ...]:
        """What it may not have cleared yet."""
        rows = self._db.execute("SELECT sealed FROM retained WHERE cleared IS NOT NULL")
        return tuple(Digest(sealed) for (sealed,) in rows)
