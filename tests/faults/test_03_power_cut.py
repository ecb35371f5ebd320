"""Fault 3: the power is cut at every fifth write, sync and rename of an update, from the first one on; the four between
two of these are not tried here (fault 2 kills at every one, which takes no bytes away). The disk is an
ext4 image that is copied as it is, so what was never synced is gone: the next start serves a verified model, and what
was acknowledged is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.loop import Loop, mountable
from tests.faults.nth import told

CUTS = 60
STRIDE = 5  # each cut copies and mounts a disk


@pytest.mark.slow
def test_03_the_power_is_cut_at_every_fifth_touch_of_the_disk(ram: Path) -> None:
    assert told("power", STRIDE, ram) >= CUTS


@pytest.mark.slow
def test_03_what_was_not_synced_is_gone_from_a_disk_whose_power_was_cut(ram: Path) -> None:
    """The control: the tool takes away what it must, and nothing else."""
    disk = Loop.new(ram / "disk")
    for name in ("synced", "not-synced"):
        with (disk.folder / name).open("wb") as file:
            file.write(b"said")
            file.flush()
            if name == "synced":
                os.fsync(file.fileno())
    disk.cut(lambda: None)
    found = [p.read_bytes() for p in sorted(disk.folder.glob("*synced"))]
    disk.end()
    assert found[-1] == b"said" and b"said" not in found[:-1]


@pytest.fixture(autouse=True)
def loops_are_allowed(ram: Path) -> None:
    mountable(ram)
