"""The only place that reads a clock; everything else is told the time."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


def now() -> float:
    """Seconds since 1970, UTC."""
    return time.time()


def ticks() -> float:
    """Seconds of a clock that never jumps, for durations."""
    return time.monotonic()
