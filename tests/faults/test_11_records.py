"""Fault 11: a bad line under records. What the device let go of the core has committed, once and in order, and what the
core has not the device still holds."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sync import codec, topics
from sync.link import Message
from sync.messages import EVENT, DeviceEvent, Record
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.core.world import World
from tests.edge.world import DEVICE, TENANT
from tests.faults.conftest import Field
from tests.faults.field import PATIENCE, Wired, hurried
from tests.faults.proxy import FaultProxy, Mishaps, PacketFilter

pytestmark = pytest.mark.broker
MANY = 100  # records
SPEED = 200.0  # of the device's clock: a record that was not acknowledged is sent again after 30 s


@dataclass
class Ears:
    """A real steward on its catalog, over a line of its own; it hears on the thread of the test."""

    world: World
    link: MqttLink
    inbox: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)

    def listen(self) -> None:
        """Takes in what has come, and acknowledges it; all else a steward says is for other tests."""
        while not self.inbox.empty():
            before = len(self.world.sent)
            self.world.hear(self.inbox.get())
            for answer in self.world.sent[before:]:
                if "/ack/" in answer.topic:
                    self.link.publish(answer)

    def restart(self) -> None:
        """Killed: what the broker handed over and was not taken in is gone."""
        while not self.inbox.empty():
            self.inbox.get()
        self.world.reopen()

    def committed(self) -> list[int]:
        """The records in the catalog, in the order they were committed."""
        return [e.facts["beat"] for e in reversed(self.world.catalog.events.newest(10_000)) if e.code == "beat"]


@contextmanager
def hearing(world: World, field: Field, packets: PacketFilter | None) -> Iterator[tuple[FaultProxy, Ears]]:
    with FaultProxy(field.broker.port, packets=packets) as line:
        at = field.device_at
        own = At("127.0.0.1", line.port, "steward", None, at.user, at.password, clean_start=True, session_expiry=0)
        ears = Ears(world, MqttLink(own))
        ears.link.subscribe(*topics.core_subscriptions(TENANT))
        ears.link.start(ears.inbox.put, lambda up, reason: None)
        try:
            assert ears.link.wait_until_up(PATIENCE)
            yield line, ears
        finally:
            ears.link.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "core").ready()
    made.enrol(DEVICE)
    yield made
    made.catalog.close()


def held(device: Wired) -> list[int]:
    """The records that the device has not let go of."""
    found = []
    for kind, _, document in device.house.outbox.pending(10_000):
        if kind == EVENT:
            event = codec.decode(DeviceEvent, bytes(codec.decode(Record, document).body))
            found += [int(event.facts["beat"])] if event.code == "beat" else []
    return found


def tell(device: Wired, ears: Ears, after: Callable[[int], None]) -> None:
    """MANY records, one after the other; `after` each that was committed, it may harm the lines. Nothing is missing on
    the way, and nothing at the end."""
    told = seen = 0

    def heard() -> bool:
        nonlocal told, seen
        if told < MANY and told < seen + 10:
            assert device.house.event(device.now, "beat", "one record", beat=told)
            told += 1
        ears.listen()
        committed = ears.committed()
        assert committed == list(range(len(committed))), "once, in order, without a gap"
        assert {*committed, *held(device)} == set(range(told)), "nothing is with nobody"
        while seen < len(committed):
            seen += 1
            after(seen)
        return seen == MANY and not held(device)

    device.until(heard, "every record to be acknowledged")


def test_11_both_lines_cut_again_and_again(world: World, open_field: Field) -> None:
    with hearing(world, open_field, None) as (core_line, ears), open_field.over() as (line, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen % 40 == 0:
                line.cut()
            if seen % 50 == 0:
                core_line.cut()

        tell(device, ears, after)
        assert line.traffic.cuts >= 2 and core_line.traffic.cuts >= 2


def test_11_records_and_acknowledgements_that_come_twice_or_in_another_order(world: World, open_field: Field) -> None:
    up, down = Mishaps("/up/", repeat=3, swap=7), Mishaps("/ack/", repeat=2, swap=5)
    with hearing(world, open_field, up) as (_, ears), open_field.over(packets=down) as (_, device):
        device.clock = hurried(SPEED)
        tell(device, ears, lambda seen: None)
    assert up.repeated and up.swapped and down.repeated and down.swapped


def test_11_a_core_that_is_killed_and_a_device_that_loses_power(world: World, open_field: Field) -> None:
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen % 30 == 0:
                ears.restart()
            if seen == MANY // 2:
                device.cut_power()
                device.boot()

        tell(device, ears, after)
