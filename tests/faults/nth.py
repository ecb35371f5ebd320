"""A real disk whose n-th write, truncation, sync or rename fails: below Python and below SQLite, in the C library.

`preload` compiles the shim (nth.c) and gives the environment of a process that has it; in there `Nth` arms it. Needs a
C compiler; a test without one is skipped, visibly.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

SOURCE = Path(__file__).with_name("nth.c")
Mode = Literal["error", "dead"]
_MODES = {"error": 1, "dead": 2}


def preload(folder: Path, source: Path = SOURCE) -> dict[str, str]:
    """The environment of a process whose disk can fail, or what else `source` does; skips the test where nothing can be
    compiled."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    library = folder / f"{source.stem}.so"
    if not library.exists():
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def told(story: str, stride: int, folder: Path) -> int:
    """How many places the story (`nth_stories`) was broken at, every `stride`-th from the first to the last one."""
    argv = [sys.executable, "-P", "-m", "tests.faults.nth_stories", story, str(stride), str(folder)]
    done = subprocess.run(argv, env=preload(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout.strip())
    return int(json.loads(done.stdout)["touches"])


@dataclass
class Nth:
    """The shim in this process. `error`: the n-th touch fails once. `dead`: so does everything after it."""

    folder: Path  # whose files are meant, and nobody else's

    def __post_init__(self) -> None:
        self._shim = ctypes.CDLL(None)
        self._shim.nth_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
        self._shim.nth_touched.restype = ctypes.c_long
        self._n = 0

    def arm(self, n: int, mode: Mode) -> None:
        self._n = n
        self._shim.nth_arm(str(self.folder.resolve()).encode(), n, _MODES[mode])

    def disarm(self) -> bool:
        """The disk works again; whether it had failed."""
        blown = self.blown
        self._shim.nth_arm(b"", 0, 0)
        return blown

    @property
    def blown(self) -> bool:
        return bool(self._shim.nth_touched() >= self._n > 0)
