"""A box in the field as its applications meet it: the agent's real process, its local Mosquitto, its uplink's broker,
and an application that speaks to the local broker alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from appliance.broker import Broker
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from sync import topics
from sync.manifest import Binding
from sync.mqtt import Broker as At
from tests.attacks.ground import Ground, open_ground
from tests.edge.world import DEVICE, MODEL, new_identity
from tests.faults.box import Box, move_in
from tests.faults.field import Wired, WiredCore
from tests.faults.small_disk import SmallDisk
from tests.waiting import eventually

BINDING = Binding("plant/{entity}/vib", "plant/{entity}/state")
GOOD = (0, 1, 2)  # the class said for each index
PATIENCE = 60.0


@dataclass
class Application:
    """What runs beside an agent: sends readings, hears predictions. It speaks to the local broker's `port` alone."""

    password: str
    port: int
    topics: tuple[str, ...]
    name: str
    heard: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> Application:
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self.name, protocol=paho.MQTTv311)
        self.client.username_pw_set("app", self.password)
        self.client.max_queued_messages_set(0)
        self.client.on_message = lambda _, __, message: self.heard.append(json.loads(message.payload))
        listening = threading.Event()
        self.client.on_subscribe = lambda *_: listening.set()
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        self.client.subscribe([(topic, 1) for topic in self.topics])
        assert listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, ts: float, entity: str = "pump", index: float = 0.0) -> None:
        self.publish(f"plant/{entity}/vib", {"ts": ts, "i": index})

    def publish(self, topic: str, document: dict[str, object]) -> None:
        self.client.publish(topic, json.dumps(document), qos=1)

    def until(self, count: int) -> None:
        ids: set[str] = set()
        looked = 0

        def come() -> bool:
            nonlocal looked
            looked, new = len(self.heard), self.heard[looked:]
            ids.update(document["id"] for document in new)
            return len(ids) >= count

        eventually(come, f"{count} predictions", PATIENCE)


@dataclass
class Site:
    """A box that committed release 1, off, and the uplink's broker, on."""

    ground: Ground
    core: WiredCore
    device: Wired
    box: Box
    local: int

    def application(self, *topics: str, name: str = "application") -> Application:
        """One that hears these topics."""
        return Application((self.box.folder.broker / "app.password").read_text(), self.local, topics, name)

    def serves(self) -> bool:
        """By HTTP, and by its local broker, which begins after it."""
        status = self.box.status()
        return bool(status.get("models", {}).get(MODEL, {}).get("serving")) and "plant/+/vib" in status["listening"]

    def number(self) -> int:
        """Of the release that serves."""
        return int(self.box.status()["models"][MODEL]["serving"]["number"])

    def begin(self) -> None:
        """The agent runs, serves and has its uplink."""
        self.box.start(answering=False)
        self.box.until(lambda: self.serves() and self.box.status()["uplink"] == "up", "the uplink")


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    with ExitStack() as ends:
        ground = open_ground(folder / "uplink")
        ends.callback(ground.broker.stop)
        pair = enrolment.issue_core(ground.authority, ground.now)
        own = At("127.0.0.1", ground.broker.port, topics.CORE_NAME, ground.tls(pair.certificate, pair.key))
        core = WiredCore().connect(own)
        ends.callback(core.link.stop)
        at = At("127.0.0.1", ground.broker.port, DEVICE, ground.device_tls(DEVICE))
        (folder / "device").mkdir()
        device = Wired(core, folder / "device", new_identity(core.root), at=at).boot()
        core.assign(core.ship(1, says=GOOD, bindings=(BINDING,)), device.identity)
        device.until(lambda: device.has(1), "release 1", ask=0)
        device.cut_power()
        web, local = free_ports(2)
        ports = (web, ground.broker.port, local)
        box = move_in(device, ground.authority, SmallDisk(folder), folder, ports, broker=True)
        ends.callback(Broker(box.folder.broker, "127.0.0.1", local, "a port of the test").stop)  # it outlives its agent
        with box.ended():
            yield Site(ground, core, device, box, local)
