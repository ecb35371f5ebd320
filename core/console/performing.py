"""How releases do, in a few words for a cell: as the devices count it, beside what labels say. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from core.catalog.skew import SkewRow
from core.console import wording
from core.console.facts import Facts
from core.fleet import performance
from sync.names import DeviceId, ModelName


def on_device(facts: Facts, device: DeviceId, model: ModelName) -> str:
    """Of what serves there, in its newest interval, and what the core made again; empty while nothing is known."""
    told, skew = facts.performed.here.get((device, model)), facts.skew.get((device, model))
    return ", ".join([*(_told(facts, told) if told else []), *_skewed([skew] if skew else [])])


def in_field(facts: Facts, model: ModelName, number: int) -> str:
    """Of a release, added up over the devices where it serves now."""
    total = facts.performed.fleet.get((model, number))
    parts = _estimated(performance.figures(total), (model, number) in facts.calibrated) if total else []
    skew = [one for one in facts.made_again if (one.model, one.number) == (model, number)]
    return ", ".join([*parts, *_skewed(skew)])


def _told(facts: Facts, told: performance.OnDevice) -> list[str]:
    parts = [] if told.per_hour is None else [f"{wording.count(round(told.per_hour))} an hour"]
    if told.newest.p99_ms is not None:
        parts.append(f"p99 up to {told.newest.p99_ms:g} ms")
    return [*parts, *_estimated(told.newest, (told.model, told.number) in facts.calibrated, doubtful=told.doubtful)]


def _estimated(figures: performance.Figures, calibrated: bool, *, doubtful: bool = False) -> list[str]:
    if figures.estimated is None:
        return []
    said = f"estimated {wording.share(figures.estimated)} right"
    notes = ["calibrated" if calibrated else "not calibrated", *(["inputs unlike its baseline"] if doubtful else [])]
    return [f"{said} ({', '.join(notes)})"]


def _skewed(found: Sequence[SkewRow | performance.MadeAgain]) -> list[str]:
    """The cells that the core computed otherwise; nothing where none was compared."""
    return [
        f"{wording.count(one.mismatching)} of {wording.count(one.cells)} cells skewed" for one in found if one.cells
    ]
