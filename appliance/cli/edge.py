"""`falaj edge ...`: an agent on this device."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance import clock
from appliance.cli.options import dir_words, edge_dir, json_option, serial_option, show
from appliance.errors import Trouble
from appliance.settings import EdgeSettings, load, state_folder

if TYPE_CHECKING:
    from appliance.edge_state import EdgeFolder

LONGEST_WAIT = 30.0  # seconds between two tries to join: half of what the service's watchdog allows


@click.group()
def edge() -> None:
    """An edge agent: proves releases, serves predictions, comes home by itself."""


@edge.command()
@click.argument("token", required=False)
@click.option("--token-file", type=click.File(), help="Read the token from a file ('-' is standard input).")
@serial_option
@click.option("--again", is_flag=True, help="In place of the identity that is there: its certificate ended.")
@edge_dir
@json_option
def enrol(
    token: str | None,
    token_file: click.utils.LazyFile | None,
    serial: str | None,
    again: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Join a core with a TOKEN from `falaj device token`.

    With a site's token the box says who it is by its serial number: --serial, else the file `serial` in its folder,
    else what the maker left (DMI, device tree).
    """
    from appliance.edge_state import EdgeFolder
    from appliance.enrolling import enrol as join
    from appliance.enrolling import find_serial, read_token

    text = token_file.read() if token_file is not None else token
    if not text:
        raise click.UsageError("give the TOKEN, or --token-file")
    place = EdgeFolder(state_folder("edge", folder))
    given = read_token(text)
    number = find_serial(serial, place) if given.site else None
    answer = join(place, given, clock.now(), number, again=again)
    document = {"tenant": answer.tenant, "device": answer.device, "epoch": answer.epoch, "folder": str(place.root)}
    text = f"{answer.device} joined tenant {answer.tenant}; start it with `falaj edge run{dir_words(folder)}`"
    show(as_json, document, text)


@edge.command()
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Where a box that never enrolled finds its token [default: enrol.token in its folder].")  # fmt: skip
@serial_option
@edge_dir
def run(token_file: Path | None, serial: str | None, folder: Path | None) -> None:
    """Run the agent in the foreground; one that was never enrolled joins first, if it finds a token."""
    from appliance.edge_node import EdgeNode
    from appliance.edge_state import EdgeFolder

    root = state_folder("edge", folder)
    _join_first(EdgeFolder(root), token_file, serial)
    settings = load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__")
    node, broker = EdgeNode(EdgeFolder(root), settings), settings.local_broker
    click.echo(f"agent of {node.identity.device}, tenant {node.identity.tenant}")
    click.echo(f"  predictions   http://127.0.0.1:{settings.http_port} (Open Inference Protocol v2)")
    if broker.managed:
        password = node.folder.broker / "app.password"
        click.echo(f"  local broker  127.0.0.1:{broker.port}, user app, password in {password}")
    else:
        click.echo(f"  local broker  {broker.host}:{broker.port}, the site's")
    node.run()


def _join_first(place: EdgeFolder, token_file: Path | None, serial: str | None) -> None:
    """A golden image comes without an identity: its token lies in a file, and goes once it has been used."""
    from appliance.enrolling import find_serial, first_boot
    from appliance.notify import notify

    path = token_file or place.token
    if place.enrolled() or not path.exists():
        return

    def wait(seconds: float) -> None:
        notify("WATCHDOG=1")
        time.sleep(min(seconds, LONGEST_WAIT))

    notify("READY=1")  # the service has begun; what it waits for may take a person
    answer = first_boot(
        place, path.read_text, find_serial(serial, place), clock.now, wait, random.random
    )  # fmt: skip
    click.echo(f"{answer.device} joined tenant {answer.tenant}")
    try:
        path.unlink()
    except OSError as error:
        click.echo(f"{path} stays ({error.strerror}): whoever reads it can join as another box of the site", err=True)


@edge.command()
@edge_dir
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """What the agent on this device serves and why (asks its HTTP port)."""
    from http.client import HTTPConnection, HTTPException

    from appliance.edge_state import EdgeFolder

    root = state_folder("edge", folder)
    own = EdgeFolder(root).enrolment()
    settings = load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__")
    connection = HTTPConnection("127.0.0.1", settings.http_port, timeout=5)
    try:
        connection.request("GET", "/v1/status")
        document = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError) as error:
        raise Trouble(
            f"no agent answers on port {settings.http_port} ({error}): start it with `falaj edge run --dir {root}`"
        ) from error
    finally:
        connection.close()
    if (document["tenant"], document["device"]) != (own.tenant, own.device):
        raise Trouble(
            f"port {settings.http_port} is answered by {document['device']}, not by {own.device} of {root}: "
            f"give {own.device} an http_port of its own in {root}/edge.toml, and start it"
        )
    lines = [f"{document['device']} of tenant {document['tenant']}, uplink {document['uplink']}"]
    lines.append(f"  certificate {document['certificate']['text']}")
    lines += ["  no model assigned yet"] * (not document["models"])
    for name, model in document["models"].items():
        serving = model["serving"]
        what = f"release {serving['number']}" if serving else "no model"
        lines.append(f"  {name}: {model['phase']}, {what}, {model['answers']} answers, {model['errors']} errors")
    if document["listening"]:
        lines.append(f"  listens on {', '.join(document['listening'])}")
    show(as_json, document, "\n".join(lines))


@edge.command()
@click.option("--user", default="falaj", show_default=True, help="The system user the agent runs as.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit and the steps, change nothing.")
def install(user: str, only_print: bool) -> None:
    """Install the agent as a systemd service: user, folders, unit."""
    from appliance.install import install_edge

    sys.exit(install_edge(user, only_print))
