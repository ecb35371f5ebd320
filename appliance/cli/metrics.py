"""`falaj device metrics`: how releases do, as the devices count it. Times are UTC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from appliance.cli.clients import api
from appliance.cli.options import DEVICE, MODEL, core_dir, json_option, show
from appliance.moments import utc
from sync.names import DeviceId, ModelName

Document = Mapping[str, Any]
NOTHING = "no device has told of an answer yet: each does once an hour, and when another release takes over"


@click.command()
@click.argument("name", type=DEVICE, required=False)
@click.option("--model", type=MODEL, help="Of this model alone.")
@core_dir
@json_option
def metrics(name: DeviceId | None, model: ModelName | None, folder: Path | None, as_json: bool) -> None:
    """Answers, errors, times and estimated accuracy of each release, on device NAME or added up over the fleet."""
    asked = {key: value for key, value in (("device", name), ("model", model)) if value is not None}
    found = api(folder).get(f"/v1/performance?{urlencode(asked)}")
    lines = fleet_lines(found["fleet"], found["made_again"]) if name is None else device_lines(found)
    show(as_json, found, lines or NOTHING)


def device_lines(found: Document) -> list[str]:
    """Each release of a device: its newest interval, all of it, and the intervals of a day."""
    lines = []
    for row in found["devices"]:
        key = row["model"], row["number"]
        lines.append(f"{key[0]}@{key[1]}  {_span(row['until'], row['span'])}: {_figures(row['newest'])}{_rate(row)}")
        lines.append(f"  {_accuracy(row['newest'], row['calibrated'], row)}")
        strange = [f"{name} {share:.1%}" for name, share in row["outside"].items() if share]
        if strange:
            lines.append(f"  inputs unlike the baseline in the newest drift window: {', '.join(strange)}")
        lines.append(
            f"  since {utc(row['since'])}: {_figures(row['total'])}; {_accuracy(row['total'], row['calibrated'])}"
        )
        lines += [f"  {_skew(one)}" for one in found["skew"] if (one["model"], one["number"]) == key]
        own = [one for one in found["intervals"] if (one["model"], one["number"]) == key]
        lines += [f"    {_span(one['ts'], one['span'])}  {_figures(one['figures'])}" for one in own[:-1]]
    told = {(row["model"], row["number"]) for row in found["devices"]}
    return lines + _other_lines(found["skew"], told)


def fleet_lines(releases: Sequence[Document], made_again: Sequence[Document] = ()) -> list[str]:
    """Each release, added up over the devices that told of it, and what the core made again of its answers."""
    lines = []
    for row in releases:
        lines.append(_fleet_line(row))
        key = row["model"], row["number"]
        lines += [f"  {_skew(one)}" for one in made_again if (one["model"], one["number"]) == key]
    return lines + _other_lines(made_again, {(row["model"], row["number"]) for row in releases})


def _other_lines(made_again: Sequence[Document], told: Collection[tuple[str, int]]) -> list[str]:
    """Of releases that nobody told of otherwise."""
    others = [one for one in made_again if (one["model"], one["number"]) not in told]
    return [f"{one['model']}@{one['number']}  {_skew(one)}" for one in others]


def _skew(row: Document) -> str:
    told = f"{row['mismatching']:,} of {row['cells']:,} cells, of {row['predictions']:,} predictions, differ"
    left = f"; {row['unchecked']:,} could not be made again" if row["unchecked"] else ""
    return f"made again by the core: {told}{left}"


def _fleet_line(row: Document) -> str:
    fleet = f"{row['devices']} device{'s' * (row['devices'] != 1)}"
    return (
        f"{row['model']}@{row['number']}  on {fleet} since {utc(row['since'])}: {_figures(row['total'])}; "
        f"{_accuracy(row['total'], row['calibrated'])}"
    )


def _figures(row: Document) -> str:
    return f"{row['answers']:,} answers, {row['errors']:,} errors, {_time('p50', row)}, {_time('p99', row)}"


def _time(name: str, row: Document) -> str:
    bound = row[f"{name}_ms"]
    if bound is None:
        return f"{name} {'above 1,000 ms' if row['answers'] + row['errors'] else 'unknown'}"
    return f"{name} up to {bound:g} ms"


def _rate(row: Document) -> str:
    return "" if row["per_hour"] is None else f", {row['per_hour']:,.0f} an hour"


def _accuracy(figures: Document, calibrated: bool, row: Document | None = None) -> str:
    estimated = figures["estimated"]
    if estimated is None:
        told = "estimated accuracy: none, its outputs are no probabilities of classes"
    else:
        doubt = "; an input is unlike the baseline, so it says little" if row and row["doubtful"] else ""
        sure = "calibrated" if calibrated else "not calibrated"
        told = f"estimated accuracy {estimated:.1%} ({sure}) by {figures['seen']:,} answers{doubt}"
    if row and row["labels"]:
        told += f"; by labels {row['right'] / row['labels']:.1%} of {row['labels']:,}"
    return told


def _span(until: float, span: float) -> str:
    return f"{span / 60:.0f} min to {utc(until)}"
