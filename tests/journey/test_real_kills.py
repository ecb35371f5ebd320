"""Faults 2 and 13 with real processes: twenty kill -9 each of an agent, the core and its broker, while records are on
their way. After each, everything that an outbox took is at the core once, and the agent serves a verified model.

What makes an agent write records is junk on its `desired` topic: it refuses each piece with an event, the first few
after its start, and then only now and then. So one agent begins anew before each kill of core or broker.

Each of the three takes minutes (broker and agent about five, the core twelve): what was said while the core was away is
said again after half a minute, and every round waits for it. One alone is `-k of_the_broker`: the mere word `broker` is
a marker of all three.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from appliance.core.state import CoreFolder, catalog_key, open_keys
from appliance.demo.fleet import Device
from core.catalog import Catalog, open_catalog
from core.handoffs import RolloutState
from sync.link import Publish
from sync.messages import ALARM, EVENT
from sync.names import DEFAULT_TENANT, DeviceId
from sync.topics import GAP, desired
from tests.journey.real import Stage, admit_tap, kill, kill_core, model, play
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.slow]
KILLS = 20
PATIENCE = 90.0
OTHERS = frozenset({"release-refused", "renewal-refused"})  # events that come of other kinds of records


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with play(tmp_path_factory.mktemp("kills")) as played:
        yield played


class Books:
    """What the outboxes gave out and hold, and what the core's catalog has of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.rng = stage, random.Random(1)
        self.place = CoreFolder(stage.machines.core_folder, DEFAULT_TENANT)
        self.key = catalog_key(open_keys(self.place))

    def provoke(self, times: int = 5) -> None:
        """Each device gets so many pieces of junk."""
        for _ in range(times):
            for device in self.stage.machines.devices:
                topic = desired(DEFAULT_TENANT, DeviceId(device.name))
                self.stage.tap.link.publish(Publish(topic, b"junk", qos=1))
                time.sleep(self.rng.random() * 0.005)

    def refresh(self) -> None:
        """One agent begins anew: it tells of refusals again."""
        device = self.stage.device("watch-1")
        assert device.process is not None
        device.process.terminate()
        device.process.wait()
        device.start()
        eventually(lambda: verified(device), "a verified model", PATIENCE)
        eventually(partial(connected, self.stage), "uplinks", PATIENCE)

    def outbox(self, device: Device) -> tuple[dict[str, int], set[tuple[str, int]]]:
        """(numbers given out by kind, what is held), of the newest epoch."""
        with closing(sqlite3.connect(f"file:{device.folder.outbox}?mode=ro", uri=True)) as db:
            given = dict(db.execute("SELECT kind, n FROM numbered"))
            return given, {(kind, n) for kind, n in db.execute("SELECT kind, n FROM record")}

    def told(self, catalog: Catalog, name: str) -> Counter[int]:
        """How often each number of a device's events is in the catalog."""
        rows = (e for e in catalog.events.newest(100_000) if e.source == name and "n" in e.facts)
        return Counter(e.facts["n"] for e in rows if e.code not in OTHERS and not e.code.startswith("record-"))

    def audit(self) -> int:
        """Nothing that an outbox took is with nobody, or at the core twice; how many records the core has."""
        total = 0
        for device in self.stage.machines.devices:
            given, held = self.outbox(device)  # before the catalog: what is held no more, the core has by then
            with closing(open_catalog(self.place.catalog, self.key, read_only=True)) as catalog:
                catalog._db.execute("BEGIN")  # one moment
                received = {k: catalog.fleet.received(DeviceId(device.name), 1, k) for k in (ALARM, EVENT)}
                told = self.told(catalog, device.name)
                strange = {GAP, "record-poisoned", "device-cloned"}
                assert not [e for e in catalog.events.newest(1000) if e.code in strange]
            taken = Counter(n for last in received.values() for n in range(1, last + 1))
            assert told == taken, f"{device.name}: lost or twice: {told}"
            for kind, last in received.items():
                lost = [n for n in range(last + 1, given.get(kind, 0) + 1) if (kind, n) not in held]
                assert not lost, f"{device.name}: {kind} {lost} are with nobody"
            total += sum(received.values())
        return total

    def settle(self) -> int:
        """Waits until nothing is under way, then audits."""
        eventually(lambda: all(not self.outbox(d)[1] for d in self.stage.machines.devices), "empty outboxes", PATIENCE)
        return self.audit()


def verified(device: Device) -> bool:
    """Whether it answers with a release whose signature and digest were checked at this load."""
    found = model(device)
    return bool(
        found.get("phase") == "steady" and found.get("validated")
        and found["validated"]["artifact"] == found["serving"]["artifact"]
    )  # fmt: skip


def started(pid_file: Path, before: int) -> bool:
    """Whether another broker has taken the place of that one."""
    return pid_file.exists() and pid_file.read_text().strip() not in ("", str(before))


def connected(stage: Stage) -> bool:
    return all((d.status() or {}).get("uplink") == "up" for d in stage.machines.devices)


@pytest.fixture(scope="module")
def books(stage: Stage) -> Books:
    made = Books(stage)
    made.settle()
    return made


def test_twenty_kills_of_an_agent(stage: Stage, books: Books) -> None:
    device, before, kills = stage.device("watch-1"), books.settle(), 0
    for _ in range(KILLS):
        books.provoke()
        kill(device)
        kills += 1
        books.provoke(1)
        device.start()
        eventually(lambda: verified(device), "a verified model", PATIENCE)
        after = books.settle()
    assert kills == KILLS and after >= before + KILLS
    print(f"{kills} kills of an agent, {after - before} records, 0 lost, 0 twice")


def test_twenty_kills_of_the_core(stage: Stage, books: Books) -> None:
    before, kills = books.settle(), 0
    for _ in range(KILLS):
        books.refresh()
        books.provoke()
        died = kill_core(stage.machines)
        assert any("steward" in words for words in died) and any("console" in words for words in died)
        kills += 1
        books.provoke(2)
        stage.machines.run_core()
        admit_tap(books.place)
        books.provoke(1)
        after = books.settle()
        assert all(verified(d) for d in stage.machines.devices)
    assert kills == KILLS and after >= before + KILLS
    states = {r["state"] for r in stage.machines.api.get("/v1/rollouts")["rollouts"]}
    assert states == {RolloutState.COMPLETE.value}
    print(f"{kills} kills of steward and console, {after - before} records, 0 lost, 0 twice")


def test_twenty_kills_of_the_broker(stage: Stage, books: Books) -> None:
    before, kills, pid_file = books.settle(), 0, books.place.broker / "mosquitto.pid"
    for _ in range(KILLS):
        books.refresh()
        books.provoke()
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGKILL)
        kills += 1
        eventually(partial(started, pid_file, pid), "a new broker", PATIENCE)
        eventually(partial(connected, stage), "uplinks", PATIENCE)
        admit_tap(books.place)  # not before it listens: a signal would end it
        eventually(lambda: stage.tap.link.wait_until_up(1), "the tap", PATIENCE)
        books.provoke(1)
        after = books.settle()
        assert all(verified(d) for d in stage.machines.devices)
    assert kills == KILLS and after >= before + KILLS
    print(f"{kills} kills of the broker, {after - before} records, 0 lost, 0 twice")
