"""Versions of what is synced beside releases: tables (`lookup/NAME`), and each device's config (`config/DEVICE`)."""

from __future__ import annotations

from typing import Any

import msgspec

from sync import codec
from sync.manifest import Blob
from sync.names import Digest, LookupName

_LIMIT = 1024 * 1024


def of_lookup(name: LookupName) -> str:
    """What the versions of a table are called here."""
    return f"lookup/{name}"


class PieceRow(msgspec.Struct, frozen=True):
    """One version. `valid_from`: from when its values hold; `as_of`: when its source was last found to say so."""

    name: str
    version: int
    plain: Digest
    valid_from: float
    as_of: float
    blob: Blob


class Pieces:
    """Shelf of versions; the keys of their blobs lie with those of releases (`Releases.keep_key`)."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def add(self, row: PieceRow) -> None:
        self._db.execute(
            "INSERT INTO piece VALUES (?, ?, ?, ?, ?, ?)",
            (row.name, row.version, row.plain, row.valid_from, row.as_of, codec.encode(row.blob)),
        )

    def confirm(self, name: str, version: int, as_of: float) -> None:
        """The source still says so."""
        self._db.execute("UPDATE piece SET as_of = ? WHERE name = ? AND version = ?", (as_of, name, version))

    def newest(self, name: str) -> PieceRow | None:
        row = self._db.execute("SELECT * FROM piece WHERE name = ? ORDER BY version DESC LIMIT 1", (name,)).fetchone()
        return _row(row) if row else None

    def versions(self, name: str) -> list[PieceRow]:
        """Oldest first."""
        rows = self._db.execute("SELECT * FROM piece WHERE name = ? ORDER BY version", (name,)).fetchall()
        return [_row(row) for row in rows]

    def all_newest(self) -> list[PieceRow]:
        """The newest version of everything, by name."""
        rows = self._db.execute(
            "SELECT * FROM piece AS p WHERE version = (SELECT max(version) FROM piece WHERE name = p.name)"
            " ORDER BY name"
        ).fetchall()
        return [_row(row) for row in rows]

    def described(self, sealed: Digest) -> Blob | None:
        """A blob as its version describes it; None for one that is of no version here."""
        row = self._db.execute(
            "SELECT piece.blob FROM piece JOIN blob ON (blob.model, blob.number) = (piece.name, piece.version)"
            " WHERE sealed = ?",
            (sealed,),
        ).fetchone()
        return codec.decode(Blob, bytes(row[0]), _LIMIT) if row else None

    def outdated(self) -> list[PieceRow]:
        """Versions before the newest of which the sealed blob is still here, and nothing of it on the broker."""
        rows = self._db.execute(
            "SELECT p.* FROM piece AS p JOIN blob ON (blob.model, blob.number) = (p.name, p.version)"
            " WHERE p.version < (SELECT max(version) FROM piece WHERE name = p.name)"
            " AND blob.sealed NOT IN (SELECT sealed FROM retained) ORDER BY p.name, p.version"
        ).fetchall()
        return [_row(row) for row in rows]


def _row(row: Any) -> PieceRow:
    name, version, plain, valid_from, as_of, blob = tuple(row)
    return PieceRow(name, version, Digest(plain), valid_from, as_of, codec.decode(Blob, bytes(blob), _LIMIT))
