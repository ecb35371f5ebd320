"""A real disk of a few hundred kilobytes, which a test can fill, free and make read-only. Skipped, visibly, where this
user may not mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class SmallDisk:
    """A tmpfs of its own."""

    folder: Path

    def fill(self, leave: int = 0) -> None:
        """Takes all the room there is, but for `leave` bytes."""
        descriptor = os.open(self.folder / "ballast", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for size in (65536, 4096, 1):
            try:
                while os.write(descriptor, bytes(size)) == size:
                    pass
            except OSError:  # full: that is what was wanted
                continue
        os.close(descriptor)
        if leave:
            os.truncate(self.folder / "ballast", max(0, (self.folder / "ballast").stat().st_size - leave))

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def read_only(self, yes: bool) -> None:
        """As after an error of the medium. Nobody may have a file open for writing."""
        _mount("-o", "remount,ro" if yes else "remount,rw", str(self.folder))


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    """Mounts it on `folder`, until the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        pytest.skip("only root may mount a disk")
    try:
        _mount("-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
