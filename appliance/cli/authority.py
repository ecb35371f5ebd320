"""`falaj trust authority`: how the certificate authority of the tenant's broker is replaced under a running fleet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from appliance.cli.clients import api
from appliance.cli.options import DEVICE, actor, core_dir, json_option, show
from core.orders import Authority
from sync.names import DeviceId

MANY = 20  # names on one line


@click.command()
@click.option("--rotate", "step", flag_value="begin", help="Make the next authority; devices learn it by themselves.")
@click.option("--finish", "step", flag_value="finish", help="Put it in force; refused while a device is behind.")
@click.option("--strand", type=DEVICE, multiple=True, help="Finish without this device (again for each).")
@core_dir
@json_option
def authority(step: Any, strand: Sequence[DeviceId], folder: Path | None, as_json: bool) -> None:
    """Show the certificate authority by which devices and broker know each other, or replace it.

    Without an option it tells who has not heard of the next one, or not changed to it yet.
    """
    if strand and step != "finish":
        raise click.UsageError("--strand says whom --finish leaves behind: give both")
    result = api(folder).order(Authority(actor=actor(), step=step or "look", strand=tuple(strand)))
    show(as_json, result, _lines(result, step))


def _lines(told: dict[str, Any], step: Any) -> list[str]:
    ends = datetime.fromtimestamp(told["ends"], UTC).strftime("%Y-%m-%d")
    lines = [f"authority {told['authority'][:16]} until {ends}"]
    if told["next"] is None:
        return [*lines, "  alone in force: certificates of the one before open nothing"] if step == "finish" else lines
    lines.append(f"  next {told['next'][:16]}: it issues devices' certificates; the broker still shows the old one's")
    behind = len(told["unheard"]) + len(told["unrenewed"])
    lines.append(f"  {told['devices'] - behind} of {told['devices']} devices have changed to it")
    for key, words in (("unheard", "have not heard of it"), ("unrenewed", "have heard, and do not say they changed")):
        if told[key]:
            lines.append(f"  {len(told[key])} {words}: {_listed(told[key])}")
    command = "`falaj trust authority --finish`"
    return [*lines, f"  then: once they were connected, {command}" if behind else f"  then: {command}"]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")
