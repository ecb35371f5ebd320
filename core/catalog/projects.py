"""What people declared (project files, newest last) and the jobs that came of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from core.project import Project
from sync import codec

_LIMIT = 4 * 1024 * 1024
LOST = "lost"  # in the result of a job that the core's end took with it


class Job(msgspec.Struct, frozen=True):
    """One piece of long work."""

    id: int
    kind: str
    subject: str
    state: str
    stage: str
    done: float
    created: float
    finished: float | None
    result: dict[str, Any]
    error: str
    hint: str


class Ended(msgspec.Struct, frozen=True):
    """A job that is over: when it began and ended, whether it did its work. `lost`: the core's end took it along;
    `vain`: it came to nothing by itself, or was lost twice in a row, as if it were what ends the core."""

    begun: float
    at: float
    done: bool
    lost: bool
    vain: bool


class Projects:
    """Shelf of projects and jobs."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._read: tuple[bytes, Project] | None = None  # the newest document, read once

    def apply(self, project: Project, folder: str, actor: str, now: float) -> int:
        """Stores a project file as the current one; returns its version."""
        cursor = self._db.execute(
            "INSERT INTO project (ts, actor, folder, document) VALUES (?, ?, ?, ?)",
            (now, actor, folder, codec.encode(project)),
        )
        return int(cursor.lastrowid)

    def current(self) -> tuple[Project, str] | None:
        """The newest project and the folder its paths are relative to."""
        row = self._db.execute("SELECT document, folder FROM project ORDER BY id DESC LIMIT 1").fetchone()
        if row is None:
            return None
        document = bytes(row[0])
        if self._read is None or self._read[0] != document:
            self._read = document, codec.decode(Project, document, _LIMIT)
        return self._read[1], row[1]

    def new_job(self, kind: str, subject: str, actor: str, now: float) -> int:
        cursor = self._db.execute(
            "INSERT INTO job (kind, subject, actor, state, created) VALUES (?, ?, ?, 'queued', ?)",
            (kind, subject, actor, now),
        )
        return int(cursor.lastrowid)

    def progress(self, job: int, stage: str, done: float) -> None:
        self._db.execute(
            "UPDATE job SET state = 'running', stage = ?, done = ? WHERE id = ? AND finished IS NULL",
            (stage, done, job),
        )

    def finish(self, job: int, now: float, result: dict[str, Any], error: str = "", hint: str = "") -> None:
        """Ends a job; an error makes it failed."""
        self._db.execute(
            "UPDATE job SET state = ?, done = 1, finished = ?, result = ?, error = ?, hint = ? WHERE id = ?",
            ("failed" if error else "done", now, json.dumps(result), error, hint, job),
        )

    def job(self, job: int) -> Job | None:
        row = self._db.execute("SELECT * FROM job WHERE id = ?", (job,)).fetchone()
        return _job(row) if row else None

    def jobs(self, limit: int = 50) -> list[Job]:
        """Newest first."""
        rows = self._db.execute("SELECT * FROM job ORDER BY id DESC LIMIT ?", (limit,))
        return [_job(row) for row in rows]

    def unfinished(self) -> list[Job]:
        rows = self._db.execute("SELECT * FROM job WHERE finished IS NULL ORDER BY id")
        return [_job(row) for row in rows]

    def last_ended(self, kind: str, subject: str, actor: str | None = None) -> Ended | None:
        """The newest job that ended, of all or of those that `actor` started."""
        rows = self._db.execute(
            "SELECT created, finished, state = 'done', json_extract(result, ?) IS NOT NULL FROM job WHERE kind = ? AND"
            " subject = ? AND (? IS NULL OR actor = ?) AND finished IS NOT NULL ORDER BY id DESC LIMIT 2",
            (f"$.{LOST}", kind, subject, actor, actor),
        ).fetchall()
        if not rows:
            return None
        begun, at, done, lost = rows[0]
        twice = all(row[3] for row in rows) and len(rows) == 2
        return Ended(begun, at, bool(done), bool(lost), not done and (not lost or twice))


def _job(row: Any) -> Job:
    return Job(
        row["id"], row["kind"], row["subject"], row["state"], row["stage"], row["done"], row["created"],
        row["finished"], json.loads(row["result"]), row["error"], row["hint"],
    )  # fmt: skip
