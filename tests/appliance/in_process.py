"""A core whose parts are in this process, where a test can reach into them: the supervisor with its broker, and the
steward on it whose pump runs."""

from __future__ import annotations

from pathlib import Path

from appliance import clock
from appliance.core.node import CoreNode
from appliance.core.state import CoreFolder, open_keys, prepare
from appliance.core.steward import StewardNode
from appliance.demo.fleet import free_ports
from appliance.settings import CoreSettings, Ports
from sync.names import DEFAULT_TENANT


class CoreInProcess:
    """Nobody looks after anything by itself: that is what tests of it decide."""

    def __init__(self, root: Path) -> None:
        self.uplink, enrol, console = free_ports(3)
        settings = CoreSettings(ports=Ports(uplink=self.uplink, enrol=enrol, console=console))
        self.folder = CoreFolder(root, DEFAULT_TENANT)
        self.keys = open_keys(self.folder)
        prepare(self.folder, settings, self.keys, clock.now())
        self.node = CoreNode(self.folder, settings)
        self.node._start_broker()
        self.steward = StewardNode(self.folder, settings)
        self.steward.pump.start()
        self.steward._open_link()

    def end(self) -> None:
        self.steward.link.stop()
        self.steward.pump.stop()
        self.steward.server.server_close()
        self.steward.steward.house.catalog.close()
        self.node.broker.stop()
