"""`falaj status`: the core in one screen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from appliance.cli.clients import api
from appliance.cli.options import core_dir, json_option, show


@click.command()
@core_dir
@json_option
def status(folder: Path | None, as_json: bool) -> None:
    """Show devices, releases, rollouts and the last events."""
    core = api(folder)
    document = {
        "status": core.get("/v1/status"),
        "rollouts": core.get("/v1/rollouts")["rollouts"],
        "events": core.get("/v1/events?limit=10")["events"],
    }
    lines = [f"tenant {document['status'].get('tenant', '')}"]
    lines += [f"  {name}: {value}" for name, value in document["status"].items() if name != "tenant"]
    lines += ["last events"]
    for event in document["events"]:
        moment = datetime.fromtimestamp(event["ts"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  {moment}  {event['severity']:<6} {event['source']:<10} {event['text']}")
    show(as_json, document, "\n".join(lines))
