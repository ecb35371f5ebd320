"""What was predicted, from what, and what it really was: an encrypted ring of the newest predictions.

Labels come back by prediction id, late, in any order, perhaps twice: the newest word on a prediction counts. Inputs
and answers are sealed, one key a record; ids, times and whether a label agreed stand beside them in the clear.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from sync import codec
from sync.errors import Damaged, Malformed
from sync.messages import LabelReport, Prediction
from sync.names import ModelName, TenantId
from sync.sealing import NONCE_BYTES, seal_small, unseal_small
from sync.windows import Rows

CAPACITY = 10_000  # predictions kept
RECENT = 200  # labelled predictions that the reported accuracy is about
_TRIM_EVERY = 256


class Remembered(msgspec.Struct, frozen=True):
    """One prediction with its input window: float32, little endian, row-major, of `shape`."""

    prediction: Prediction
    shape: tuple[int, ...]
    window: bytes
    label: str | None = None


Report = Callable[[str, str], None]  # (stable code, text)


def _unreported(code: str, text: str) -> None:
    """Nobody listens."""


class Predictions:
    """The ring of one device: one SQLite file, thread-safe.

    It stands beside serving, never in its way: a file or disk that fails costs predictions, which `report` is told
    once until it works again, and raises nothing.
    """

    def __init__(
        self,
        path: Path,
        tenant: TenantId,
        key: bytes,
        nonces: Callable[[int], bytes],
        report: Report = _unreported,
        capacity: int = CAPACITY,
    ) -> None:
        self._report, self._failing = report, False
        self._db = self._open(path)
        self._tenant, self._key, self._nonces, self._capacity = tenant, key, nonces, capacity
        self._added = 0
        self._reports: dict[tuple[ModelName, int], LabelReport | None] = {}  # as asked for since the last label
        self._lock = threading.Lock()

    def remember(self, prediction: Prediction, window: Rows) -> None:
        """Keeps an answered prediction; the same id again (a redelivered window) changes nothing."""
        content = Remembered(prediction, window.shape, window.astype("<f4").tobytes())
        row = (prediction.id, prediction.model, prediction.release or 0, self._seal(content))
        try:
            with self._lock, self._db:
                self._db.execute(
                    "INSERT OR IGNORE INTO prediction (id, model, release, sealed) VALUES (?, ?, ?, ?)", row
                )
                self._added += 1
                if self._added % _TRIM_EVERY == 0:
                    self._trim()
            self._failing = False
        except sqlite3.Error as error:
            self._complain("predictions-not-kept", f"predictions cannot be labelled later: {error}; check the disk")

    def label(self, prediction_id: str, label: str) -> bool:
        """Keeps what a prediction really was; False if the ring does not know it (any longer) or cannot keep it."""
        try:
            found = self.find(prediction_id)
            if found is None:
                return False
            sealed = self._seal(msgspec.structs.replace(found, label=label))
            with self._lock, self._db:
                self._db.execute(
                    "UPDATE prediction SET sealed = ?, agreed = ? WHERE id = ?",
                    (sealed, str(found.prediction.value) == label, prediction_id),
                )
                self._reports.clear()
        except (sqlite3.Error, Damaged, Malformed) as error:
            self._complain("predictions-not-kept", f"a label was not kept: {error}")
            return False
        return True

    def find(self, prediction_id: str) -> Remembered | None:
        """The prediction under this id; raises Damaged if its record was changed on disk."""
        with self._lock:
            row = self._db.execute("SELECT sealed FROM prediction WHERE id = ?", (prediction_id,)).fetchone()
        if row is None:
            return None
        plain = unseal_small(bytes(row[0]), self._key, self._aad(prediction_id))
        return codec.decode(Remembered, plain, len(plain))

    def report(self, model: ModelName, release: int) -> LabelReport | None:
        """How often the newest labelled predictions of a release were right; None while none is labelled."""
        with self._lock:
            if (model, release) in self._reports:
                return self._reports[model, release]
            rows = self._db.execute(
                "SELECT agreed FROM prediction WHERE model = ? AND release = ? AND agreed IS NOT NULL"
                " ORDER BY rowid DESC LIMIT ?",
                (model, release, RECENT),
            ).fetchall()
            report = LabelReport(len(rows), sum(agreed for (agreed,) in rows)) if rows else None
            self._reports[model, release] = report
        return report

    def close(self) -> None:
        self._db.close()

    def _open(self, path: Path) -> sqlite3.Connection:
        """The ring's file; one that cannot be read is put aside, and where no file will do, memory serves."""
        for _ in range(2):
            try:
                return _connect(path)
            except (sqlite3.Error, OSError) as error:
                self._report("predictions-not-kept", f"{path.name} cannot be used and is put aside: {error}")
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                if path.is_file():
                    path.replace(path.with_suffix(".unreadable"))
        return _connect(None)

    def _complain(self, code: str, text: str) -> None:
        if not self._failing:
            self._failing = True
            self._report(code, text)

    def _seal(self, content: Remembered) -> bytes:
        aad = self._aad(content.prediction.id)
        return seal_small(codec.encode(content), self._key, aad, self._nonces(NONCE_BYTES))

    def _aad(self, prediction_id: str) -> bytes:
        return f"falaj/1 prediction {self._tenant} {prediction_id}".encode()

    def _trim(self) -> None:
        self._db.execute(
            "DELETE FROM prediction WHERE rowid <= (SELECT max(rowid) FROM prediction) - ?", (self._capacity,)
        )


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.touch(mode=0o600)
    db = sqlite3.connect(path or ":memory:", check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_TABLES)
    except sqlite3.Error:
        db.close()
        raise
    return db


_TABLES = """
CREATE TABLE IF NOT EXISTS prediction (id TEXT UNIQUE NOT NULL, model TEXT NOT NULL, release INTEGER NOT NULL,
    sealed BLOB NOT NULL, agreed INTEGER);
CREATE INDEX IF NOT EXISTS prediction_labelled ON prediction (model, release) WHERE agreed IS NOT NULL;
"""
