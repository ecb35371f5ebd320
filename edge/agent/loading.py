"""The only way a model gets into memory: record, digest and golden vectors are checked at every load."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from edge import batching, proving, runtime, trust
from edge.agent.house import House
from edge.artifacts import Rotten
from edge.serving import Loaded
from edge.states import Failure, FailureClass, Slot
from edge.trust import Unrecorded
from sync import bindings
from sync import golden as vectors
from sync.errors import Damaged, Malformed, SyncError
from sync.golden import Arrays
from sync.lookups import Config, filled
from sync.manifest import Blob, Manifest, Variant, choose, unfit
from sync.names import Digest
from sync.reports import Validated
from sync.sealing import unseal_artifact, unwrap, wrap_context

LEAST_MB = 64  # MiB that a blob of a release may unpack to, however small its profile is
STACKED_MS = 1.0  # a model that takes longer for an answer gains little by stacking, and its trial takes long


@dataclass(frozen=True)
class Opened:
    """A release in plaintext, in memory only."""

    variant: Variant
    model: bytes
    golden: bytes


class Unsuited(SyncError):
    """A release without a variant that this CPU can run."""

    code = "no-variant"


class OtherSchema(Damaged):
    """A release whose graph takes other inputs than its signed manifest says."""

    code = "schema-mismatch"


class Unreadable(Damaged):
    """Golden vectors that open as they were signed, and are none."""

    code = "golden-unreadable"


class Misdirected(Unsuited):
    """A release that its owner signed for other devices, or for newer agents."""

    code = "wrong-device"


class Misbound(Unsuited):
    """A release with a binding that no device can hear or say."""

    code = "bad-binding"


def check_bindings(manifest: Manifest) -> None:
    """Raises Misbound for a binding that cannot be, its variables at their defaults."""
    if why := bindings_complaint(manifest, Config({})):
        raise Misbound(f"release {manifest.number} cannot be bound: {why}; correct its bindings and publish it anew")


def bindings_complaint(manifest: Manifest, config: Config) -> str:
    """What cannot be of a release's bindings once this config has filled them; empty if all can."""
    every = (bindings.complaint(filled(one, manifest.variables, config)) for one in manifest.bindings)
    return next((why for why in every if why), "")


def config_complaint(manifest: Manifest, config: Config) -> str:
    """What a config makes of a release's bindings that could be without it; empty where it is not at fault."""
    return "" if bindings_complaint(manifest, Config({})) else bindings_complaint(manifest, config)


def check_addressee(house: House, manifest: Manifest) -> None:
    """Raises Misdirected unless this device is what the signed manifest requires, whatever an assignment says."""
    reason = unfit(manifest.requires, house.box.labels, house.box.agent_version)
    if reason:
        raise Misdirected(f"release {manifest.number} is not for this device: {reason}")


def variant_of(house: House, manifest: Manifest, refused: tuple[Digest, ...] = ()) -> Variant:
    """What this device is to fetch of a release, without what it refused before; raises Unsuited."""
    try:
        return choose(manifest, house.box.cpu_flags, refused)
    except ValueError as error:
        raise Unsuited(f"{error}; publish it with a variant that needs nothing") from error


def installed(slot: Slot) -> Variant:
    """What this device has of a release; raises Damaged if its manifest knows no such variant."""
    found = (v for v in slot.manifest.variants if v.blob.plain == slot.release.artifact)
    variant = next(found, None)
    if variant is None:
        raise Damaged(f"release {slot.release.number} has no variant {slot.release.artifact[:12]}")
    return variant


def open_slot(house: House, slot: Slot) -> Opened:
    """Opens both blobs of a release; raises Damaged if a byte differs from what the manifest promises, or the golden
    vectors, which the graph has to answer, do not fit the inputs it promises."""
    variant = installed(slot)
    opened = Opened(variant, _open(house, slot, variant.blob), _open(house, slot, slot.manifest.golden))
    try:
        golden = vectors.decode(opened.golden)
        runtime.check_inputs(slot.manifest.inputs, vectors.unpack(golden.inputs))
        for expected in golden.expected.values():
            vectors.unpack(expected.outputs)
    except Malformed as error:
        raise Unreadable(f"release {slot.release.number} cannot be proven: {error}; publish it anew") from error
    except runtime.BadInput as error:
        raise OtherSchema(f"release {slot.release.number} is not what its manifest says: {error}") from error
    return opened


