"""Where tests write: in memory, if there is room. Whole runs make many thousands of small durable writes, of which each
waits for the disk; power cuts are simulated and processes are killed, and neither asks what a disk does by itself.

No example of a property fails for having taken long: how busy the machine is says nothing about the code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes that the folders of a whole run may take

settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """All `tmp_path`s lie in memory until the run ends; whoever wants to look at them afterwards gives `--basetemp`."""
    if config.option.basetemp is None and _roomy():
        folder = TemporaryDirectory(prefix="falaj-tests-", dir=MEMORY, ignore_cleanup_errors=True)
        config.option.basetemp = f"{folder.name}/run"
        config.add_cleanup(folder.cleanup)


def _roomy() -> bool:
    """Whether there is such a memory, programs in it may be run, and a whole run fits in."""
    if not os.access(MEMORY, os.W_OK):
        return False
    found = os.statvfs(MEMORY)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM


def in_memory() -> TemporaryDirectory[str]:
    """A folder in memory also where a whole run would not fit in."""
    return TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)


@pytest.fixture
def ram() -> Iterator[Path]:
    """Such a folder, of one test."""
    with in_memory() as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def shared_ram() -> Iterator[Path]:
    """Such a folder, of all tests of a module: for what one prepares and others copy."""
    with in_memory() as folder:
        yield Path(folder)
