"""The log of a child of ours, within a bound however long the child lives.

A broker outlives whoever started it, so no pipe to us may carry its words: it appends to a file, and whoever looks
after it cuts that file. What it has goes to `NAME.1`, in the place of what was there; then the file is emptied, and a
child that appends goes on at its beginning. So the two are never more than twice `most` bytes and what is written
between two looks. A line written between copy and cut is lost; a child that is told to open its log anew would lose
none, and would have to understand that: Mosquitto takes the same signal as the order to read its rules again.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger("falaj.log")

MOST = 4 * 1024 * 1024  # bytes of a log before it is cut


class ChildLog:
    """One log and the one before it, `{path}.1`. `bound` is to be called now and then, by one thread."""

    def __init__(self, path: Path, most: int = MOST) -> None:
        self.path, self._most = path, most
        self._refused = ""  # what the disk said last

    @property
    def before(self) -> Path:
        """Where the older lines lie."""
        return self.path.with_name(self.path.name + ".1")

    def bound(self) -> None:
        """Cuts the log if it has reached its size. A disk that refuses is told once; where it is full the older lines
        go, for they must not be what fills it."""
        try:
            if self.path.stat().st_size < self._most:
                return
            self._keep()
            os.truncate(self.path, 0)
            self._refused = ""
        except FileNotFoundError:
            return  # it has said nothing yet
        except OSError as error:
            if self._refused != str(error):
                self._refused = str(error)
                log.error("%s is not cut: %s", self.path, error)

    def _keep(self) -> None:
        """The newest `most` bytes of it, from the beginning of a line, under the other name; not worth a sync."""
        with self.path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - self._most)
            file.seek(start)
            content = file.read(self._most)
        new = self.before.with_name(self.before.name + ".new")
        try:
            with os.fdopen(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content.partition(b"\n")[2] if start else content)
            new.replace(self.before)
        except OSError as error:
            log.error("the older lines of %s are lost: %s", self.path, error)
            for left in (new, self.before):
                left.unlink(missing_ok=True)
