"""Takes in what devices count of their releases."""

from __future__ import annotations

from core.catalog.fleet import DeviceRow
from core.steward.house import House
from sync import codec
from sync.messages import METRICS
from sync.performance import Interval

KIND = METRICS
LARGEST = 48 * 1024  # bytes of one; an honest one fits into a sealed record with room to spare


def take(house: House, device: DeviceRow, body: bytes, now: float) -> None:
    """One interval. Numbers that cannot be raise Malformed, and the record counts as read. In a transaction."""
    house.catalog.performance.add(device.device, codec.decode(Interval, body, LARGEST), now)
