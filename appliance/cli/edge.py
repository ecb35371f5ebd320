"""`falaj edge ...`: an agent on this device."""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from appliance import clock
from appliance.cli.edge_asking import bundle, predictions
from appliance.cli.edge_bench import bench
from appliance.cli.edge_listen import listen
from appliance.cli.edge_sync import sync
from appliance.cli.edge_try import try_
from appliance.cli.options import Group, edge_dir, json_option, serial_option, show
from appliance.errors import Trouble
from appliance.processes import close_to_others
from appliance.settings import EdgeSettings, load, state_folder

if TYPE_CHECKING:
    from appliance.edge.state import EdgeFolder
    from sync.names import Serial

LONGEST_WAIT = 30.0  # seconds between two tries to join: half of what the service's watchdog allows


@click.group(cls=Group)
def edge() -> None:
    """An edge agent: proves releases, serves predictions, comes home by itself."""


edge.add_command(sync)
edge.add_command(predictions)
edge.add_command(bundle)
edge.add_command(try_)
edge.add_command(listen)
edge.add_command(bench)


@edge.command()
@click.argument("token", required=False)
@click.option("--token-file", type=click.File(), help="Read the token from a file ('-' is standard input).")
@serial_option
@click.option("--again", is_flag=True, help="In place of the identity that is there: its certificate ended.")
@click.option("--folder", "stick", type=click.Path(path_type=Path, file_okay=False),
              help="Without a network: leave the request in this folder, to be carried to the core.")  # fmt: skip
