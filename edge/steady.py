"""Since when the machine's clock can tell ages: it jumps where somebody sets it, and what it said before is unclear."""

from __future__ import annotations

from typing import NamedTuple

from edge.states import CLOCK_FLOOR

JUMP = 60.0  # seconds by which a clock may leave the ticks, in all, before that is a jump


class Run(NamedTuple):
    """A time in which the clock went as the ticks do, since `began`. What it said from `right` on was right, too."""

    right: float
    began: float


class Steady:
    """The runs of a clock; used by one thread, and shown the clock often."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._ticks = 0.0  # when the run began
        self._first = True

    def look(self, now: float, ticks: float, *, vouched: bool) -> Run:
        """The run that this look is in; a new one at the first look, and after a jump in either direction.

        `now` in seconds since 1970, `ticks` of a clock that never jumps and runs on while the machine is suspended: one
        that stood meanwhile would make a jump of every resume. `vouched`: somebody signed that it may be this
        late. Only the first run believes what was written in the time before it: in a later one the clock was just set.
        """
        run = self._run
        if run is None or abs(now - run.began - (ticks - self._ticks)) > JUMP:
            run = self._run = Run(CLOCK_FLOOR if vouched and self._first else now, now)
            self._ticks, self._first = ticks, False
        return run

    def stop(self) -> None:
        """The clock cannot be right now."""
        self._run = None
