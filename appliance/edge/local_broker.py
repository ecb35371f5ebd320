"""The broker that a device shares with its applications, where the site has none: started after HTTP, which needs none,
started anew when it ends, and tried again while something keeps it from starting."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from appliance import clock
from appliance.broker import Broker, local_config, write_passwords
from appliance.clock import Clock
from appliance.errors import Trouble
from appliance.settings import LocalBroker as Settings

log = logging.getLogger("falaj.edge")

AGAIN = 30.0  # seconds between two tries to start it
QUIET = 3600.0  # seconds for which its ends are counted once one was told: the outbox is for other things, too
USERS = ("falaj", "app")  # the agent's own and the applications'

Report = Callable[[str, str], None]  # event code, text


class LocalBroker:
    """The broker in `folder`, if the settings say that it is ours; of one that is not, nothing is done."""

    def __init__(self, folder: Path, settings: Settings, report: Report, ticks: Clock = clock.ticks) -> None:
        self._folder, self._settings, self._report, self._ticks = folder, settings, report, ticks
        self._broker: Broker | None = None
        self._due = math.inf  # when it is tried again, by `ticks`
        self._started = self._told = -math.inf
        self._ends = 0  # since one was told

    def password(self) -> str | None:
        """The agent's own, made at the first start."""
        if self._settings.managed and not (self._folder / "passwords").exists():
            write_passwords(self._folder, USERS)
        given = self._folder / "falaj.password" if self._settings.managed else self._settings.password_file
        return Path(given).read_text().strip() if given else None

    def start(self) -> None:
        """Raises Trouble where the port is taken; a disk that refuses is no reason not to answer."""
        port = self._settings.port
        if self._settings.managed:
            broker = Broker(self._folder, "127.0.0.1", port, "local_broker.port in edge.toml")
            try:
                broker.start(local_config(self._folder, port))
            except OSError as error:
                self._due = -math.inf
                log.error("the local broker does not start, HTTP serves without it: %s; check the disk", error)
                return
            self._broker, self._due, self._started = broker, math.inf, self._ticks()

    def tend(self, *, disk_works: bool) -> None:
        """Starts what something kept from starting, starts anew what has ended, and bounds the log of what runs;
        nothing about it ends the agent, which answers already."""
        if not disk_works:
            return
        if self._broker is not None:
            self._look_after(self._broker)
        if self._ticks() < self._due:
            return
        try:
            self.start()
        except Trouble as error:
            log.error("the local broker does not start: %s", error)
        if self._broker is None:
            self._due = self._ticks() + AGAIN

    def _look_after(self, broker: Broker) -> None:
        """One that ended is started anew at once; one that does not stay up, every AGAIN seconds."""
        if broker.alive():
            broker.look_after()
            return
        self._broker, self._due = None, self._started + AGAIN
        self._ends += 1
        if self._ticks() - self._told < QUIET:
            log.warning("the local broker ended again; its log is %s", broker.folder / "mosquitto.log")
            return
        often = f"; it ended {self._ends} times since that was told last" if self._ends > 1 else ""
        self._report("local-broker-ended", f"it is started anew{often}; its log is {broker.folder / 'mosquitto.log'}")
        self._told, self._ends = self._ticks(), 0

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.stop()
