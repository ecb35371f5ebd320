"""`falaj doctor`: looks this machine over."""

from __future__ import annotations

import sys

import click

from appliance.cli.options import json_option


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Look this machine over: what is missing, what is unsafe, what to do."""
    from appliance.doctor import run

    sys.exit(run(as_json))
