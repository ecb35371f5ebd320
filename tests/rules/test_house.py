"""The house rules that a machine can hold: sizes, names, docstrings, clocks, tenants."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sync import topics
from sync.names import TenantId

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("appliance", "core", "edge", "sync")
MODULES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE = 300
MAX_FUNCTION = 60

# Calls that read a clock or roll dice. Law 3: they come in as arguments; only `appliance` may make them.
HIDDEN_INPUTS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "random": {
        "random",
        "randint",
        "choice",
        "choices",
        "shuffle",
        "sample",
        "uniform",
        "randbytes",
        "gauss",
    },
    "secrets": {"token_bytes", "token_hex", "token_urlsafe", "randbelow", "choice"},
    "uuid": {"uuid1", "uuid4"},
    "os": {"urandom", "getrandom"},
}

# Where they are allowed outside `appliance`, and why.
ALLOWED: dict[str, dict[str, str]] = {}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def hidden_inputs(tree: ast.Module) -> set[str]:
    """Calls such as `time.time` or `datetime.datetime.now`, also under `from time import time as tick`."""
    bare = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.name in HIDDEN_INPUTS.get(node.module, ())
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in bare:
            found.add(bare[node.func.id])
        if isinstance(node.func, ast.Attribute):
            owner = node.func.value
            owned_by = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if node.func.attr in HIDDEN_INPUTS.get(owned_by, ()):
                found.add(f"{owned_by}.{node.func.attr}")
    return found


def is_silent(handler: ast.ExceptHandler, lines: list[str]) -> bool:
    """A bare except, or one that does nothing and does not say why."""
    nothing = all(isinstance(statement, ast.Pass) for statement in handler.body)
    said = any("#" in lines[n - 1] for n in range(handler.lineno, (handler.end_lineno or handler.lineno) + 1))
    return handler.type is None or (nothing and not said)


@dataclass(frozen=True)
class Facts:
    """What the rules ask of one module. Its tree is let go of: all of them together are more than a collection of
    garbage gets through."""

    long: dict[str, int]  # functions that are too long, and their lines
    hidden: set[str]
    relative: list[int]  # lines of relative imports
    annotated: bool
    silent: list[int]  # lines of handlers


@functools.cache
def facts_of(path: Path) -> Facts:
    """A module is read once for all rules but the first."""
    tree, lines = tree_of(path), path.read_text().splitlines()
    return Facts(
        long={f.name: body_lines(f) for f in functions(tree) if body_lines(f) > MAX_FUNCTION},
        hidden=hidden_inputs(tree),
        relative=[n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level],
        annotated=any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AnnAssign) for n in tree.body),
        silent=[h.lineno for h in ast.walk(tree) if isinstance(h, ast.ExceptHandler) and is_silent(h, lines)],
    )


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring and len(docstring) > 20, f"{name_of(path)} begins without a docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_file_is_too_long_to_read(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE, f"{name_of(path)}: {lines} lines; split it by meaning"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_function_is_too_long_to_read(path: Path) -> None:
    long = facts_of(path).long
    assert not long, f"{name_of(path)}: {long} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_a_drawer_for_everything(path: Path) -> None:
    drawers = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "base", "misc"}
    assert path.stem not in drawers and path.parent.name not in drawers, "name it by what it does"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_time_and_chance_come_in_as_arguments(path: Path) -> None:
    if path.is_relative_to(ROOT / "appliance"):
        return
    allowed = set(ALLOWED.get(name_of(path), ()))
    assert facts_of(path).hidden <= allowed, "pass it in, or explain it in ALLOWED"


def test_every_allowance_is_still_needed() -> None:
    for name, calls in ALLOWED.items():
        assert hidden_inputs(tree_of(ROOT / name)) == set(calls), f"{name}: ALLOWED says more than is used"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_are_absolute_and_annotations_lazy(path: Path) -> None:
    found = facts_of(path)
    assert not found.relative, f"{name_of(path)}: relative imports in lines {found.relative}"
    assert not found.annotated or "from __future__ import annotations" in path.read_text()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_exception_is_swallowed(path: Path) -> None:
    silent = facts_of(path).silent
    assert not silent, f"{name_of(path)}: bare except, or pass without a comment that says why, in lines {silent}"


def test_the_tenant_comes_first_in_every_topic() -> None:
    tenant = TenantId("acme")
    assert topics.tenant_root(tenant) == "falaj/1/acme"
    for topic in (*topics.core_subscriptions(tenant), topics.core_status(tenant)):
        assert topic.startswith("falaj/1/acme/")
    for _, pattern in topics.DEVICE_RULES:
        assert not pattern.startswith(("falaj", "/")), "a rule stands below its tenant"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\ntime.time()", {"time.time"}),
        ("from time import monotonic as m\nm()", {"time.monotonic"}),
        ("import datetime\ndatetime.datetime.now()", {"datetime.now"}),
        ("import os\nos.urandom(3)", {"os.urandom"}),
        ("now()", set()),
        ("rng.random()", set()),
    ],
)
def test_the_search_for_hidden_inputs_finds_them(source: str, expected: set[str]) -> None:
    assert hidden_inputs(ast.parse(source)) == expected
