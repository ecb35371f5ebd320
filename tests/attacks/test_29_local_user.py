"""Attack 29: another account on the same machine, without privileges. What the processes make is closed to it
(`tests/journey/test_real_processes.py` looks at all of it), the unit gives it nothing to climb on, and an edit that was
made all the same is found when the file is loaded (attack 30)."""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.edge import install

HARDENED = """
CapabilityBoundingSet= LockPersonality=yes NoNewPrivileges=yes PrivateDevices=yes PrivateTmp=yes ProtectClock=yes
ProtectControlGroups=yes ProtectHome=yes ProtectHostname=yes ProtectKernelLogs=yes ProtectKernelModules=yes
ProtectKernelTunables=yes ProtectProc=invisible ProtectSystem=strict RestrictNamespaces=yes RestrictRealtime=yes
RestrictSUIDSGID=yes StateDirectoryMode=0700 SystemCallArchitectures=native SystemCallFilter=@system-service UMask=0077
"""
EXPOSED = 20  # tenths of systemd's own score from 0 (closed) to 10; it calls up to 2.5 "OK", and an open unit 9.6


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "falaj-edge.service"
    path.write_text(install.unit(getpass.getuser(), Path(sys.executable)))
    return path


def test_29_the_unit_leaves_nothing_to_climb_on(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert [word for word in HARDENED.split() if word not in lines] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_29_systemd_reads_it_and_finds_it_closed(unit: Path) -> None:
    check = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSED}", "--no-pager", str(unit)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    read = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("node", ["core", "edge"])
def test_29_a_node_closes_what_it_makes_before_it_makes_anything(node: str, tmp_path: Path) -> None:
    """Under the most open umask there is: a socket or a database is never open for the moment before its `chmod`."""
    (tmp_path / f"{node}.toml").write_text("no such setting = 1")  # it ends before it listens anywhere
    call = f"from appliance.cli import falaj; falaj(['{node}', 'run', '--dir', {str(tmp_path)!r}])"
    watch = f"import atexit, os; os.umask(0); atexit.register(lambda: print(oct(os.umask(0)))); {call}"
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["0o77"], done.stderr[-500:]
