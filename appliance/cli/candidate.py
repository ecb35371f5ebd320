"""`falaj candidate ...`: what was trained and judged, and the word of a person against a gate's."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import screens, verdicts
from appliance.cli.clients import api
from appliance.cli.options import Group, actor, core_dir, json_option, reason_option, show
from core.orders import Override


@click.group(cls=Group)
def candidate() -> None:
    """Trained models and what the gates said of them."""


@candidate.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many, newest first.")
@core_dir
@json_option
def list_candidates(limit: int, folder: Path | None, as_json: bool) -> None:
    """List the candidates, newest first, each with the gates that refused it."""
    core = api(folder)
    rows = core.get(f"/v1/candidates?limit={limit}")["candidates"]
    staged = {row["candidate"]: row["number"] for row in core.get("/v1/releases?limit=1000")["releases"]}
    by_core = screens.releases_by_core(core.get("/v1/status")["trust"])
    show(as_json, rows, verdicts.candidate_lines(rows, staged, by_core) or verdicts.NO_CANDIDATE)


@candidate.command()
@click.argument("candidate_id", metavar="ID", type=click.IntRange(1))
@reason_option
@core_dir
@json_option
def override(candidate_id: int, reason: str, folder: Path | None, as_json: bool) -> None:
    """Stage candidate ID although a gate refused it. Who and why stand in its signed manifest for good."""
    result = api(folder).order(Override(actor=actor(), candidate=candidate_id, reason=reason))
    release = f"{result['model']}@{result['number']}"
    text = f"candidate {candidate_id} is staged as release {release}, against its gates:"
    failed = [f"  {gate}: {said}" for gate, said in result["failed"].items()]
    step = f"  it awaits its owner's signature: `falaj trust approve {release}`"
    show(as_json, result, [text, *failed, step])
