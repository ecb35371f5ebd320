"""How often something is told that a stranger can cause: a sensor that sends nonsense a thousand times a second must
not fill the broker with complaints about it, nor a hostile broker the outbox. Pure but for its own, bounded memory.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

BURST, PER_SECOND = 5, 0.1  # of one topic: five at once, then one in ten seconds
ALL_BURST, ALL_PER_SECOND = 50, 2.0  # of all together, for a stranger may invent topics
TOPICS = 1000  # that are remembered; the idlest is forgotten


@dataclass
class _Bucket:
    """Fills by `rate` a second up to `most`; what goes out takes one."""

    rate: float
    most: float
    level: float
    since: float
    missed: int = 0

    def take(self, now: float) -> bool:
        passed = now - self.since
        # A clock that was put back must not silence anybody until it has caught up.
        self.level = self.most if passed < 0 else min(self.most, self.level + passed * self.rate)
        self.since = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Complaints:
    """Counts what goes out on each topic, and what does not; `per_second` and `all_per_second` once the bursts are used
    up."""

    def __init__(self, per_second: float = PER_SECOND, all_per_second: float = ALL_PER_SECOND) -> None:
        self._per_second, self._all_per_second = per_second, all_per_second
        self._topics: OrderedDict[str, _Bucket] = OrderedDict()
        self._all: _Bucket | None = None

    def admit(self, topic: str, now: float, *, room: bool = True) -> int | None:
        """How many before it were kept back on this topic if this one may go out, None if it may not; where there is no
        `room` none may."""
        self._all = self._all or _Bucket(self._all_per_second, ALL_BURST, ALL_BURST, now)
        bucket = self._topics.setdefault(topic, _Bucket(self._per_second, BURST, BURST, now))
        self._topics.move_to_end(topic)
        if len(self._topics) > TOPICS:
            self._topics.popitem(last=False)
        if not (room and bucket.take(now) and self._all.take(now)):
            bucket.missed += 1
            return None
        missed, bucket.missed = bucket.missed, 0
        return missed
