"""One thread owns one walker: everything that happens to it goes through this queue, in order."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

log = logging.getLogger("falaj.pump")

EXIT_BROKEN = 70  # EX_SOFTWARE: a walker that raised cannot be trusted with the next message


class Pump:
    """Runs what it is given on its own thread; calls `tick` whenever `interval` seconds passed without one.

    An exception out of a walker is a programmer's mistake: it is logged and the process ends, so that whoever
    supervises it starts it anew from what is durable. `on_broken` is that end, injected so tests can see it.
    """

    def __init__(
        self, name: str, tick: Callable[[], None], interval: float, on_broken: Callable[[], None] | None = None
    ) -> None:
        self._tick, self._interval = tick, interval
        self._on_broken = on_broken or (lambda: os._exit(EXIT_BROKEN))
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Has `call` run on the pump's thread; the future holds what it returned."""
        future: Future[Any] = Future()
        self._queue.put((call, future))
        return future

    def stop(self) -> None:
        """Ends after what is queued."""
        self._queue.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=self._interval)
            except queue.Empty:
                item = (self._tick, Future())
            if item is None:
                return
            call, future = item
            try:
                future.set_result(call())
            except Exception as error:  # the process border: reported, then the process ends
                future.set_exception(error)
                log.exception("the walker broke")
                self._on_broken()
