"""`falaj status`: the core in one screen."""

from __future__ import annotations

from pathlib import Path

import click

from appliance import clock
from appliance.cli import screens
from appliance.cli.clients import api
from appliance.cli.options import core_dir, json_option, show


@click.command()
@core_dir
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show the core in one screen: what needs you, devices, releases, rollouts, drift, rows, trust, events."""
    core = api(folder)
    document = {
        "status": core.get("/v1/status"),
        "concerns": core.get("/v1/concerns")["concerns"],
        "devices": core.get("/v1/devices")["devices"],
        "releases": core.get("/v1/releases?limit=5")["releases"],
        "rollouts": core.get("/v1/rollouts?limit=5")["rollouts"],
        "retraining": core.get("/v1/retraining")["retraining"],
        "rejections": core.get("/v1/quarantine?limit=5")["rejections"],
        "events": core.get("/v1/events?limit=10")["events"],
    }
    show(as_json, document, () if as_json else screens.core(document, clock.now()))
