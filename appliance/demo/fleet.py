"""The demo's machines: one core and six agents, each an operating-system process with a broker of its own."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.api import Api
from appliance.broker import Broker
from appliance.edge.state import EdgeFolder
from appliance.errors import Trouble
from appliance.processes import spawn, stop, tail

CORE_PATIENCE = 30.0  # seconds for the core to start


class StoryFailed(Trouble):
    """A step of the story did not do what it says."""


@dataclass
class Device:
    """One agent: its folder, its ports, its process."""

    name: str
    folder: EdgeFolder
    http_port: int
    mqtt_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder.root / "agent.log"

    def start(self) -> None:
        """Starts the agent's process."""
        argv = [sys.executable, "-P", "-m", "appliance.cli", "-v", "edge", "run", "--dir", str(self.folder.root)]
        self.process = spawn(argv, self.log)

    def status(self) -> dict[str, Any] | None:
        """The agent's `/v1/status`, None while it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=2)
        try:
            connection.request("GET", "/v1/status")
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, ValueError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def app_password(self) -> str:
        """The password of user `app` on the device's local broker."""
        return (self.folder.broker / "app.password").read_text()


@dataclass
class Machines:
    """Everything the demo started; `stop` ends all of it."""

    home: Path
    core: subprocess.Popen[bytes] | None = None
    devices: list[Device] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def core_folder(self) -> Path:
        return self.home / "core"

    @property
    def api(self) -> Api:
        return Api(self.core_folder / "run" / "api.sock")

    def start_core(self) -> None:
        """Writes core.toml with free ports, then `run_core`."""
        self.core_folder.mkdir(parents=True, mode=0o700)
        names = ("uplink", "enrol", "console")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        lines = ["[ports]", *(f"{name} = {port}" for name, port in self.ports.items())]
        (self.core_folder / "core.toml").write_text("\n".join(lines) + "\n")
        self.run_core()

    def run_core(self) -> None:
        """Starts the core in its folder and waits until all of it is up; also after it was killed there."""
        ready = self.core_folder / "run" / "ready"
        ready.unlink(missing_ok=True)  # of a core that could not take it away any more
        argv = [sys.executable, "-P", "-m", "appliance.cli", "-v", "core", "run", "--dir", str(self.core_folder)]
        log = self.home / "core.log"
        self.core = core = spawn(argv, log)

        def answers() -> bool:
            if core.poll() is not None:
                raise StoryFailed(f"the core does not start:\n{tail(log, 8)}")
            return ready.exists()

        wait_until(answers, CORE_PATIENCE, f"the core to be up; see {log}")

    def add_device(self, name: str) -> Device:
        """A device with its own folder and ports, not yet enrolled."""
        http_port, mqtt_port = free_ports(2)
        folder = EdgeFolder(self.home / name)
        folder.root.mkdir(parents=True, mode=0o700)
        text = f"http_port = {http_port}\n\n[local_broker]\nport = {mqtt_port}\n"
        (folder.root / "edge.toml").write_text(text)
        device = Device(name, folder, http_port, mqtt_port)
        self.devices.append(device)
        return device

    def stop(self) -> None:
        for device in self.devices:
            if device.process is not None:
                device.process.terminate()
        for device in self.devices:
            if device.process is not None:
                stop(device.process)
        if self.core is not None:
            stop(self.core)


def fresh_home(home: Path) -> Path:
    """An empty folder for this run; an earlier run's is removed, anything else is left alone."""
    marker = home / ".falaj-demo"
    if home.exists() and any(home.iterdir()):
        if not marker.exists():
            raise Trouble(f"{home} is not empty and not an earlier demo: give another --dir")
        for config in home.glob("**/mosquitto.conf"):  # brokers outlive a demo that was killed
            Broker(config.parent, "127.0.0.1", 0, "").stop()
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker.touch()
    return home.resolve()


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def wait_until(done: Callable[[], bool], patience: float, what: str) -> None:
    """Returns when `done`; raises StoryFailed, naming what did not come, after `patience` seconds."""
    end = time.monotonic() + patience
    while not done():
        if time.monotonic() > end:
            raise StoryFailed(f"waited {patience:.0f} s for {what}")
        time.sleep(0.05)
