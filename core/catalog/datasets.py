"""What landed in the lake, how far each source was read, and what was turned away."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from core.handoffs import LakeFile, Landed, Merged, Rejection
from sync.names import Digest

KEPT = 100_000  # rejections of one source: devices send theirs without end

MANY = 16  # small files of a day from which on they become one
SMALL = 250_000  # rows of a small one: whatever lands, it is written a few times more at most
AT_ONCE = 500_000  # rows that become one file: a job holds them in memory
MOST = 2_000  # files that one job merges or removes


def crowded(files: Iterable[LakeFile]) -> tuple[tuple[LakeFile, ...], ...]:
    """The small files of each day that has many of them, in order of name, as far as one job takes them on."""
    days: dict[str, list[LakeFile]] = {}
    for file in sorted(files, key=lambda f: f.name):
        if file.rows < SMALL:
            days.setdefault(file.name.partition("/")[0], []).append(file)
    found: list[tuple[LakeFile, ...]] = []
    left = MOST
    for small in days.values():
        rows = accumulate(file.rows for file in small)
        group = tuple(file for file, total in zip(small, rows, strict=True) if total <= AT_ONCE)[:left]
        if len(small) >= MANY and len(group) > 1:
            found.append(group)
            left -= len(group)
    return tuple(found)


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

        for merged in landed.merged:
            self._merge(landed.source, merged, job)
        self._db.executemany(
            "DELETE FROM lake_outdated WHERE source = ? AND name = ?",
            [(landed.source, name) for name in (*landed.removed, *(f.name for f in landed.files))],
        )

    def _merge(self, source: str, merged: Merged, job: int) -> None:
        """One file in the place of others; it is removed itself, if one of these is not named here any more."""
        known = {file.name for file in self.files(source)}
        if merged.file.name in known:
            return
        file, gone = merged.file, [(source, name) for name in merged.replaces]
        if not known.issuperset(merged.replaces):
            self._leave(source, [file.name])
            return
        self._db.execute(
            "INSERT INTO lake_file VALUES (?, ?, ?, ?, ?)", (source, file.name, file.rows, file.content, job)
        )
        self._db.executemany("DELETE FROM lake_file WHERE source = ? AND name = ?", gone)
        self._db.execute("DELETE FROM lake_outdated WHERE source = ? AND name = ?", (source, file.name))
        self._leave(source, merged.replaces)

    def _leave(self, source: str, names: Iterable[str]) -> None:
        """These files are named by no list from now on; a later run of the source removes them."""
        self._db.executemany(
            "INSERT OR REPLACE INTO lake_outdated SELECT ?, ?, coalesce(max(id), 0) FROM job",
            [(source, name) for name in names],
        )

    def outdated(self, source: str) -> tuple[str, ...]:
        """Files that others stand for, and that no training under way was given."""
        rows = self._db.execute(
            "SELECT name FROM lake_outdated AS o WHERE source = ? AND NOT EXISTS"
            " (SELECT 1 FROM job WHERE kind = 'train' AND finished IS NULL AND id <= o.job) ORDER BY name LIMIT ?",
            (source, MOST),
        )
        return tuple(str(name) for (name,) in rows)

    def files(self, source: str) -> tuple[LakeFile, ...]:
        rows = self._db.execute("SELECT name, rows, content FROM lake_file WHERE source = ? ORDER BY name", (source,))
        return tuple(LakeFile(name, count, Digest(content)) for name, count, content in rows)

    def has_files(self, source: str) -> bool:
        """Whether anything of this source has landed."""
        return self._db.execute("SELECT 1 FROM lake_file WHERE source = ? LIMIT 1", (source,)).fetchone() is not None

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
