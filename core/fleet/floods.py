"""How much one device may say: a bucket of tokens each, so that none takes the others' place, nor the core's time.

A word that is good costs one token, a report REPORT, and a word that comes to nothing COST more, for an honest device
has none of those to speak of and thousands of the others after a long time alone. Who has no token left is not read:
records come again until they are acknowledged, and the broker keeps the newest report, so an honest device loses time
by it and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

ROOM = 20_000.0  # tokens of a full bucket: more records than an outbox holds
RATE = 200.0  # tokens a second that come back: an honest device says less, and of good words a core commits a thousand
REPORT = 20.0  # tokens of a report: its signature is verified, and the rollouts may follow from it
COST = 10.0  # tokens of a word that came to nothing, beside the one it cost to read
TOLD_EVERY = 3600.0  # seconds
KNOWN = 10_000  # names that are remembered; all are forgotten when more come


class Hearing(Enum):
    """What becomes of a word."""

    READ = "read"
    TELL = "tell"  # not read, and that is an event
    DROP = "drop"


def words(name: str) -> str:
    """What is told of whoever said too much."""
    return (
        f"{name} says more than an honest device does, and is not read for now: look at its log, or end it by "
        f"`falaj device revoke {name} --reason TEXT`"
    )


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    told: float = float("-inf")


@dataclass
class Floods:
    """The buckets of all devices, by name; a full one holds `room` tokens."""

    room: float = ROOM
    of: dict[str, _Bucket] = field(default_factory=dict)

    def hear(self, name: str, now: float, price: float = 1.0) -> Hearing:
        """Takes the tokens of one word."""
        bucket = self._bucket(name, now)
        if bucket.tokens >= price:
            bucket.tokens -= price
            return Hearing.READ
        if 0 <= now - bucket.told < TOLD_EVERY:
            return Hearing.DROP
        bucket.told = now
        return Hearing.TELL

    def vain(self, name: str, now: float) -> None:
        """The word came to nothing."""
        self._bucket(name, now).tokens -= COST

    def _bucket(self, name: str, now: float) -> _Bucket:
        bucket = self.of.get(name)
        if bucket is None:
            if len(self.of) >= KNOWN:
                self.of.clear()
            bucket = self.of[name] = _Bucket(self.room, now)
        # A clock that was put back gives nothing, and takes nothing.
        bucket.tokens = min(self.room, bucket.tokens + RATE * max(0.0, now - bucket.at))
        bucket.at = now
        return bucket
