"""Words that the broker denied to devices: who may speak here and tries it elsewhere is told of, once an hour."""

from __future__ import annotations

from typing import Any

from core import orders
from core.steward.house import House
from sync.names import DeviceId

TOLD_EVERY = 3600.0  # seconds
TOPIC = 200  # characters of what is kept of a topic


def heard(house: House, order: orders.WordsDenied, now: float) -> dict[str, Any]:
    """One event a device and hour, with how many words it was since the one before; a restart forgets the hour. Of a
    device that is denied everything nothing is told: that it is, was told. In a transaction."""
    for name, (topic, times) in order.denied.items():
        device = house.catalog.fleet.device(name)
        if device is None or not device.active:
            continue
        told, since = house.memory.denied.get(name, (float("-inf"), 0))
        if 0 <= now - told < TOLD_EVERY:
            house.memory.denied[name] = (told, since + times)
            continue
        house.memory.denied[name] = (now, 0)
        _tell(house, name, topic[:TOPIC], since + times, now)
    return {}


def _tell(house: House, name: DeviceId, topic: str, times: int, now: float) -> None:
    text = (
        f"{name} wrote where it may not, first to {topic!r}; the broker denied it. Its certificate is in other hands "
        f"or its software is not ours: look at it, or end it by `falaj device revoke {name} --reason TEXT`"
    )
    house.event(now, "publish-denied", text, severity="alarm", source=name, topic=topic, times=str(times))
