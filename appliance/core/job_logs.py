"""The logs of jobs: a file each, of the newest jobs and of those that still run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

KEPT = 100  # files


def job_log(folder: Path, job: int, unfinished: Collection[int] = ()) -> Path:
    """Where a job that begins writes its log; those of the oldest jobs go, so that KEPT are left with it, and those of
    `unfinished` ones: a training may see hundreds of short jobs come and go."""
    stems = (path.stem.removeprefix("job-") for path in folder.glob("job-*.log"))
    others = sorted({int(stem) for stem in stems if stem.isdecimal()} - {job, *unfinished})
    for old in others[: -(KEPT - 1)]:
        _log(folder, old).unlink(missing_ok=True)
    return _log(folder, job)


def _log(folder: Path, job: int) -> Path:
    return folder / f"job-{job}.log"
