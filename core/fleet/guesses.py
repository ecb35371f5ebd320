"""Who guesses at tokens: counted by where it comes from, and never against the token or who knows it.

A secret has 256 random bits, so guessing needs no limit to be hopeless; what needs one is the noise. A source may say
five wrong things an hour that are told, then once that it is a flood, then nothing; all sources together are as
limited, for addresses cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

HOUR = 3600.0  # seconds
TOLD = 5  # wrong attempts of one source in an hour that are told one by one
OF_ALL = 100  # of all sources together


class Word(Enum):
    """What is said of a wrong attempt."""

    TELL = "tell"
    FLOOD = "flood"  # the last that is said of this source, or of all, in this hour
    SILENT = "silent"


@dataclass
class Guesses:
    """Wrong attempts of this hour, by source; forgotten with the hour."""

    begun: float = float("-inf")
    told: int = 0
    of: dict[str, int] = field(default_factory=dict)

    def wrong(self, source: str, now: float) -> Word:
        """Counts one more of `source`."""
        if not 0 <= now - self.begun < HOUR:
            self.begun, self.told, self.of = now, 0, {}
        if self.told > OF_ALL:
            return Word.SILENT
        count = self.of[source] = self.of.get(source, 0) + 1
        if count > TOLD + 1:
            return Word.SILENT
        self.told += 1
        return Word.FLOOD if count > TOLD or self.told > OF_ALL else Word.TELL
