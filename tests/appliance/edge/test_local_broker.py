"""The device's own broker, a real one, over its ends: it comes back, and nothing about it ends the agent."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from appliance.edge.local_broker import AGAIN, QUIET, LocalBroker
from appliance.processes import listens
from appliance.settings import LocalBroker as Settings
from tests.waiting import eventually

pytestmark = pytest.mark.broker


@dataclass
class Site:
    """A device's own broker and what was reported of it."""

    folder: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    reports: list[tuple[str, str]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        settings = Settings(port=self.port)
        self.broker = LocalBroker(self.folder, settings, lambda *said: self.reports.append(said), lambda: self.now)
        self.broker.password()

    @property
    def pid(self) -> int:
        return int((self.folder / "mosquitto.pid").read_text())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        eventually(lambda: not listens("127.0.0.1", self.port), "the broker to be gone")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "broker")
    try:
        yield made
    finally:
        made.broker.stop()


def test_one_that_is_killed_is_started_anew_and_told(site: Site) -> None:
    site.broker.start()
    before = site.pid
    site.broker.tend(disk_works=True)
    assert site.pid == before and not site.reports
    site.now += 2 * AGAIN
    site.kill()
    site.broker.tend(disk_works=True)
    assert site.pid != before and listens("127.0.0.1", site.port)
    assert [code for code, _ in site.reports] == ["local-broker-ended"]


def test_one_that_does_not_stay_up_is_not_started_all_the_time(site: Site) -> None:
    site.broker.start()
    site.kill()
    for _ in range(20):
        site.now += 1
        site.broker.tend(disk_works=True)
    assert not listens("127.0.0.1", site.port) and len(site.reports) == 1
    site.now += AGAIN
    site.broker.tend(disk_works=True)
    assert listens("127.0.0.1", site.port)


def test_one_that_dies_each_time_is_told_once_an_hour_with_a_count(site: Site) -> None:
    site.broker.start()
    for passed in (2 * AGAIN, 2 * AGAIN, 2 * AGAIN, QUIET):
        site.now += passed
        site.kill()
        site.broker.tend(disk_works=True)
        assert listens("127.0.0.1", site.port)
    first, second = (text for _, text in site.reports)
    assert "times" not in first and "it ended 3 times" in second


def test_another_program_on_its_port_ends_no_agent(site: Site) -> None:
    site.broker.start()
    site.now += 2 * AGAIN
    site.kill()
    with socket.create_server(("127.0.0.1", site.port)):
        site.broker.tend(disk_works=True)
    assert [code for code, _ in site.reports] == ["local-broker-ended"]
    site.now += AGAIN
    site.broker.tend(disk_works=True)
    assert listens("127.0.0.1", site.port)


def test_while_the_disk_refuses_nothing_is_tried(site: Site) -> None:
    site.broker.start()
    site.kill()
    site.broker.tend(disk_works=False)
    assert not site.reports
