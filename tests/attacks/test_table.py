"""docs/security.md says which attack is tried by which test: the attacks that this project set out to try are all rows,
each row names tests, and each test that the page names is there. A row need not name every test: beside the attack many
files hold a control, by which what is refused there is taken."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`")
NAMED = TEST.findall(PAGE)
TRIED = {*range(1, 37), 43, 44}  # of the project's list of 73; whoever tries another adds its number here


def cases_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 30
    for file, name in NAMED:
        assert (ROOT / file).exists() and name in cases_in(ROOT / file), f"{file}::{name}"


def test_the_attacks_that_are_tried_are_all_rows_once_and_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == sorted(TRIED)


def test_every_row_names_a_test() -> None:
    for number, tried_by in ROWS:
        assert TEST.search(tried_by), f"row {number} names no test"


def test_every_attack_that_is_tried_here_stands_in_the_table_with_one_of_its_tests() -> None:
    rows = {int(number): tried_by for number, tried_by in ROWS}
    for path in Path(__file__).parent.glob("test_[0-9]*.py"):
        for name in cases_in(path):
            found = re.match(r"test_(\d+)_", name)
            assert found, f"{path.name}: {name} does not begin with the number of its attack"
            number = int(found[1])
            assert f"::test_{number:02}_" in rows.get(number, ""), f"{path.name}: row {number} names none of its tests"
