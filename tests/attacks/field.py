"""A device in the field with something to lose: release 1 and then release 2 were committed on it, and 2 serves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from msgspec.structs import replace

from sync import codec
from sync.manifest import LIMIT, Manifest
from tests.edge.device import committed, new_device
from tests.edge.world import Core, Shipped


class Field:
    """The device, its core, and every envelope that brought it here."""

    def __init__(self, core: Core, folder: Path) -> None:
        self.core, self.device = core, new_device(core, folder).boot()
        self.order = core.order(core.ship(1), self.device.identity)
        self.first = core.assignment(self.order)
        self._send(self.first, 1)
        self.before = dict(core.files)  # the trust files of the day of release 1
        self.newer = core.order(core.ship(2), self.device.identity)
        self.second = core.assignment(self.newer)
        self._send(self.second, 2)
        self.device.acknowledge(999)

    def _send(self, envelope: bytes, number: int) -> None:
        self.core.desire(envelope)
        self.device.settle(8, ask=0)
        assert committed(self.device, number)

    def signed_as(self, shipped: Shipped, **lies: object) -> Shipped:
        """The same release under a manifest that says something else, with its owner's good signature."""
        manifest = replace(codec.decode(Manifest, shipped.manifest, LIMIT), **lies)
        other = dataclasses.replace(shipped, manifest=codec.encode(manifest))
        self.core.approve(other)
        return other


def refused(field: Field, envelope: bytes, code: str = "refused-untrusted") -> None:
    """Release 2 goes on, the journal holds what it held, and one alarm with this code is on its way to the core."""
    device = field.device
    before = (device.house.journal.assignment(), device.house.journal.counter("desired_seq"), device.state)
    field.core.desire(envelope)
    device.settle(4, ask=0)
    assert (device.house.journal.assignment(), device.house.journal.counter("desired_seq"), device.state) == before
    assert committed(device, 2)
    assert device.codes() == [code] and device.events()[0].severity == "alarm"
