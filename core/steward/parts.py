"""The core's own parts, as its supervisor sees them: what cannot be kept up stands in the catalog while it is so."""

from __future__ import annotations

from typing import Any

from core import orders
from core.steward.house import House

TEXT = 1000  # characters of what is kept of one part's trouble


def heard(house: House, order: orders.PartsFailing, now: float) -> dict[str, Any]:
    """Told once as a part begins to fail, and once as it works again; what is in its way may change meanwhile. In a
    transaction."""
    found = {part: text[:TEXT] for part, text in order.parts.items()}
    before = {row.part for row in house.catalog.failing.all()}
    house.catalog.failing.put(found, now)
    for part in sorted(found.keys() - before):
        house.event(now, "part-failing", f"{part}: {found[part]}", severity="alarm", part=part)
    for part in sorted(before - found.keys()):
        house.event(now, "part-works-again", f"{part}: what was in the way is gone", severity="notice", part=part)
    return {}
