"""`falaj labels`: tells a device what its predictions really were."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from appliance.cli.clients import api
from appliance.cli.options import DEVICE, actor, core_dir, json_option, show
from appliance.cli.progress import following
from appliance.errors import Trouble
from core.orders import Label
from sync.names import DeviceId

CHUNK = 500  # labels of one order
COLUMNS = ("prediction", "label")


class BadLabels(Trouble):
    """The file of labels does not say what it must."""


@click.command()
@click.argument("device", type=DEVICE)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@core_dir
@json_option
def labels(device: DeviceId, file: Path, folder: Path | None, as_json: bool) -> None:
    """Send DEVICE the labels of FILE, a CSV with the columns prediction and label.

    A line that is wrong is named, and then nothing is sent. The same labels may be sent again.
    """
    found = read_file(file)
    core = api(folder)
    with following(as_json) as watch:
        for place, chunk in enumerate(chunks(found)):
            core.order(Label(actor=actor(), device=device, labels=chunk))
            watch("sending", min(1.0, (place + 1) * CHUNK / len(found)))
    show(as_json, {"device": device, "labels": len(found)}, f"{len(found):,} labels are on their way to {device}")


def read_file(file: Path) -> dict[str, str]:
    """The labels of a CSV file, UTF-8; raises BadLabels with file and line."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return read(lines, str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels(f"{file} cannot be read: {error}; save it as CSV in UTF-8") from error


def read(lines: Iterable[str], name: str) -> dict[str, str]:
    """Prediction id -> label, in the order of the lines; raises BadLabels naming the first line that is wrong."""
    rows = csv.DictReader(lines, strict=True)
    found: dict[str, str] = {}
    try:
        if absent := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
            raise BadLabels(f"{name}: column {absent[0]!r} is missing; the first line is `prediction,label`")
        for row in rows:
            prediction, label = (row[column] or "" for column in COLUMNS)
            _check(prediction, label, None in row, found.get(prediction), f"{name}, line {rows.line_num}")
            found[prediction] = label
    except csv.Error as error:
        raise BadLabels(f"{name}, line {rows.reader.line_num}: {error}; correct it, nothing was sent") from error
    if not found:
        raise BadLabels(f"{name} has no labels: write one line `ID,LABEL` for each prediction")
    return found


def _check(prediction: str, label: str, more: bool, other: str | None, place: str) -> None:
    if more:
        raise BadLabels(f"{place}: more cells than columns; correct it, nothing was sent")
    if not prediction.strip() or not label.strip():
        raise BadLabels(f"{place}: prediction or label is empty; correct it, nothing was sent")
    if other is not None and other != label:
        raise BadLabels(f"{place}: {prediction} is {label!r} here and {other!r} above; keep one, nothing was sent")


def chunks(found: dict[str, str]) -> Iterator[dict[str, str]]:
    """The labels in parts of CHUNK."""
    pairs = list(found.items())
    for start in range(0, len(pairs), CHUNK):
        yield dict(pairs[start : start + CHUNK])
