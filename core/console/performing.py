"""How releases do, in a few words for a cell: as the devices count it, beside what labels say. Pure."""

from __future__ import annotations

from core.console import wording
from core.console.facts import Facts
from core.fleet import performance
from sync.names import DeviceId, ModelName


def on_device(facts: Facts, device: DeviceId, model: ModelName) -> str:
    """Of what serves there, in its newest interval; empty while it told nothing."""
    row = facts.performed.get((device, model))
    if row is None:
        return ""
    told = performance.on_device(row, {})
    parts = [] if told.per_hour is None else [f"{wording.count(round(told.per_hour))} an hour"]
    if told.newest.p99_ms is not None:
        parts.append(f"p99 up to {told.newest.p99_ms:g} ms")
    return ", ".join([*parts, *_estimated(told.newest, doubtful=told.doubtful)])


def in_field(facts: Facts, model: ModelName, number: int) -> str:
    """Of a release, added up over the devices where it serves now."""
    rows = (row for (_, name), row in facts.performed.items() if name == model and row.newest.number == number)
    return ", ".join(part for found in performance.in_fleet(rows) for part in _estimated(found.total))


def _estimated(figures: performance.Figures, *, doubtful: bool = False) -> list[str]:
    if figures.estimated is None:
        return []
    return [f"estimated {wording.share(figures.estimated)} right{', inputs unlike its baseline' if doubtful else ''}"]
