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
from sync.remembered import Looked
from sync.windows import Rows


class NoLookup(BadInput):
    """There is no value for a graph input that a table fills: no fault of the model's, which therefore abstains."""

    code = "no-lookup"


@dataclass(frozen=True)
class _Version:
    index: Index
    as_of: float
    number: int


@dataclass(frozen=True)
class _Held:
    newest: _Version
    before: _Version | None = None


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
        self.config_version = 0  # 0: none

    def put(
        self, table: Table, as_of: float, before: tuple[Table, float] | None = None, numbers: tuple[int, int] = (0, 0)
    ) -> None:
        """This version is in force from now on; `before`, with its own `as_of`, for whoever does not accept it.
        `numbers` are those of the two versions, 0 where they are not known."""
        older = _Version(Index(before[0]), before[1], numbers[1]) if before is not None else None
        self._held = {**self._held, table.name: _Held(_Version(Index(table), as_of, numbers[0]), older)}
        self._fits = {}

    def confirm(self, name: LookupName, as_of: float) -> None:
        """The version in force is still what its source says."""
        if name in self._held:
            held = self._held[name]
            self._held = {**self._held, name: replace(held, newest=replace(held.newest, as_of=as_of))}

    def drop(self, name: LookupName) -> None:
        self._held = {key: held for key, held in self._held.items() if key != name}

    def question(
        self, session: Session, manifest: Manifest, entity: str, window: Rows
    ) -> tuple[Arrays, bool, dict[str, Looked]]:
        """The graph inputs for a window (size, channels) of an entity, whether a table in them is stale, and what the
        tables gave.

        The window is the input that no lookup fills, laid out flat where the graph takes [n, numbers]. Raises NoLookup.
        """
        inputs, stale, numbers = self.fill(manifest.lookups, entity)
        looked = {name: Looked(numbers[name], vector.tobytes()) for name, vector in inputs.items()}
        rest = next((spec for spec in session.inputs if spec.name not in inputs), None)
        flat = rest is not None and len(rest.shape) == 2
        asked = window.reshape(1, -1) if flat else window[np.newaxis]
        return {rest.name if rest else "": asked, **inputs}, stale, looked

    def fill(self, accepted: tuple[Lookup, ...], entity: str) -> tuple[Arrays, bool, dict[str, int]]:
        """Graph input -> (1, columns) float32, whether one of them is stale, and the version that gave each. Raises
        NoLookup."""
        inputs: Arrays = {}
        numbers: dict[str, int] = {}
        stale = False
        for one in accepted:
            version = self._version(one)
            age = self._now() - version.as_of
            if age > one.ttl and one.stale == "abstain":
                raise NoLookup(f"lookup {one.name} is {age / 3600:.1f} h old, {one.ttl / 3600:g} h are allowed")
            vector = version.index.vector(entity, one)
            if vector is None:
                raise NoLookup(f"lookup {one.name} has no row for {entity!r} and no default")
            inputs[one.name], numbers[one.name] = vector, version.number
            stale = stale or age > one.ttl
        return inputs, stale, numbers

    def _version(self, one: Lookup) -> _Version:
        held = self._held.get(one.name)
        if held is None:
            raise NoLookup(f"lookup {one.name} has not come to this device yet")
        said = self._complaint(one, held.newest.index)
        if not said:
            return held.newest
        if held.before is not None and not self._complaint(one, held.before.index):
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
