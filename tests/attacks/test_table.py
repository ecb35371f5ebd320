"""docs/security.md says which attack is tried by which test: each test it names is there, and each is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (\d+) \| .+$", (ROOT / "docs" / "security.md").read_text(), re.MULTILINE)
NAMED = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text())


def cases_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 30
    for file, name in NAMED:
        assert (ROOT / file).exists() and name in cases_in(ROOT / file), f"{file}::{name}"


def test_every_attack_that_is_tried_here_stands_in_the_table() -> None:
    for path in Path(__file__).parent.glob("test_[0-9]*.py"):
        for name in cases_in(path):
            number = re.match(r"test_(\d+)_", name)
            assert number, f"{path.name}: {name} does not begin with the number of its attack"
            assert str(int(number[1])) in ROWS, f"{path.name}: attack {number[1]} is not in the table"


def test_the_numbers_rise_and_stand_once() -> None:
    assert [int(n) for n in ROWS] == sorted({int(n) for n in ROWS})
