"""What was refused on this device, and stays so until a higher retry generation: one row a release, in the journal.

A verdict must never be lost by halves: where its row cannot be read whole it holds for the most that it can have said
(`keep_worst`), and so lets nothing in that was refused before.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from sync.errors import Malformed
from sync.names import LAST, BadName, Count, Digest, ModelName
from sync.reports import ANY

FOR_GOOD = LAST  # the retry generation of a verdict that none lifts
EVERY = ""  # the model of a verdict that may be on any

TABLE = """
CREATE TABLE IF NOT EXISTS quarantine (
    model TEXT, manifest TEXT, artifact TEXT NOT NULL, retry INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (model, manifest)
) WITHOUT ROWID;
"""

# Of one model, and of any: its parameters are the model's name and `EVERY`.
OF_MODEL = "SELECT artifact, manifest, retry, reason FROM quarantine WHERE model IN (?, ?) ORDER BY manifest"


class Quarantined(msgspec.Struct, frozen=True):
    """A verdict against one artifact on this device, lifted by a higher retry generation."""

    artifact: Digest
    manifest: Digest
    retry: Count
    reason: str

    def bars(self, manifest: Digest, retry: int) -> bool:
        """Whether it is against this release, ordered with this retry generation."""
        return self.manifest in (manifest, ANY) and self.retry >= retry


def keep(db: sqlite3.Connection, model: ModelName, verdict: Quarantined) -> None:
    """In a transaction of the journal's. A later verdict lifts nothing of one that stands."""
    row = (model, verdict.manifest, verdict.artifact, verdict.retry, verdict.reason)
    db.execute(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?) ON CONFLICT (model, manifest) DO UPDATE SET"
        " artifact = excluded.artifact, retry = max(retry, excluded.retry), reason = excluded.reason",
        row,
    )


def rows(found: list[tuple[str, str, int, str]]) -> tuple[Quarantined, ...]:
    """Rows of `OF_MODEL`."""
    return tuple(Quarantined(Digest(a), Digest(m), retry, reason) for a, m, retry, reason in found)


def check(model: Any, manifest: Any, artifact: Any, retry: Any, reason: Any) -> None:
    """Raises BadName or Malformed for a row that `rows` could not read."""
    if model != EVERY:
        ModelName(model)
    Digest(manifest)
    Digest(artifact)
    if not _counts(retry) or not isinstance(reason, str):
        raise Malformed("its number or its reason is none")


def keep_worst(db: sqlite3.Connection, model: Any, manifest: Any, artifact: Any, retry: Any, reason: Any) -> None:
    """In place of a row that `check` refused: what it may have said at the most, beside any that says the same."""
    row = (_model(model), _digest(manifest), _digest(artifact), retry if _counts(retry) else FOR_GOOD, str(reason))
    db.execute(
        "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (model, manifest) DO UPDATE SET retry = max(retry, excluded.retry)",
        row,
    )


def _counts(retry: Any) -> bool:
    return isinstance(retry, int) and 0 <= retry <= LAST


def _digest(found: Any) -> Digest:
    try:
        return Digest(found)
    except BadName:
        return ANY


def _model(found: Any) -> str:
    try:
        return ModelName(found)
    except BadName:
        return EVERY
