"""What the core wants of a device: the words that assignments are made from."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from sync import codec
from sync.messages import Gates, Mode
from sync.names import DeviceId, ModelName


class WantedSplit(msgspec.Struct, frozen=True):
    """The release that shall answer there beside the wanted one, for the first `share` of 10,000 places that the lot of
    the device draws: by `seeds`, or by `seed` where that has none of it."""

    number: int
    retry: int
    share: int
    seed: str
    seeds: dict[DeviceId, str] = {}


class Wanted(msgspec.Struct, frozen=True):
    """What the core wants of one model on one device; in a split `number` is the incumbent."""

    model: ModelName
    number: int
    mode: Mode
    gates: Gates
    retry: int
    split: WantedSplit | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The releases that it shall run: none if it is off, two in a split."""
        if self.mode == "off":
            return ()
        return (self.number, self.split.number) if self.split is not None else (self.number,)

    def shown(self) -> Wanted:
        """As people may read it: without the seed, by which one could choose a key that leads to an arm."""
        return self if self.split is None else replace(self, split=replace(self.split, seed="", seeds={}))


def wanted_split(document: bytes | None) -> WantedSplit | None:
    """The split in its column; None where there is none."""
    return codec.decode(WantedSplit, bytes(document)) if document is not None else None
