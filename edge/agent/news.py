"""What is remembered of signed metadata while it comes in: the files that are here, what of them is new, and how far
the search for those of a release is. A restart forgets it all: the root comes back from the journal, the rest from the
broker."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from sync.errors import SyncError
from sync.names import Digest, ModelName

MOST_REFUSED = 32  # different refusals of trust files that are told


@dataclass
class News:
    """Signed metadata that came and was not looked at for revocations yet."""

    unread: bool = False
    came: int = 0  # files that came and were other than those held
    asked: dict[str, float] = field(default_factory=dict)  # when those that have not come were asked for last
    again: float = 0.0  # when it is looked at once more after files that do not hold
    refused: set[str] = field(default_factory=set)  # what was told of files that do not hold, since some last did

    def first(self, error: SyncError) -> bool:
        """Whether this refusal was not told yet, and may be."""
        if str(error) in self.refused or len(self.refused) >= MOST_REFUSED:
            return False
        self.refused.add(str(error))
        return True


@dataclass
class Hunt:
    """The search for the trust files of one release that is assigned."""

    since: float  # when what lacks began to be waited for
    tried: tuple[Digest, int] | None = None  # the release and `News.came` for which the files were last read
    again: float = math.inf  # when the same files are read once more


@dataclass
class Trust:
    """Whom this device believes, the trust files that came, and the orders that do not count for now."""

    folder: Path  # where the metadata that held is kept
    root: bytes = b""  # the newest root this device trusts
    files: dict[str, bytes] = field(default_factory=dict)  # that arrived
    index: tuple[str, ...] = ()  # the names of all there are; a hint
    news: News = field(default_factory=News)
    hunts: dict[ModelName, Hunt] = field(default_factory=dict)  # for the files of what is assigned
    ended: tuple[bytes, float] | None = None  # the last order that had expired by this clock, and when it did
    void: bytes = b""  # the order of a director that was replaced just now; the broker may still have it

    def forget(self) -> None:
        """The files do not hold: all are asked for again."""
        self.files.clear()
        self.news.asked.clear()

    def look_anew(self) -> None:
        """The clock was set back: nothing waits for a time that is far off now."""
        self.news = News(unread=True)
        self.hunts.clear()
