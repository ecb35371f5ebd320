"""From an accepted candidate to a release that can be signed: sealed blobs and a manifest. And the two shelves of
files on the core: artifacts in plain digests (sealed at rest), blobs in sealed digests (as devices get them)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.handoffs import Candidate, Score, Scorecard
from core.project import Model, variables
from sync import chunks, codec, sealing
from sync.durable import write_private
from sync.errors import Damaged
from sync.manifest import Blob, Lineage, Manifest, Variant
from sync.names import Digest, TenantId

Random = Callable[[int], bytes]  # n random bytes, fit for keys


class ArtifactStore:
    """Model files and golden vectors of candidates, by plaintext digest, sealed with the tenant's keys."""

    def __init__(self, folder: Path, tenant: TenantId, key_for: Callable[[str], bytes]) -> None:
        """`key_for(name)` gives a key that belongs to that name alone, so each key seals one content."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._tenant, self._key_for = folder, tenant, key_for

    def put(self, content: bytes) -> Digest:
        digest = chunks.digest(content)
        sealed = sealing.seal(content, self._key_for(digest), self._tenant, digest)
        write_private(self._folder / digest, sealed)
        return digest

    def get(self, digest: Digest) -> bytes:
        """The content; raises Damaged if it is missing or changed."""
        try:
            sealed = (self._folder / digest).read_bytes()
        except OSError as error:
            raise Damaged(f"artifact {digest[:12]}: {error.strerror}") from error
        return sealing.unseal_artifact(sealed, self._key_for(digest), self._tenant, digest)


class BlobStore:
    """Sealed blobs of releases, as they go to the broker."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def put(self, digest: Digest, sealed: bytes) -> None:
        write_private(self._folder / digest, sealed)

    def get(self, digest: Digest) -> bytes:
        """The sealed bytes; raises Damaged if they are missing or changed."""
        try:
            sealed = (self._folder / digest).read_bytes()
        except OSError as error:
            raise Damaged(f"blob {digest[:12]}: {error.strerror}") from error
        if chunks.digest(sealed) != digest:
            raise Damaged(f"blob {digest[:12]} changed on disk")
        return sealed

    def check(self, digest: Digest) -> None:
        """Raises Damaged if the sealed bytes are missing or changed; holds none of them."""
        try:
            with (self._folder / digest).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Damaged(f"blob {digest[:12]}: {error.strerror}") from error
        if found != digest:
            raise Damaged(f"blob {digest[:12]} changed on disk")

    def check_chunk(self, blob: Blob, index: int) -> None:
        """Raises Damaged if chunk `index` is missing or changed; reads no other."""
        if not chunks.fits(blob, index, self.piece(blob.sealed, *chunks.span(blob, index))):
            raise Damaged(f"blob {blob.sealed[:12]} changed on disk, in chunk {index}")

    def piece(self, digest: Digest, start: int, length: int) -> bytes:
        """At most `length` bytes from `start` on, as they lie there; raises Damaged if there are none."""
        try:
            with (self._folder / digest).open("rb", buffering=0) as file:
                found = os.pread(file.fileno(), length, start)
        except OSError as error:
            raise Damaged(f"blob {digest[:12]}: {error.strerror}") from error
        if not found:
            raise Damaged(f"blob {digest[:12]} ends before byte {start}")
        return found

    def remove(self, digest: Digest) -> None:
        """Takes it off the disk, if it is there."""
        (self._folder / digest).unlink(missing_ok=True)


@dataclass(frozen=True)
class SealedBlob:
    """One blob of a release: what the manifest says, its bytes, its key."""

    blob: Blob
    sealed: bytes
    key: bytes


@dataclass(frozen=True)
class Staged:
    """A release ready to be approved; nothing of it is published yet."""

    manifest: Manifest
    payload: bytes
    digest: Digest
    blobs: tuple[SealedBlob, ...]


def stage(
    candidate: Candidate,
    model: Model,
    number: int,
    tenant: TenantId,
    store: ArtifactStore,
    random: Random,
    now: float,
    override: str = "",
) -> Staged:
    """Seals every artifact under a fresh key of its own and writes the manifest.

    `override` tells who let the candidate pass against a gate's word, and why; empty if all gates passed it. Raises
    ValueError for a refused candidate without: no manifest of one may hide what it is.
    """
    if not candidate.accepted and not override:
        raise ValueError(f"a candidate of {candidate.model} that its gates refused is staged by override only")
    sealed = [_seal(store, a.plain, tenant, random) for a in candidate.artifacts]
    golden = _seal(store, candidate.golden, tenant, random)
    variants = tuple(Variant(a.precision, a.needs, s.blob) for a, s in zip(candidate.artifacts, sealed, strict=True))
    card = candidate.scorecard
    chosen = next(s for s in card.scores if s.precision == card.chosen)
    lineage = Lineage(
        snapshot=candidate.snapshot, view=candidate.view, recipe=candidate.recipe, seed=candidate.seed,
        metrics=_metrics(card, chosen), reason=card.reason, override=override,
    )  # fmt: skip
    manifest = Manifest(
        tenant=tenant, model=candidate.model, number=number, created=now, variants=variants, golden=golden.blob,
        inputs=candidate.inputs, outputs=candidate.outputs, classes=candidate.classes, window=candidate.window,
        bindings=model.bindings, profile=model.profile, lineage=lineage, drift=model.drift,
        uplink=model.uplink, requires=model.requires, lookups=candidate.lookups, variables=variables(model),
        major=model.major,
    )  # fmt: skip
    payload = codec.encode(manifest)
    return Staged(manifest, payload, chunks.digest(payload), (*sealed, golden))


def _metrics(card: Scorecard, chosen: Score) -> dict[str, float]:
    """`temperature` only where the probabilities were calibrated."""
    found = {"accuracy": chosen.accuracy, "parity": card.parity, "p50_us": chosen.p50_us, "rows": card.rows}
    if chosen.ece is not None:
        found["ece"] = chosen.ece
    if card.calibration is not None and card.calibration.temperature != 1 and chosen.ece_before is not None:
        found |= {"temperature": card.calibration.temperature, "ece_before": chosen.ece_before}
    return found


def _seal(store: ArtifactStore, plain: Digest, tenant: TenantId, random: Random) -> SealedBlob:
    key = random(sealing.KEY_BYTES)
    sealed = sealing.seal(store.get(plain), key, tenant, plain, pack=True)
    return SealedBlob(chunks.describe(sealed, plain), sealed, key)
