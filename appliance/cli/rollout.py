"""`falaj rollout ...`: how releases reach the fleet, with the evidence, and how a person sends one past it."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import verdicts
from appliance.cli.clients import api
from appliance.cli.options import DEVICE, MODEL, Group, actor, core_dir, json_option, reason_option, show
from appliance.errors import Trouble
from core.orders import Force, Reverse, SetAside
from sync.names import DeviceId, ModelName


@click.group(cls=Group)
def rollout() -> None:
    """Releases on their way to the fleet."""


@rollout.command("show")
@click.argument("model", type=MODEL, required=False)
@core_dir
@json_option
def show_rollouts(model: ModelName | None, folder: Path | None, as_json: bool) -> None:
    """Show the newest rollout of each model, or of MODEL: stage, devices, what the pairs say, both thresholds."""
    rows = [row for row in api(folder).get("/v1/rollouts?limit=1000")["rollouts"] if row["active"]]
    rows = [row for row in rows if model in (None, row["model"])]
    if model and not rows:
        begin = f"`falaj trust approve {model}@NUMBER` begins a rollout"
        raise Trouble(f"no release of {model} was ever rolled out: {begin}")
    lines = [line for row in rows for line in verdicts.rollout_lines(row)]
    show(as_json, rows, lines or verdicts.NO_ROLLOUT)


@rollout.command()
@click.argument("model", type=MODEL)
@click.argument("number", type=click.IntRange(1))
@reason_option
@core_dir
@json_option
def force(model: ModelName, number: int, reason: str, folder: Path | None, as_json: bool) -> None:
    """Have the approved release NUMBER of MODEL serve on its canary devices at once, without a shadow's word.

    It lifts the quarantine of devices that refused it; each still goes back by itself if it does harm.
    """
    result = api(folder).order(Force(actor=actor(), model=model, number=number, reason=reason))
    told = f"{model}@{number} is forced onto {', '.join(result['canary'])}, attempt {result['retry']}"
    told += f"\n  {result['needs']['text']}" if result.get("needs") else ""
    show(as_json, result, f"{told}\n  watch it: `falaj rollout show {model}`")


@rollout.command()
@click.argument("model", type=MODEL)
@click.argument("number", type=click.IntRange(1))
@reason_option
@core_dir
@json_option
def reverse(model: ModelName, number: int, reason: str, folder: Path | None, as_json: bool) -> None:
    """Take every device back from release NUMBER of MODEL, however far its rollout is."""
    result = api(folder).order(Reverse(actor=actor(), model=model, number=number, reason=reason))
    to = f"release {result['previous']}" if result["previous"] is not None else "no model: there is none before it"
    told = f"{len(result['devices'])} devices go back to {to}"
    show(as_json, result, f"{told}\n  watch it: `falaj rollout show {model}`")


@rollout.command()
@click.argument("model", type=MODEL)
@click.argument("number", type=click.IntRange(1))
@click.argument("device", type=DEVICE)
@reason_option
@core_dir
@json_option
def aside(model: ModelName, number: int, device: DeviceId, reason: str, folder: Path | None, as_json: bool) -> None:
    """Call DEVICE's verdict on release NUMBER of MODEL its own: the rollout goes on by the word of the others.

    The device keeps what it went back to, and nobody waits for it.
    """
    result = api(folder).order(SetAside(actor=actor(), model=model, number=number, device=device, reason=reason))
    told = f"{model}@{number} goes on without {', '.join(result['aside'])}"
    show(as_json, result, f"{told}\n  watch it: `falaj rollout show {model}`")
