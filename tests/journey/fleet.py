"""Twenty whole devices and their core in one process, on a real Mosquitto: each device has its own folder, certificate,
TLS connection and agent; only the proving child and the pump are missing. What the links' threads bring waits for the
one thread of the test.

Twenty agent processes would need two gigabytes and measure the machine.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from appliance.broker import Broker, uplink_config, write_access
from appliance.core.state import CoreFolder
from appliance.demo.fleet import free_ports
from appliance.edge.state import EdgeFolder
from edge.states import LinkChanged
from sync import topics
from sync.link import Publish, Receiver, Watcher
from sync.loopback import Hub, LoopbackLink
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DEFAULT_TENANT
from tests.journey.memory import Box, World
from tests.waiting import eventually

PATIENCE = 120.0  # seconds until a test that waits gives up; nothing is measured by it


class Wire:
    """One session on the real broker, in the place of a `LoopbackLink`."""

    def __init__(self, wires: Wires, client: str) -> None:
        self.client, self._inbox = client, wires.inbox
        at = At("127.0.0.1", wires.broker.port, client, wires.tls(client), clean_start=client == topics.CORE_NAME)
        self.link = MqttLink(at)
        self.changed: Callable[[bool], None] = lambda up: None
        self.subscribe, self.unsubscribe = self.link.subscribe, self.link.unsubscribe
        self.publish = self.link.publish

    def start(self, receiver: Receiver, watcher: Watcher) -> None:
        self.link.start(
            lambda message: self._inbox.put(lambda: receiver(message)),
            lambda up, why: self._inbox.put(lambda: self.changed(up)),
        )

    def cut(self) -> None:
        """Whoever had the session is gone."""
        self.changed = lambda up: None
        self.link.stop()


@dataclass
class Wires(Hub):
    """A real broker with the core's certificates, started with the first session."""

    core: CoreFolder = field(kw_only=True)
    home: Path = field(kw_only=True)
    port: int = field(default_factory=lambda: free_ports(1)[0])
    inbox: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.broker = Broker(self.core.broker, "127.0.0.1", self.port, "a port of the test")

    def tls(self, client: str) -> Tls:
        pki, own = self.core.pki, EdgeFolder(self.home / client)
        return Tls(pki / "ca.pem", pki / "core.pem", pki / "core.key") if client == topics.CORE_NAME else own.tls()

    def connect(self, client: str, will: Publish | None = None) -> LoopbackLink:
        if not self.broker.alive():
            self.start()
        return Wire(self, client)  # type: ignore[return-value]

    def start(self) -> None:
        write_access(self.core.broker, DEFAULT_TENANT)
        self.broker.start(uplink_config(self.core.broker, "127.0.0.1", self.port, self.core.broker_files()))

    def kill(self, *, wiped: bool = False) -> None:
        """kill -9, and started anew; `wiped`: its store is gone."""
        pid = self.broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not self.broker.alive(), "the broker's end", PATIENCE)
        if wiped:
            shutil.rmtree(self.core.broker / "store")
        self.start()

    def run(self, limit: int = 100_000) -> int:
        """Hands over what has come by now; how many it were."""
        for done in range(limit):
            try:
                self.inbox.get(timeout=0.005)()
            except queue.Empty:
                return done
        return limit


class Fleet(World):
    """A core whose clock stands `behind` the devices', and devices that are enrolled and not started."""

    def __init__(self, home: Path, behind: float = 0.0) -> None:
        self.behind = behind
        core = CoreFolder(home / "core", DEFAULT_TENANT)
        super().__init__(home, Wires(core=core, home=home), time.time() - behind)

    @property
    def wires(self) -> Wires:
        assert isinstance(self.hub, Wires)
        return self.hub

    def start_core(self) -> None:
        super().start_core()
        wire: Wire = self.link  # type: ignore[assignment]
        assert wire.link.wait_until_up(PATIENCE)
        self.hub.run()
        wire.changed = lambda up: self._carry_out(self.steward.link_changed(up, self.now))

    def published(self) -> None:
        """The broker has all that the core said, and has written it down, as the steward's process has it do."""
        eventually(lambda: not self.link.link.unconfirmed, "the broker to have it all", PATIENCE)  # type: ignore[attr-defined]
        store, before = self.core.broker / "store", time.time_ns()
        self.wires.broker.persist()
        eventually(lambda: any(f.stat().st_mtime_ns >= before for f in store.iterdir()), "the broker's store", PATIENCE)

    def switch_on(self, box: Box) -> None:
        box.start(self.now + self.behind)
        wire: Wire = box.link  # type: ignore[assignment]
        wire.changed = lambda up: box.carry_out(box.agent.handle(LinkChanged(up), box.now), box.now)

    def live(self, boxes: list[Box], done: Callable[[], bool], what: str, *, core: bool = False) -> None:
        """Real time goes by for these, and for the core if it is on, until `done`."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, f"waited for {what}: {[(b.name, b.phase()) for b in boxes]}"
            self.hub.run()
            for box in boxes:
                box.tick(time.time())
            if core:
                self.now = time.time() - self.behind
                self._carry_out(self.steward.tick(self.now))

    def end(self) -> None:
        for box in self.boxes.values():
            if box.boots:
                box.link.cut()
        self.link.cut()
        self.wires.broker.stop()
