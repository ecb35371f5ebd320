"""What a site's line may carry down: chunks within a budget of the day and at a rate. All else goes at once: an
assignment, trust files, alarms and reports are small, and late they would be worth nothing.

Theory. A chunk is paid for when it is asked for, for the answer comes whether it is still wanted or not; one that a
cut line lost is paid for again, as the line carries it again. So the budget bounds what the broker is made to send.
Days are of UTC. A rate is kept by waiting: so many chunks are asked for at once as it carries in a second, at least
one, and no more before it has had time to carry them.
"""

from __future__ import annotations

from edge.budget import DAY, Budget
from sync.link import LineReport

ACCOUNT = "chunks down"  # in the accounts of the day; no model can bear this name
BURST = 1.0  # seconds of the rate that are asked for at once
_ANY = 2**53  # chunks: more than any blob has


class Meter:
    """The limits of one line; without any it lets everything through and keeps no account. Used by one thread."""

    def __init__(self, daily_bytes: int = 0, bytes_per_second: int = 0, budget: Budget | None = None) -> None:
        self.daily, self.rate, self._budget = daily_bytes, bytes_per_second, budget
        self.waits = False  # for tomorrow
        self._free = float("-inf")  # when the line has had time for what was asked for
        self._last = 0.0  # seconds that the last of it takes

    def room(self, chunk: int, now: float) -> int:
        """How many chunks of `chunk` bytes may be asked for now."""
        most = _ANY
        if self.rate:
            if self._free - now > self._last:  # the clock was set back
                self._free = now
            most = max(1, int(self.rate * BURST) // chunk) if now >= self._free else 0
        if self.daily and self._budget is not None:
            left = self.daily - self._budget.spent(ACCOUNT, int(now // DAY))
            self.waits = left < chunk
            most = min(most, max(0, left // chunk))
        return most

    def pay(self, size: int, now: float) -> bool:
        """Before `size` bytes are asked for; false if that cannot be written: then they are not."""
        if self.daily and self._budget is not None and not self._budget.spend(ACCOUNT, int(now // DAY), size):
            return False
        if self.rate:
            self._last = size / self.rate
            self._free = now + self._last
        return True

    def told(self, now: float) -> bool:
        """Whether it was told today, also before a restart, that the day's budget is spent; notes that it is now."""
        return self._budget is None or not self._budget.exhausted(ACCOUNT, int(now // DAY))

    def report(self, now: float) -> LineReport | None:
        """For the core and for people; None without limits."""
        if not (self.daily or self.rate):
            return None
        spent = self._budget.spent(ACCOUNT, int(now // DAY)) if self.daily and self._budget else 0
        return LineReport(spent, self.daily, self.rate, self.waits)
