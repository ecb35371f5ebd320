"""Batches of samples: which came up, which wait in the spool, and how many labelled samples trainings have used."""

from __future__ import annotations

from typing import Any

import msgspec

from core.handoffs import LABELLED
from sync.names import DeviceId, ModelName

BLOCK = 4096  # bytes that the smallest file takes on a disk


class Waiting(msgspec.Struct, frozen=True):
    """Batches of a model in the spool; `since` is when the oldest came, None if there is none."""

    batches: int = 0
    bytes: int = 0
    since: float | None = None


class SampleTotals(msgspec.Struct, frozen=True):
    """Of one model, since the core was set up: batches that came up, their sealed bytes, and how many have landed."""

    batches: int = 0
    bytes: int = 0
    landed: int = 0


class SampleShelf:
    """Shelf of sample batches, by the numbers under which devices sent them."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def add(self, device: DeviceId, epoch: int, n: int, model: ModelName, size: int, now: float) -> None:
        """A batch of `size` bytes is in the spool; one that is known changes nothing. In a transaction."""
        added = self._db.execute(
            "INSERT OR IGNORE INTO sample_batch VALUES (?, ?, ?, ?, ?, ?, NULL)", (device, epoch, n, model, size, now)
        )
        if added.rowcount:
            self._db.execute(
                "INSERT INTO sample_tally VALUES (?, ?, 1, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET"
                " batches = batches + 1, bytes = bytes + excluded.bytes, waiting = waiting + 1,"
                " waiting_bytes = waiting_bytes + excluded.bytes, room = room + excluded.room",
                (model, device, size, size, max(size, BLOCK)),
            )

    def spooled(self, device: DeviceId | None = None) -> int:
        """Bytes that wait in the spool, of one device or of all, all models together, with what small files waste."""
        row = self._db.execute("SELECT sum(room) FROM sample_tally WHERE ? IS NULL OR device = ?", (device, device))
        return int(row.fetchone()[0] or 0)

    def waiting(self, model: ModelName) -> Waiting:
        row = self._db.execute(
            "SELECT sum(waiting), sum(waiting_bytes), (SELECT min(received) FROM sample_batch WHERE model = ? AND"
            " landed IS NULL) FROM sample_tally WHERE model = ?",
            (model, model),
        ).fetchone()
        return Waiting(int(row[0] or 0), int(row[1] or 0), row[2])

    def totals(self, model: ModelName) -> SampleTotals:
        row = self._db.execute(
            "SELECT sum(batches), sum(bytes), sum(batches - waiting) FROM sample_tally WHERE model = ?", (model,)
        ).fetchone()
        return SampleTotals(*(int(figure or 0) for figure in row))

    def mark_landed(self, model: ModelName, device: DeviceId, epoch: int, n: int) -> None:
        """All batches of this model from this device up to number `n` were taken in or turned away. In a
        transaction."""
        those = "model = ? AND device = ? AND epoch = ? AND n <= ?"
        found = (model, device, epoch, n)
        batches, size, room = self._db.execute(
            f"SELECT count(*), sum(bytes), sum(max(bytes, {BLOCK})) FROM sample_batch WHERE {those}",  # noqa: S608
            found,
        ).fetchone()
        if batches:
            self._db.execute(
                "UPDATE sample_tally SET waiting = waiting - ?, waiting_bytes = waiting_bytes - ?, room = room - ?"
                " WHERE model = ? AND device = ?",
                (batches, size, room, model, device),
            )
            self._db.execute(f"DELETE FROM sample_batch WHERE {those}", found)  # noqa: S608 - no value is in the text

    # --- what was learned from ---

    def labelled(self, source: str) -> int:
        """Labelled samples that this source has landed, ever."""
        row = self._db.execute("SELECT mark FROM position WHERE source = ? AND origin = ?", (source, LABELLED))
        found = row.fetchone()
        return int(found[0]) if found else 0

    def use(self, job: int, source: str, labelled: int) -> None:
        """A training begins with so many labelled samples of `source` landed."""
        self._db.execute("INSERT OR REPLACE INTO training_samples VALUES (?, ?, ?)", (job, labelled, source))

    def used(self, model: ModelName, source: str) -> int:
        """How many labelled samples of `source` had landed when the training of the newest candidate of `model` began:
        none if it learned from another source."""
        row = self._db.execute(
            "SELECT CASE WHEN source IN (?, '') THEN labelled END FROM candidate LEFT JOIN training_samples"
            " USING (job) WHERE model = ? ORDER BY candidate.id DESC LIMIT 1",
            (source, model),
        ).fetchone()
        return int(row[0] or 0) if row else 0
