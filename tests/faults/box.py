"""A real agent process on a small disk: release 1 is committed there, and nobody answers on its uplink."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.edge.guard import crash_folder
from appliance.edge.state import EdgeFolder, keep
from appliance.keys import DeviceKeys
from appliance.processes import stop
from core.fleet import enrolment
from core.fleet.enrolment import Pair
from edge.agent import Identity
from edge.journal import Journal
from edge.outbox import Outbox
from edge.states import Phase
from sync.enrolment import EnrolAnswer
from sync.messages import EVENT
from tests.attacks.ground import certify
from tests.edge.device import Device, serving_device
from tests.edge.world import DEVICE, EPOCH, MODEL, TENANT, Core
from tests.faults.small_disk import SmallDisk

PATIENCE = 30.0  # seconds until a test that waits gives up; nothing is measured by it


@dataclass
class Box:
    """One device with its own process; it is asked by HTTP alone, as an application would."""

    disk: SmallDisk
    http_port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> EdgeFolder:
        return EdgeFolder(self.disk.folder / "box")

    def start(
        self,
        *,
        answering: bool = True,
        environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = ("appliance.cli",),
    ) -> None:
        argv = [sys.executable, "-P", "-m", *program, "-v", "edge", "run", "--dir", str(self.folder.root)]
        with self.log.open("ab") as log:
            given = {**os.environ, **(environment or {})}
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, env=given)
        self.until(lambda: self.answer() is not None if answering else bool(self.status()), "an answer")

    @contextmanager
    def ended(self) -> Iterator[Box]:
        """No process is left behind."""
        try:
            yield self
        finally:
            if self.process is not None:
                self.end(killed=True)
            shutil.rmtree(crash_folder(self.folder.root), ignore_errors=True)

    def end(self, *, killed: bool = False) -> None:
        assert self.process is not None
        if killed:
            self.process.kill()
        stop(self.process)
        self.process = None

    def answer(self, index: int = 0, key: str = "") -> float | None:
        """What the model answers to an index, in a split for whoever `key` is; None where nobody does."""
        question: dict[str, Any] = {"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [index]}]}
        if key:
            question["parameters"] = {"key": key}
        found = self._ask("POST", f"/v2/models/{MODEL}/infer", json.dumps(question))
        return float(found["outputs"][0]["data"][0]) if found and "outputs" in found else None

    def status(self) -> dict[str, Any]:
        return self._ask("GET", "/v1/status") or {}

    def waiting(self) -> list[int]:
        """The numbers of all events that wait for the core, read while no agent has the file."""
        found = Outbox(self.folder.outbox, EPOCH, "test")
        numbers = [n for kind, n, _ in found.pending(1000) if kind == EVENT]
        found.close()
        return numbers

    def committed(self) -> bool:
        """Whether the journal says that release 1 serves, read while no agent has the file."""
        journal = Journal.open(self.folder.journal)
        state = journal.deployments()[MODEL]
        journal.close()
        return state.phase is Phase.STEADY and state.serving is not None and state.serving.release.number == 1

    def disk_says(self) -> str:
        return str(self.status().get("disk", ""))

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Waits for the process, which must not end meanwhile."""
        end = time.monotonic() + PATIENCE
        while not done():
            assert self.process is not None and self.process.poll() is None, f"it ended:\n{self.said()}"
            assert time.monotonic() < end, f"waited for {what}:\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=5)
        try:
            connection.request(method, path, body)
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def new_box(disk: SmallDisk, aside: Path, ports: tuple[int, int, int]) -> Box:
    """A device enrolled and settled; its applications' broker is the site's, and not there either."""
    return place(serving_device(Core(), aside / "device"), disk, aside, ports)


def place(device: Device, disk: SmallDisk, aside: Path, ports: tuple[int, int, int], *, broker: bool = False) -> Box:
    """A box that goes on where `device` was cut; `broker`: its agent starts a local one."""
    device.cut_power()
    authority = enrolment.create_authority(TENANT, time.time())
    return move_in(device, authority, disk, aside, ports, broker=broker)


def move_in(
    device: Device, authority: Pair, disk: SmallDisk, aside: Path, ports: tuple[int, int, int], *, broker: bool = False
) -> Box:
    """A box with the folder and identity of `device`, which is off; its certificate is of `authority`.

    `ports` are that of its HTTP, of its uplink's broker, and of its local one.
    """
    box = Box(disk, ports[0], aside / "agent.log")
    shutil.copytree(device.folder, box.folder.root)
    _enrol(box.folder, device.identity, ports[1], authority)
    lines = [f"http_port = {ports[0]}", "[local_broker]", f"managed = {str(broker).lower()}", f"port = {ports[2]}"]
    (box.folder.root / "edge.toml").write_text("\n".join(lines) + "\n")
    return box


def _enrol(folder: EdgeFolder, own: Identity, uplink: int, authority: Pair) -> None:
    certificate, key = certify(DEVICE, authority, time.time())
    answer = EnrolAnswer(
        tenant=TENANT, device=DEVICE, epoch=EPOCH, certificate=certificate.decode(), ca=authority.certificate.decode(),
        root=own.root.decode(), uplink_host="127.0.0.1", uplink_port=uplink,
    )  # fmt: skip
    keep(folder, DeviceKeys(key, own.sealing_key, b"", b""), answer)


__all__ = ["Box", "Device", "new_box"]
