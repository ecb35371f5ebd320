"""How what serves does, kept from one page to the next: only what devices told since then is read and reckoned anew.

A page is asked for every two seconds by each browser that shows it, and a device tells once an hour: of thousands of
rows a handful are new. Counters are whole numbers, so a sum out of which the old row is taken and into which the new
one is put is the sum that would come out of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock

from core.catalog import Catalog
from core.catalog.fleet import DeviceRow
from core.catalog.performance import Performed
from core.fleet.performance import OnDevice, Release, on_device
from sync.names import DeviceId, ModelName
from sync.performance import Tally

Key = tuple[DeviceId, ModelName, int]
_NOTHING = Tally()


@dataclass(frozen=True)
class Told:
    """Of the releases that serve in the fleet, as far as devices told: one by one, without labels, and added up."""

    here: dict[tuple[DeviceId, ModelName], OnDevice]
    fleet: dict[Release, Tally]


class Tallies:
    """What is known of the rows that serve, for any number of threads."""

    def __init__(self) -> None:
        self._lock, self._place = Lock(), 0
        self._forget()

    def read(self, catalog: Catalog, devices: Iterable[DeviceRow]) -> Told:
        """How what these devices serve does."""
        with self._lock:
            place, changed = catalog.performance.changed(self._place)
            if place < self._place:  # another catalog, or one that was put back
                self._forget()
            serve = _serving(devices)
            for key in self._rows.keys() - serve:
                self._put(key, None)
                del self._rows[key]
            for key in serve & changed | serve - self._rows.keys():
                self._put(key, catalog.performance.of(*key))
            self._place = place
            return Told(dict(self._here), dict(self._fleet))

    def _forget(self) -> None:
        self._rows: dict[Key, Performed | None] = {}
        self._here: dict[tuple[DeviceId, ModelName], OnDevice] = {}
        self._fleet: dict[Release, Tally] = {}

    def _put(self, key: Key, row: Performed | None) -> None:
        """This row in place of the one that was known."""
        before, (device, model, number) = self._rows.get(key), key
        total = self._fleet.get((model, number), _NOTHING)
        if before is not None:
            total = total.minus(before.total)
        # Not `merge`, which ends where a counter is full: what was put in must come out again.
        self._fleet[model, number] = total.minus(_NOTHING.minus(row.total if row else _NOTHING))
        if not self._fleet[model, number]:
            del self._fleet[model, number]
        self._rows[key] = row
        if row is not None:
            self._here[device, model] = on_device(row, {})
        elif before is not None:
            del self._here[device, model]


def _serving(devices: Iterable[DeviceRow]) -> set[Key]:
    return {
        (row.device, name, model.serving.number)
        for row in devices
        if row.report and row.active
        for name, model in row.report.models.items()
        if model.serving
    }
