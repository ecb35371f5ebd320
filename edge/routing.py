"""Which release of a split answers for an entity or a request's key: pure, the same on every start and offline.

Theory. A hash keyed by the split's seed puts every key at one of 10,000 places, and each arm has a stretch of places of
its own; all others are the incumbent's. A stretch that grows or ends takes from the incumbent, or gives back to it, and
moves nobody else. Seeds, and names of models, make splits independent of each other; each device has a seed of its own
(`sync.splits.seed_of`), because devices have the same names for other things. Who does not know it cannot choose a key
that leads to an arm.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from sync.messages import SHARES
from sync.names import ModelName

LONGEST = 256  # characters of a key


class Passing(str):
    """The key of a single question, its id: an arm answers by it, and nobody is followed by it (`edge.outcomes`). Who
    asks comes again under another one, so words of ids would be counted as if each were somebody."""


class Stretch(NamedTuple):
    """The places from `first` to before `end`, and the number of the release that answers for them."""

    first: int
    end: int
    release: int


@dataclass(frozen=True, slots=True)
class Routes:
    """The places of one split; `incumbent` answers wherever no stretch is."""

    model: ModelName
    seed: str
    incumbent: int
    stretches: tuple[Stretch, ...] = ()
    _hash: hashlib.blake2b = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        secret = hashlib.sha256(f"{self.model}|{self.seed}".encode()).digest()
        object.__setattr__(self, "_hash", hashlib.blake2b(digest_size=8, key=secret))

    def mark(self, key: str) -> int:
        """64 bits that stand for this key in this split, and tell nobody what it is."""
        keyed = self._hash.copy()
        keyed.update(key.encode(errors="surrogatepass"))
        return int.from_bytes(keyed.digest())

    def release(self, key: str) -> int:
        """The number of the release that answers for this key; without a key the incumbent does."""
        return self.at(self.mark(key) % SHARES) if key else self.incumbent

    def at(self, place: int) -> int:
        """The number of the release that has this place."""
        for first, end, release in self.stretches:
            if first <= place < end:
                return release
        return self.incumbent
