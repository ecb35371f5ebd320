"""Samples from the field: sealed batches in the spool become rows, one for each row of a sample's window.

Only here is a batch opened. What a row has beside its channels:

    prediction, device, entity    who saw it; a prediction is named once a tenant
    label                         what it really was, null if nobody said
    batch                         rises with every batch of a device: the newest word on a prediction is the highest
    release, value, arrived       which release answered, what, and when by the device's clock; where declared

Some of each batch are set aside as they came, to be made again (`core.release.skew`).

The unit is a batch. Its origin is `{device}/{epoch}` and its digest the number of its record, so the position says of
each device up to which number all is done.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from core.handoffs import LABELLED, Landed, Rejection
from core.ingest.files import TYPES
from core.ingest.interface import SourceError, Unit
from core.ingest.spool import Entry, Spool, reached
from core.lake import Lake
from core.project import SAMPLE_BATCH, SAMPLE_COLUMNS, Contract
from sync.errors import SyncError
from sync.features import WindowSpec
from sync.names import DeviceId, ModelName, TenantId
from sync.samples import Batch, Sample, unseal

OPTIONAL = ("release", "value", "arrived")
DAYS = 40  # of event time that one device fills in a run: each is a file of its own in the lake
OF_A_BATCH = 4  # samples that are set aside ...
OF_A_DEVICE = 64  # ... and of a device in one run ...
IN_ALL = 512  # ... and of all: each device has the same share of them
WORD = 200  # characters of a sample's texts: the longest ones that sensors and classes have stay far below


@dataclass(frozen=True)
class Box:
    """What it takes to open samples: the spool, and the private half of the tenant's key (32 raw bytes). `job` is the
    number of the job that opens them."""

    tenant: TenantId
    spool: Spool
    private_key: bytes
    job: int


class SampleFeed:
    """The batches of one model in the spool, as rows of the contract; `time` names its event-time column."""

    def __init__(self, box: Box, model: ModelName, contract: Contract, time: str, window: WindowSpec) -> None:
        self._box, self._model, self._window = box, model, window
        self._contract, self._time = contract, time
        known = {time, *SAMPLE_COLUMNS, *(name for name in OPTIONAL if name not in window.channels)}
        self._channels = [name for name in contract.columns if name not in known]
        self._aside: list[tuple[Entry, Sample]] = []
        self._room: Counter[DeviceId] = Counter()  # for how many more that are set aside

    def count(self) -> int:
        return len(self._box.spool.entries(self._model))

    def units(self, position: Mapping[str, str]) -> Iterator[Unit | None]:
        days: dict[DeviceId, set[float]] = {}
        later: set[DeviceId] = set()  # whose other batches are for another run
        entries = self._box.spool.entries(self._model)
        new = {entry.device for entry in entries if entry.n > reached(position.get(entry.origin))}
        self._room = Counter(shares(new, self._box.job))
        for entry in entries:
            if entry.n <= reached(position.get(entry.origin)) or entry.device in later:
                yield None
                continue
            rows = self._open(entry)
            known = days.setdefault(entry.device, set())
            more = known | (_days(rows, self._time) if isinstance(rows, pa.Table) else set())
            if known and len(more) > DAYS:
                later.add(entry.device)
                yield None
                continue
            if len(more) > DAYS:
                rows = Rejection(entry.origin, -1, "time", f"batch {entry.n}: its samples lie on {len(more)} days")
            else:
                days[entry.device] = more
            yield Unit(entry.origin, str(entry.n), rows)

    def taken(self, position: Mapping[str, str]) -> list[tuple[DeviceId, Sample]]:
        """What was set aside of the batches that this `position` names as done."""
        return [(entry.device, one) for entry, one in self._aside if entry.n <= reached(position.get(entry.origin))]

    def _set_aside(self, entry: Entry, samples: tuple[Sample, ...]) -> None:
        """Evenly over the batch."""
        room = min(OF_A_BATCH, self._room[entry.device], len(samples))
        self._aside += [(entry, samples[i * len(samples) // room]) for i in range(room)]
        self._room[entry.device] -= room

    def _open(self, entry: Entry) -> pa.Table | Rejection:
        try:
            sealed = self._box.spool.get(self._model, entry)
        except OSError as error:
            raise SourceError(f"batch {entry.n} of {entry.device} cannot be read: {error}; check the disk") from error
        try:
            batch = unseal(sealed, self._box.tenant, entry.device, self._box.private_key)
        except SyncError as error:
            return Rejection(entry.origin, -1, error.code, f"batch {entry.n}: {error}")
        complaint = self._complaint(batch)
        if complaint:
            return Rejection(entry.origin, -1, complaint[0], f"batch {entry.n}: {complaint[1]}")
        try:
            rows = self._rows(batch, entry)
            self._set_aside(entry, batch.samples)
            return rows
        except (OverflowError, ValueError, pa.ArrowException) as error:
            return Rejection(entry.origin, -1, "type", f"batch {entry.n}: {error}")

    def _complaint(self, batch: Batch) -> tuple[str, str] | None:
        """Why none of it can be taken: (stable code, text)."""
        if batch.model != self._model:
            return "model", f"inside are samples of {batch.model!r}, sent as those of {self._model!r}"
        if sorted(batch.channels) != sorted(self._channels):
            ours, theirs = ", ".join(self._channels), ", ".join(batch.channels)
            return "columns", f"its windows have the channels {theirs}; the contract has {ours}"
        sizes = sorted({s.shape[0] for s in batch.samples} - {self._window.size})
        if sizes:
            return "shape", f"windows of {sizes[0]} rows; the view's have {self._window.size}"
        longest = max((len(text) for s in batch.samples for text in _texts(s)), default=0)
        if longest > WORD:
            return "type", f"a text of {longest} characters in a sample; {WORD} is the most"
        return None

    def _rows(self, batch: Batch, entry: Entry) -> pa.Table:
        """The rows of all samples, in order of time in each; of two under one id in a batch the later one counts."""
        samples = list({sample.id: sample for sample in batch.samples}.values())
        size = self._window.size
        cells: dict[str, list[object]] = {
            "prediction": [s.id for s in samples],
            "device": [str(entry.device)] * len(samples),
            "entity": [s.entity for s in samples],
            "label": [s.label for s in samples],
            "release": [s.release for s in samples],
            "value": [None if s.value is None else str(s.value) for s in samples],
            "arrived": [s.arrived for s in samples],
        }
        windows = _windows(samples, size, len(batch.channels))
        ages = (size - 1 - np.arange(size)) * self._window.period
        columns: dict[str, pa.Array] = {}
        for name, column in self._contract.columns.items():
            kind = TYPES[column.type]
            if name == self._time:
                times = np.array([s.ts for s in samples], np.float64)[:, None] - ages
                columns[name] = pa.array(times.ravel()).cast(kind, safe=False)
            elif name in self._channels:
                values = windows[:, :, batch.channels.index(name)]
                columns[name] = pa.array(values.ravel()).cast(kind, safe=False)
            else:
                repeated = chain.from_iterable([value] * size for value in cells[name])
                columns[name] = pa.array(repeated, kind)
        columns[SAMPLE_BATCH] = pa.array([entry.order] * (size * len(samples)), pa.int64())
        return pa.table(columns)


def shares(devices: Collection[DeviceId], job: int) -> dict[DeviceId, int]:
    """How many samples of each of these devices are set aside in one run. Where there are more devices than samples in
    all, the job's number decides whose turn it is, not their names."""
    turn = sorted(devices, key=lambda device: hashlib.sha256(f"{job} {device}".encode()).digest())[:IN_ALL]
    return dict.fromkeys(turn, min(OF_A_DEVICE, IN_ALL // max(len(turn), 1)))


def _days(rows: pa.Table, time: str) -> set[float]:
    """Those of its event times that are any."""
    seconds = np.asarray(rows.column(time), np.float64)
    return set(np.unique(np.floor(seconds[np.isfinite(seconds)] / 86_400)).tolist())


def _texts(sample: Sample) -> tuple[str, ...]:
    return sample.id, sample.entity, sample.label or "", str(sample.value)


def _windows(samples: list[Sample], size: int, channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(n, size, channels) float32."""
    raw = b"".join(sample.window for sample in samples)
    return np.frombuffer(raw, "<f4").reshape(len(samples), size, channels).astype(np.float32)


def tally(landed: Landed, lake: Lake, size: int, before: Mapping[str, str]) -> Landed:
    """`landed` with the count of labelled samples of `size` rows in its position, added to the count `before`."""
    count = int(before.get(LABELLED, "0"))
    if landed.files:
        label = lake.read(landed.source, (file.name for file in landed.files), ["label"]).column("label")
        said = pc.and_kleene(pc.is_valid(label), pc.not_equal(label, ""))
        count += (pc.sum(said).as_py() or 0) // size
    return replace(landed, position={**landed.position, LABELLED: str(count)})
