"""One window kernel for each (model, entity), checkpointed sealed; a message is acknowledged once it is safe.

Durability. The broker repeats what was not acknowledged. `hold` therefore keeps the acknowledgement of a
message until the kernels that took it in are on disk; `checkpoint` writes them in one transaction, then
acknowledges. After a kill nothing acknowledged is lost, and rows that come again are dropped by the kernel.
At most `max_unacked` messages wait, which must stay below the broker's limit of messages in flight
(Mosquitto: 20). A checkpoint writes whole rings, so what nothing asks for is written once it has waited for a
while (`overdue`), not at every look. If the disk fails, serving goes on from memory: the newest `max_unacked`
messages stay unacknowledged, older ones are let go and counted in `let_go`, and the failure is reported.

Beside its kernel an entity has notes, small and opaque: what whoever answers its windows must know of it again. They
are on disk together with the rows they belong to, so a window that comes again is answered as before.

Unreadable checkpoints are the same as none: the windows of that entity start again. SQLite, one file, WAL;
payloads are sealed under a key of their own each, bound to tenant, model, entity and window specification.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edge.database import FileOrMemory, Schema
from edge.deadlines import standing
from sync.errors import Damaged
from sync.features import WindowSpec
from sync.names import ModelName, TenantId
from sync.sealing import NONCE_BYTES, seal_small, unseal_small
from sync.windows import Checkpoint, Rows, Window, WindowKernel

Report = Callable[[str, str], None]  # (stable code, text)
_Place = tuple[ModelName, str]  # model, entity


NOTES = 16  # of one entity; the one that was made first goes
UNACKED_S = 5.0  # seconds that a message may wait for its acknowledgement while no window ends ...
UNWRITTEN_S = 30.0  # ... and rows, of which no message waits, for the disk


class _Stored(msgspec.Struct, frozen=True):
    spec: WindowSpec
    checkpoint: Checkpoint
    notes: dict[str, bytes] = {}


_SCHEMA = Schema(
    """
