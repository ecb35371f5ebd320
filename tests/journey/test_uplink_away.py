"""A box alone: an hour without its uplink, and a power-cycle with no broker, no core and the clock at 1970.

Real processes: the agent, its local Mosquitto, an application that publishes readings and listens for predictions. The
hour is in the readings' own time, one a second.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance.broker import Broker
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from sync import topics
from sync.manifest import Binding
from sync.mqtt import Broker as At
from tests.attacks.ground import Ground, open_ground
from tests.edge.world import CLASSES, DEVICE, MODEL, new_identity
from tests.faults.box import Box, move_in
from tests.faults.field import Wired, WiredCore
from tests.faults.small_disk import SmallDisk

HOUR = 3600
BEGIN = 1_790_000_000.0
BINDING = Binding("plant/{entity}/vib", "plant/{entity}/state")
PATIENCE = 60.0


@dataclass
class Application:
    """What runs on the box beside the agent: sends readings, hears predictions. It speaks to the local broker alone."""

    box: Box
    port: int
    heard: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Application:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="application", protocol=paho.MQTTv311)
        self.client.username_pw_set("app", (self.box.folder.broker / "app.password").read_text())
        self.client.max_queued_messages_set(0)
        self.client.on_message = lambda _, __, message: self.heard.append(json.loads(message.payload))
        listening = threading.Event()
        self.client.on_subscribe = lambda *_: listening.set()
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        self.client.subscribe("plant/+/state", 1)
        assert listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, ts: float) -> None:
        self.client.publish("plant/pump/vib", json.dumps({"ts": ts, "i": 0.0}), qos=1)

    def until(self, count: int) -> None:
        end = time.monotonic() + PATIENCE
        while len({document["id"] for document in self.heard}) < count:
            assert time.monotonic() < end, f"{len(self.heard)} predictions of {count}: {self.heard[-1:]}"
            time.sleep(0.02)


@dataclass
class Site:
    """A box that committed release 1, off, and the uplink's broker, on."""

    ground: Ground
    core: WiredCore
    device: Wired
    box: Box
    local: int


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    ground = open_ground(tmp_path / "uplink")
    pair = enrolment.issue_core(ground.authority, ground.now)
    own = At("127.0.0.1", ground.broker.port, topics.CORE_NAME, ground.tls(pair.certificate, pair.key))
    core = WiredCore().connect(own)
    at = At("127.0.0.1", ground.broker.port, DEVICE, ground.device_tls(DEVICE))
    (tmp_path / "device").mkdir()
    device = Wired(core, tmp_path / "device", new_identity(core.root), at=at).boot()
    core.assign(core.ship(1, says=(0, 1, 2), bindings=(BINDING,)), device.identity)
    device.until(lambda: device.has(1), "release 1", ask=0)
    device.cut_power()
    web, local = free_ports(2)
    ports = (web, ground.broker.port, local)
    box = move_in(device, ground.authority, SmallDisk(tmp_path), tmp_path, ports, broker=True)
    with box.ended():
        yield Site(ground, core, device, box, local)
    Broker(box.folder.broker, "127.0.0.1", local, "a port of the test").stop()  # it outlives its agent
    core.link.stop()
    ground.broker.stop()


def serves(box: Box) -> bool:
    """By HTTP, and by its local broker, which begins after it."""
    status = box.status()
    return bool(status.get("models", {}).get(MODEL, {}).get("serving")) and "plant/+/vib" in status["listening"]


def number(box: Box) -> int:
    return int(box.status()["models"][MODEL]["serving"]["number"])


@pytest.mark.slow
def test_an_hour_without_the_uplink_costs_no_local_prediction(site: Site) -> None:
    box = site.box
    box.start(answering=False)
    box.until(lambda: serves(box) and box.status()["uplink"] == "up", "the uplink")
    with Application(box, site.local) as application:
        for second in range(HOUR):
            if second == 60:
                site.ground.broker.stop()
            application.send(BEGIN + second)
        application.until(HOUR)
        box.until(lambda: box.status()["uplink"] == "down", "the cut to be seen")
    said = {document["ts"]: document for document in application.heard}
    assert sorted(said) == [BEGIN + second for second in range(HOUR)]
    assert {(d["quality"], d["value"], d["release"]) for d in said.values()} == {("ok", CLASSES[0], 1)}


def test_a_cold_start_alone_with_the_clock_at_1970_serves_and_installs_nothing(site: Site, tmp_path: Path) -> None:
    box, wrong = site.box, tmp_path / "clock"
    site.core.assign(site.core.ship(2, says=(0, 1, 2), bindings=(BINDING,)), site.device.identity)
    site.core.settle()
    site.ground.broker.stop()
    wrong.write_text(str(-time.time()))
    box.start(answering=False, program=("tests.faults.other_clock", str(wrong)))
    box.until(lambda: serves(box), "release 1")
    with Application(box, site.local) as application:
        application.send(BEGIN)
        application.until(1)
        assert application.heard[0]["quality"] == "ok" and application.heard[0]["release"] == 1

        uplink = site.ground.broker
        uplink.start((uplink.folder / "mosquitto.conf").read_text())  # the broker is back, the clock is not
        box.until(lambda: box.status()["assignment"] == 2, "the assignment")
        assert number(box) == 1 and box.status()["models"][MODEL]["phase"] == "steady"
        assert box.status()["models"][MODEL]["wanted"] != box.status()["models"][MODEL]["serving"]["artifact"]

        wrong.write_text("0")
        for second in range(1, HOUR):
            application.send(BEGIN + second)
            if number(box) == 2:
                break
            time.sleep(0.05)
        box.until(lambda: number(box) == 2, "release 2, fetched and proved now that there is a time")
