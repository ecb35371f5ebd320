"""A host that is short of memory just now, for some of what lies on its disk."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path

from edge import runtime
from edge.artifacts import Artifacts
from sync.manifest import Blob
from sync.names import Digest


class Cramped(Artifacts):
    """What is among `too_large`, by sealed digest, is opened for nobody as long as it is there."""

    def __init__(self, folder: Path, too_large: set[Digest]) -> None:
        super().__init__(folder)
        self.too_large = too_large

    def opened(self, blob: Blob, unseal: Callable[[BufferedIOBase], bytes]) -> bytes:
        if blob.sealed in self.too_large:
            raise runtime.NoMemory("there is not enough memory to load this model; free some")
        return super().opened(blob, unseal)
