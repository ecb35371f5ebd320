"""Brokers that this device turned away, because what answered did not prove to be its tenant's. Nothing was said to
them; the core hears of it on the next link there is. It may be forgotten: a restart begins to count anew."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Strangers:
    """Those met since that was told last."""

    times: int = 0
    since: float = 0.0  # when the first of them was met
    why: str = ""  # what was wrong with the last one

    def met(self, why: str, now: float) -> None:
        """One more was turned away."""
        self.since = self.since if self.times else now
        self.times, self.why = self.times + 1, why

    def told(self) -> None:
        """The core is told of all of them."""
        self.times = 0
