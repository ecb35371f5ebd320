"""Fault 28: the processor gives the agent a fifth of its time. It answers all the same, counts how long that took,
tells systemd again and again that it lives, and holds the slowness against no release.

A slow disk is fault 9, memory at its limit fault 21.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from edge.states import Phase, Proof
from sync.messages import Gates
from tests.edge.device import serving_device
from tests.edge.world import MODEL, Core
from tests.faults.box import place
from tests.faults.small_disk import SmallDisk
from tests.waiting import meanwhile

ON, OFF = 0.01, 0.04  # seconds: runs, stands still


@contextmanager
def throttled(pid: int) -> Iterator[None]:
    """The process runs a fifth of the time, by signals, as a cgroup's quota would have it."""

    def hold_back() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(OFF)
        os.kill(pid, signal.SIGCONT)

    with meanwhile(hold_back, ON):
        yield


@contextmanager
def systemd(path: Path) -> Iterator[list[tuple[float, str]]]:
    """What the agent tells its service manager, with the time."""
    said: list[tuple[float, str]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(path))
        channel.settimeout(0.1)

        def listen() -> None:
            with suppress(TimeoutError):  # it is silent for now
                said.append((time.monotonic(), channel.recv(1024).decode()))

        with meanwhile(listen):
            yield said


@pytest.mark.slow
def test_a_throttled_agent_serves_reports_commits_and_feeds_its_watchdog(tmp_path: Path) -> None:
    core = Core()
    device = serving_device(core, tmp_path / "device")
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    core.assign(core.ship(2), device.identity, gates=Gates(soak_answers=40))
    device.settle(4)
    assert device.state.phase is Phase.PROBATION
    one, two, three = free_ports(3)
    box = place(device, SmallDisk(tmp_path), tmp_path, (one, two, three))
    with systemd(tmp_path / "notify") as said, box.ended():
        box.start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert box.process is not None
        with throttled(box.process.pid):
            begun = time.monotonic()
            assert [box.answer() for _ in range(60)] == [2.0] * 60
            box.until(lambda: box.status()["models"][MODEL]["phase"] == "steady", "the commit")
            box.until(lambda: sum("WATCHDOG" in text for at, text in said if at > begun) >= 3, "signs of life")
        assert not box.status()["why"] and box.answer() == 2.0
        page = urllib.request.urlopen(f"http://127.0.0.1:{box.http_port}/metrics").read().decode()
    counted = f'falaj_answer_seconds_count{{model="{MODEL}",version="2"}} '
    (line,) = (line for line in page.splitlines() if line.startswith(counted))
    assert float(line.removeprefix(counted)) >= 60, "how long each of them took is in the histogram"
    assert "READY=1" in said[0][1] and not any("STOPPING" in text for _, text in said)
