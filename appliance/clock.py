"""The only place that reads a clock; everything else is told the time.

`now` says when something was; people set it. `ticks` measures what this machine does: it stands while the machine is
suspended, so a run, a pause or a stall that the suspension fell into is no longer than it was, and nothing is late only
because nobody worked. By it go deadlines, timeouts, pauses between two tries and the watchdog. `elapsed` runs on
meanwhile, as the world does: by it go ages, and whether `now` was set (`edge.steady`), which a resume is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


def now() -> float:
    """Seconds since 1970, UTC."""
    return time.time()


def ticks() -> float:
    """Seconds of a clock that never jumps and stands while the machine is suspended, for deadlines."""
    return time.monotonic()


def elapsed() -> float:
    """Seconds of a clock that never jumps and runs on while the machine is suspended, for ages."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def worked() -> float:
    """Seconds that the processor worked for the thread that asks."""
    return time.thread_time()
