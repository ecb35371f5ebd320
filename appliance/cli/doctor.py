"""`falaj doctor`: looks this machine over."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from appliance.cli.options import json_option


@click.command()
@click.option("--dir", "folders", type=click.Path(path_type=Path, file_okay=False, exists=True), multiple=True,
              help="A state folder to look into instead of the default ones; may be repeated.")  # fmt: skip
@json_option
def doctor(folders: tuple[Path, ...], as_json: bool) -> None:
    """Look this machine over: what is missing, what is unsafe, what to do."""
    from appliance.doctor import run

    sys.exit(run(as_json, folders))
