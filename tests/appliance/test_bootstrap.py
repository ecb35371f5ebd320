"""First set-up: what it decides on which machine, what it says before it downloads, and that a kill is no harm."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import bootstrap, setup_plan
from appliance.setup_plan import Facts, Refused, Wish, plan

ROOT = Path(__file__).resolve().parents[2]

FRESH = Facts(
    python=(3, 11),
    bits=64,
    system="Linux",
    machine="x86_64",
    glibc=True,
    has_venv=True,
    root=False,
    ci=False,
    tty=True,
    sudo=True,
    apt=True,
    mosquitto=None,
    torch_index=None,
    torch_here=False,
    venv=False,
    digest="d1",
    stamp={},
    demo_data=False,
)
DONE = replace(
    FRESH, mosquitto="2.0.18", venv=True, torch_here=True, stamp={"digest": "d1", "dev": False}, demo_data=True
)


def kinds(facts: Facts, wish: Wish) -> list[str]:
    return [step.kind for step in plan(facts, wish)]


def words(facts: Facts) -> str:
    return " ".join(step.says for step in plan(facts, Wish()))


def test_a_fresh_machine_gets_everything_the_broker_first() -> None:
    assert kinds(FRESH, Wish(demo=True)) == ["mosquitto", "venv", "packages", "demo-data"]
    assert kinds(FRESH, Wish()) == ["mosquitto", "venv", "packages"]


def test_a_finished_set_up_has_nothing_to_do() -> None:
    assert plan(DONE, Wish(demo=True)) == ()
    assert plan(DONE, Wish()) == ()


def test_tests_need_more_than_the_demo_but_the_demo_nothing_more_than_tests() -> None:
    assert kinds(DONE, Wish(dev=True)) == ["packages"]
    with_tests = replace(DONE, stamp={"digest": "d1", "dev": True})
    assert plan(with_tests, Wish(dev=True, demo=True)) == ()


@pytest.mark.parametrize("stamp", [{}, {"digest": "d0", "dev": True}, {"dev": True}])
def test_without_a_true_stamp_packages_are_installed_again(stamp: dict[str, object]) -> None:
    assert kinds(replace(DONE, stamp=stamp), Wish()) == ["packages"]


def test_an_environment_of_another_python_is_made_anew() -> None:
    assert kinds(replace(DONE, venv=False), Wish()) == ["venv", "packages"]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(FRESH, python=(3, 10)), "Python 3.11 or newer is needed, this is 3.10"),
        (replace(FRESH, bits=32, machine="armv7l"), "64-bit Linux is needed, this is 32-bit Linux armv7l"),
        (replace(FRESH, system="Darwin"), "64-bit Linux is needed"),
        (replace(FRESH, glibc=False), "A distribution with glibc is needed"),
        (replace(FRESH, has_venv=False), "sudo apt-get install python3-venv"),
    ],
)
def test_a_machine_that_cannot_run_it_is_refused_with_the_reason(facts: Facts, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        plan(facts, Wish())
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (replace(FRESH, tty=False), "Do: sudo apt-get install -y --no-install-recommends mosquitto"),
        (replace(FRESH, sudo=False), "cannot be installed from here"),
        (replace(FRESH, apt=False), "your distribution's package manager"),
        (replace(FRESH, mosquitto="1.6.9"), "Mosquitto 1.6.9 is too old"),
    ],
)
def test_without_a_way_to_mosquitto_one_message_and_exit_3(facts: Facts, told: str) -> None:
    with pytest.raises(Refused, match=told) as refused:
        plan(facts, Wish())
    assert refused.value.exit_code == 3


def test_a_person_is_asked_before_sudo_root_and_ci_are_not() -> None:
    assert setup_plan.must_ask(FRESH)
    assert not setup_plan.must_ask(replace(FRESH, root=True))
    assert not setup_plan.must_ask(replace(FRESH, ci=True))
    assert "sudo apt-get" in words(FRESH)
    assert "sudo" not in words(replace(FRESH, root=True, sudo=False, tty=False))
    assert kinds(replace(FRESH, ci=True, tty=False), Wish())[0] == "mosquitto"


def test_the_cuda_build_is_announced_with_its_size_and_the_way_round_it() -> None:
    said = words(FRESH)
    assert "CUDA" in said
    assert f"{setup_plan.SIZES['torch-cuda']} MB" in said
    assert f"TORCH_INDEX={setup_plan.CPU_INDEX}" in said
    assert sum(s.megabytes for s in plan(FRESH, Wish())) > setup_plan.SIZES["torch-cuda"]


@pytest.mark.parametrize(
    "facts",
    [
        replace(FRESH, torch_index=setup_plan.CPU_INDEX),
        replace(FRESH, torch_here=True),
        replace(FRESH, machine="aarch64"),
    ],
)
def test_no_word_of_cuda_where_the_cpu_build_comes(facts: Facts) -> None:
    assert "CUDA" not in words(facts)
    assert sum(s.megabytes for s in plan(facts, Wish())) < 500


def test_pip_is_pinned_and_takes_the_chosen_index() -> None:
    command = bootstrap.pip_command(replace(FRESH, torch_index="https://example.org/whl"), Wish(dev=True))
    assert command[command.index("-c") + 1].endswith("constraints.txt")
    assert command[command.index("--extra-index-url") + 1] == "https://example.org/whl"
    assert command[-1].endswith("[dev]")
    assert bootstrap.pip_command(FRESH, Wish())[-1].endswith("[core]")


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("WARNING: Retrying ... NewConnectionError('... Temporary failure in name resolution')", "needs the network"),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "hash mismatch"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this Python"),
        ("something else", "the log says why"),
    ],
)
def test_pips_failures_are_told_in_words(log: str, told: str) -> None:
    assert told in setup_plan.diagnose(log)


def test_the_digest_follows_every_input() -> None:
    parts = {"a": b"1", "b": b"2"}
    same = setup_plan.digest_of({"b": b"2", "a": b"1"}, "3.11.7")
    assert setup_plan.digest_of(parts, "3.11.7") == same
    for changed in (({"a": b"1", "b": b"3"}, "3.11.7"), (parts, "3.12.0"), ({"a": b"1", "c": b"2"}, "3.11.7")):
        assert setup_plan.digest_of(*changed) != same


def test_what_a_killed_pip_left_is_found(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, whole in (("a-1.dist-info", True), ("b-2.dist-info", False)):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
        if whole:
            (packages / name / "RECORD").touch()
    assert bootstrap.half_installed(tmp_path) == (packages / "b-2.dist-info",)


def test_only_the_right_wheel_counts_as_the_demos_data(tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    folder = bootstrap.cache_folder(env)
    assert folder == tmp_path / "falaj" / "wheels"
    assert bootstrap.demo_wheel(env) is None
    folder.mkdir(parents=True)
    (folder / "seglearn-1.2.5-py3-none-any.whl").write_bytes(b"half a download")
    assert bootstrap.demo_wheel(env) is None


def checkout(folder: Path) -> Path:
    """A checkout as far as `gather` looks at it, with a working environment and a stamp that is not true yet."""
    for name in ("pyproject.toml", "setup.cfg", "constraints.txt"):
        (folder / name).write_text(name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    for program in ("pip", "python{}.{}".format(*sys.version_info[:2])):
        (folder / ".venv" / "bin" / program).touch(mode=0o755)
    (folder / ".venv" / bootstrap.STAMP).write_text("{half a st")
    return folder


def test_looking_changes_nothing_and_reads_the_stamp(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    env = {"PATH": "/nowhere", "CI": "true", "TORCH_INDEX": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    before = sorted(tmp_path.rglob("*"))
    facts = bootstrap.gather(root, env)
    assert sorted(tmp_path.rglob("*")) == before
    assert (facts.venv, facts.stamp, facts.ci, facts.torch_index, facts.demo_data) == (True, {}, True, None, False)
    (root / ".venv" / bootstrap.STAMP).write_text(json.dumps({"digest": facts.digest, "dev": True}))
    again = bootstrap.gather(root, env)
    assert "packages" not in kinds(replace(again, mosquitto="2.0.11"), Wish(dev=True))
    (root / "constraints.txt").write_text("torch==9")
    assert bootstrap.gather(root, env).digest != facts.digest


def test_it_runs_before_there_is_an_environment() -> None:
    for file in ("bootstrap.py", "setup_plan.py"):
        tree = ast.parse((ROOT / "appliance" / file).read_text())
        imported = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert imported - {"appliance"} <= set(sys.stdlib_module_names)
    script = [sys.executable, "-I", "-S", str(ROOT / "appliance" / "bootstrap.py"), "--help"]
    told = subprocess.run(script, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "--demo" in told.stdout


def test_the_pinned_wheel_has_a_whole_digest() -> None:
    requirement, digest = setup_plan.DEMO_WHEEL
    assert "==" in requirement
    assert len(digest) == len(hashlib.sha256().hexdigest())
