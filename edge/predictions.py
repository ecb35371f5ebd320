"""What was predicted, from what, and what it really was: an encrypted ring of the newest predictions.

Labels come back by prediction id, late, in any order, perhaps twice: the newest word on a prediction counts. Inputs
and answers are sealed, one key a record; ids, times and whether a label agreed stand beside them in the clear. So does
whether a prediction went upstream (`edge.road`). What got no label within a day is forgotten (`forget`).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import msgspec

from edge import ring
from edge.database import FileOrMemory
from edge.ring import NEVER, SENT, Found, Sealer, Waiting
from edge.steady import Run
from sync import codec
from sync.errors import Damaged, Malformed
from sync.messages import Prediction
from sync.names import ModelName, TenantId
from sync.remembered import NO_BASIS, Basis, Remembered, of_window
from sync.reports import LabelReport
from sync.windows import Rows

CAPACITY = 10_000  # predictions kept
AGE = 86_400.0  # seconds that one without a label is kept
NEWEST = 20  # predictions that are told when nobody says which
READ = 24 * 1024 * 1024  # bytes of sealed predictions that are read at once
RECENT = 200  # labelled predictions that the reported accuracy is about
_TRIM_EVERY = 256


class Refusal(StrEnum):
    """Why a label was not kept."""

    UNKNOWN_ID = "unknown-id"  # the ring does not know such a prediction (any longer)
    UNKNOWN_LABEL = "unknown-label"  # none of the classes that the prediction chose from, or it was no class or number
    NOT_KEPT = "not-kept"  # the disk refuses, or the record was changed on it


class Choice(msgspec.Struct, frozen=True):
    """Which predictions: of these releases of a model, labelled ones or a share of all, from an event time on."""

    model: ModelName
    releases: tuple[int, ...]
    labelled: bool
    share: float = 1.0
    since: float = float("-inf")


Report = Callable[[str, str], None]  # (stable code, text)


class Predictions:
    """The ring of one device: one SQLite file, thread-safe. `now` is the device's clock (seconds since 1970).

    It stands beside serving, never in its way: a file or disk that fails costs predictions, which `report` is told
    once until it works again, and raises nothing.
    """

    def __init__(
        self,
        path: Path,
        tenant: TenantId,
        key: bytes,
        nonces: Callable[[int], bytes],
        now: Callable[[], float],
        report: Report,
        capacity: int = CAPACITY,
    ) -> None:
        self._report, self._failing = report, False
        self._sealer, self._now, self._capacity = Sealer(tenant, key, nonces), now, capacity
        self._added = 0
        self._reports: dict[tuple[ModelName, int], LabelReport | None] = {}  # as asked for since the last label
        self._lock = threading.Lock()
        self._file = FileOrMemory(path, ring.SCHEMA, lambda text, memory: report("predictions-not-kept", text))
        self._fill_in()

    def remember(self, prediction: Prediction, window: Rows, basis: Basis = NO_BASIS) -> None:
        """Keeps an answered prediction; the same id again (a redelivered window) changes nothing."""
        self.remember_all((of_window(prediction, window, self._now(), basis),))

    def remember_all(self, answered: Iterable[Remembered]) -> None:
        """As `remember`, in one transaction."""
        rows = [self._row(one) for one in answered]
        if not rows:
            return
        try:
            with self._lock:
                if self._file.returned():
                    self._report("predictions-not-kept", "the disk takes them again, with all that memory held")
                with self._db:
                    self._db.executemany(ring.REMEMBER, rows)
                    self._added += len(rows)
                    if self._added % _TRIM_EVERY < len(rows):
                        self._trim()
            self._failing = False
        except sqlite3.Error as error:
            self._complain(f"predictions cannot be labelled later: {error}; check the disk")

    def label(self, prediction_id: str, label: str) -> Refusal | None:
        """Keeps what a prediction really was, so that it goes upstream (again); the same word twice changes nothing."""
        told = self.hear(prediction_id, label)
        return told if isinstance(told, Refusal) else None

    def hear(self, prediction_id: str, label: str) -> Remembered | Refusal | None:
        """As `label`, with the prediction where this is the first word on it: of several threads one is given it."""
        try:
            with self._lock, self._db:
                found = self._find(prediction_id)
                if found is None:
                    return Refusal.UNKNOWN_ID
                said = found.prediction
                if said.value is None or (said.classes and label not in said.classes):
                    return Refusal.UNKNOWN_LABEL
                if found.label == label:
                    return None
                sealed = self._sealer.seal(msgspec.structs.replace(found, label=label, labelled=self._now()))
                self._db.execute(ring.LABEL, (sealed, str(said.value) == label, prediction_id))
                self._reports.clear()
        except (sqlite3.Error, Damaged, Malformed) as error:
            self._complain(f"a label was not kept: {error}")
            return Refusal.NOT_KEPT
        return found if found.label is None else None

    def forget(self, now: float, run: Run) -> bool:
        """Drops what came more than a day before `now` and was given no label, `ring.LOT` at most; whether there may
        be more. `run` is of the clock that says `now`."""
        try:
            with self._lock, self._db:
                return ring.forget(self._db, now, AGE, run)
        except sqlite3.Error as error:
            self._complain(f"old predictions are not forgotten: {error}; check the disk")
            return False

    def find(self, prediction_id: str) -> Remembered | None:
        """The prediction under this id; raises Damaged if its record was changed on disk."""
        with self._lock:
            return self._find(prediction_id)

    def label_of(self, prediction_id: str) -> str | None:
        """The label a prediction was given; None without one, and where the record cannot be read."""
        try:
            found = self.find(prediction_id)
        except (sqlite3.Error, Damaged, Malformed) as error:
            self._complain(f"a label is not read: {error}; check the disk")
            return None
        return found.label if found else None

    def report(self, model: ModelName, release: int) -> LabelReport | None:
        """How often the newest labelled predictions of a release were right; None while none is, or none is read."""
        with self._lock:
            if (model, release) in self._reports:
                return self._reports[model, release]
            try:
                rows = self._db.execute(ring.AGREED, (model, release, RECENT)).fetchall()
            except sqlite3.Error as error:
                self._complain(f"labels are not counted: {error}; check the disk")
                return None
            report = LabelReport(len(rows), sum(agreed for (agreed,) in rows)) if rows else None
            self._reports[model, release] = report
        return report

    def close(self) -> None:
        self._db.close()

    def unsent(self, choice: Choice, limit: int) -> list[Waiting]:
        """The oldest predictions that may go and did not yet. One that cannot be read never goes, and is reported."""
        query, found, spoilt = ring.UNSENT_LABELLED if choice.labelled else ring.UNSENT, [], []
        try:
            with self._lock:
                rows = self._db.execute(query, (*_values(choice), limit)).fetchall()
            for prediction_id, words, sealed in rows:  # whoever answers does not wait until all are opened
                try:
                    found.append(Waiting(self._sealer.unseal(prediction_id, sealed), words))
                except (Damaged, Malformed) as error:
                    spoilt.append((NEVER, prediction_id))
                    self._complain(f"a prediction cannot be read and is left out: {error}")
            if spoilt:
                with self._lock, self._db:
                    self._db.executemany("UPDATE prediction SET sent = ? WHERE id = ?", spoilt)
        except sqlite3.Error as error:
            self._complain(f"nothing is read for the core: {error}; check the disk")
            return []
        return found

    def count(self, choice: Choice) -> int:
        """How many predictions may go and did not yet."""
        try:
            with self._lock:
                query = ring.COUNT_LABELLED if choice.labelled else ring.COUNT
                (n,) = self._db.execute(query, _values(choice)).fetchone()
        except sqlite3.Error as error:
            self._complain(f"nothing is read for the core: {error}; check the disk")
            return 0
        return int(n)

    def sent(self, waiting: Sequence[Waiting], *, never: bool = False) -> None:
        """These lie in the outbox now, or `never` can; one whose label changed since it was read is asked for again."""
        rows = [(NEVER if never else SENT, one.content.prediction.id, one.words) for one in waiting]
        try:
            with self._lock, self._db:
                self._db.executemany("UPDATE prediction SET sent = ? WHERE id = ? AND words = ?", rows)
        except sqlite3.Error as error:
            self._complain(f"what went to the core goes again: {error}; check the disk")

    def between(self, since: float, until: float, model: ModelName | None, limit: int, room: int = READ) -> Found:
        """What was predicted from event time `since` to `until`, in order; of more than `limit`, or than `room` bytes
        hold (but for one), the newest. One that cannot be read is left out, and reported."""
        try:
            with self._lock:
                rows, more = ring.newest(self._db, (since, until, model, model, limit + 1), limit, room)
        except sqlite3.Error as error:
            self._complain(f"what was predicted is not read: {error}; check the disk")
            return Found([], False)
        found = []
        for prediction_id, sealed in rows:
            try:
                found.append(self._sealer.unseal(prediction_id, sealed))
            except (Damaged, Malformed) as error:
                self._complain(f"a prediction cannot be read and is left out: {error}")
        return Found(found, more)

    def said(self, prediction_id: str | None = None) -> list[Remembered]:
        """The newest predictions by event time, oldest first; with an id the one under it, if it can be read."""
        if prediction_id is None:
            return self.between(float("-inf"), float("inf"), None, NEWEST).predictions
        try:
            found = self.find(prediction_id)
        except (sqlite3.Error, Damaged, Malformed) as error:
            self._complain(f"a prediction is not read: {error}; check the disk")
            return []
        return [found] if found else []

    def span(self) -> tuple[float | None, float | None]:
        """The oldest and the newest event time that is remembered; None, None of nothing."""
        try:
            with self._lock:
                oldest, newest = self._db.execute(ring.SPAN).fetchone()
        except sqlite3.Error as error:
            self._complain(f"what was predicted is not read: {error}; check the disk")
            return None, None
        return oldest, newest

    def _fill_in(self) -> None:
        """Files of earlier versions have no event times in the clear: they are read from the records."""
        try:
            with self._lock, self._db:
                rows = self._db.execute("SELECT id, sealed FROM prediction WHERE ts IS NULL").fetchall()
                for prediction_id, sealed in rows:
                    try:
                        ts = self._sealer.unseal(prediction_id, sealed).prediction.ts
                        place = (ts, draw(prediction_id), prediction_id)
                        self._db.execute("UPDATE prediction SET ts = ?, draw = ? WHERE id = ?", place)
                    except (Damaged, Malformed):
                        self._never(prediction_id)
        except sqlite3.Error as error:
            self._complain(f"what was predicted before is not read: {error}; check the disk")

    @property
    def _db(self) -> sqlite3.Connection:
        return self._file.db

    def _find(self, prediction_id: str) -> Remembered | None:
        row = self._db.execute("SELECT sealed FROM prediction WHERE id = ?", (prediction_id,)).fetchone()
        return self._sealer.unseal(prediction_id, row[0]) if row else None

    def _row(self, content: Remembered) -> tuple[str | int | float | bytes, ...]:
        said = content.prediction
        may_go = 0 if len(content.shape) == 2 else NEVER  # only windows of streams are what `edge.road` sends
        place = (said.ts, draw(said.id), content.arrived, may_go)
        return said.id, said.model, said.release or 0, self._sealer.seal(content), *place

    def _never(self, prediction_id: str) -> None:
        self._db.execute("UPDATE prediction SET sent = ? WHERE id = ?", (NEVER, prediction_id))

    def _complain(self, text: str) -> None:
        if not self._failing:
            self._failing = True
            self._report("predictions-not-kept", text)

    def _trim(self) -> None:
        self._db.execute(
            "DELETE FROM prediction WHERE rowid <= (SELECT max(rowid) FROM prediction) - ?", (self._capacity,)
        )


def draw(prediction_id: str) -> float:
    """The lot of a prediction, from 0 to below 1 and always the same: it is in a sample of a share above it."""
    return int.from_bytes(sha256(prediction_id.encode(errors="surrogatepass")).digest()[:6]) / 2**48


def _values(choice: Choice) -> tuple[str | float, ...]:
    return choice.model, choice.share, choice.since, codec.encode(choice.releases).decode()
