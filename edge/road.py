"""The road upstream: which predictions may leave this device, sealed for the tenant alone, within a day's budget.

The policy stands in the signed manifest (`Uplink`), so neither core nor broker can ask for more. Bytes are taken from
the budget before a batch is given out, a prediction is marked after its batch lies in the outbox: a crash between
costs budget and may send a prediction twice (the core drops the second by its id), but never exceeds the budget and
never loses one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from edge.budget import DAY, Budget
from edge.predictions import Choice, Predictions
from edge.ring import Waiting
from sync import samples
from sync.manifest import Manifest, Uplink
from sync.messages import SampleBatch
from sync.names import DeviceId, ModelName, TenantId
from sync.reports import DriftReport, RoadReport
from sync.samples import Batch, Sample

BATCH = 32 * 1024  # bytes of one sealed batch, at most
BATCHES = 4  # of one call, so that a tick stays short
PAUSE = 5.0  # seconds between two looks at what waits, unless more batches are full
_LOOK = 512  # predictions read for one call, at most
_ENVELOPE = 64  # bytes: what HPKE adds (48), and the lengths of MessagePack


@dataclass(frozen=True, slots=True)
class Cut:
    """Samples in order, cut into batches of so many each. `full`: the last one would not take the next sample;
    `spent`: the budget would not."""

    counts: tuple[int, ...]
    full: bool
    spent: bool


def releases(manifest: Manifest, before: Iterable[Manifest] = ()) -> tuple[int, ...]:
    """Whose predictions may go while `manifest` serves: its own, and those of releases before it that cut the same
    windows and let out the same: what was predicted under one promise does not leave under another. The budget is
    today's."""
    same = (m for m in before if (m.window, _promise(m)) == (manifest.window, _promise(manifest)))
    return tuple(sorted({manifest.number, *(m.number for m in same)}))


def pick(manifest: Manifest, drift: DriftReport | None, before: Iterable[Manifest] = ()) -> Choice | None:
    """Which predictions may leave the device; None: none at all."""
    uplink, since = manifest.uplink, float("-inf")
    if uplink.policy == "none" or manifest.window is None:
        return None
    if uplink.when == "alarm":
        if drift is None or drift.since is None:
            return None
        since = drift.since
    share = uplink.share if uplink.policy == "sampled" else 1.0
    return Choice(manifest.model, releases(manifest, before), uplink.policy == "labelled", share, since)


def cut(sizes: Sequence[int], empty: int, left: int) -> Cut:
    """At most BATCHES batches of at most BATCH bytes each, `left` bytes together; an empty batch has `empty` bytes,
    and no size is above BATCH - `empty`."""
    counts: list[int] = []
    room = 0  # in the last batch
    for size in sizes:
        if counts and size <= room and size <= left:
            counts[-1] += 1
            room, left = room - size, left - size
            continue
        if size + (0 if counts and size <= room else empty) > left:
            return Cut(tuple(counts), full=True, spent=True)
        if len(counts) == BATCHES:
            return Cut(tuple(counts), full=True, spent=False)
        counts.append(1)
        room, left = BATCH - empty - size, left - empty - size
    return Cut(tuple(counts), full=False, spent=False)


def sample(waiting: Waiting) -> Sample:
    """A remembered prediction as it travels."""
    content, said = waiting.content, waiting.content.prediction
    rows, columns = content.shape
    return Sample(
        said.id, said.entity, said.ts, content.arrived or said.ts, said.release or 0, (rows, columns), content.window,
        said.value, said.probabilities, content.label, content.basis,
    )  # fmt: skip


@dataclass(slots=True)
class _Lane:
    """One model's road: what was last told of it, and when all that waits was last looked at."""

    report: RoadReport | None = None
    looked: float = float("-inf")