@edge_dir
@json_option
def enrol(
    token: str | None,
    token_file: TextIO | None,
    serial: str | None,
    again: bool,
    stick: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Join a core with a TOKEN from `falaj device token`.

    With a site's token the box says who it is by its serial number: --serial, else the file `serial` in its folder,
    else what the maker left (DMI, device tree).
    """
    from appliance.edge.enrolling import enrol as join
    from appliance.edge.enrolling import find_serial, read_token
    from appliance.edge.state import EdgeFolder

    text = token_file.read() if token_file is not None else token
    if not text:
        raise click.UsageError("give the TOKEN, or --token-file")
    place = EdgeFolder(state_folder("edge", folder))
    given = read_token(text)
    number = find_serial(serial, place) if given.site else None
    if stick is not None:
        _ask_by_folder(place, stick, text, number, again=again, as_json=as_json)
        return
    answer = join(place, given, clock.now(), number, again=again)
    document = {"tenant": answer.tenant, "device": answer.device, "epoch": answer.epoch, "folder": str(place.root)}
    text = f"{answer.device} joined tenant {answer.tenant}; start it with `falaj edge run`"
    show(as_json, document, text)


def _ask_by_folder(
    place: EdgeFolder, stick: Path, token: str, serial: Serial | None, *, again: bool, as_json: bool
) -> None:
    from appliance.edge.folder_enrolling import ask

    told = ask(place, stick, token, clock.now(), serial, again=again)
    text = (
        f"the request is in {stick}; this box's fingerprint is {told}\nnext: take it to the core, run `falaj device "
        "carry FOLDER` there, bring it back and run `falaj edge sync FOLDER`"
    )
    show(as_json, {"folder": str(stick), "fingerprint": told}, text)


@edge.command()
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Where a box that never enrolled finds its token [default: enrol.token in its folder].")  # fmt: skip
@serial_option
@edge_dir
def run(token_file: Path | None, serial: str | None, folder: Path | None) -> None:
    """Run the agent in the foreground; one that was never enrolled joins first, if it finds a token."""
    from appliance.edge.node import EdgeNode
    from appliance.edge.state import EdgeFolder

    close_to_others()
    root = state_folder("edge", folder)
    _join_first(EdgeFolder(root), token_file, serial)
    settings = load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__")
    node, broker = EdgeNode(EdgeFolder(root), settings), settings.local_broker
    place = f"{broker.host}:{broker.port}, the site's"
    if broker.managed:
        place = f"127.0.0.1:{broker.port}, user app, password in {node.folder.broker / 'app.password'}"
    with suppress(OSError):  # where the disk of the log is full, whoever asks is answered all the same
        click.echo(f"agent of {node.identity.device}, tenant {node.identity.tenant}")
        click.echo(f"  predictions   {node.http.place} (Open Inference Protocol v2)")
        click.echo(f"  local broker  {place}")
    node.run()


def _join_first(place: EdgeFolder, token_file: Path | None, serial: str | None) -> None:
    """A golden image comes without an identity: its token lies in a file, and goes once it has been used."""
    from appliance.edge.enrolling import find_serial, first_boot
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

    from appliance.api import UnixConnection
    from appliance.edge.state import EdgeFolder

    root = state_folder("edge", folder)
    own = EdgeFolder(root).enrolment()
    settings = load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__")
    place = str(root / settings.http_socket) if settings.http_socket else f"port {settings.http_port}"
    connection = (
        UnixConnection(root / settings.http_socket)
        if settings.http_socket
        else HTTPConnection("127.0.0.1", settings.http_port, timeout=5)
    )
    try:
        connection.request("GET", "/v1/status")
        document = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError) as error:
        raise Trouble(f"no agent answers on {place} ({error}): start it with `falaj edge run --dir {root}`") from error
    finally:
        connection.close()
    if (document["tenant"], document["device"]) != (own.tenant, own.device):
        raise Trouble(
            f"{place} is answered by {document['device']}, not by {own.device} of {root}: "
            f"give {own.device} an http_port of its own in {root}/edge.toml, and start it"
        )
    lines = [f"{document['device']} of tenant {document['tenant']}, uplink {document['uplink']}"]
    lines.append(f"  certificate {document['certificate']['text']}")
    lines += ["  no model assigned yet"] * (not document["models"])
    for name, model in document["models"].items():
        serving = model["serving"]
        what = f"release {serving['number']}" if serving else "no model"
        lines.append(f"  {name}: {model['phase']}, {what}, {model['answers']} answers, {model['errors']} errors")
    lines += [_held(f"lookup {name}", held) for name, held in document["lookups"].items()]
    if "version" in document["config"]:
        values = ", ".join(f"{name} = {value}" for name, value in document["config"]["variables"].items())
        lines.append(f"{_held('config', document['config'])}: {values}")
    if document["line"]:
        lines.append(f"  {_line(document['line'])}")
    if document["listening"]:
        lines.append(f"  listens on {', '.join(document['listening'])}")
    show(as_json, document, lines)


def _held(what: str, held: dict[str, Any]) -> str:
    """Which version is in force, and why a newer one is not."""
    version = f"version {held['version']}" if held["version"] else "none yet"
    return f"  {what}: {version}" + (f"; a newer one was refused: {held['refused']}" if held["refused"] else "")


def _line(line: dict[str, Any]) -> str:
    """What the site's line may carry down, and why nothing comes if nothing does."""
    told = "downloads:"
    if line["daily_bytes"]:
        told += f" {line['bytes_today'] / 1e6:.1f} of {line['daily_bytes'] / 1e6:.1f} MB today"
        told += " (UTC), the rest waits for tomorrow" * line["waits"]
    if line["bytes_per_second"]:
        told += f", {line['bytes_per_second'] / 1e3:.0f} kB a second at most"
    return told.replace(":,", ":")


@edge.command()
@edge_dir
@json_option
@click.confirmation_option(prompt="Everything in this agent's folder goes, its identity first. Erase it?")
def erase(folder: Path | None, as_json: bool) -> None:
    """Destroy this agent's keys, then all it has: for a box that leaves. Stop it first; revoke it on the core, too."""
    from appliance.edge.erasing import erase as destroy

    root = state_folder("edge", folder)
    if not root.is_dir():
        raise Trouble(f"there is no agent in {root}: give its --dir")
    count = destroy(root)
    told = f"{count} keys destroyed, {root} is empty\non the core: `falaj device revoke NAME --reason TEXT`"
    show(as_json, {"folder": str(root), "keys": count}, told)


@edge.command()
@click.option("--user", default="falaj", show_default=True, help="The system user the agent runs as.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit and the steps, change nothing.")
def install(user: str, only_print: bool) -> None:
    """Install the agent as a systemd service: user, folders, unit."""
    from appliance.edge.install import install_edge

    sys.exit(install_edge(user, only_print))
