"""The tables and the config that are in force on this device, in memory: what fills the graph inputs that are not
windows, and the words in bindings.

Of each table two versions are held, and every release gets the newest that it accepts: while a release with other
columns is on trial, the one before it goes on with the table it knows. A swap replaces one reference; a question that
has begun keeps what it began with. Age is counted from when the core last read the source; of a clock that was never
set nobody can tell an age, and nothing is called stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge.runtime import BadInput, Session
from sync.errors import Unfit
from sync.golden import Arrays
from sync.lookups import Config, Index, Table, check
from sync.manifest import Lookup, Manifest
from sync.names import LookupName
from sync.windows import Rows


class NoLookup(BadInput):
    """There is no value for a graph input that a table fills: no fault of the model's, which therefore abstains."""

    code = "no-lookup"


@dataclass(frozen=True)
class _Held:
    newest: Index
    as_of: float
    before: tuple[Index, float] | None = None


def _unset() -> float:
    """A clock that was never set."""
    return 0.0


class Lookups:
    """Any thread may ask; the walker's thread puts. `now` is the device's clock in seconds since 1970."""

    def __init__(self, now: Callable[[], float] = _unset) -> None:
        self._now = now
        self._held: dict[LookupName, _Held] = {}
        self._fits: dict[tuple[Lookup, int], str] = {}  # declaration and table -> why not
        self.config = Config({})

    def put(self, table: Table, as_of: float, before: tuple[Table, float] | None = None) -> None:
        """This version is in force from now on; `before`, with its own `as_of`, for whoever does not accept it."""
        older = (Index(before[0]), before[1]) if before is not None else None
        self._held = {**self._held, table.name: _Held(Index(table), as_of, older)}
        self._fits = {}

    def confirm(self, name: LookupName, as_of: float) -> None:
        """The version in force is still what its source says."""
        if name in self._held:
            self._held = {**self._held, name: replace(self._held[name], as_of=as_of)}

    def drop(self, name: LookupName) -> None:
        self._held = {key: held for key, held in self._held.items() if key != name}

    def question(self, session: Session, manifest: Manifest, entity: str, window: Rows) -> tuple[Arrays, bool]:
        """The graph inputs for a window (size, channels) of an entity, and whether a table in them is stale.

        The window is the input that no lookup fills. Raises NoLookup.
        """
        inputs, stale = self.fill(manifest.lookups, entity)
        rest = [spec.name for spec in session.inputs if spec.name not in inputs]
        return {rest[0] if rest else "": window[np.newaxis], **inputs}, stale

    def fill(self, accepted: tuple[Lookup, ...], entity: str) -> tuple[Arrays, bool]:
        """Graph input -> (1, columns) float32, and whether one of them is stale. Raises NoLookup."""
        inputs: Arrays = {}
        stale = False
        for one in accepted:
            index, as_of = self._version(one)
            old = self._now() - as_of > one.ttl
            if old and one.stale == "abstain":
                hours = (self._now() - as_of) / 3600
                raise NoLookup(f"lookup {one.name} is {hours:.1f} h old, {one.ttl / 3600:g} h are allowed")
            vector = index.vector(entity, one)
            if vector is None:
                raise NoLookup(f"lookup {one.name} has no row for {entity!r} and no default")
            inputs[one.name] = vector
            stale = stale or old
        return inputs, stale

    def _version(self, one: Lookup) -> tuple[Index, float]:
        held = self._held.get(one.name)
        if held is None:
            raise NoLookup(f"lookup {one.name} has not come to this device yet")
        said = self._complaint(one, held.newest)
        if not said:
            return held.newest, held.as_of
        if held.before is not None and not self._complaint(one, held.before[0]):
            return held.before
        raise NoLookup(said)

    def _complaint(self, one: Lookup, index: Index) -> str:
        place = one, id(index)
        said = self._fits.get(place)
        if said is None:
            try:
                check(index.table, one)
                said = ""
            except Unfit as error:
                said = str(error)
            self._fits[place] = said
        return said
