"""`falaj device ...`: who may join, who is there, and who may not speak any more."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import screens
from appliance.cli.asking import answer, bundle, predictions
from appliance.cli.carry import carry
from appliance.cli.clients import api
from appliance.cli.metrics import metrics
from appliance.cli.options import DEVICE, SITE, F, Group, actor, core_dir, json_option, reason_option, show
from appliance.errors import Trouble
from core.fleet import boxes
from core.orders import Accept, ImportBoxes, IssueSiteToken, IssueToken, Replace, Revoke
from sync.names import DeviceId, SiteId

MINUTES = click.IntRange(1, 7 * 24 * 60)


def minutes_option(command: F) -> F:
    """`--minutes`: how long a token holds."""
    return click.option("--minutes", type=MINUTES, default=60, show_default=True, help="How long the token holds.")(
        command
    )


@click.group(cls=Group)
def device() -> None:
    """Devices of the tenant."""


device.add_command(carry)
device.add_command(predictions)
device.add_command(bundle)
device.add_command(answer)
device.add_command(metrics)


@device.command()
@click.argument("name", type=DEVICE, required=False)
@click.option("--site", type=SITE, help="For the boxes of this site, which say who they are by their serial number.")
@click.option("--uses", type=click.IntRange(1, 100_000), help="How many boxes may join by it (with --site).")
@click.option("--approve", is_flag=True, help="Each waits until `falaj device accept` (with --site).")
@minutes_option
@core_dir
@json_option
def token(
    name: DeviceId | None,
    site: SiteId | None,
    uses: int | None,
    approve: bool,
    minutes: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print a token by which device NAME joins once, or --uses boxes of a --site (`falaj edge enrol TOKEN`)."""
    if (name is None) == (site is None) or (site is None) != (uses is None) or (approve and site is None):
        raise click.UsageError("give the NAME of one device, or --site with --uses for the boxes of a site")
    order: IssueToken | IssueSiteToken
    if name is not None:
        order = IssueToken(actor=actor(), device=name, minutes=minutes)
    else:
        assert site is not None
        order = IssueSiteToken(actor=actor(), site=site, uses=uses or 0, minutes=minutes, approve=approve)
    result = api(folder).order(order)
    show(as_json, result, result["token"])


@device.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@core_dir
@json_option
def import_boxes(file: Path, folder: Path | None, as_json: bool) -> None:
    """Expect the boxes of a CSV with the columns serial, name, site and labels; one bad line and none is taken."""
    try:
        found = boxes.read(file.read_text(encoding="utf-8"))
    except (boxes.BadLine, UnicodeDecodeError) as error:
        raise Trouble(f"{file}, {error}; nothing was imported") from error
    result = api(folder).order(ImportBoxes(actor=actor(), boxes=found))
    sites = ", ".join(result["sites"])
    show(as_json, result, f"{result['boxes']} boxes are expected at {sites or 'no site'}; next, for each site: "
         "`falaj device token --site SITE --uses N`")  # fmt: skip


@device.command()
@click.argument("names", type=DEVICE, nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="Every box that waits.")
@core_dir
@json_option
def accept(names: tuple[DeviceId, ...], everyone: bool, folder: Path | None, as_json: bool) -> None:
    """Admit boxes that wait; or let a device speak again that was stopped because it was seen twice."""
    if bool(names) == everyone:
        raise click.UsageError("give the NAMES of boxes that wait, or --all")
    result = api(folder).order(Accept(actor=actor(), devices=names))
    show(as_json, result, f"accepted: {', '.join(result['accepted']) or 'nobody waits'}")


@device.command()
@click.argument("name", type=DEVICE)
@reason_option
@core_dir
@json_option
def revoke(name: DeviceId, reason: str, folder: Path | None, as_json: bool) -> None:
    """End the certificates and the session of device NAME: it is no part of the fleet any more."""
    result = api(folder).order(Revoke(actor=actor(), device=name, reason=reason))
    show(as_json, result, f"{name} is revoked and cut off; it goes on serving what it has, by itself")


@device.command()
@click.argument("name", type=DEVICE)
@minutes_option
@core_dir
@json_option
def replace(name: DeviceId, minutes: int, folder: Path | None, as_json: bool) -> None:
    """End the box that is NAME, and print the token by which another takes its name and its models."""
    result = api(folder).order(Replace(actor=actor(), device=name, minutes=minutes))
    show(as_json, result, result["token"])


@device.command("list")
@core_dir
@json_option
def list_devices(folder: Path | None, as_json: bool) -> None:
    """List the devices: status, phase, what each validated and serves; who waits, and who is expected."""
    rows = api(folder).get("/v1/devices")["devices"]
    lines = screens.device_lines(rows) + screens.newcomer_lines(rows, api(folder).get("/v1/newcomers"))
    show(as_json, rows, lines or screens.NO_DEVICE)
