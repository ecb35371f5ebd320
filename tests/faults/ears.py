"""A core that hears records on a real line of its own, and a device that has many to tell."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sync import codec, topics
from sync.link import Message
from sync.messages import EVENT, DeviceEvent, Record
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.core.world import TENANT, World
from tests.faults.field import PATIENCE, Field, Wired
from tests.faults.proxy import FaultProxy, PacketFilter

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
            assert device.house.events.report(device.now, "beat", "one record", beat=told)
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
