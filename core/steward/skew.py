"""Takes in what a job found when it made served predictions again: counts, and an alarm for each device and release."""

from __future__ import annotations

from core.handoffs import Skew
from core.steward.house import House
from sync.names import ModelName


def take(house: House, model: ModelName, found: tuple[Skew, ...], now: float) -> None:
    """Adds the counts up. In a transaction, with the position of the samples, so that none counts twice."""
    for one in found:
        if house.catalog.fleet.device(one.device) is None:
            continue
        total = house.catalog.skew.add(model, one, now)
        if not one.mismatching or total.mismatching > one.mismatching:
            continue  # none, or not the first
        text = (
            f"{total.mismatching} of {total.cells} cells that {one.device} served by release {one.number} are not what "
            f"this core computes of the same inputs, first in prediction {one.example}: compare with what the device "
            f"remembers, `falaj device predictions {one.device} --save FILE` and `falaj replay FILE`, and have its "
            "hardware checked"
        )
        # In the device's own room of the events: it could push out what the core has to say of itself.
        house.event(
            now, "skew-found", text, severity="alarm", model=model, source=one.device, device=one.device,
            release=str(one.number), prediction=one.example,
        )  # fmt: skip
