"""Windows with the values of their entity beside them: each column of a lookup is one more channel, the same in every
row of the window, with the value that held when the window ended.

A device fills a graph input with the row of the table it has; training takes the row of the version that was valid
then, by the same `sync.lookups.Index.vector`. So the exported graph joins window and row in the same way (`core.release
.export.assemble`), and what was learned is what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from sync import codec
from sync.chunks import digest
from sync.features import WindowSpec
from sync.lookups import Index, Table, check, encode, takes
from sync.manifest import Lookup
from sync.names import LookupName

Floats = npt.NDArray[np.float32]


class Joined:
    """The tables that a model is given, all versions of each, oldest first."""

    def __init__(self, accepted: tuple[Lookup, ...], tables: Mapping[LookupName, Sequence[Table]]) -> None:
        """Raises Unfit where the declaration does not accept the newest version. Older ones that it does not, for it
        has other columns or bounds since, are left out: no device takes them for this model either."""
        self.accepted = accepted
        for one in accepted:
            check(tables[one.name][-1], one)
        self._versions = {one.name: [Index(t) for t in tables[one.name] if takes(one, t)] for one in accepted}

    def snapshot(self, rows: str) -> str:
        """What names the rows and the tables together, `rows` naming the rows; without tables `rows` itself."""
        if not self.accepted:
            return rows
        digests = [[digest(encode(index.table)) for index in versions] for versions in self._versions.values()]
        return digest(codec.encode((rows, digests)))

    def spec(self, window: WindowSpec) -> WindowSpec:
        """The window with one more channel for each column."""
        more = tuple(f"{one.name}.{column.name}" for one in self.accepted for column in one.columns)
        return replace(window, channels=(*window.channels, *more))

    def vector(self, entity: str, at: float) -> Floats | None:
        """All values of an entity at a time (seconds), (columns,); None where there is neither row nor default: a
        device abstains there."""
        parts = [self._valid(one.name, at).vector(entity, one) for one in self.accepted]
        found = [part[0] for part in parts if part is not None]
        return np.concatenate(found) if len(found) == len(parts) else None

    def widen(self, x: Floats, entities: Sequence[str], ends: Sequence[float]) -> tuple[Floats, npt.NDArray[np.intp]]:
        """(windows with their values, which of `x` they are); those without values are left out."""
        if not self.accepted:
            return x, np.arange(len(x))
        vectors = [self.vector(entity, at) for entity, at in zip(entities, ends, strict=True)]
        kept = np.array([i for i, vector in enumerate(vectors) if vector is not None], np.intp)
        width = sum(len(one.columns) for one in self.accepted)
        values = np.array([vectors[i] for i in kept], np.float32).reshape(len(kept), 1, width)
        return np.concatenate((x[kept], np.repeat(values, x.shape[1], axis=1)), axis=2), kept

    def _valid(self, name: LookupName, at: float) -> Index:
        """The version that held at that time; before the first one, the first."""
        versions = self._versions[name]
        valid = [index for index in versions if index.table.valid_from <= at]
        return valid[-1] if valid else versions[0]
