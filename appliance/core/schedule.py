"""What happens by the clock: APScheduler, in memory. A run that was missed happens once, late, never twice at once."""

from __future__ import annotations

from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler


class Schedule:
    """Repeated calls on a thread of its own; whoever needs a walker's thread submits to its pump."""

    def __init__(self) -> None:
        # Jobs live in this process only: a stored job would be pickled code.
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )

    def every(self, seconds: float, call: Callable[[], object]) -> None:
        """Calls it every so many seconds from `start` on."""
        self._scheduler.add_job(call, "interval", seconds=seconds)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """No further calls; one that runs is waited for."""
        self._scheduler.shutdown(wait=True)
