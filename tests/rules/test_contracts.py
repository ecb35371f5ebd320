"""The import contracts hold, and each is awake: a breach written into a copy of the tree is caught."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "edge", "sync", "appliance")

# contract -> breaches: (file of the tree or a new one, the line that must not stand there)
BREACHES = {
    "down-only": [
        ("sync/names.py", "import edge.states"),
        ("edge/states.py", "import core.handoffs"),
        ("core/project.py", "import appliance"),
    ],
    "light-edge": [
        ("edge/states.py", "import torch"),
        ("sync/chunks.py", "def lazy() -> None:\n    import pyarrow"),
        ("appliance/edge/node.py", "import core.orders"),
    ],
    "pure-sync": [
        ("sync/topics.py", "import time"),
        ("sync/codec.py", "from pathlib import Path"),
        ("sync/loopback.py", "import threading"),
        ("sync/mqtt.py", "import time"),
    ],
    "no-own-clock": [
        ("edge/states.py", "import time"),
        ("core/project.py", "import random"),
    ],
    "sync-rooms": [
        ("sync/names.py", "import sync.messages"),
        ("sync/manifest.py", "import sync.messages"),
        ("sync/stray.py", '"""A room nobody planned."""'),
    ],
    "edge-rooms": [
        ("edge/states.py", "import edge.lifecycle"),
        ("edge/utils.py", '"""A room nobody planned."""'),
    ],
    "core-rooms": [
        ("core/project.py", "import core.handoffs"),
        ("core/handoffs.py", "import core.orders"),
        ("core/stray.py", '"""A room nobody planned."""'),
    ],
    "appliance-rooms": [
        ("appliance/keys.py", "import appliance.edge.node"),
        ("appliance/errors.py", "import appliance.cli"),
    ],
    "appliance-core-rooms": [("appliance/core/outgoing.py", "import appliance.core.steward")],
    "appliance-edge-rooms": [("appliance/edge/state.py", "import appliance.edge.node")],
    "library-rooms": [
        ("core/handoffs.py", "import torch"),
        ("core/project.py", "import sqlite_utils"),
        ("sync/link.py", "import paho.mqtt.client"),
        ("sync/golden.py", "from cryptography.x509 import Certificate"),
        ("edge/states.py", "import onnxruntime"),
        ("appliance/stray.py", "import tuf.api.metadata"),
    ],
}


def contracts() -> dict[str, str]:
    """Contract id -> its name in words, as setup.cfg has them."""
    rules = configparser.ConfigParser()
    rules.read(ROOT / "setup.cfg")
    prefix = "importlinter:contract:"
    return {s.removeprefix(prefix): rules[s]["name"] for s in rules.sections() if s.startswith(prefix)}


def lint(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the checker on a tree; `-P` and the tree as working folder keep the checkout itself out."""
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-P", "-c", program, "--no-logo", "--no-cache", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the four packages and their rules."""
    tree = tmp_path_factory.mktemp("pristine")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "setup.cfg", tree)
    return tree


def test_every_contract_is_kept() -> None:
    told = lint(ROOT)
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"{len(contracts())} kept, 0 broken" in told.stdout


def test_every_contract_has_a_breach_of_its_own() -> None:
    assert set(BREACHES) == set(contracts())


@pytest.mark.parametrize(
    ("contract", "file", "line"),
    [(contract, file, line) for contract, breaches in BREACHES.items() for file, line in breaches],
)
def test_a_breach_is_caught_by_its_contract(contract: str, file: str, line: str, pristine: Path) -> None:
    target = pristine / file
    before = target.read_text() if target.exists() else None
    target.write_text(f"{before or ''}\n{line}\n")
    try:
        told = lint(pristine, "--contract", contract)
    finally:
        if before is None:
            target.unlink()
        else:
            target.write_text(before)
    said = " ".join(told.stdout.split())
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"{contracts()[contract]} BROKEN" in said
