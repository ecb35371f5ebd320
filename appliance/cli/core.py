"""`falaj core ...`: the core node and, hidden, the processes it consists of."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from appliance.cli.options import Group, core_dir, json_option, show
from appliance.core.state import CoreFolder
from appliance.errors import Trouble
from appliance.processes import close_to_others
from appliance.settings import CoreSettings, load, state_folder


@click.group(cls=Group)
def core() -> None:
    """The core node: ingests, trains, signs assignments, watches the fleet."""


@core.command()
@core_dir
def run(folder: Path | None) -> None:
    """Run the core in the foreground: broker, steward, console, enrolment listener."""
    from appliance.core.node import CoreNode

    close_to_others()
    place, settings = _open(folder)
    node = CoreNode(place, settings)
    node.start()
    ports = settings.ports
    click.echo(f"core of tenant {place.tenant} runs")
    click.echo(f"  console    {console_address(place, settings)}")
    click.echo(f"  enrolment  https://{settings.host}:{ports.enrol}")
    click.echo(f"  uplink     {settings.host}:{ports.uplink} (MQTT 5, TLS 1.3, client certificates)")
    node.run()


@core.command()
@core_dir
@json_option
def link(folder: Path | None, as_json: bool) -> None:
    """Print the console's address, with this run's access token."""
    place, settings = _open(folder)
    if not place.console_token.exists():
        raise Trouble(f"no core has run in {place.root}: start one with `falaj core run`, or give its --dir")
    address = console_address(place, settings)
    show(as_json, {"console": address}, address)


@core.command(hidden=True)
@core_dir
def steward(folder: Path | None) -> None:
    """The steward's process."""
    from appliance.core.steward import StewardNode

    StewardNode(*_open(folder)).run()


@core.command(hidden=True)
@core_dir
def console(folder: Path | None) -> None:
    """The console's process; reads the catalog key from standard input."""
    from appliance.core.console import run_console

    run_console(*_open(folder))


@core.command(hidden=True)
@core_dir
def enrolment(folder: Path | None) -> None:
    """The enrolment listener's process."""
    from appliance.core.console import run_enrolment

    run_enrolment(*_open(folder))


@core.command(hidden=True)
@core_dir
def job(folder: Path | None) -> None:
    """The process of one job; reads its order from standard input."""
    from appliance.core.jobs import run as run_job

    sys.exit(run_job(_open(folder)[0]))


def _open(folder: Path | None) -> tuple[CoreFolder, CoreSettings]:
    root = state_folder("core", folder)
    settings = load(CoreSettings, root / "core.toml", "FALAJ_CORE__")
    return CoreFolder(root, settings.tenant), settings


def console_address(place: CoreFolder, settings: CoreSettings) -> str:
    """The console's pages, with this run's access token."""
    return f"http://127.0.0.1:{settings.ports.console}/?token={place.console_token.read_text().strip()}"
