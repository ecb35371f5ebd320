"""The one way to wait for another thread, another process or a broker: to look again until it has happened. And the one
way to have something go on beside a test, or not beside it.

Nothing is measured by it: the patience only bounds how long a test that fails takes to say so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

PATIENCE = 20.0  # seconds


def eventually(done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Returns once `done`; fails after `patience` seconds, and says what it waited for."""
    end = time.monotonic() + patience
    while not done():
        assert time.monotonic() < end, f"waited {patience:g} s for {what}"
        time.sleep(0.01)


@contextmanager
def meanwhile(act: Callable[[], object], every: float = 0.0) -> Iterator[None]:
    """Does `act` again and again on a thread of its own, `every` so many seconds, until the block ends."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(every):
            act()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def at_once(call: Callable[[], Any]) -> Future[Any]:
    """For who hands work to another thread: the one thread there is does it here and now."""
    done: Future[Any] = Future()
    done.set_result(call())
    return done
