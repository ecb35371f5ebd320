"""A session that is opened anew, with other certificates, while its messages come in."""

from __future__ import annotations

import threading
from collections.abc import Callable

from appliance.pump import Pump


class Reopening:
    """`stop` ends the session of before, `start` opens the next one on the pump's thread.

    It is ended on a thread of its own: that waits for the link's thread, which may itself wait for room in the pump.
    One after another, however often it is asked for: two sessions of one name would end each other for good.
    """

    def __init__(self, pump: Pump, stop: Callable[[], None], start: Callable[[], None]) -> None:
        self._pump, self._stop, self._start = pump, stop, start
        self._turn = threading.Lock()

    def ask(self) -> None:
        """Returns at once; from any thread."""
        threading.Thread(target=self._run, name="reopen", daemon=True).start()

    def _run(self) -> None:
        with self._turn:
            self._stop()
            self._pump.submit(self._start).result()
