"""The one way to wait for another thread, another process or a broker: to look again until it has happened.

Nothing is measured by it: the patience only bounds how long a test that fails takes to say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 20.0  # seconds


def eventually(done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Returns once `done`; fails after `patience` seconds, and says what it waited for."""
    end = time.monotonic() + patience
    while not done():
        assert time.monotonic() < end, f"waited {patience:g} s for {what}"
        time.sleep(0.01)
