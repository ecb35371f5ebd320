"""How many cells of served predictions were made again, and how many came out otherwise, by device and release."""

from __future__ import annotations

from typing import Any

import msgspec

from core.catalog.performance import RELEASES
from core.handoffs import Skew
from sync.names import DeviceId, ModelName


class SkewRow(msgspec.Struct, frozen=True):
    """The sum of what was made again of a release on a device, from `since` to `newest` (`core.handoffs.Skew`)."""

    device: DeviceId
    model: ModelName
    number: int
    predictions: int
    cells: int
    mismatching: int
    unchecked: int
    example: str
    since: float
    newest: float


class SkewShelf:
    """Shelf of such counts: of a device the `releases` that were newest made again, as its own tallies are kept."""

    def __init__(self, db: Any, releases: int = RELEASES) -> None:
        self._db, self._releases = db, releases

    def add(self, model: ModelName, more: Skew, now: float) -> SkewRow:
        """The sum with what was found before. In a transaction."""
        counts = (more.predictions, more.cells, more.mismatching, more.unchecked, more.example)
        self._db.execute(
            "INSERT INTO skew VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " predictions = predictions + excluded.predictions, cells = cells + excluded.cells,"
            " mismatching = mismatching + excluded.mismatching, unchecked = unchecked + excluded.unchecked,"
            " example = CASE example WHEN '' THEN excluded.example ELSE example END, newest = excluded.newest",
            (more.device, model, more.number, *counts, now, now),
        )
        self._trim(more.device)
        key = (more.device, model, more.number)
        row = self._db.execute("SELECT * FROM skew WHERE device = ? AND model = ? AND number = ?", key).fetchone()
        return _row(row)

    def _trim(self, device: DeviceId) -> None:
        self._db.execute(
            "DELETE FROM skew WHERE device = ? AND newest <"
            " (SELECT newest FROM skew WHERE device = ? ORDER BY newest DESC LIMIT 1 OFFSET ?)",
            (device, device, self._releases - 1),
        )

    def all(self, device: DeviceId | None = None, model: ModelName | None = None) -> list[SkewRow]:
        """By device, model and number, of one or of all."""
        rows = self._db.execute(
            "SELECT * FROM skew WHERE (? IS NULL OR device = ?) AND (? IS NULL OR model = ?)"
            " ORDER BY device, model, number",
            (device, device, model, model),
        )
        return list(map(_row, rows))


def _row(row: Any) -> SkewRow:
    device, model, *rest = row
    return SkewRow(DeviceId(device), ModelName(model), *rest)
