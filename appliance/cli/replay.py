"""`falaj replay FILE`: makes the predictions of a sealed file again, with the release's own graph, on this core."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.asking import opening
from appliance.cli.options import core_dir, json_option, show
from appliance.cli.telling import value_words
from appliance.errors import Trouble
from appliance.moments import spoken
from appliance.screen import visible
from sync import codec
from sync.answers import Predictions
from sync.errors import SyncError

if TYPE_CHECKING:
    from core.release.replay import Replayed

DIFFERENT = 4  # exit code


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@core_dir
@json_option
def replay(file: Path, folder: Path | None, as_json: bool) -> None:
    """Say whether the predictions in FILE are what their releases say to the same inputs.

    FILE comes from `falaj device predictions --save` or `falaj edge predictions --save`. Exit code 0: every prediction
    that has its inputs is equal or within the golden tolerance; 4: one is different, or none could be made again.
    """
    from appliance.core.opening import cpu

    place = opening(folder)
    try:
        found = place.read(file.read_bytes(), Predictions)
    except SyncError as error:
        raise Trouble(f"refused-{error.code}: {error}; nothing of it is believed, ask the device anew") from error
    done, here = place.replay(found), cpu()
    document = {
        "device": found.device, "served_on": found.cpu, "made_again_on": here, "predictions": codec.builtins(done),
    }  # fmt: skip
    show(as_json, document, made_again(found, done, here))
    sys.exit(exit_code(done))


def exit_code(done: Sequence[Replayed]) -> int:
    """0 where what could be made again came out as served, and something could."""
    outcomes = {one.outcome.value for one in done}
    return 0 if outcomes & {"equal", "within-tolerance"} and "different" not in outcomes else DIFFERENT


def made_again(found: Predictions, done: Sequence[Replayed], here: str, zone: tzinfo | None = None) -> list[str]:
    """Each prediction beside what the same release says now, and the sum of it."""
    told = f"{found.device}, {len(done)} predictions as of {spoken(found.made, zone)}"
    lines = [f"{told}; served on {found.cpu}, made again on {here}"]
    for one in done:
        what = f"  {spoken(one.ts, zone, day=False)}  {one.model} {one.release}  {value_words(one.served)}"
        lines.append(f"{what}  {one.outcome.value}{_why(one)}")
    counts = Counter(one.outcome.value for one in done)
    lines.append(", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "nothing to make again")
    return [visible(line) for line in lines]  # the file may say anything


def _why(one: Replayed) -> str:
    if one.text:
        return f": {one.text}"
    if not one.worst:
        return ""
    return f": now {value_words(one.again)}, off by {one.worst:.2g}, {one.precision} allows {one.tolerance:g}"
