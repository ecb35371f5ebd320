"""Sessions that take as long as they are told to, by the clock of their device."""

from __future__ import annotations

from collections.abc import Iterator

from edge.runtime import Session
from sync.golden import Arrays
from tests.edge.device import Device
from tests.edge.world import PROFILE

QUICK, SLOW = 0.001, 2 * PROFILE.p99_ms / 1000


class Paced(Session):
    """A session that takes as long as it is told to, by the clock of its device."""

    def __init__(self, real: Session, device: Device, seconds: Iterator[float]) -> None:
        self._real, self._device, self._seconds = real, device, seconds
        self.inputs, self.outputs = real.inputs, real.outputs

    def run(self, inputs: Arrays) -> Arrays:
        self._device.spent += next(self._seconds)
        return self._real.run(inputs)

    def late(self) -> int:
        return 0
