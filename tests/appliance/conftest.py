"""A real core for the tests that need one: its processes, its sockets, its broker, in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance import clock, owner
from appliance.api import Api
from appliance.core_state import CoreFolder
from appliance.demo.fleet import Machines
from sync.names import DEFAULT_TENANT

PATIENCE = 20.0  # seconds until a test that waits gives up; nothing is measured by it


def eventually(done: Callable[[], bool], what: str) -> None:
    """Waits for something that happens in another process."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)


def falaj(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as people run it: a process, its exit code, what it printed."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "appliance.cli", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


@dataclass(frozen=True)
class RunningCore:
    """A core that runs, with its trust set up by an owner of its own."""

    machines: Machines
    owner_keys: Path

    @property
    def folder(self) -> CoreFolder:
        return CoreFolder(self.machines.core_folder, DEFAULT_TENANT)

    @property
    def api(self) -> Api:
        return self.machines.api

    def falaj(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command against this core."""
        return falaj(*args, "--dir", str(self.machines.core_folder))


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCore]:
    """One core for the whole run; tests use sources, devices and models of their own names."""
    home = tmp_path_factory.mktemp("core")
    machines = Machines(home)
    try:
        machines.start_core()
        owner.init(machines.api, home / "owner", "test", clock.now())
        yield RunningCore(machines, home / "owner")
    finally:
        machines.stop()
