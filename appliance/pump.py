"""One thread owns one walker: everything that happens to it goes through this queue, in order."""

from __future__ import annotations

import gc
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from appliance import clock
from appliance.clock import Clock

log = logging.getLogger("falaj.pump")

BACKLOG = 64  # messages from outside that may wait; each may have what the broker lets through
BREATH = 0.001  # seconds
EXIT_BROKEN = 70  # EX_SOFTWARE: a walker that raised cannot be trusted with the next message


def breathe() -> None:
    """A pause between slices of work that nobody waits for.

    Whoever computes keeps the interpreter's lock for up to 5 ms, and whoever answers lets go of it at every system
    call: without pauses each of those would cost the answers that long.
    """
    time.sleep(BREATH)


def settled() -> None:
    """Called once a process is whole: what it was made of stays, so the collector need not look at it again and again.

    A look at all that a start makes (modules, sessions, keys) takes some 25 ms, in which nobody is answered, and one
    came every few ten thousand answers (`gc.freeze` in Python's documentation).
    """
    gc.freeze()


class Pump:
    """Runs what it is given on its own thread; calls `tick` every `interval` seconds, however busy it is.

    An exception out of a walker is a programmer's mistake: it is logged and the process ends, so that whoever
    supervises it starts it anew from what is durable. `on_broken` is that end, injected so tests can see it. `rest` is
    called after every call, where none of them is urgent.
    """

    def __init__(
        self,
        name: str,
        tick: Callable[[], None],
        interval: float,
        on_broken: Callable[[], None] | None = None,
        ticks: Clock = clock.ticks,
        rest: Callable[[], None] | None = None,
    ) -> None:
        self._tick, self._interval, self._ticks, self._rest = tick, interval, ticks, rest
        self._on_broken = on_broken or (lambda: os._exit(EXIT_BROKEN))
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._room = threading.BoundedSemaphore(BACKLOG)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Has `call` run on the pump's thread; the future holds what it returned."""
        future: Future[Any] = Future()
        self._queue.put((call, future))
        return future

    def post(self, call: Callable[[], Any]) -> None:
        """Like `submit`, for what strangers send: waits while BACKLOG such calls are queued, so that a flood fills the
        sender's line and not our memory. Never from the pump's own thread."""
        while not self._room.acquire(timeout=1.0):
            if self._ended.is_set():
                return

        def work() -> None:
            self._room.release()
            call()

        self.submit(work)

    def stop(self) -> None:
        """Ends after what is queued."""
        self._ended.set()
        self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(10)

    def _run(self) -> None:
        due = self._ticks() + self._interval
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, due - self._ticks()))
            except queue.Empty:
                pass  # nothing came: the tick below is due
            else:
                if item is None:
                    return
                self._do(*item)
                if self._rest is not None:
                    self._rest()
            if self._ticks() >= due:
                self._do(self._tick, Future())
                due = self._ticks() + self._interval

    def _do(self, call: Callable[[], Any], future: Future[Any]) -> None:
        try:
            future.set_result(call())
        except Exception as error:  # the process border: reported, then the process ends
            future.set_exception(error)
            log.exception("the walker broke")
            self._on_broken()
