"""A disk that refuses: what it said, when it is tried again, and what is told of it when it works.

Journal first: where a write raises, nothing has changed and nothing was asked for, so the walker may stop at any write
and begin anew from what it holds. Local serving needs no write at all.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LONGEST = 1.0, 30.0  # seconds until a disk is tried again, doubled each time


@dataclass
class Disk:
    """What the walker knows of the disk under its journal; `reason` is empty while it works."""

    reason: str = ""
    since: float = 0.0
    _until: float = 0.0
    _pause: float = 0.0

    def refused(self, error: Exception, now: float) -> None:
        """It refused a write, or a read."""
        if not self.reason:
            self.since = now
        elif self.waits(now):
            return
        self.reason = str(error)
        self._pause = min(2 * self._pause, LONGEST) if self._pause else FIRST
        self._until = now + self._pause

    def waits(self, now: float) -> bool:
        """Whether it is too early to try again; a clock that was set back keeps nobody waiting."""
        return bool(self.reason) and 0 < self._until - now <= LONGEST

    def works(self) -> None:
        """All that had waited is done."""
        self.reason, self._pause = "", 0.0