def load(house: House, slot: Slot, now: float) -> tuple[Loaded, Validated]:
    """Record, digests, load, golden vectors, in this order.

    Raises `edge.artifacts.Rotten` for bytes that this disk lost or changed, and `edge.trust.Unrecorded` for what the
    journal says of them: both are got anew. What else it raises is of the release itself: OtherSchema or Unreadable
    (golden vectors), `edge.runtime.ModelError` (graph), Unproven if the golden vectors do not come out as they must on
    this device.
    """
    manifest = _recorded(house, slot)
    opened = _reopened(house, slot)
    session = runtime.load(opened.model, deadlines=house.guard.deadlines, profile=manifest.profile)
    inputs = check_golden(session, opened)
    rows = batching.height(session, inputs) if slot.p99_ms <= STACKED_MS else 1
    sample = {name: array[:1].copy() for name, array in inputs.items() if array.ndim}
    return Loaded(session, slot, rows, sample), Validated(opened.variant.blob.plain, now, slot.p99_ms)


def _recorded(house: House, slot: Slot) -> Manifest:
    """The manifest as it was signed. Both held when the release was accepted, under the very keys of the record: one
    that does not hold now was changed on this disk, and says nothing of the release. Raises Unrecorded."""
    record = house.journal.record(slot.manifest.model, slot.release.number)
    try:
        manifest = trust.verify(record, slot.manifest.model, slot.release.number)
    except SyncError as error:
        raise Unrecorded(f"{error}; it was changed on this disk") from error
    if manifest != slot.manifest:
        raise Unrecorded(f"the journal's manifest of {manifest.model} {manifest.number} is not the signed one")
    return manifest


def _reopened(house: House, slot: Slot) -> Opened:
    """It opened when it was fetched: a key that does not fit now was changed on this disk. Raises Unrecorded."""
    try:
        return open_slot(house, slot)
    except (Rotten, OtherSchema, Unreadable):
        raise
    except Damaged as error:
        raise Unrecorded(f"release {slot.release.number}: {error}, and it did when it was fetched") from error


class Unproven(SyncError):
    """The golden vectors give other answers here than they must."""

    code = "golden-mismatch"


def check_golden(session: runtime.Session, opened: Opened) -> Arrays:
    """Runs every golden vector through `session`, and returns their inputs; raises Unproven with the worst
    difference."""
    golden = vectors.decode(opened.golden)
    expected = golden.expected.get(opened.variant.precision)
    if expected is None:
        raise Unproven(f"the golden vectors have no outputs for {opened.variant.precision}")
    inputs = vectors.unpack(golden.inputs)
    answers = session.run(inputs)
    _, detail = proving.compare(answers, vectors.unpack(expected.outputs), expected.tolerance)
    if detail:
        raise Unproven(f"golden outputs differ: {detail}")
    return inputs


def failure(error: SyncError | runtime.ModelError) -> Failure:
    """A refusal while loading: the fault of this host's disk or memory, or a verdict on the release."""
    ours = isinstance(error, Rotten | Unrecorded | runtime.NoMemory)
    return Failure(FailureClass.ENVIRONMENT if ours else FailureClass.VERDICT, error.code, str(error))


def _open(house: House, slot: Slot, blob: Blob) -> bytes:
    wrapped = slot.keys.get(blob.sealed)
    if wrapped is None:
        raise Damaged(f"the assignment carries no key for blob {blob.sealed[:12]}")
    # What does not fit the memory that the release may take is not unpacked into this process either.
    most = max(slot.manifest.profile.rss_mb, LEAST_MB) << 20
    return open_blob(house, blob, wrapped, most)


def open_blob(house: House, blob: Blob, wrapped: str, most: int | None = None) -> bytes:
    """What a blob on this disk holds, by the key wrapped to this device; raises Rotten, or Damaged if a byte or the key
    is not what was signed, or it holds more than `most` bytes."""
    identity = house.identity
    context = wrap_context(identity.tenant, identity.device, Digest(blob.sealed))
    try:
        raw = base64.b64decode(wrapped, validate=True)
    except ValueError as error:
        raise Damaged("a wrapped key is not base64") from error
    key = unwrap(raw, identity.sealing_key, context)
    return house.artifacts.opened(blob, lambda sealed: unseal_artifact(sealed, key, identity.tenant, blob.plain, most))
