"""`falaj edge ...`: an agent on this device."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from appliance import clock
from appliance.cli.options import dir_words, edge_dir, json_option, show
from appliance.errors import Trouble
from appliance.settings import EdgeSettings, load, state_folder


@click.group()
def edge() -> None:
    """An edge agent: proves releases, serves predictions, comes home by itself."""


@edge.command()
@click.argument("token", required=False)
@click.option("--token-file", type=click.File(), help="Read the token from a file ('-' is standard input).")
@edge_dir
@json_option
def enrol(token: str | None, token_file: click.utils.LazyFile | None, folder: Path | None, as_json: bool) -> None:
    """Join a core with a single-use TOKEN from `falaj device token`."""
    from appliance.edge_state import EdgeFolder
    from appliance.enrolling import enrol as join
    from appliance.enrolling import read_token

    text = token_file.read() if token_file is not None else token
    if not text:
        raise click.UsageError("give the TOKEN, or --token-file")
    place = EdgeFolder(state_folder("edge", folder))
    answer = join(place, read_token(text), clock.now())
    document = {"tenant": answer.tenant, "device": answer.device, "epoch": answer.epoch, "folder": str(place.root)}
    text = f"{answer.device} joined tenant {answer.tenant}; start it with `falaj edge run{dir_words(folder)}`"
    show(as_json, document, text)


@edge.command()
@edge_dir
def run(folder: Path | None) -> None:
    """Run the agent in the foreground."""
    from appliance.edge_node import EdgeNode
    from appliance.edge_state import EdgeFolder

    root = state_folder("edge", folder)
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
