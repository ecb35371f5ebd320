"""The spool: sealed sample batches as devices sent them, one file each, from the steward's hands to the job that lands
them. Nobody but that job can open one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from core.handoffs import REFUSED
from sync.durable import write_private
from sync.errors import Malformed
from sync.names import DeviceId, ModelName

DIGITS = 12  # of a record's number in a file's name, so that names sort as numbers do
_LAST = 999_999_999_999
_FILE = re.compile(rf"(\d{{1,6}})-(\d{{{DIGITS}}})")


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """One batch: record `n` of a device's epoch."""

    device: DeviceId
    epoch: int
    n: int

    @property
    def origin(self) -> str:
        """Its key in the position of a source; the mark under it is a number."""
        return f"{self.device}/{self.epoch}"

    @property
    def order(self) -> int:
        """Rises with every batch of a device."""
        return self.epoch * (_LAST + 1) + self.n


class Spool:
    """The folder `{model}/{device}/{epoch}-{n}`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def put(self, model: ModelName, entry: Entry, sealed: bytes) -> None:
        """Keeps a batch durably; the same one again replaces it. Raises Malformed for a number beyond what a name can
        hold, OSError if the disk cannot take it."""
        if not 0 < entry.n <= _LAST or not 0 < entry.epoch < 1_000_000:
            raise Malformed(f"samples of {entry.device}: record {entry.n} of epoch {entry.epoch} is out of range")
        write_private(self._path(model, entry), sealed)

    def entries(self, model: ModelName) -> list[Entry]:
        """What lies there of this model, in order of device, epoch and number, and no batch without those before it.

        While a folder is read, a newer file may show and an older one not. Whatever the first look saw was there before
        the second, and so were the files older than it.
        """
        newest = {entry.origin: entry.n for entry in sorted(self._look(model))}
        return sorted(entry for entry in self._look(model) if entry.n <= newest.get(entry.origin, 0))

    def _look(self, model: ModelName) -> list[Entry]:
        found = []
        for path in (self._folder / model).glob("*/*"):
            if parts := _FILE.fullmatch(path.name):
                found.append(Entry(DeviceId(path.parent.name), int(parts[1]), int(parts[2])))
        return found

    def get(self, model: ModelName, entry: Entry) -> bytes:
        """The sealed bytes; raises OSError if they cannot be read."""
        return self._path(model, entry).read_bytes()

    def drop(self, model: ModelName, entry: Entry) -> None:
        """Forgets a batch; none there is as good."""
        self._path(model, entry).unlink(missing_ok=True)

    def _path(self, model: ModelName, entry: Entry) -> Path:
        return self._folder / model / entry.device / f"{entry.epoch}-{entry.n:0{DIGITS}d}"


def reached(mark: str | None) -> int:
    """The number up to which a source has done the batches of an origin, by its mark; 0 without one."""
    return int((mark or "0").removeprefix(REFUSED))


def origins(position: dict[str, str]) -> dict[tuple[DeviceId, int], int]:
    """(device, epoch) -> number up to which all is done, of the position of a samples source."""
    found = {}
    for origin, mark in position.items():
        device, slash, epoch = origin.partition("/")
        if slash:
            found[DeviceId(device), int(epoch)] = reached(mark)
    return found
