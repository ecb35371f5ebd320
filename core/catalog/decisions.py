"""What decisions on rollouts rest on: the devices' reports, signed by them, as they were when it was decided. With them
anyone can work a decision out again, and no device can deny what it said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sync.names import DeviceId


class Heard(msgspec.Struct, frozen=True):
    """One device's signed report (`Reported` in a DSSE envelope) and when the decision on it was taken."""

    ts: float
    device: DeviceId
    envelope: bytes


class Decisions:
    """Shelf of the reports behind decisions."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def keep(self, rollout: int, devices: Iterable[DeviceId], now: float) -> None:
        """Copies the newest signed reports of these devices; rollout by its id in the catalog."""
        self._db.executemany(
            "INSERT INTO decision SELECT ?, ?, device, report_envelope FROM device"
            " WHERE device = ? AND report_envelope IS NOT NULL",
            [(rollout, now, device) for device in devices],
        )

    def of(self, rollout: int) -> list[Heard]:
        """All reports kept for a rollout, in the order they were."""
        rows = self._db.execute(
            "SELECT ts, device, envelope FROM decision WHERE rollout = ? ORDER BY rowid", (rollout,)
        )
        return [Heard(ts, DeviceId(device), bytes(envelope)) for ts, device, envelope in rows]
