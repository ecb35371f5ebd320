"""The newest lines of this process's log, in memory: what a person far away would read first. The log itself goes where
it always went."""

from __future__ import annotations

import logging
from collections import deque

LINES = 300
LONGEST = 500  # characters of a line that are kept


class LogTail(logging.Handler):
    """Keeps the newest lines of the loggers it was added to; any thread may log, any may read."""

    def __init__(self, lines: int = LINES) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._kept: deque[str] = deque(maxlen=lines)

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(self.format(record)[:LONGEST])

    def lines(self) -> tuple[str, ...]:
        """Oldest first."""
        return tuple(self._kept.copy())
