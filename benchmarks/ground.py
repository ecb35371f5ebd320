"""What the benchmarks of a whole device stand on: a core that publishes on a real uplink (Mosquitto, TLS 1.3), and the
box of one agent, which runs as a process of its own. Needs the development set-up.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.broker import write_passwords
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from sync import topics
from sync.messages import Gates
from sync.mqtt import Broker as At
from tests.attacks.ground import open_ground
from tests.edge.device import Device
from tests.edge.world import MODEL, new_identity
from tests.faults.box import Box, move_in
from tests.faults.field import WiredCore
from tests.faults.small_disk import SmallDisk

PATIENCE_S, ASK_S = 30.0, 0.005
QUESTION = json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [0]}]})


@dataclass
class Ground:
    """One core, one device."""

    core: WiredCore
    device: Device
    box: Box
    local_port: int  # of the agent's own broker, where it has one

    def release(self, number: int, size: int, soak_answers: int) -> None:
        """Ships release `number` of about `size` bytes and orders it."""
        gates = Gates(soak_answers=soak_answers)
        self.core.assign(self.core.ship_large(number, size), self.device.identity, gates=gates)


@contextmanager
def ground(folder: Path, *, broker: bool = False) -> Iterator[Ground]:
    """Everything up but the agent, until the block ends; `broker`: the agent keeps a local one of its own."""
    opened = open_ground(folder / "uplink")
    pair = enrolment.issue_core(opened.authority, opened.now)
    at = At("127.0.0.1", opened.broker.port, topics.CORE_NAME, opened.tls(pair.certificate, pair.key))
    core = WiredCore().connect(at)
    device = Device(core, folder / "device", new_identity(core.root))
    device.folder.mkdir()
    web, local = free_ports(2)
    box = move_in(device, opened.authority, SmallDisk(folder), folder, (web, opened.broker.port, local), broker=broker)
    if broker:
        write_passwords(box.folder.broker, ("falaj", "app"))
    try:
        yield Ground(core, device, box, local)
    finally:
        core.link.stop()
        opened.broker.stop()


def program(box: Box) -> list[str]:
    return [sys.executable, "-P", "-m", "appliance.cli", "edge", "run", "--dir", str(box.folder.root)]


def start(box: Box, argv: list[str]) -> tuple[int, float]:
    """Starts the agent: the release that answered first, and the seconds until then."""
    begun = time.perf_counter()
    with box.log.open("ab") as log:
        box.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    while (number := answer(box.http_port)) is None:
        if box.process.poll() is not None or time.perf_counter() - begun > PATIENCE_S:
            raise SystemExit(f"no answer after a start:\n{box.said()}")
        time.sleep(ASK_S)
    return number, time.perf_counter() - begun


def answer(port: int) -> int | None:
    """The number of the release that answers now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", QUESTION)
        said = json.loads(connection.getresponse().read())
        return int(said["model_version"]) if "outputs" in said else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
