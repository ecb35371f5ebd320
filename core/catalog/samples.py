"""Batches of samples: which came up, which wait in the spool, and how many labelled samples trainings have used."""

from __future__ import annotations

from typing import Any

import msgspec

from sync.names import DeviceId, ModelName

LABELLED = "labelled"  # in the position of a samples source: how many labelled samples it landed, ever
BLOCK = 4096  # bytes that the smallest file takes on a disk
LOST = "lost"  # in the result of a job that the core's end took with it


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
        """A batch of `size` bytes is in the spool."""
        self._db.execute(
            "INSERT OR REPLACE INTO sample_batch VALUES (?, ?, ?, ?, ?, ?, NULL)", (device, epoch, n, model, size, now)
        )

    def spooled(self) -> int:
        """Bytes that wait in the spool, all models together, with what small files waste."""
        row = self._db.execute("SELECT sum(max(bytes, ?)) FROM sample_batch WHERE landed IS NULL", (BLOCK,)).fetchone()
        return int(row[0] or 0)

    def waiting(self, model: ModelName) -> Waiting:
        row = self._db.execute(
            "SELECT count(*), sum(bytes), min(received) FROM sample_batch WHERE model = ? AND landed IS NULL", (model,)
        ).fetchone()
        return Waiting(int(row[0]), int(row[1] or 0), row[2])

    def totals(self, model: ModelName) -> SampleTotals:
        row = self._db.execute(
            "SELECT count(*), sum(bytes), count(landed) FROM sample_batch WHERE model = ?", (model,)
        ).fetchone()
        return SampleTotals(int(row[0]), int(row[1] or 0), int(row[2]))

    def mark_landed(self, model: ModelName, device: DeviceId, epoch: int, n: int, job: int) -> None:
        """All batches of this model from this device up to number `n` were taken in or turned away by `job`."""
        self._db.execute(
            "UPDATE sample_batch SET landed = ? WHERE model = ? AND device = ? AND epoch = ? AND n <= ?"
            " AND landed IS NULL",
            (job, model, device, epoch, n),
        )

    # --- what was learned from ---

    def labelled(self, source: str) -> int:
        """Labelled samples that this source has landed, ever."""
        row = self._db.execute("SELECT mark FROM position WHERE source = ? AND origin = ?", (source, LABELLED))
        found = row.fetchone()
        return int(found[0]) if found else 0

    def use(self, job: int, labelled: int) -> None:
        """A training begins with so many labelled samples landed."""
        self._db.execute("INSERT OR REPLACE INTO training_samples VALUES (?, ?)", (job, labelled))

    def used(self, model: ModelName) -> int:
        """How many labelled samples had landed when the training of the newest candidate of `model` began."""
        row = self._db.execute(
            "SELECT labelled FROM candidate LEFT JOIN training_samples USING (job) WHERE model = ?"
            " ORDER BY candidate.id DESC LIMIT 1",
            (model,),
        ).fetchone()
        return int(row[0] or 0) if row else 0

    def last_ended(self, kind: str, subject: str, actor: str | None = None) -> tuple[float, bool] | None:
        """(when, whether it did its work) of the newest ended job, of all or of those that `actor` started.

        One that was lost because the core stopped does not count: it decided nothing.
        """
        row = self._db.execute(
            "SELECT finished, state FROM job WHERE kind = ? AND subject = ? AND (? IS NULL OR actor = ?)"
            " AND finished IS NOT NULL AND json_extract(result, ?) IS NULL ORDER BY id DESC LIMIT 1",
            (kind, subject, actor, actor, f"$.{LOST}"),
        ).fetchone()
        return (float(row[0]), row[1] == "done") if row else None
