"""The edge stays light: behind its doors no library of the core is ever loaded. Presence only, no timing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "pyarrow",
    "duckdb",
    "flask",
    "sqlalchemy",
    "pandas",
    "sqlite_utils",
    "apscheduler",
)

LOADED = "import json, sys; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"


def loaded_by(program: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `program` ran."""
    told = subprocess.run(
        [sys.executable, "-P", "-c", f"{program}\n{LOADED}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    modules: list[str] = json.loads(told.stdout.splitlines()[-1])
    return set(modules)


def rooms_of(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
    return [n.removesuffix(".__init__") for n in names]


def importing(rooms: list[str]) -> str:
    return "\n".join(f"import {room}" for room in rooms)


@pytest.mark.parametrize("package", ["edge", "sync"])
def test_a_light_package_loads_no_heavy_library(package: str) -> None:
    loaded = loaded_by(importing(rooms_of(package)))
    assert package in loaded
    assert not loaded & {*HEAVY, "core"}


def test_trust_and_delivery_load_nothing_that_serving_needs() -> None:
    """They are in the way of every device, and have twelve MiB (`benchmarks/memory.py`)."""
    rooms = [f"edge.{room}" for room in ("trust", "download", "artifacts", "outbox", "journal", "slots", "states")]
    loaded = loaded_by(importing([*rooms, "sync.mqtt", "sync.sealing", "sync.roles", "sync.messages"]))
    assert "tuf" in loaded
    assert not loaded & {"numpy", "onnxruntime"}


def test_importing_a_room_of_the_core_does_not_load_torch_by_the_way() -> None:
    loaded = loaded_by("import core.handoffs, core.orders, core.project")
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("arguments", [["--help"], ["edge", "--help"], ["edge", "run", "--help"]])
def test_the_edge_command_loads_no_heavy_library(arguments: list[str]) -> None:
    if not (ROOT / "appliance" / "cli" / "__init__.py").exists():
        pytest.skip("the command line is not built yet")
    program = (
        "import sys\n"
        "from appliance.cli import main\n"
        f"sys.argv = ['falaj', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert not loaded_by(program) & set(HEAVY)


def test_the_edge_node_loads_no_heavy_library() -> None:
    assert not loaded_by("import appliance.edge.node") & set(HEAVY)


def test_the_search_finds_what_is_there() -> None:
    assert "sqlite3" in loaded_by("import sqlite3")
