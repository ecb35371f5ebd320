"""Where faults happen: a device on a disk of its own, a tenant's broker, and a broker without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.broker import Broker, NoBroker, find, local_config, write_passwords
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from sync import topics
from sync.mqtt import Broker as At
from tests.attacks.ground import Ground, open_ground
from tests.edge.world import DEVICE, new_identity
from tests.faults.box import Box, new_box
from tests.faults.field import Wired, WiredCore
from tests.faults.proxy import CLEAR, FaultProxy, PacketFilter, Weather
from tests.faults.small_disk import small_disk


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with small_disk(tmp_path / "disk", 2048) as disk:
        one, two, three = free_ports(3)
        found = new_box(disk, tmp_path, (one, two, three))
        yield found
        if found.process is not None:
            found.end()


@dataclass
class Field:
    """A broker, a core that publishes on it, and one device."""

    folder: Path
    broker: Broker
    core: WiredCore
    device_at: At  # with the broker's own port

    @contextmanager
    def over(self, weather: Weather = CLEAR, packets: PacketFilter | None = None) -> Iterator[tuple[FaultProxy, Wired]]:
        """The device, switched on, its uplink over such a line."""
        folder = self.folder / "device"
        folder.mkdir()
        with FaultProxy(self.broker.port, weather, packets) as line:
            at = replace(self.device_at, port=line.port)
            device = Wired(self.core, folder, new_identity(self.core.root), at=at).boot()
            try:
                yield line, device
            finally:
                device.cut_power()


@pytest.fixture(scope="session")
def uplink_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = open_ground(tmp_path_factory.mktemp("uplink"))
    yield made
    made.broker.stop()


@pytest.fixture
def field(uplink_broker: Ground, tmp_path: Path) -> Iterator[Field]:
    """As it is run: TLS 1.3, certificates on both ends, the access rules. The proxy sees bytes."""
    ground = uplink_broker
    pair = enrolment.issue_core(ground.authority, ground.now)
    own = At("127.0.0.1", ground.broker.port, topics.CORE_NAME, ground.tls(pair.certificate, pair.key))
    at = At("127.0.0.1", ground.broker.port, DEVICE, ground.device_tls(DEVICE))
    made = Field(tmp_path, ground.broker, WiredCore().connect(own), at)
    yield made
    made.core.link.stop()


@pytest.fixture
def open_field(tmp_path: Path) -> Iterator[Field]:
    """On a listener without TLS, where the proxy can tell packets apart. No uplink is ever run like this."""
    try:
        find()
    except NoBroker as missing:
        pytest.skip(f"needs a broker: {missing}")
    (port,) = free_ports(1)
    place = tmp_path / "broker"
    write_passwords(place, ("app",))
    broker = Broker(place, "127.0.0.1", port, "a port of the test")
    broker.start(local_config(place, port))
    password = (place / "app.password").read_text()
    core = WiredCore().connect(At("127.0.0.1", port, "core", user="app", password=password))
    made = Field(tmp_path, broker, core, At("127.0.0.1", port, DEVICE, user="app", password=password))
    yield made
    made.core.link.stop()
    broker.stop()
