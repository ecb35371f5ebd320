"""Where faults happen: a device on a disk of its own, a tenant's broker, and a broker without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from appliance.broker import Broker, NoBroker, find, write_passwords
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from sync import topics
from sync.mqtt import Broker as At
from tests.attacks.ground import Ground, open_ground
from tests.core.world import World
from tests.edge import graphs
from tests.edge.bound import BINDING
from tests.edge.bound import Box as Bound
from tests.edge.device import Device, serving_device
from tests.edge.world import DEVICE, Core
from tests.faults.box import Box, new_box
from tests.faults.field import Field, WiredCore
from tests.faults.ledger import Ledger
from tests.faults.plain_broker import plain_config
from tests.faults.small_disk import small_disk
from tests.faults.tenant import Tenant, prepare


@pytest.fixture
def device(ram: Path) -> Device:
    """In this process: release 1 is committed and answers; the events so far are acknowledged."""
    return serving_device(Core(), ram)


@pytest.fixture
def tenant(ram: Path) -> Iterator[Tenant]:
    """A core and a device on a line in memory, and the books of what they may and may not do."""
    made = prepare(ram / "made")
    found = made.copy(ram / "life", Random(1))
    found.ledger = Ledger(found, made.artifacts)  # type: ignore[attr-defined]
    yield found
    found.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A core that knows the device."""
    made = World(tmp_path / "core").ready()
    made.enrol(DEVICE)
    yield made
    made.catalog.close()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Bound]:
    """The local side of a device, on which a model listens to sensors."""
    box = Bound(tmp_path / "buffers.db")
    box.go_live(graphs.manifest(1, (BINDING,)))
    yield box
    box.buffers.close()


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    """On a disk of 2 MiB, or of as many kilobytes as the test says."""
    with small_disk(tmp_path / "disk", getattr(request, "param", 2048)) as disk:
        one, two, three = free_ports(3)
        found = new_box(disk, tmp_path, (one, two, three))
        yield found
        if found.process is not None:
            found.end()


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
    """On a listener without TLS, where the proxy can tell packets apart; no uplink is ever run like this. Its broker
    keeps its store as a tenant's does."""
    try:
        find()
    except NoBroker as missing:
        pytest.skip(f"needs a broker: {missing}")
    (port,) = free_ports(1)
    place = tmp_path / "broker"
    write_passwords(place, ("app",))
    broker = Broker(place, "127.0.0.1", port, "a port of the test")
    broker.start(plain_config(place, port))
    password = (place / "app.password").read_text()
    core = WiredCore().connect(At("127.0.0.1", port, "core", user="app", password=password))
    made = Field(tmp_path, broker, core, At("127.0.0.1", port, DEVICE, user="app", password=password))
    yield made
    made.core.link.stop()
    broker.stop()
