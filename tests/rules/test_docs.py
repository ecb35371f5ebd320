"""The papers tell the truth where a machine can know it: links, commands, words of the protocol, exit codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from appliance import setup_plan
from appliance.core.project_file import read_project
from core.project import Column, LookupSource, Model, ModelGates, Retraining, Rollout, Source, Training, View, Word
from sync import answers, carried, commands, enrolment, messages, performance, pieces, records, remembered, topics
from sync.features import WindowSpec
from sync.manifest import Binding, Drift, Profile, Uplink

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()

DOCUMENTS = sorted(
    name
    for room in (messages, enrolment, records, pieces, performance, carried, commands, remembered, answers)
    for name, value in vars(room).items()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == room.__name__
)
PROJECT_PAGE = (ROOT / "docs" / "project-file.md").read_text()
PROJECT_TABLES = [
    Source, Column, View, WindowSpec, Model, Training, ModelGates, Profile, Rollout, Drift, Uplink, Retraining, Binding,
    LookupSource, Word,
]  # fmt: skip
MEDIA_TYPES = sorted(
    v
    for room in (messages, enrolment, carried, commands, answers)
    for k, v in vars(room).items()
    if k.endswith("_TYPE")
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Anchors that the page's headings get: lowercase, spaces to hyphens, punctuation dropped."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_inside_the_tree_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        assert goal.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(goal), f"{name_of(page)}: no heading for {target}"


def test_the_first_two_commands_of_the_readme() -> None:
    commands = re.findall(r"^(?!#)\s*(make \S.*|\S*falaj .+|pip .+|curl .+)$", _code_blocks("README.md"), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


def test_every_make_target_in_the_papers_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        inline = re.findall(r"`make ([a-z]+)", page.read_text())
        for target in inline + re.findall(r"^make ([a-z]+)", _code_blocks(name_of(page)), re.MULTILINE):
            assert target in targets, f"{name_of(page)} speaks of 'make {target}'"


def test_every_make_target_explains_itself() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert all("## " in line for line in makefile.splitlines() if re.match(r"[a-z]+:", line))


@pytest.mark.parametrize("area", get_args(topics.Area))
def test_the_protocol_page_names_every_topic_area(area: str) -> None:
    assert re.search(rf"^\|[^|]*\| {area} \|", PROTOCOL, re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_protocol_page_names_every_document(document: str) -> None:
    assert f"`{document}`" in PROTOCOL


@pytest.mark.parametrize("text", [*MEDIA_TYPES, *sorted({p for _, p in topics.DEVICE_RULES})])
def test_the_protocol_page_has_the_words_of_the_code(text: str) -> None:
    assert text in PROTOCOL


def test_the_protocol_page_has_the_numbers_of_the_code() -> None:
    assert topics.ROOT == "falaj/1"
    assert f"version {messages.PROTOCOL}" in PROTOCOL


@pytest.mark.parametrize("kind", PROJECT_TABLES, ids=lambda kind: str(kind.__name__))
def test_the_page_of_the_project_file_has_every_key_and_its_default(kind: type[msgspec.Struct]) -> None:
    told = dict(re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|", PROJECT_PAGE, re.MULTILINE))
    for field in msgspec.structs.fields(kind):
        row = next((row for row in told if f"`{field.name}`" in row), None)
        assert row is not None, f"{field.name} of {kind.__name__} is not in docs/project-file.md"
        if field.required:
            assert "required" in re.findall(rf"^\| {re.escape(row)} \| ([^|]+) \|", PROJECT_PAGE, re.MULTILINE)
        elif type(field.default) in (int, float, str):
            assert _toml(field.default) in PROJECT_PAGE, f"the default of {field.name} in {kind.__name__}"


def test_the_first_projects_file_is_without_fault(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "first-project.md").read_text()
    file = tmp_path / "falaj.toml"
    file.write_text(page.split("cat > falaj.toml <<'END'\n")[1].split("END\n")[0])
    assert list(read_project(file).models) == ["pump"]


def _toml(value: object) -> str:
    return f'`"{value}"`' if isinstance(value, str) else str(value)


def test_decision_records_are_numbered_without_gaps() -> None:
    names = sorted(f.name for f in (ROOT / "docs" / "adr").glob("*.md"))
    assert [int(n[:4]) for n in names] == list(range(1, len(names) + 1))
    for name in names:
        text = (ROOT / "docs" / "adr" / name).read_text()
        assert text.startswith(f"# {name[:4]}. ")
        for part in ("**Status:**", "**Decision.**", "**Why.**", "**The cost.**", "**What would change it.**"):
            assert part in text, f"{name} lacks {part}"


def test_every_runtime_dependency_stands_in_the_notices() -> None:
    notices = (ROOT / "THIRD-PARTY-NOTICES.md").read_text().lower().replace("_", "-")
    declared = re.findall(
        r'^    "([a-z0-9-]+)(?:\[[a-z]+\])?[<>=]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    tools = {"hypothesis", "import-linter", "mypy", "pytest", "pytest-xdist", "ruff"}
    assert len(declared) > 15
    for package in set(declared) - tools:
        assert f"| {package} |" in notices, f"{package} is missing in THIRD-PARTY-NOTICES.md"


def test_the_readme_names_the_index_that_the_set_up_names() -> None:
    assert setup_plan.CPU_INDEX in (ROOT / "README.md").read_text()


def _code_blocks(page: str) -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))


# --- tests that the papers name ----------------------------------------------------------------------------------

EIGHT = {
    "NaN", "wrong shape", "10 times slower", "memory growth", "crash on load", "crash on the 100th call",
    "golden mismatch", "constant output",
}  # fmt: skip
SERVING = {"PROVING", "SHADOW", "PROBATION", "LIVE_SPLIT"}
NAMED_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`")


def _tests_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", [page for page in PAGES if "CHANGELOG" not in page.name], ids=name_of)
def test_every_test_that_a_page_names_is_there(page: Path) -> None:
    for file, name in NAMED_TEST.findall(page.read_text()):
        assert (ROOT / file).is_file() and name in _tests_in(ROOT / file), f"{name_of(page)}: {file}::{name}"


def test_each_bad_release_is_shown_in_each_way_of_serving() -> None:
    """The table of docs/lifecycle.md: which test has which model in which phase, and what it costs at most."""
    rows = re.findall(r"^\| (.+?) \| (`[A-Z_`, ]+`) \| (.+?) \| (.+?) \|$", _page("docs/lifecycle.md"), re.MULTILINE)
    shown = [
        (bad, phase)
        for models, phases, bound, tests in rows
        if bound and NAMED_TEST.search(tests)
        for bad in models.split(", ")
        for phase in re.findall(r"[A-Z_]+", phases)
    ]
    assert {bad for bad, _ in shown} == EIGHT
    assert sorted(shown) == sorted((bad, phase) for bad in EIGHT for phase in SERVING), "each of them once"


def _page(name: str) -> str:
    return (ROOT / name).read_text()
