"""A folder as a store: whole files, checked names, no link followed."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.cli.carry import _lines as carried
from appliance.cli.edge_sync import _lines as synced
from appliance.core.trips import Told, Trip
from appliance.edge.trips import Visited
from appliance.stick import Stick, StickFailed
from sync.names import DeviceId, TenantId

TENANT = TenantId("acme")
NAME = "d/press-1/desired"


@pytest.fixture
def stick(tmp_path: Path) -> Stick:
    return Stick(tmp_path, TENANT)


def path(stick: Stick, name: str = NAME) -> Path:
    return stick.place / "falaj" / "1" / TENANT / name


def test_what_was_written_is_read(stick: Stick) -> None:
    assert stick.read(NAME) is None and stick.names() == []
    assert stick.write(NAME, b"one") and not stick.write(NAME, b"one") and stick.write(NAME, b"two")
    assert stick.read(NAME) == b"two" and path(stick).read_bytes() == b"two" and stick.names() == [NAME]
    stick.remove(NAME)
    stick.remove(NAME)
    assert stick.names() == [] and not stick.refused


def test_names_below_a_place(stick: Stick) -> None:
    for name in ("d/press-1/up/0", "d/press-1/up/1", "trust/index", NAME):
        stick.write(name, b"x")
    assert stick.names("d/press-1/up") == ["d/press-1/up/0", "d/press-1/up/1"]
    assert stick.names("d/press-2/up") == []


def test_a_cut_write_leaves_what_was_there(stick: Stick) -> None:
    """Power fails between the temporary file and the rename: its remains are no file of ours, and in nobody's way."""
    stick.write(NAME, b"one")
    path(stick).with_name(".desired.new").write_bytes(b"tw")
    assert stick.names() == [NAME] and stick.read(NAME) == b"one" and not stick.refused
    assert stick.write(NAME, b"two") and stick.read(NAME) == b"two"
    assert [p.name for p in path(stick).parent.iterdir()] == ["desired"]


def test_what_could_not_be_written_takes_no_room(stick: Stick) -> None:
    """The disk takes a part of it and refuses the rest: on a full stick that part would be the room that is lacking."""
    stick.write(NAME, b"one")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StickFailed, match="what was written before is whole"):
            stick.write(NAME, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert stick.read(NAME) == b"one" and [p.name for p in path(stick).parent.iterdir()] == ["desired"]


def test_tenants_do_not_see_each_other(stick: Stick) -> None:
    stick.write(NAME, b"one")
    assert Stick(stick.place, TenantId("other")).names() == []


def test_a_link_in_the_place_of_a_file_is_replaced_and_never_followed(stick: Stick, tmp_path: Path) -> None:
    stick.write(NAME, b"one")
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    path(stick).unlink()
    path(stick).symlink_to(outside)
    assert stick.read(NAME) is None and stick.refused == {NAME: "no plain file"}
    stick.write(NAME, b"two")
    assert outside.read_bytes() == b"kept" and not path(stick).is_symlink() and stick.read(NAME) == b"two"


def test_a_temporary_file_that_is_a_link_is_not_written_through(stick: Stick, tmp_path: Path) -> None:
    stick.write(NAME, b"one")
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    path(stick).with_name(".desired.new").symlink_to(outside)
    stick.write(NAME, b"two")
    assert outside.read_bytes() == b"kept" and stick.read(NAME) == b"two"


def test_a_device_is_looked_at_and_not_opened(stick: Stick) -> None:
    stick.write(NAME, b"one")
    path(stick).unlink()
    os.mkfifo(path(stick))
    assert stick.read(NAME) is None and stick.refused == {NAME: "no plain file"}


def test_what_is_too_large_is_not_read(stick: Stick) -> None:
    stick.write(NAME, b"one")
    os.truncate(path(stick), 1 << 40)
    assert stick.read(NAME) is None and "are allowed" in stick.refused[NAME]


def test_what_has_no_name_of_ours_is_neither_read_nor_written(stick: Stick) -> None:
    assert stick.read("../../etc/passwd") is None and stick.refused == {"../../etc/passwd": "no name of ours"}
    with pytest.raises(ValueError, match="nothing that may lie in a folder"):
        stick.write("d/press-1/reported", b"x")


@pytest.mark.parametrize("name", [b"bad\xff", b"\x1b[2Jbox-1\nbox-1: may join", "abc\u202ecba".encode()])
def test_a_name_that_is_no_text_or_speaks_to_the_terminal_is_told_escaped(stick: Stick, name: bytes) -> None:
    stick.write(NAME, b"x")
    (path(stick).parent / os.fsdecode(name)).write_bytes(b"")
    assert stick.names() == [NAME]
    (told,) = stick.refused
    assert told.isprintable() and told.encode() and told.startswith("d/press-1/") and "\\" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anywhere")
def test_a_folder_that_is_shut_hides_no_others(stick: Stick) -> None:
    stick.write(NAME, b"x")
    stick.write("d/press-0/desired", b"x")
    (path(stick).parents[1] / "press-0").chmod(0)
    assert stick.names() == [NAME] and list(stick.refused) == ["d/press-0"]
    (path(stick).parents[1] / "press-0").chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_stick_that_cannot_be_written_says_so(stick: Stick) -> None:
    stick.place.chmod(0o500)
    with pytest.raises(StickFailed, match="Permission denied; what was written before is whole"):
        stick.write(NAME, b"x")


def test_a_folder_in_the_place_of_a_file_is_told(stick: Stick) -> None:
    path(stick).mkdir(parents=True)
    with pytest.raises(StickFailed, match=f"writing {NAME}: Is a directory"):
        stick.write(NAME, b"x")


def refusing(code: int) -> Callable[[int], None]:
    def flush(folder: int) -> None:
        raise OSError(code, os.strerror(code))

    return flush


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_a_disk_that_cannot_flush_folders_is_written_and_told_of(tmp_path: Path, code: int) -> None:
    stick = Stick(tmp_path, TENANT, refusing(code))
    assert stick.write(NAME, b"one") and stick.write(NAME, b"two") and stick.write("trust/index", b"x")
    assert Stick(tmp_path, TENANT).read(NAME) == b"two" and not stick.refused
    assert os.strerror(code) in stick.caution and "unmount it before you take it away" in stick.caution


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_to_flush_a_folder_has_failed(tmp_path: Path, code: int) -> None:
    stick = Stick(tmp_path, TENANT, refusing(code))
    with pytest.raises(StickFailed):
        stick.write(NAME, b"one")
    assert not stick.caution


def test_both_commands_say_so_once(tmp_path: Path) -> None:
    stick = Stick(tmp_path, TENANT, refusing(errno.EINVAL))
    for name in (NAME, "trust/index"):
        stick.write(name, b"x")
    told = Told(DeviceId("press-1"))
    for lines in (carried(Trip({told.device: told}), stick), synced(Visited(told.device), stick, joined=False)):
        (said,) = [line for line in lines if "attention" in line]
        assert stick.caution in said


def test_a_disk_that_flushes_folders_is_no_caution(stick: Stick) -> None:
    flushed: list[int] = []
    counted = Stick(stick.place, TENANT, flushed.append)
    counted.write(NAME, b"one")
    assert len(flushed) == 6 and not counted.caution, "falaj, 1, acme, d, press-1, and the file in it"


def test_no_folder_no_stick(tmp_path: Path) -> None:
    with pytest.raises(StickFailed, match="put the stick in and mount it"):
        Stick(tmp_path / "nowhere", TENANT)
