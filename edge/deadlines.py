"""Runs that are under way, and until when: one that is late is told to stop, and is known as late until it does.

A graph may go on for ever on an input that its proof never saw. onnxruntime looks at the flag between two operators,
also inside loops: an endless graph ends at once, a single long operator when it is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edge.marks import SIZE, Marks


class Stoppable(Protocol):
    """What ends a run when its flag is set."""

    terminate: bool


Run = tuple[float, Stoppable, object, int]  # (until, how to end it, whose it is, its mark)


class Deadlines:
    """The runs of one process. Any thread begins and ends them; `sweep` belongs to one, and is called often.

    `clock` is in seconds since anything and never jumps. `marks` are left by runs that end the process.
    """

    def __init__(self, clock: Callable[[], float], marks: Marks | None = None) -> None:
        self._clock = clock
        self._marks = marks or Marks(bytearray(SIZE))
        self._runs: dict[int, Run] = {}

    def begin(self, stop: Stoppable, owner: object, digest: bytes, seconds: float) -> None:
        """A run of `owner`, of the model with this digest (64 hex digits), begins; `stop.terminate` is set when it
        takes longer than `seconds`."""
        self._runs[id(stop)] = (self._clock() + seconds, stop, owner, self._marks.begin(digest))

    def end(self, stop: Stoppable) -> None:
        """The run has ended."""
        *_, mark = self._runs.pop(id(stop))
        self._marks.end(mark)

    def accuse(self, digest: bytes) -> int:
        """This model (64 hex digits) answers no more, and no run of it need be under way: whoever ends the process
        means it, until `acquit` is given what this returns."""
        mark = self._marks.begin(digest)
        self._marks.late(mark)
        return mark

    def acquit(self, mark: int) -> None:
        """It answers again, or is gone."""
        self._marks.end(mark)

    def sweep(self) -> None:
        """Tells every run that is late to stop."""
        now = self._clock()
        for until, stop, _, mark in list(self._runs.values()):
            if now >= until:
                stop.terminate = True
                self._marks.late(mark)

    def late(self, owner: object) -> int:
        """How many runs of `owner` are beyond their time and go on all the same."""
        now = self._clock()
        return sum(1 for until, _, whose, _ in list(self._runs.values()) if whose is owner and now >= until)

    def overdue(self) -> float:
        """Seconds that the latest of all runs is beyond its time; nought if none is."""
        now = self._clock()
        return max([0.0, *(now - until for until, *_ in list(self._runs.values()))])


def standing() -> float:
    """A clock that stands: nothing is ever late."""
    return 0.0
