"""`falaj device ...`: who may join, and who is there."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import screens
from appliance.cli.clients import api
from appliance.cli.options import actor, core_dir, json_option, show
from core.orders import IssueToken
from sync.names import BadName, DeviceId


@click.group()
def device() -> None:
    """Devices of the tenant."""


@device.command()
@click.argument("name")
@click.option("--minutes", type=click.IntRange(1, 7 * 24 * 60), default=60, show_default=True,
              help="How long the token holds.")  # fmt: skip
@core_dir
@json_option
def token(name: str, minutes: int, folder: Path | None, as_json: bool) -> None:
    """Print a single-use token by which device NAME joins (`falaj edge enrol TOKEN`)."""
    try:
        wanted = DeviceId(name)
    except BadName as error:
        raise click.BadParameter(str(error)) from error
    result = api(folder).order(IssueToken(actor=actor(), device=wanted, minutes=minutes))
    show(as_json, result, result["token"])


@device.command("list")
@core_dir
@json_option
def list_devices(folder: Path | None, as_json: bool) -> None:
    """List the devices: status, phase, what each validated and serves."""
    rows = api(folder).get("/v1/devices")["devices"]
    show(as_json, rows, "\n".join(screens.device_lines(rows)) or screens.NO_DEVICE)
