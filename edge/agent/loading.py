"""The only way a model gets into memory: record, digest and golden vectors are checked at every load."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from edge import proving, runtime, trust
from edge.agent.house import House
from edge.artifacts import Rotten
from edge.serving import Loaded
from edge.states import Failure, FailureClass, Slot
from sync import golden as vectors
from sync.errors import Damaged, SyncError
from sync.manifest import Blob, Manifest, Variant, choose
from sync.messages import Validated
from sync.names import Digest
from sync.sealing import unseal_artifact, unwrap, wrap_context


@dataclass(frozen=True)
class Opened:
    """A release in plaintext, in memory only."""

    variant: Variant
    model: bytes
    golden: bytes


class Unsuited(SyncError):
    """A release without a variant that this CPU can run."""

    code = "no-variant"


def variant_of(house: House, manifest: Manifest) -> Variant:
    """What this device runs of a release; raises Unsuited."""
    try:
        return choose(manifest, house.cpu_flags)
    except ValueError as error:
        raise Unsuited(f"{error}; publish it with a variant that needs nothing") from error


def open_slot(house: House, slot: Slot) -> Opened:
    """Opens both blobs of a release; raises Damaged if a byte differs from what the manifest promises."""
    variant = variant_of(house, slot.manifest)
    return Opened(variant, _open(house, slot, variant.blob), _open(house, slot, slot.manifest.golden))


def load(house: House, slot: Slot, now: float) -> tuple[Loaded, Validated]:
    """Record, digests, load, golden vectors, in this order.

    Raises SyncError (record or bytes) or `edge.runtime.ModelError` (graph), or Unproven if the golden
    vectors do not come out as they must on this device.
    """
    record = house.journal.record(slot.manifest.model, slot.release.number)
    manifest = trust.verify(record, slot.manifest.model, slot.release.number)
    if manifest != slot.manifest:
        raise Damaged(f"the journal's manifest of {manifest.model} {manifest.number} is not the signed one")
    opened = open_slot(house, slot)
    session = runtime.load(opened.model)
    check_golden(session, opened)
    return Loaded(session, slot), Validated(opened.variant.blob.plain, now, slot.p99_ms)


class Unproven(SyncError):
    """The golden vectors give other answers here than they must."""

    code = "golden-mismatch"


def check_golden(session: runtime.Session, opened: Opened) -> None:
    """Runs every golden vector through `session`; raises Unproven with the worst difference."""
    golden = vectors.decode(opened.golden)
    expected = golden.expected.get(opened.variant.precision)
    if expected is None:
        raise Unproven(f"the golden vectors have no outputs for {opened.variant.precision}")
    answers = session.run(vectors.unpack(golden.inputs))
    _, detail = proving.compare(answers, vectors.unpack(expected.outputs), expected.tolerance)
    if detail:
        raise Unproven(f"golden outputs differ: {detail}")


def failure(error: SyncError | runtime.ModelError) -> Failure:
    """A refusal while loading: the disk's fault, or a verdict on the release."""
    kind = FailureClass.ENVIRONMENT if isinstance(error, Rotten) else FailureClass.VERDICT
    return Failure(kind, error.code, str(error))


def _open(house: House, slot: Slot, blob: Blob) -> bytes:
    identity = house.identity
    wrapped = slot.keys.get(blob.sealed)
    if wrapped is None:
        raise Damaged(f"the assignment carries no key for blob {blob.sealed[:12]}")
    context = wrap_context(identity.tenant, identity.device, Digest(blob.sealed))
    try:
        raw = base64.b64decode(wrapped, validate=True)
    except ValueError as error:
        raise Damaged("a wrapped key is not base64") from error
    key = unwrap(raw, identity.sealing_key, context)
    return unseal_artifact(house.artifacts.read(blob), key, identity.tenant, blob.plain)
