"""Fault 34: another hash seed, locale, time zone and umask. A device that lives the same story in each gives the same
answers, ids, windows and documents, and its files are closed to others in all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SURROUNDINGS: list[dict[str, str]] = [
    {"PYTHONHASHSEED": "0", "LC_ALL": "C", "TZ": "UTC0"},
    {"PYTHONHASHSEED": "1", "LC_ALL": "C.UTF-8", "TZ": "GST-4"},
    {"PYTHONHASHSEED": "4294967295", "LC_ALL": "POSIX", "TZ": "NST3:30NDT,M3.2.0,M11.1.0", "PYTHONUTF8": "0"},
]
OFFSETS = [0, 4 * 3600, -3.5 * 3600]  # seconds: written out, the zones hold also where no table of zones is installed
UMASKS = (0o000, 0o022, 0o077)


def lived(folder: Path, surroundings: dict[str, str], umask: int) -> str:
    argv = [sys.executable, "-P", "-m", "tests.faults.a_life", str(folder)]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **surroundings}
    done = subprocess.run(argv, env=given, capture_output=True, text=True, umask=umask, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_zones_differ() -> None:
    """The control."""
    asks = [sys.executable, "-c", "import time; print(time.localtime(0).tm_gmtoff)"]
    said = [subprocess.run(asks, env=given, capture_output=True, check=True).stdout for given in SURROUNDINGS]
    assert [int(text) for text in said] == OFFSETS


@pytest.mark.slow
def test_the_same_life_has_the_same_results_everywhere(tmp_path: Path) -> None:
    folders = [tmp_path / str(umask) for umask in UMASKS]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lived, folders, SURROUNDINGS, UMASKS))
    for folder in folders:
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert len(files) > 5 and not [f for f in files if f.stat().st_mode & 0o077], "closed to others"
    assert len(told[0].splitlines()) > 20 and told == [told[0]] * len(told)
