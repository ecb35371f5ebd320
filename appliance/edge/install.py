"""Installs the agent as a systemd service: a system user, its state folder, the unit. Each step is said first."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from string import Template

import click

from appliance.errors import Trouble

UNIT = Path("/etc/systemd/system/falaj-edge.service")
STATE = Path("/var/lib/falaj-edge")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what the unit hides


class CannotInstall(Trouble):
    """This account or machine cannot have the service."""

    exit_code = 3


def unit(user: str, program: Path) -> str:
    """The text of the unit."""
    template = (Path(__file__).parents[1] / "cli" / "falaj-edge.service").read_text()
    return Template(template).substitute(user=user, program=program)


def unreachable(program: Path) -> str | None:
    """Why the service could not start this program: it sees no home folder and no /tmp of others."""
    place = next((p for p in HIDDEN if program.is_relative_to(p)), None)
    if place is None:
        return None
    return f"the service cannot see {program}: it has no access to {place}. Install Falaj below /opt, and run that one"


def last_steps(user: str, program: Path) -> str:
    """What is left to do by hand, since it needs a token."""
    return (
        f"sudo -u {user} {program} edge enrol TOKEN --dir {STATE}  # the token: `falaj device token NAME` on the core\n"
        "sudo systemctl start falaj-edge"
    )


def account_steps(user: str, user_exists: bool) -> tuple[tuple[str, ...], ...]:
    """The commands that make the user and the state folder."""
    add = ("useradd", "--system", "--home-dir", str(STATE), "--shell", "/usr/sbin/nologin", user)
    folder = ("install", "-d", "-m", "0700", "-o", user, "-g", user, str(STATE))
    return (folder,) if user_exists else (add, folder)


SERVICE_STEPS = (("systemctl", "daemon-reload"), ("systemctl", "enable", "falaj-edge.service"))


def install_edge(user: str, only_print: bool) -> int:
    """Does it, or prints what it would do; the service is enabled, and started by you after enrolment."""
    program = Path(sys.executable).parent / "falaj"
    text = unit(user, program)
    account = account_steps(user, _exists(user))
    hidden = unreachable(program)
    if only_print:
        click.echo(f"# {UNIT}\n{text}\n# then:")
        click.echo("\n".join(" ".join(step) for step in (*account, *SERVICE_STEPS)))
        click.echo(f"# then, by hand:\n{last_steps(user, program)}")
        if hidden is not None:
            click.echo(f"Warning: {hidden}", err=True)
        return 0
    if os.geteuid() != 0:
        raise CannotInstall("installing a service needs root: run it with sudo, or look first with --print")
    if hidden is not None:
        raise CannotInstall(hidden)
    for step in account:
        _do(step)
    click.echo(f"writing {UNIT}")
    UNIT.write_text(text)
    for step in SERVICE_STEPS:
        _do(step)
    click.echo(f"now, by hand:\n{last_steps(user, program)}")
    return 0


def _do(step: tuple[str, ...]) -> None:
    click.echo(" ".join(step))
    done = subprocess.run(step, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotInstall(f"{step[0]} failed: {done.stderr.strip()}")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
