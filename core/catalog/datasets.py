"""What landed in the lake, how far each source was read, and what was turned away."""

from __future__ import annotations

from typing import Any

from core.handoffs import LakeFile, Landed, Rejection
from sync.names import Digest

KEPT = 100_000  # rejections of one source: devices send theirs without end


class Datasets:
    """Shelf of lake files, positions and the quarantine."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def land(self, landed: Landed, job: int) -> None:
        """Rows and position become facts together; call it inside a transaction."""
        self._db.executemany(
            "INSERT OR REPLACE INTO lake_file VALUES (?, ?, ?, ?, ?)",
            [(landed.source, f.name, f.rows, f.content, job) for f in landed.files],
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO position VALUES (?, ?, ?)",
            [(landed.source, origin, mark) for origin, mark in landed.position.items()],
        )
        self._db.executemany(
            "INSERT INTO quarantine (source, job, origin, row, reason, text) VALUES (?, ?, ?, ?, ?, ?)",
            [(landed.source, job, r.origin, r.row, r.reason, r.text) for r in landed.rejections],
        )
        if landed.rejections:
            self._db.execute(
                "DELETE FROM quarantine WHERE source = ? AND id <="
                " (SELECT id FROM quarantine WHERE source = ? ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (landed.source, landed.source, KEPT),
            )

    def files(self, source: str) -> tuple[LakeFile, ...]:
        rows = self._db.execute("SELECT name, rows, content FROM lake_file WHERE source = ? ORDER BY name", (source,))
        return tuple(LakeFile(name, count, Digest(content)) for name, count, content in rows)

    def position(self, source: str) -> dict[str, str]:
        return dict(
            tuple(row) for row in self._db.execute("SELECT origin, mark FROM position WHERE source = ?", (source,))
        )

    def rejections(self, source: str | None = None, limit: int = 100) -> list[Rejection]:
        """Newest first, of one source or of all."""
        rows = self._db.execute(
            "SELECT origin, row, reason, text FROM quarantine WHERE ? IS NULL OR source = ? ORDER BY id DESC LIMIT ?",
            (source, source, limit),
        )
        return [Rejection(*row) for row in rows]

    def totals(self) -> dict[str, dict[str, int]]:
        """Source -> files, rows, rejections."""
        found = {
            source: {"files": files, "rows": rows, "rejections": 0}
            for source, files, rows in self._db.execute(
                "SELECT source, count(*), sum(rows) FROM lake_file GROUP BY source"
            )
        }
        for source, count in self._db.execute("SELECT source, count(*) FROM quarantine GROUP BY source"):
            found.setdefault(source, {"files": 0, "rows": 0})["rejections"] = count
        return found
