"""Files that are there whole or not at all: the order on the disk, what a refusal leaves, and who may read them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sync.durable import NO_FLUSH, make_folder, rename, sync_folder, write_private, writing

Disk = Callable[..., list[tuple[str, bytes]]]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Watches what is flushed, with what `a` holds at that moment; the flush of `refusing` fails with `code`."""
    real = os.fsync

    def watch(refusing: str = "", code: int = errno.EIO) -> list[tuple[str, bytes]]:
        seen: list[tuple[str, bytes]] = []

        def fsync(descriptor: int) -> None:
            flushed = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            found = tmp_path / "a"
            seen.append((flushed.name, found.read_bytes() if found.is_file() else b""))
            if flushed.name == refusing:
                raise OSError(code, os.strerror(code))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        return seen

    return watch


def test_a_write_leaves_no_half_file_behind_and_nobody_else_reads_it(tmp_path: Path) -> None:
    write_private(tmp_path / "a", b"one")
    (tmp_path / "a.tmp").write_bytes(b"left by a power cut, and longer")
    write_private(tmp_path / "a", b"two")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"two")]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_link_in_the_place_of_a_temporary_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"untouched")
    (tmp_path / "a.tmp").symlink_to(tmp_path / "mine")
    write_private(tmp_path / "a", b"one")
    assert (tmp_path / "mine").read_bytes() == b"untouched"
    assert not (tmp_path / "a").is_symlink() and (tmp_path / "a").read_bytes() == b"one"


def test_nor_is_one_that_comes_there_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_bytes(b"untouched")

    def unlink(path: Path) -> None:
        path.symlink_to(tmp_path / "mine")
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "a", b"one")
    assert (tmp_path / "mine").read_bytes() == b"untouched"


def test_content_is_flushed_before_its_name_and_the_name_before_the_end(tmp_path: Path, disk: Disk) -> None:
    write_private(tmp_path / "a", b"old")
    flushed = disk()
    write_private(tmp_path / "a", b"new")
    assert flushed == [("a.tmp", b"old"), (tmp_path.name, b"new")]


def test_content_that_the_disk_does_not_take_replaces_nothing(tmp_path: Path, disk: Disk) -> None:
    """Whatever the disk answers: only a folder may be one that cannot be flushed."""
    write_private(tmp_path / "a", b"old")
    for code in (errno.EIO, errno.ENOSPC, *NO_FLUSH):
        disk("a.tmp", code)
        with pytest.raises(OSError, match=os.strerror(code)):
            write_private(tmp_path / "a", b"new")
        assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"old")]


def test_a_name_that_is_not_flushed_is_told_and_stands_for_something_whole(tmp_path: Path, disk: Disk) -> None:
    write_private(tmp_path / "a", b"old")
    disk(tmp_path.name, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_private(tmp_path / "a", b"new")
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"new")]


@pytest.mark.parametrize("code", sorted(NO_FLUSH), ids=errno.errorcode.get)
def test_a_disk_that_cannot_flush_folders_is_written(tmp_path: Path, disk: Disk, code: int) -> None:
    flushed = disk(tmp_path.name, code)
    write_private(tmp_path / "a", b"one")
    assert (tmp_path / "a").read_bytes() == b"one" and flushed[-1][0] == tmp_path.name


def test_what_is_written_piece_by_piece_is_there_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    with writing(tmp_path / "a") as file:
        file.write(b"one, ")
        assert not (tmp_path / "a").exists()
        file.write(b"two")

    def give_up() -> None:
        with writing(tmp_path / "a") as file:
            file.write(b"three")
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        give_up()
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("a", b"one, two")]


def test_missing_folders_are_made_for_the_owner_alone_and_flushed_each(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o755)
    flushed = disk()
    write_private(tmp_path / "there" / "made" / "too" / "a", b"one")
    modes = [stat.S_IMODE((tmp_path / "there" / below).stat().st_mode) for below in ("", "made", "made/too")]
    assert modes == [0o755, 0o700, 0o700], "one that was there is as it was"
    assert [name for name, _ in flushed] == ["there", "made", "a.tmp", "too"]
    make_folder(tmp_path / "there" / "made")
    assert len(flushed) == 4, "what was there is not flushed again"


def test_a_folder_gets_another_name_for_good(tmp_path: Path, disk: Disk) -> None:
    write_private(tmp_path / "coming" / "key", b"key")
    flushed = disk()
    rename(tmp_path / "coming", tmp_path / "here")
    assert (tmp_path / "here" / "key").read_bytes() == b"key" and [name for name, _ in flushed] == [tmp_path.name]


def test_a_disk_that_refuses_is_told_and_no_folder_stays_open(tmp_path: Path, disk: Disk) -> None:
    (tmp_path / "a.tmp").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "a", b"one")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "nowhere")
    disk(tmp_path.name, errno.EIO)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            sync_folder(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
