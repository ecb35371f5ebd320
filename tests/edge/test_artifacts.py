"""Sealed blobs on disk: any order, any interruption, and nothing wrong is ever taken for whole."""

from __future__ import annotations

import os
import resource
from io import BufferedIOBase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.artifacts import FLUSH, Artifacts, Rotten
from sync import chunks
from sync.chunks import digest
from sync.errors import Damaged
from sync.manifest import Blob

SEALED = bytes(range(256)) * 4 + b"tail"
CHUNK = 100
PIECES = list(chunks.split(SEALED, CHUNK))
BLOB = chunks.describe(SEALED, digest(b"plain"), CHUNK)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def whole(sealed: BufferedIOBase) -> bytes:
    """As unsealing does: opens what is as it was, and nothing else."""
    if sealed.read() != SEALED:
        raise Damaged("it does not open")
    return SEALED


def fill(artifacts: Artifacts, blob: Blob = BLOB) -> None:
    for index, piece in enumerate(PIECES):
        artifacts.put(blob, index, piece)


def test_what_else_lies_in_the_folder_is_none_of_ours(artifacts: Artifacts) -> None:
    """On the root of a disk of its own there is a `lost+found`."""
    fill(artifacts)
    artifacts.finish(BLOB)
    (artifacts.folder / "lost+found").mkdir()
    (artifacts.folder / "README").write_bytes(b"")
    assert artifacts.have() == (BLOB.sealed,)
    artifacts.prune({BLOB.sealed})
    assert artifacts.complete(BLOB)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(len(PIECES))), stops=st.sets(st.integers(0, len(PIECES))))
def test_chunks_in_any_order_with_restarts_and_repeats_make_the_blob(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], stops: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("blobs")
    artifacts = Artifacts(folder)
    written: set[int] = set()
    for turn, index in enumerate(order):
        artifacts.put(BLOB, index, PIECES[index])
        written.add(index)
        if turn in stops:
            artifacts = Artifacts(folder)
            artifacts.put(BLOB, index, PIECES[index])
            assert artifacts.present(BLOB) == written
    assert not artifacts.complete(BLOB) and artifacts.have() == ()
    artifacts.finish(BLOB)
    assert artifacts.complete(BLOB) and artifacts.have() == (BLOB.sealed,)
    assert artifacts.opened(BLOB, whole) == SEALED
    assert artifacts.present(BLOB) == set()


def test_a_chunk_that_changed_in_the_part_is_lacking_again(artifacts: Artifacts) -> None:
    fill(artifacts)
    part = artifacts.folder / f"{BLOB.sealed}.part"
    spoilt = bytearray(part.read_bytes())
    spoilt[CHUNK * 3] ^= 1
    part.write_bytes(spoilt)
    assert artifacts.present(BLOB) == set(range(len(PIECES))) - {3}


def test_a_part_cut_short_keeps_what_is_whole(artifacts: Artifacts) -> None:
    fill(artifacts)
    part = artifacts.folder / f"{BLOB.sealed}.part"
    part.write_bytes(part.read_bytes()[: CHUNK * 4 + 7])
    assert artifacts.present(BLOB) == {0, 1, 2, 3}


def test_a_part_that_lost_its_chunks_meanwhile_is_found_when_it_is_opened(artifacts: Artifacts) -> None:
    for index, piece in enumerate(PIECES):
        if index == len(PIECES) - 1:
            (artifacts.folder / f"{BLOB.sealed}.part").unlink()
        artifacts.put(BLOB, index, piece)
    artifacts.finish(BLOB)
    assert artifacts.complete(BLOB)
    with pytest.raises(Rotten, match="changed on disk"):
        artifacts.opened(BLOB, whole)
    assert artifacts.present(BLOB) == set() and artifacts.have() == ()