CREATE TABLE IF NOT EXISTS checkpoints (
    model TEXT NOT NULL, entity TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (model, entity)
) WITHOUT ROWID;
""",
    "NORMAL",
)


def _unreported(code: str, text: str) -> None:
    """Nobody listens."""


class Unheard(LookupError):
    """No sensor of that name was heard for that model; the message says what is known."""


class Buffers:
    """The kernels of one device. Thread-safe; `report` is told of what was lost or could not be written."""

    def __init__(
        self,
        path: Path,
        tenant: TenantId,
        key: bytes,
        *,
        max_entities: int = 1000,
        max_unacked: int = 16,
        report: Report = _unreported,
        nonces: Callable[[int], bytes] = secrets.token_bytes,
        ticks: Callable[[], float] = standing,
    ) -> None:
        """`ticks` is in seconds since anything and never jumps; without it nothing is ever overdue."""
        self.let_go = 0
        self._tenant, self._key = tenant, key
        self._max_entities, self._max_unacked = max_entities, max_unacked
        self._report, self._nonces, self._ticks = report, nonces, ticks
        # In the order of use; None is a kernel that lies on disk only.
        self._kernels: dict[ModelName, OrderedDict[str, WindowKernel | None]] = {}
        self._notes: dict[_Place, dict[str, bytes]] = {}
        self._crowded: set[ModelName] = set()
        self._dirty: dict[_Place, float] = {}  # since when, by `ticks`; the oldest first
        self._held: deque[tuple[float, Callable[[], None]]] = deque()
        self._failing = False
        self._lock = threading.RLock()
        self._file = FileOrMemory(path, _SCHEMA, self._lost)

    def push(
        self,
        model: ModelName,
        spec: WindowSpec,
        entity: str,
        ts: Sequence[float],
        rows: Sequence[Sequence[float]] | Rows,
    ) -> tuple[Window, ...]:
        """Takes in rows in the order they came, one number a channel; returns the windows they complete.

        Raises ValueError where the kernel does: another number of channels, a time that is not finite.
        Another `spec` than the entity's last one starts its windows again.
        """
        with self._lock:
            kernel = self._kernel(model, spec, entity)
            windows = kernel.push(np.array(ts, np.float64), np.array(rows, np.float32))
            self._dirty.setdefault((model, entity), self._ticks())
            return windows

    def latest(self, model: ModelName, spec: WindowSpec, entity: str) -> Window | None:
        """The newest rows of an entity as a window; None if no row of it was ever taken in."""
        with self._lock:
            kernels = self._known(model)
            return self._kernel(model, spec, entity).latest() if entity in kernels else None

    def last_ts(self, model: ModelName, spec: WindowSpec, entity: str) -> float | None:
        """The event time of the newest row of an entity; None if no row of it was ever taken in."""
        with self._lock:
            return self._kernel(model, spec, entity).last_ts if entity in self._known(model) else None

    def restart(self, model: ModelName, entity: str) -> None:
        """The windows of this entity start again, and its notes with them."""
        with self._lock:
            self._drop(model, self._known(model), entity)

    def note(self, model: ModelName, entity: str, name: str) -> bytes | None:
        """What was noted last of an entity whose rows are here."""
        with self._lock:
            return self._notes.get((model, entity), {}).get(name)

    def put_note(self, model: ModelName, entity: str, name: str, note: bytes) -> None:
        """Notes something of an entity whose rows are here: it goes to disk with them, and ends with them. Of one whose
        rows have just gone, nothing is noted."""
        with self._lock:
            kernels = self._kernels.get(model)
            if kernels is None or kernels.get(entity) is None:
                return
            notes = self._notes.setdefault((model, entity), {})
            notes[name] = note
            if len(notes) > NOTES:
                del notes[next(iter(notes))]
            self._dirty.setdefault((model, entity), self._ticks())

    def hold(self, ack: Callable[[], None], *, taken: bool = True) -> bool:
        """Keeps `ack` until the next checkpoint; true if one is due because enough messages wait. Of a message of which
        nothing was taken in, it waits for those that came before it alone: the broker wants to hear of them in turn."""
        with self._lock:
            if not (taken or self._held):
                ack()
                return False
            self._held.append((self._ticks(), ack))
            return len(self._held) >= self._max_unacked

    def overdue(self) -> bool:
        """Whether something has waited so long that a checkpoint is due although nothing else asks for one."""
        with self._lock:
            now = self._ticks()
            if self._held and now - self._held[0][0] >= UNACKED_S:
                return True
            return now - next(iter(self._dirty.values()), now) >= UNWRITTEN_S

    def checkpoint(self) -> None:
        """Writes every kernel that changed, then acknowledges, in order, every message held."""
        with self._lock:
            if self._file.returned():
                self._report("buffers-in-memory", "the disk can be written again: windows outlive a restart")
            if not self._write() or self._file.forgets:  # what memory holds is not safe
                while len(self._held) > self._max_unacked:
                    self.let_go += 1
                    self._acknowledge()
                return
            while self._held:
                self._acknowledge()

    def _acknowledge(self) -> None:
        _, ack = self._held.popleft()
        ack()

    def forget(self, model: ModelName) -> None:
        """The model is gone from this device, and its buffers with it."""
        with self._lock:
            self._kernels.pop(model, None)
            self._dirty = {place: since for place, since in self._dirty.items() if place[0] != model}
            self._notes = {place: notes for place, notes in self._notes.items() if place[0] != model}
            self._execute("DELETE FROM checkpoints WHERE model = ?", [(model,)])

    def close(self) -> None:
        """A last checkpoint, then the file is let go."""
        with self._lock:
            self.checkpoint()
            self._db.close()

    def _kernel(self, model: ModelName, spec: WindowSpec, entity: str) -> WindowKernel:
        kernels = self._known(model)
        kernel = kernels.get(entity)
        if kernel is None:
            kernel = WindowKernel(spec, self._restore(model, spec, entity))
        elif kernel.spec != spec:
            kernel = WindowKernel(spec)
            self._notes.pop((model, entity), None)
        kernels[entity] = kernel
        kernels.move_to_end(entity)
        if len(kernels) > self._max_entities:
            self._evict(model, kernels)
        return kernel

    def _known(self, model: ModelName) -> OrderedDict[str, WindowKernel | None]:
        kernels = self._kernels.get(model)
        if kernels is None:
            kernels = self._kernels[model] = OrderedDict.fromkeys(self._stored(model))
        return kernels

    def _evict(self, model: ModelName, kernels: OrderedDict[str, WindowKernel | None]) -> None:
        if model not in self._crowded:
            self._crowded.add(model)
            text = f"{model} has more than {self._max_entities} entities; the idlest lose their windows"
            self._report("buffers-crowded", text)
        while len(kernels) > self._max_entities:
            self._drop(model, kernels, next(iter(kernels)))

    def _drop(self, model: ModelName, kernels: OrderedDict[str, WindowKernel | None], entity: str) -> None:
        kernels.pop(entity, None)
        self._dirty.pop((model, entity), None)
        self._notes.pop((model, entity), None)
        self._execute("DELETE FROM checkpoints WHERE model = ? AND entity = ?", [(model, entity)])

    @property
    def _db(self) -> sqlite3.Connection:
        return self._file.db

    def _write(self) -> bool:
        rows = []
        for model, entity in self._dirty:
            kernel = self._kernels[model][entity]
            if kernel is not None:
                notes = self._notes.get((model, entity), {})
                plain = msgspec.msgpack.encode(_Stored(kernel.spec, kernel.checkpoint(), notes))
                aad = self._aad(model, entity)
                rows.append((model, entity, seal_small(plain, self._key, aad, self._nonces(NONCE_BYTES))))
        if rows and not self._execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", rows):
            return False
        self._dirty.clear()
        return True

    def _restore(self, model: ModelName, spec: WindowSpec, entity: str) -> Checkpoint | None:
        query = "SELECT sealed FROM checkpoints WHERE model = ? AND entity = ?"
        try:
            row = self._db.execute(query, (model, entity)).fetchone()
            if row is None:
                return None
            plain = unseal_small(row[0], self._key, self._aad(model, entity))
            stored = msgspec.msgpack.decode(plain, type=_Stored)
        except (sqlite3.Error, Damaged, msgspec.DecodeError, UnicodeDecodeError) as error:
            self._report("checkpoint-unreadable", f"{model}: windows of {entity!r} start again: {error}")
            return None
        if stored.spec != spec:
            return None
        self._notes[(model, entity)] = dict(stored.notes)
        return stored.checkpoint

    def _stored(self, model: ModelName) -> list[str]:
        try:
            rows = self._db.execute("SELECT entity FROM checkpoints WHERE model = ?", (model,)).fetchall()
        except sqlite3.Error as error:
            self._report("checkpoint-unreadable", f"{model}: all windows start again: {error}")
            return []
        return [entity for (entity,) in rows]

    def _execute(self, statement: str, rows: Sequence[tuple[str | bytes, ...]]) -> bool:
        """One transaction; false, and reported once until it works again, if the disk refuses."""
        try:
            with self._db:
                self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            if not self._failing:
                self._report("checkpoint-failed", f"windows cannot be written: {error}; check the disk")
            self._failing = True
            return False
        self._failing = False
        return True

    def _aad(self, model: ModelName, entity: str) -> bytes:
        return msgspec.json.encode(("falaj/1 window", str(self._tenant), str(model), entity))

    def _lost(self, text: str, memory: bool) -> None:
        if memory:
            self._report("buffers-in-memory", f"all windows start again: {text}")
        else:
            self._report("buffers-damaged", f"all windows start again: {text}")
