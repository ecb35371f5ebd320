"""A disk that refuses on order: SQLite itself says no, from the n-th write of a story on, until it is healed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.journal import Journal
from edge.outbox import Outbox

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")


@dataclass
class Refusal:
    """From the n-th write on SQLite itself refuses all of them, until `healed`; `left` None: never."""

    left: int | None = None
    now: bool = False

    def burn(self, statement: str) -> bool:
        if statement.startswith(WRITES) and self.left is not None:
            self.left -= 1
            self.now = self.now or self.left <= 0
        return self.now

    def heal(self) -> None:
        self.left, self.now = None, False

    def factory(self) -> type[sqlite3.Connection]:
        burn = self.burn

        class Refusing(sqlite3.Connection):
            def execute(self, statement: str, values: object = ()) -> sqlite3.Cursor:  # type: ignore[override]
                if burn(statement) and statement.startswith(WRITES):
                    super().execute("PRAGMA query_only = ON")
                return super().execute(statement, values)  # type: ignore[arg-type]

        return Refusing

    def journal(self) -> Callable[[Path], Journal]:
        return lambda path: Journal.open(path, self.factory())

    def outbox(self) -> Callable[[Path, int, str], Outbox]:
        return lambda path, epoch, boot: Outbox(path, epoch, boot, self.factory())
