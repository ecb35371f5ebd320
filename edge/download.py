"""Which chunks to ask for next: pure bookkeeping of a window over one blob.

Theory. Asking is subscribing to a retained chunk topic; the answer comes at once, or never (the broker does not
have it). The window starts at 4, grows by one a chunk that came up to 16, and is halved on a stall (no chunk for
`STALL` seconds): then all that was asked for is `missing`, told to the core, and asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sync import chunks
from sync.manifest import Blob

START, TOP = 4, 16  # chunks under way at once
STALL = 5.0  # seconds without a chunk, doubled per stall in a row up to LONGEST
LONGEST = 300.0


@dataclass
class Download:
    """One blob under way."""

    blob: Blob
    have: set[int]
    asked: set[int] = field(default_factory=set)
    window: int = START
    stalls: int = 0
    last: float = 0.0  # time of the last progress

    @property
    def done(self) -> bool:
        return len(self.have) == len(self.blob.hashes)

    @property
    def missing(self) -> tuple[int, ...]:
        """What the core should publish again; known only after a stall."""
        return tuple(sorted(self.asked - self.have)) if self.stalls else ()

    def ask(self, now: float) -> tuple[int, ...]:
        """Chunks to subscribe to now, to fill the window."""
        lacking = (i for i in range(len(self.blob.hashes)) if i not in self.have and i not in self.asked)
        room = self.window - len(self.asked)
        fresh = tuple(i for _, i in zip(range(max(0, room)), lacking, strict=False))
        if fresh and not self.asked:
            self.last = now
        self.asked.update(fresh)
        return fresh

    def arrived(self, index: int, payload: bytes, now: float) -> bool:
        """Whether the chunk is right and lacking; a wrong one changes nothing.

        A right one that was not asked for counts too: it may have been on its way when the link came back.
        """
        if index in self.have or not chunks.fits(self.blob, index, payload):
            return False
        self.asked.discard(index)
        self.have.add(index)
        self.window = min(TOP, self.window + 1)
        self.stalls, self.last = 0, now
        return True

    def refused(self, index: int) -> None:
        """The disk did not take this chunk: it counts as asked for, so it comes again after a stall, not at once."""
        self.have.discard(index)
        self.asked.add(index)

    def stalled(self, now: float) -> tuple[int, ...]:
        """The chunks to ask for again (unsubscribe, subscribe) after a stall; empty while things move."""
        if now < self.last:  # the clock was set back: what was measured by it is no duration
            self.last = now
        patience = min(LONGEST, STALL * 2 ** min(self.stalls, 10))
        if not self.asked or now - self.last < patience:
            return ()
        self.window = max(1, self.window // 2)
        self.stalls, self.last = self.stalls + 1, now
        return tuple(sorted(self.asked))
