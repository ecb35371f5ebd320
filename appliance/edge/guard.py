"""Keeps an agent answering: ends what takes too long, remembers who crashed it, and has systemd act where all fails.

What a crash leaves behind lies in memory of the machine, not on a disk: it outlives the process and no power cut, so
that a power cut is never taken for a crash. A process that was killed from outside (SIGKILL, as for want of memory)
did not crash: only a fault of its own is written down, by Python's `faulthandler`.
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import mmap
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO

from appliance import clock
from appliance.edge.probing import PAUSE, Probe
from appliance.edge.state import EdgeFolder
from appliance.notify import notify
from appliance.processes import memory_meter
from appliance.pump import Pump
from edge.agent import House
from edge.agent.ports import Guarded
from edge.deadlines import Deadlines
from edge.marks import SIZE, Marks
from sync.names import Digest

log = logging.getLogger("falaj.edge")

SWEEP = 0.1  # seconds: how soon an answer that is late is stopped
STUCK = 10.0  # seconds an answer may be beyond its deadline, and a loop stand, before the watchdog is left to act
# ... and the walker: it loads models, asks them for their golden vectors, and waits for the disk however long it takes
STANDING = 300.0
FEED = 1.0  # seconds between two signs of life
_AT_FAULT = re.compile(rb"Current thread 0x([0-9a-f]{1,16}) ")  # as `faulthandler` writes it
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own in it, checked before it is used


class Guard:
    """The guard of one agent's process."""

    def __init__(self, folder: EdgeFolder, memory: Path = MEMORY) -> None:
        self._folder, self._place = folder, crash_folder(folder.root, memory)
        self._words: IO[bytes] | None = None
        self.crashed = False
        self.blamed = frozenset[Digest]()  # who was being asked by what was at fault, if the last process crashed
        self.deadlines = Deadlines(clock.ticks, self._open())
        self._pump = Pump("deadlines", self._sweep, SWEEP)
        self._probe: Probe | None = None
        self._asking = Pump("probe", self._ask, PAUSE)  # of its own: what hangs there must be ended by the other
        self._answers: Callable[[float], bool] = lambda within_s: False
        self._walked = self._fed = clock.ticks()

    def watch(self, house: House, models_mb: int, answers: Callable[[float], bool]) -> None:
        """Gives the walker what it judges releases on trial by; `answers` says whether we answered within so many
        seconds."""
        self._answers, self._probe = answers, Probe(house.serving, self.deadlines)
        house.guard = Guarded(self.deadlines, models_mb, memory_meter(), self._folder.hold.exists, self.blamed)

    def start(self) -> None:
        """From here on a fault of this process is written down."""
        try:
            self._words = (self._place / "died").open("ab", buffering=0)
            faulthandler.enable(self._words)
        except OSError as error:
            log.warning("a crash of the agent will not be written down: %s", error)
        self._pump.start()
        self._asking.start()

    def stop(self) -> None:
        """The end that was asked for; there was no crash, and nothing is left behind."""
        self._asking.stop()
        self._pump.stop()
        if self._words is not None:
            faulthandler.disable()
            self._words.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def walked(self) -> None:
        """The walker has been round once more."""
        self._walked = clock.ticks()

    def _sweep(self) -> None:
        """Ends what is late, and tells the service manager that we live, if we answer; it starts anew what does not."""
        self.deadlines.sweep()
        now = clock.ticks()
        if now - self._fed < FEED or now - self._walked >= STANDING:
            return
        predicts = self.deadlines.overdue() < STUCK and (self._probe is None or self._probe.answers())
        if predicts and self._answers(STUCK):
            self._fed = now
            notify("WATCHDOG=1")

    def _ask(self) -> None:
        if self._probe is not None:
            self._probe.ask()

    def _open(self) -> Marks:
        place = self._place
        try:
            _check(place)
            _clear(place)
            (place / "of").write_bytes(bytes(self._folder.root.absolute()))
            died = place / "died"
            words = died.read_bytes() if died.exists() else b""
            died.write_bytes(b"")
            with os.fdopen(os.open(place / "asked", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, SIZE)
                marks = Marks(mmap.mmap(file.fileno(), SIZE))
        except OSError as error:
            log.warning("which model crashed the agent will not be known: %s", error)
            return Marks(bytearray(SIZE))
        if words:
            log.error("the agent crashed: %s", words[:2000].decode(errors="replace"))
            thread = _AT_FAULT.search(words)
            self.crashed, self.blamed = True, marks.found(int(thread[1], 16) if thread else None)
        return marks


def crash_folder(root: Path, memory: Path = MEMORY) -> Path:
    """Where a crash of the agent with this state folder is written down."""
    return memory / f"falaj-{hashlib.sha256(bytes(root.absolute())).hexdigest()[:32]}"


def _check(place: Path) -> None:
    """Makes a folder that nobody else made or may write into; raises OSError."""
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"{place} is not ours alone: remove it")


def _clear(own: Path) -> None:
    """Takes away what agents left beside us that were killed and whose state folder is gone: none will begin there."""
    for place in own.parent.glob("falaj-*"):
        if place == own:
            continue
        try:
            found = place.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and not Path(os.fsdecode((place / "of").read_bytes())).exists():
                shutil.rmtree(place)
        except OSError as error:  # it cannot be told whose it is: it stays
            log.debug("%s stays: %s", place, error)
