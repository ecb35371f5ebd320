"""Shelves of files on the core, and the sealed release that is made of a candidate."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from core.release import registry
from core.release.registry import ArtifactStore, BlobStore
from sync import chunks, codec, sealing
from sync.errors import Damaged
from sync.manifest import LIMIT, Manifest
from sync.names import Digest
from tests.core.world import MODEL, START, TENANT, World, project


def store(folder: Path) -> ArtifactStore:
    return ArtifactStore(folder / "artifacts", TENANT, bytes.fromhex)


def test_an_artifact_comes_back_and_lies_there_sealed(tmp_path: Path) -> None:
    shelf, canary = store(tmp_path), b"canary of a model" * 10
    digest = shelf.put(canary)
    assert shelf.get(digest) == canary and digest == chunks.digest(canary)
    assert all(b"canary" not in f.read_bytes() for f in (tmp_path / "artifacts").iterdir())
    assert (tmp_path / "artifacts" / digest).stat().st_mode & 0o077 == 0


def test_a_changed_or_missing_artifact_is_damaged(tmp_path: Path) -> None:
    shelf = store(tmp_path)
    digest = shelf.put(b"model")
    path = tmp_path / "artifacts" / digest
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged):
        shelf.get(digest)
    with pytest.raises(Damaged, match="No such file"):
        shelf.get(Digest("0" * 64))


def test_a_changed_or_missing_blob_is_damaged(tmp_path: Path) -> None:
    shelf = BlobStore(tmp_path)
    digest = chunks.digest(b"sealed")
    shelf.put(digest, b"sealed")
    assert shelf.get(digest) == b"sealed"
    (tmp_path / digest).write_bytes(b"sealEd")
    with pytest.raises(Damaged, match="changed"):
        shelf.get(digest)
    with pytest.raises(Damaged, match="No such file"):
        shelf.get(Digest("0" * 64))


def test_a_staged_release_opens_with_its_keys_and_shows_no_reading(tmp_path: Path) -> None:
    world = World(tmp_path)
    candidate = world.candidate(b"model bytes", golden=b"golden readings")
    rng = random.Random(1)
    staged = registry.stage(candidate, project().models[MODEL], 4, TENANT, world.house.artifacts, rng.randbytes, START)
    manifest = codec.decode(Manifest, staged.payload, LIMIT)
    assert manifest == staged.manifest and staged.digest == chunks.digest(staged.payload)
    assert (manifest.number, manifest.tenant, manifest.model) == (4, TENANT, MODEL)
    assert manifest.lineage.metrics["accuracy"] == 0.9
    opened = [sealing.unseal_artifact(b.sealed, b.key, TENANT, b.blob.plain) for b in staged.blobs]
    assert opened == [b"model bytes", b"golden readings"]
    assert len({b.key for b in staged.blobs}) == 2
    assert all(b"model bytes" not in b.sealed and b"readings" not in b.sealed for b in staged.blobs)
    assert b"readings" not in staged.payload
    assert [chunks.digest(c) for c in chunks.split(staged.blobs[0].sealed)] == list(staged.blobs[0].blob.hashes)
    world.catalog.close()
