"""What a device said, as lines for people: pure functions."""

from __future__ import annotations

from datetime import tzinfo

from appliance.moments import spoken
from appliance.screen import visible
from sync.answers import Predictions
from sync.remembered import Remembered


def said(found: Predictions, zone: tzinfo | None = None) -> list[str]:
    """What a device said from one moment to another; times in the reader's zone. Nothing in it moves a cursor."""
    span = f"from {spoken(found.since, zone)} to {spoken(found.until, zone)}"
    lines = [f"{found.device} said, {span} (as of {spoken(found.made, zone)}, by its clock):"]
    lines += [_line(one, zone) for one in found.predictions] or [f"  nothing; {_remembers(found, zone)}"]
    if found.more:
        lines.append("  ... and more before these than fit: ask for a shorter --window")
    if found.withheld:
        models = ", ".join(found.withheld)
        lines.append(
            f"  inputs of {models} stay on the device: its signed policy (`uplink.asked`) or today's budget lets no "
            "more out; `falaj edge predictions --save` on the box takes them along"
        )
    return [visible(line) for line in lines]  # entities, labels, values: whatever a publisher called them


def value_words(value: str | float | None) -> str:
    """What was predicted: a class, a number, or whatever else the graph's outputs say."""
    return value if isinstance(value, str) else "(outputs)" if value is None else f"{value:g}"


def _line(one: Remembered, zone: tzinfo | None) -> str:
    told = one.prediction
    parts = [
        f"  {spoken(told.ts, zone, day=False)}",
        f"{told.model} {told.release}",
        value_words(told.value) + (f" {max(told.probabilities):.2f}" if told.probabilities else ""),
        told.entity,
        "" if told.quality == "ok" else told.quality,
        f"(it was {one.label})" if one.label is not None else "",
        told.id,
    ]
    return "  ".join(part for part in parts if part)


def _remembers(found: Predictions, zone: tzinfo | None) -> str:
    if found.oldest is None or found.newest is None:
        return "it remembers no prediction at all"
    return f"it remembers {spoken(found.oldest, zone)} to {spoken(found.newest, zone)}"
