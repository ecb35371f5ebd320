"""`falaj device carry FOLDER`: devices without a network meet their core in a folder that somebody carries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from appliance.cli.clients import api
from appliance.cli.options import DEVICE, core_dir, json_option, progress_line, show
from appliance.core.state import CoreFolder
from appliance.core.trips import Told, Trip, trip
from appliance.settings import state_folder
from appliance.stick import Stick
from core.release.registry import BlobStore
from sync.names import DeviceId, TenantId


@click.command()
@click.argument("place", metavar="FOLDER", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", metavar="[NAME]...", type=DEVICE, nargs=-1)
@core_dir
@json_option
def carry(place: Path, names: tuple[DeviceId, ...], folder: Path | None, as_json: bool) -> None:
    """Hear what devices left in FOLDER, and leave in it what they shall have: those that were there, and NAMES.

    Boxes that asked to join are answered. One folder serves any number of devices; run it as often as you like.
    """
    core, root = api(folder), state_folder("core", folder)
    home = CoreFolder(root, TenantId(core.get("/v1/status")["tenant"]))
    stick = Stick(place, home.tenant)
    done = trip(stick, core, BlobStore(home.blobs).get, names, progress_line(as_json))
    document = {**msgspec.to_builtins(done, enc_hook=str), "refused": stick.refused, "caution": stick.caution}
    show(as_json, document, _lines(done, stick))


def _lines(done: Trip, stick: Stick) -> Iterator[str]:
    for name in done.enrolled:
        yield f"{name}: may join; its answer is in the folder"
    for name in done.waiting:
        yield f"{name}: waits for you: `falaj device accept {name}`, then run this command again"
    for box, why in done.turned_away.items():
        yield f"box {box}: may not join: {why}"
    for told in done.devices.values():
        yield f"{told.device}: {_said(told)}"
        models = ", ".join(f"{name} {m['number']} ({m['mode']})" for name, m in told.models.items())
        if told.expires:
            yield f"  it is told: {models or 'no model yet'}; to be installed until {_day(told.expires)}"
        yield from (f"  not taken: {why}" for why in told.refused)
    for name, why in list(stick.refused.items())[:10]:
        yield f"not taken: {name}: {why}"
    if not done.devices and not done.waiting and not done.turned_away:
        yield (
            "nobody has been at this folder yet: name the devices it shall go to, or let a box ask to join: "
            "`falaj edge enrol --folder FOLDER TOKEN`"
        )
        return
    yield f"{done.written} files written, {done.bytes >> 10} KiB"
    yield from (f"attention: {text}" for text in (stick.caution,) if text)
    yield "next: take it to the devices and run `falaj edge sync FOLDER` there"


def _said(told: Told) -> str:
    if not told.bundles:
        return "said nothing yet"
    news = "" if told.news else ", nothing new"
    return f"said {told.words} things, written {_day(told.made)}{news}"


def _day(ts: float) -> str:
    """A device's own word, which need not be a time."""
    try:
        return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "at no time there is"