def test_what_rotted_on_disk_is_removed_so_that_it_is_lacking(artifacts: Artifacts) -> None:
    fill(artifacts)
    artifacts.finish(BLOB)
    path = artifacts.folder / BLOB.sealed
    path.write_bytes(bytes([SEALED[0] ^ 1]) + SEALED[1:])
    with pytest.raises(Rotten, match="changed on disk"):
        artifacts.opened(BLOB, whole)
    assert not artifacts.complete(BLOB)
    with pytest.raises(Rotten, match="No such file"):
        artifacts.opened(BLOB, whole)


def test_what_does_not_open_and_is_as_it_was_signed_is_no_fault_of_the_disk(artifacts: Artifacts) -> None:
    fill(artifacts)
    artifacts.finish(BLOB)

    def wrong_key(sealed: BufferedIOBase) -> bytes:
        raise Damaged("segment 0 does not open")

    with pytest.raises(Damaged, match="segment 0") as raised:
        artifacts.opened(BLOB, wrong_key)
    assert not isinstance(raised.value, Rotten) and artifacts.complete(BLOB)


def test_what_the_disk_gave_wrong_once_is_read_again_before_it_is_held_against_the_release(
    artifacts: Artifacts,
) -> None:
    fill(artifacts)
    artifacts.finish(BLOB)
    read: list[bytes] = []

    def unseal(sealed: BufferedIOBase) -> bytes:
        read.append(sealed.read())
        if len(read) == 1:
            raise Damaged("segment 0 does not open")
        return read[-1]

    assert artifacts.opened(BLOB, unseal) == SEALED
    assert read == [SEALED, SEALED] and artifacts.complete(BLOB)


def test_chunks_are_flushed_now_and_then_and_a_whole_blob_before_it_has_its_name(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 6: what has its name is whole on the disk. A flush that fails leaves a part, to be finished later."""
    flushed: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    blob = chunks.describe(SEALED, digest(b"plain"), 20)
    pieces = list(chunks.split(SEALED, 20))
    for index, piece in enumerate(pieces):
        artifacts.put(blob, index, piece)
    part = f"{blob.sealed}.part"
    assert flushed == [part] * (len(pieces) // FLUSH)
    artifacts.finish(blob)
    assert flushed[-2:] == [part, artifacts.folder.name]


def test_a_whole_that_cannot_be_flushed_does_not_get_its_name(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(artifacts)

    def refuse(descriptor: int) -> None:
        raise OSError("the disk refuses")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="refuses"):
            artifacts.finish(BLOB)
    assert not artifacts.complete(BLOB) and artifacts.present(BLOB) == set(range(len(PIECES)))
    artifacts.finish(BLOB)
    assert artifacts.complete(BLOB)


def test_a_blob_cut_short_is_not_complete(artifacts: Artifacts) -> None:
    (artifacts.folder / BLOB.sealed).write_bytes(SEALED[:-1])
    assert not artifacts.complete(BLOB)


def test_prune_keeps_what_is_named_also_half_done(artifacts: Artifacts) -> None:
    fill(artifacts)
    other = digest(b"other")
    (artifacts.folder / other).write_bytes(b"x")
    (artifacts.folder / f"{digest(b'third')}.part").write_bytes(b"x")
    artifacts.prune({BLOB.sealed})
    assert [p.name for p in artifacts.folder.iterdir()] == [f"{BLOB.sealed}.part"]


def test_a_disk_that_refuses_is_told(artifacts: Artifacts) -> None:
    (artifacts.folder / f"{BLOB.sealed}.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        artifacts.put(BLOB, 0, PIECES[0])


def test_a_disk_that_takes_a_part_of_a_chunk_is_told_too(artifacts: Artifacts) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK // 2, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            artifacts.put(BLOB, 0, PIECES[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert artifacts.present(BLOB) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_blob_that_cannot_be_read_is_lacking(artifacts: Artifacts) -> None:
    fill(artifacts)
    artifacts.finish(BLOB)
    (artifacts.folder / BLOB.sealed).chmod(0)
    with pytest.raises(Rotten, match="Permission"):
        artifacts.opened(BLOB, whole)
    assert not artifacts.complete(BLOB)