class Road:
    """The road of one device; used by the walker's thread alone. `report` is told of trouble under a stable code."""

    def __init__(
        self,
        predictions: Predictions,
        budget: Budget,
        tenant: TenantId,
        device: DeviceId,
        report: Callable[[str, str], None],
    ) -> None:
        self._predictions, self._budget, self._report = predictions, budget, report
        self._tenant, self._device = tenant, device
        self._lanes: dict[ModelName, _Lane] = {}
        self._out: dict[str, tuple[ModelName, list[Waiting]]] = {}  # sealed -> what is in it, until it is handed over
        self._keys: dict[str, bytes | None] = {}  # the newest tenant key as given -> as used
        self._large: set[ModelName] = set()

    def due(
        self,
        manifest: Manifest,
        drift: DriftReport | None,
        tenant_key: str,
        now: float,
        before: Collection[Manifest] = (),
    ) -> tuple[SampleBatch, ...]:
        """The batches that may go now, at most BATCHES; each is to be put into the outbox, then `handed`.

        `manifest` serves, `before` are the releases that can be gone back to; `tenant_key` is base64, "" is none.
        """
        lane = self._lanes.setdefault(manifest.model, _Lane())
        choice, key = pick(manifest, drift, before), self._key(tenant_key)
        if choice is None or key is None:
            lane.report = self._told(manifest, now, 0)
            return ()
        if abs(now - lane.looked) < PAUSE:
            return ()
        waiting, sizes = self._look(choice, manifest)
        left = manifest.uplink.daily_bytes - self._budget.spent(manifest.model, int(now // DAY))
        plan = cut(sizes, _size(manifest), left)
        if plan.spent or not plan.full:
            lane.looked = now
        found = self._sealed(manifest, waiting, plan.counts, key, now)
        held = self._held_back(manifest, choice, sum(plan.counts), now) if plan.spent else 0
        lane.report = self._told(manifest, now, held)
        return found

    def handed(self, batch: SampleBatch) -> None:
        """The batch lies in the outbox: its predictions do not go again."""
        model, waiting = self._out.pop(batch.sealed)
        self._predictions.sent(waiting)
        self._budget.count(model, len(waiting))
        lane = self._lanes[model]
        if lane.report is not None:
            lane.report = msgspec.structs.replace(lane.report, sent=lane.report.sent + len(waiting))

    def report(self, model: ModelName) -> RoadReport | None:
        """How the road of a model stood when it was last looked at; None while its policy lets nothing out."""
        lane = self._lanes.get(model)
        return lane.report if lane else None

    def _key(self, given: str) -> bytes | None:
        """The tenant's key; None without one. A key that nothing can be sealed to closes the road, which is told."""
        if given not in self._keys:
            try:
                key = base64.b64decode(given, validate=True) if given else None
                if key is not None:
                    samples.seal(Batch("", (), ()), self._tenant, self._device, key)
            except (binascii.Error, ValueError) as error:
                self._report("road-closed", f"no samples go upstream: the tenant's key is none: {error}")
                key = None
            self._keys = {given: key}
        return self._keys[given]

    def _look(self, choice: Choice, manifest: Manifest) -> tuple[list[Waiting], list[int]]:
        """What waits, with its size on the road; what no batch can hold is passed over, and told once."""
        assert manifest.window is not None
        empty = _size(manifest)
        typical = 4 * manifest.window.size * len(manifest.window.channels) + 1
        found = []
        for one in self._predictions.unsent(choice, min(_LOOK, BATCHES * BATCH // typical + BATCHES + 1)):
            size = len(msgspec.msgpack.encode(sample(one))) if len(one.content.shape) == 2 else BATCH
            if size <= BATCH - empty:
                found.append((one, size))
                continue
            self._predictions.sent([one], never=True)
            if choice.model not in self._large:
                self._large.add(choice.model)
                text = f"windows of {choice.model} have {len(one.content.window)} bytes; {BATCH - empty} can travel"
                self._report("sample-too-large", text)
        return [one for one, _ in found], [size for _, size in found]

    def _sealed(
        self, manifest: Manifest, waiting: list[Waiting], counts: Sequence[int], key: bytes, now: float
    ) -> tuple[SampleBatch, ...]:
        """Seals and pays for batch after batch, until the budget's file refuses."""
        assert manifest.window is not None
        model, uplink = manifest.model, manifest.uplink
        self._out = {sealed: out for sealed, out in self._out.items() if out[0] != model}
        batches = []
        for count in counts:
            group, waiting = waiting[:count], waiting[count:]
            content = Batch(str(model), tuple(manifest.window.channels), tuple(sample(one) for one in group))
            sealed = samples.seal(content, self._tenant, self._device, key)
            if not self._budget.spend(model, int(now // DAY), len(sealed)):
                break
            batch = SampleBatch(model, uplink.data_class, uplink.region, base64.b64encode(sealed).decode())
            self._out[batch.sealed] = (model, group)
            batches.append(batch)
        return tuple(batches)

    def _held_back(self, manifest: Manifest, choice: Choice, going: int, now: float) -> int:
        """How many wait for tomorrow; told once a day."""
        held = max(0, self._predictions.count(choice) - going)
        if held and self._budget.exhausted(manifest.model, int(now // DAY)):
            budget = manifest.uplink.daily_bytes
            text = f"{held} samples of {manifest.model} wait for tomorrow: {budget} bytes a day may go"
            self._report("uplink-budget-spent", text)
        return held

    def _told(self, manifest: Manifest, now: float, held: int) -> RoadReport | None:
        uplink = manifest.uplink
        if uplink.policy == "none":
            return None
        spent = self._budget.spent(manifest.model, int(now // DAY))
        return RoadReport(uplink.policy, self._budget.handed(manifest.model), spent, uplink.daily_bytes, held)


def _promise(manifest: Manifest) -> Uplink:
    return msgspec.structs.replace(manifest.uplink, daily_bytes=0)


def _size(manifest: Manifest) -> int:
    """Bytes of a sealed batch without samples."""
    assert manifest.window is not None
    return len(msgspec.msgpack.encode(Batch(str(manifest.model), tuple(manifest.window.channels), ()))) + _ENVELOPE
