"""Installing the agent as a service: what would be done is said exactly, and nothing is done without root."""

from __future__ import annotations

import configparser
import getpass
from pathlib import Path

import pytest

from appliance.edge import install
from tests.appliance.running import falaj


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return parser


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("Type", "notify", "systemd knows when it answers"),
        ("User", "field", "never root"),
        ("ExecStart", "/opt/falaj/bin/falaj edge run", "the program of this installation"),
        ("Restart", "always", "it comes back"),
        ("StateDirectory", "falaj-edge", "its state has a place of its own"),
        ("StateDirectoryMode", "0700", "and is private"),
        ("NoNewPrivileges", "yes", "no way up"),
        ("ProtectSystem", "strict", "it writes nowhere else"),
        ("CapabilityBoundingSet", "", "it has no capability"),
    ],
)
def test_the_unit_says_who_runs_what_and_what_it_may(option: str, value: str, reason: str) -> None:
    unit = parsed(install.unit("field", Path("/opt/falaj/bin/falaj")))
    assert unit["Service"][option] == value, reason
    assert "$" not in install.unit("field", Path("/opt/falaj/bin/falaj"))


def test_an_existing_account_is_not_made_again() -> None:
    assert [step[0] for step in install.account_steps("field", user_exists=False)] == ["useradd", "install"]
    assert [step[0] for step in install.account_steps("field", user_exists=True)] == ["install"]


def test_print_changes_nothing_and_shows_unit_and_steps() -> None:
    done = falaj("edge", "install", "--print", "--user", "nobody-of-falaj")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"# {install.UNIT}"
    assert "User=nobody-of-falaj" in lines
    assert "useradd --system --home-dir /var/lib/falaj-edge --shell /usr/sbin/nologin nobody-of-falaj" in lines
    assert lines[-5:-3] == ["systemctl daemon-reload", "systemctl enable falaj-edge.service"]
    assert lines[-2].startswith("sudo -u nobody-of-falaj ")
    assert "edge enrol TOKEN --dir /var/lib/falaj-edge" in lines[-2]
    assert not install.UNIT.exists()


@pytest.mark.parametrize(
    ("program", "place"),
    [
        ("/opt/falaj/.venv/bin/falaj", None),
        ("/homes/x/bin/falaj", None),
        *((f"{place}/falaj/.venv/bin/falaj", place) for place in install.HIDDEN),
    ],
)
def test_a_program_that_the_service_could_not_see_is_named(program: str, place: str | None) -> None:
    told = install.unreachable(Path(program))
    assert (told is None) is (place is None)
    assert told is None or f"no access to {place}. Install Falaj below /opt" in told


@pytest.mark.skipif(getpass.getuser() == "root", reason="root may install, and a test must not")
def test_without_root_it_says_how() -> None:
    done = falaj("edge", "install")
    assert (done.returncode, done.stdout) == (3, "")
    assert "run it with sudo, or look first with --print" in done.stderr
