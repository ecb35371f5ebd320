"""The program as people meet it: the command and what it prints, a core that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from appliance.api import Api
from appliance.core.state import CoreFolder
from appliance.demo.fleet import Machines
from sync.names import DEFAULT_TENANT


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
