"""`falaj why`: by which criterion and on which figures devices refused a release."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli import verdicts
from appliance.cli.clients import api
from appliance.cli.options import MODEL, core_dir, json_option, show
from sync.names import ModelName


@click.command()
@click.argument("model", type=MODEL, required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many, newest first.")
@core_dir
@json_option
def why(model: ModelName | None, limit: int, folder: Path | None, as_json: bool) -> None:
    """Show why cards, of MODEL or of all: who refused what, by which criterion and figures, and who answers now."""
    about = f"&model={model}" if model else ""
    rows = api(folder).get(f"/v1/why?limit={limit}{about}")["whys"]
    lines = [line for row in rows for line in verdicts.why_lines(row)]
    show(as_json, rows, lines or verdicts.NO_WHY)
