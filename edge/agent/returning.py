"""When the core came back, as its retained status says: what was said to nobody is said again then, not at the next
round of repetitions. Each device waits for a part of SPREAD of its own, so that a fleet does not speak at once."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from sync.messages import CoreStatus
from sync.names import DeviceId

SPREAD = 10.0  # seconds in which all devices of a fleet speak again


@dataclass
class CoreWord:
    """What the core said last of itself, and what follows from it."""

    word: tuple[str, float] | None = None  # its state, and when it said so
    came: float = -math.inf  # when this device heard that it is back ...
    due: float = -math.inf  # ... and when it says again what it had said before
    answered: float = -math.inf  # when a command of it was answered last

    def heard(self, status: CoreStatus, device: DeviceId, now: float) -> None:
        """A status of the core. The first one, and the same one again in another session, tells nothing new."""
        before, self.word = self.word, (status.state, status.ts)
        if status.state == "online" and before not in (None, self.word):
            self.came, self.due = now, now + SPREAD * share(device, status.ts)

    def again(self, last: float, now: float) -> bool:
        """Whether what was sent at `last` went to a core that was away, and it is this device's turn."""
        return last < self.came and now >= self.due


def share(device: DeviceId, ts: float) -> float:
    """The device's place among all, from 0 to 1: another one after each return, the same without any chance."""
    drawn = hashlib.sha256(f"{device}|{ts}".encode()).digest()
    return int.from_bytes(drawn[:4]) / 2**32
