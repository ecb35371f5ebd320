"""A release beside the one that serves, or in its place: a core with a good and a bad one, and windows to answer."""

from __future__ import annotations

from pathlib import Path

from sync import topics
from sync.messages import Gates
from tests.edge.device import Device, new_device
from tests.edge.power import Fuse
from tests.edge.world import CLASSES, DEVICE, TENANT, Core

GOOD, BAD = (0, 1, 2), (1, 1, 2)  # the class said for each index; BAD is wrong at index 0
TRUTH = CLASSES[0]
LABELS = Gates(evidence="labels", margin=0.05, block=2, soak_answers=3)
NAN = float("nan")
BEYOND = 99  # an index that no table has


class Field:
    """A core with a good release 2 and a bad release 3, and devices that committed release 1."""

    def __init__(self, folder: Path) -> None:
        self.core, self.folder = Core(), folder
        self.shipped = {n: self.core.ship(n, says=BAD if n == 3 else GOOD) for n in (1, 2, 3)}

    def device(self, name: str = "d", *, fuse: Fuse | None = None) -> Device:
        """A device that serves release 1, and whose power is cut as `fuse` says from now on."""
        self.core.hub.retained.pop(topics.desired(TENANT, DEVICE), None)
        device = new_device(self.core, self.folder / name).boot().commit(self.shipped[1])
        device.acknowledge(99)
        if fuse is not None:
            device.cut_power()
            device.journal_kind, device.outbox_kind = fuse.journal(), fuse.outbox()
        return device

    def order(self, device: Device, number: int, **changes: object) -> None:
        self.core.assign(self.shipped[number], device.identity, **({"mode": "shadow", "gates": LABELS} | changes))


def live(device: Device, windows: int, label: str | None = TRUTH, index: int = 0) -> list[int | None]:
    """That many windows, one a tick; who answered each of them."""
    answered = []
    for _ in range(windows):
        said = device.feel(index, label)
        answered.append(said.release if said else None)
        device.settle(1)
    return answered
