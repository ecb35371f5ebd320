"""Which chunks to ask for next: pure bookkeeping of a window over one blob.

Theory. Asking is subscribing to a retained chunk topic; the answer comes at once, or never (the broker does not
have it). The window starts at 4, grows by one a chunk that came up to 16, and is halved on a stall (no chunk for
`STALL` seconds, or twice the pace of a slow line). A stall does not tell a slow or frozen line from a lost chunk,
and to ask for all again doubles what a slow line has to carry. But a session answers in the order it is asked: a chunk
that a later one has overtaken is lost, and is asked for again; where none is, one chunk more is asked for, behind all
others, to find out. `missing` is what the core is told: what is known to be lost, after a second stall in a row all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from sync import chunks
from sync.manifest import Blob

START, TOP = 4, 16  # chunks under way at once
FEW = 2  # the window is filled up when half of it is free: a packet and its answer for a few chunks, not for each
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
    last: float = 0.0  # time of the last progress, or of the last stall
    _pace: float = 0.0  # seconds between two chunks, by the slowest of late
    _came: float = 0.0  # time of the last progress
    _turns: dict[int, int] = field(default_factory=dict)  # chunk -> when it was last asked for, as a running number
    _turn: int = 0
    _answered: int = 0  # the latest turn that was answered
    _wrong: bool = False  # the newest that came was
    _first: int = 0  # all chunks before this one are here
    _lost: frozenset[int] = frozenset()  # as of the last stall

    @property
    def done(self) -> bool:
        return len(self.have) == len(self.blob.hashes)

    @property
    def missing(self) -> tuple[int, ...]:
        """What the core should publish again; known only after a stall."""
        return tuple(sorted(self._lost & self.asked)) if self.stalls else ()

    def ask(self, now: float, most: int) -> tuple[int, ...]:
        """Chunks to subscribe to now, to fill the window: `most` at most."""
        if not self.asked:
            self.last = self._came = now
        room = self.window - len(self.asked)
        return self._ask(min(room, most)) if room >= self.window // FEW or not self.asked else ()

    def arrived(self, index: int, payload: bytes, now: float) -> bool:
        """Whether the chunk is right and lacking; a wrong one changes nothing.

        A right one that was not asked for counts too: it may have been on its way when the link came back.
        """
        if index in self.have or not chunks.fits(self.blob, index, payload):
            return False
        self.asked.discard(index)
        self.have.add(index)
        self.window = min(TOP, self.window + 1)
        self._answered = max(self._answered, self._turns.get(index, 0))
        self._pace = max(now - self._came, self._pace / 2)
        self.stalls, self.last, self._came, self._wrong = 0, now, now, False
        return True

    def first_wrong(self) -> bool:
        """Whether a wrong chunk is the first since a right one came: whoever sends them without end is told of once."""
        first, self._wrong = not self._wrong, True
        return first

    def refused(self, index: int) -> None:
        """The disk did not take this chunk: it counts as asked for, so it comes again after a stall, not at once."""
        self.have.discard(index)
        self.asked.add(index)
        self._first = min(self._first, index)

    def stalled(self, now: float, most: int) -> tuple[int, ...]:
        """The chunks to ask for again (subscribe anew) after a stall, `most` at most; empty while things move."""
        if now < self.last:  # the clock was set back: what was measured by it is no duration
            self.last = self._came = now
        patience = min(LONGEST, max(STALL, 2 * self._pace) * 2 ** min(self.stalls, 10))
        if not self.asked or not most or now - self.last < patience:
            return ()
        self.window = max(1, self.window // 2)
        self.stalls, self.last = self.stalls + 1, now
        again = self._overtaken()
        self._lost = frozenset(again if self.stalls == 1 else self.asked)
        if not again:
            fresh = self._ask(1) if self.stalls == 1 else ()
            again = fresh or (max(self.asked, key=self._when),)
        again = again[:most]
        for index in again:
            self._asking(index)
        return again

    def _ask(self, count: int) -> tuple[int, ...]:
        while self._first in self.have:
            self._first += 1
        lacking = (i for i in range(self._first, len(self.blob.hashes)) if i not in self.have and i not in self.asked)
        fresh = tuple(islice(lacking, max(0, count)))
        for index in fresh:
            self._asking(index)
        return fresh

    def _asking(self, index: int) -> None:
        self._turn += 1
        self._turns[index] = self._turn
        self.asked.add(index)

    def _when(self, index: int) -> int:
        return self._turns.get(index, 0)

    def _overtaken(self) -> tuple[int, ...]:
        """Chunks asked for before one that has come; or that came, and the disk refused."""
        return tuple(sorted(i for i in self.asked if self._when(i) <= self._answered))
