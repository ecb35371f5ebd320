"""`falaj why`: by which criterion and on which figures devices refused a release."""

from __future__ import annotations

from pathlib import Path

import click

from appliance.api import Api
from appliance.cli import verdicts
from appliance.cli.clients import api
from appliance.cli.options import MODEL, core_dir, json_option, show
from appliance.errors import Trouble
from sync.names import ModelName


@click.command()
@click.argument("model", type=MODEL, required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many, newest first.")
@core_dir
@json_option
def why(model: ModelName | None, limit: int, folder: Path | None, as_json: bool) -> None:
    """Show why cards, of MODEL or of all: who refused what, by which criterion and figures, and who answers now."""
    about = f"&model={model}" if model else ""
    core = api(folder)
    rows = core.get(f"/v1/why?limit={limit}{about}")["whys"]
    if model and not rows:
        _check_declared(core, model)
    lines = [line for row in rows for line in verdicts.why_lines(row)]
    show(as_json, rows, lines or verdicts.NO_WHY)


def _check_declared(core: Api, model: ModelName) -> None:
    """Raises Trouble for a model that is none: that no device refused it would be true, and mislead."""
    project = core.get("/v1/project")["project"]
    models = sorted(project["models"]) if project else []
    if model not in models:
        known = ", ".join(models) or "none: take one in with `falaj apply FILE`"
        raise Trouble(f"the project has no model {model}; it has {known}")
