"""The broker that a device shares with its applications, where the site has none: started after HTTP, which needs none,
and tried again while the disk keeps it from starting."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from appliance import clock
from appliance.broker import Broker, local_config, write_passwords
from appliance.errors import Trouble
from appliance.settings import LocalBroker as Settings

log = logging.getLogger("falaj.edge")

AGAIN = 30.0  # seconds between two tries to start it
USERS = ("falaj", "app")  # the agent's own and the applications'


class LocalBroker:
    """The broker in `folder`, if the settings say that it is ours; of one that is not, nothing is done."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._broker: Broker | None = None
        self._due = math.inf  # when it is tried again, by `clock.ticks`

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
            self._broker, self._due = broker, math.inf

    def tend(self, *, disk_works: bool) -> None:
        """Starts what the disk kept from starting; nothing about it ends the agent, which answers already."""
        if clock.ticks() < self._due or not disk_works:
            return
        try:
            self.start()
        except Trouble as error:
            log.error("the local broker does not start: %s", error)
        if self._broker is None:
            self._due = clock.ticks() + AGAIN

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.stop()
