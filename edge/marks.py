"""Which models are being asked right now, in memory that may outlive this process: what a crash leaves behind.

A graph can end the process that runs it (a division that the processor refuses, a fault in a kernel). Nothing is left
then to count an error; but whoever was being asked stands here when the next process begins. Several may stand here:
on a busy box the release that always answered well is in the middle of an answer whenever another one crashes. So each
mark says on which thread it is asked, for a fault has a thread; and whether it is late, for who stops a process that
hangs means what hangs.
"""

from __future__ import annotations

from mmap import mmap
from threading import get_ident

from sync.names import BadName, Digest

_DIGEST, _THREAD, _SLOT = 64, 8, 80  # bytes: a digest, a thread, whether it is late, and room
_LATE = _DIGEST + _THREAD
_SLOTS = 64  # questions that may be under way at once; more leave no mark
SIZE = _SLOT * _SLOTS
_NOTHING = bytes(_SLOT)


class Marks:
    """`memory` has SIZE bytes. Any thread may begin and end."""

    def __init__(self, memory: mmap | bytearray) -> None:
        slots = [bytes(memory[at : at + _SLOT]) for at in range(0, SIZE, _SLOT)]
        self._left = [(found, slot[_DIGEST:]) for slot in slots if (found := _digest(slot[:_DIGEST])) is not None]
        self._memory = memory
        self._memory[:SIZE] = bytes(SIZE)
        self._free = list(range(0, SIZE, _SLOT))

    def found(self, thread: int | None = None) -> frozenset[Digest]:
        """Who was being asked when the process before ended: by the thread that was at fault, if it was asking anybody,
        else whoever was late. Where that thread is not known, all of them."""
        if thread is None:
            return frozenset(found for found, _ in self._left)
        ident = thread.to_bytes(_THREAD, "little")
        asked = frozenset(found for found, rest in self._left if rest[:_THREAD] == ident)
        return asked or frozenset(found for found, rest in self._left if rest[_THREAD])

    def begin(self, digest: bytes) -> int:
        """A model (64 hex digits) is asked, on this thread; returns what `end` takes."""
        try:
            at = self._free.pop()
        except IndexError:
            return -1
        self._memory[at : at + _LATE] = digest + get_ident().to_bytes(_THREAD, "little")
        return at

    def late(self, at: int) -> None:
        """It takes longer than it may."""
        if at >= 0:
            self._memory[at + _LATE] = 1

    def end(self, at: int) -> None:
        """It answered, or refused to."""
        if at >= 0:
            self._memory[at : at + _SLOT] = _NOTHING
            self._free.append(at)


def _digest(left: bytes) -> Digest | None:
    """None for what no `begin` wrote: a process that faults may have written anywhere first."""
    try:
        return Digest(left.decode("ascii"))
    except (BadName, UnicodeDecodeError):
        return None
