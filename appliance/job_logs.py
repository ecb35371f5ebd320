"""The logs of jobs: a file each, of the newest jobs."""

from __future__ import annotations

from pathlib import Path

KEPT = 100  # files


def job_log(folder: Path, job: int) -> Path:
    """Where a job that begins writes its log; those of the oldest jobs go, so that KEPT are left with it."""
    stems = (path.stem.removeprefix("job-") for path in folder.glob("job-*.log"))
    others = sorted({int(stem) for stem in stems if stem.isdecimal()} - {job})
    for old in others[: -(KEPT - 1)]:
        _log(folder, old).unlink(missing_ok=True)
    return _log(folder, job)


def _log(folder: Path, job: int) -> Path:
    return folder / f"job-{job}.log"
