"""Power cuts on order: durable rooms that die right after their n-th write, as an agent does whose power is cut there.

Dying after write n and dying before write n + 1 leave the same disk behind, so one kind of cut covers both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.artifacts import Artifacts
from edge.journal import Journal
from edge.outbox import Outbox
from edge.states import Deployment
from edge.trust import Record
from edge.untold import Untold
from sync.manifest import Blob
from sync.names import Kind, ModelName


class PowerCut(Exception):
    """Nothing more happens on this device until it is switched on again."""


@dataclass
class Fuse:
    """Blows at the n-th durable write; `left` None never does."""

    left: int | None = None
    blown: bool = False

    def burn(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.blown, self.left = True, None
            raise PowerCut

    def journal(self) -> Callable[[Path], Journal]:
        burn = self.burn

        class FusedJournal(Journal):
            def write(self, deployment: Deployment, *because: Any) -> None:
                super().write(deployment, *because)
                burn()

            def told(self, id_: int) -> None:
                super().told(id_)
                burn()

            def accept(self, model: ModelName, number: int, record: Record, versions: dict[str, int]) -> None:
                super().accept(model, number, record, versions)
                burn()

            def adopt(self, root: bytes, mark: Mapping[str, int], *, orders_void: bool) -> None:
                super().adopt(root, mark, orders_void=orders_void)
                burn()

            def raise_mark(self, versions: Mapping[str, int]) -> None:
                super().raise_mark(versions)
                burn()

            def forget(self, model: ModelName, number: int) -> None:
                super().forget(model, number)
                burn()

            def take_assignment(self, envelope: bytes, epoch: int, seq: int, signed: float = 0.0) -> None:
                super().take_assignment(envelope, epoch, seq, signed)
                burn()

        return FusedJournal.open

    def outbox(self) -> Callable[[Path, int, str], Outbox]:
        burn = self.burn

        class FusedOutbox(Outbox):
            def add(self, kind: Kind, body: object, now: float) -> bool:
                kept = super().add(kind, body, now)
                burn()
                return kept

            def move(self, saying: Untold) -> bool:
                kept = super().move(saying)
                burn()
                return kept

        return FusedOutbox

    def artifacts(self) -> Callable[[Path], Artifacts]:
        burn = self.burn

        class FusedArtifacts(Artifacts):
            def put(self, blob: Blob, index: int, payload: bytes) -> None:
                super().put(blob, index, payload)
                burn()

            def finish(self, blob: Blob) -> None:
                super().finish(blob)
                burn()

        return FusedArtifacts
