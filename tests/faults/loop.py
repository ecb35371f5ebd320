"""An ext4 disk in a file. Its power can be cut: the file is copied while the disk is mounted, and the copy is mounted
in its place, so that what was written and never synced is gone. Root alone may do this."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

MEGABYTES = 12


@dataclass
class Loop:
    """One such disk, mounted on `folder`."""

    folder: Path
    image: Path

    @classmethod
    def new(cls, folder: Path) -> Loop:
        """Made and mounted; raises OSError or CalledProcessError where that is not allowed."""
        folder.mkdir(parents=True)
        disk = cls.around(folder)
        with disk.image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(disk.image))
        disk._mount()
        return disk

    @classmethod
    def around(cls, folder: Path) -> Loop:
        """The one that is mounted there."""
        return cls(folder, folder.with_name(folder.name + ".ext4"))

    def settle(self) -> None:
        """Everything so far is on the medium."""
        _run("sync", "-f", str(self.folder))

    def cut(self, let_go: Callable[[], None]) -> None:
        """The power is gone, and back. `let_go` closes what is open, which writes to a disk nobody has any more."""
        copy = self.image.with_suffix(".copy")
        shutil.copyfile(self.image, copy)
        let_go()
        _run("umount", str(self.folder))
        copy.replace(self.image)
        self._mount()

    def end(self) -> None:
        _run("umount", str(self.folder))

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self.image), str(self.folder))


def mountable(aside: Path) -> None:
    """Skips the test, visibly, where this user may not mount such a disk; `aside` is a folder to try it in."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a disk")
    try:
        Loop.new(aside / "try").end()
    except (OSError, subprocess.CalledProcessError) as refused:
        pytest.skip(f"no ext4 image can be mounted here: {refused}")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
