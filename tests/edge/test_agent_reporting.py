"""Records until they are acknowledged: what is sent again, when, and what a clock or a silent core makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edge.agent.reporting import RESEND, RESEND_SAMPLE
from sync.link import Message
from sync.messages import EVENT, SAMPLE, DeviceEvent, SampleBatch
from sync.names import Kind
from tests.edge.device import Device, new_device
from tests.edge.world import MODEL, Core


class Heard:
    """A device, and how often the broker heard each kind of record since it was last asked."""

    def __init__(self, folder: Path) -> None:
        self.core = Core()
        self.device: Device = new_device(self.core, folder).boot()
        self.found: Counter[str] = Counter()
        self.core.link.start(self._take, lambda *_: None)
        self.core.link.subscribe("#")
        self.device.settle(1)
        self.found.clear()

    def _take(self, message: Message) -> None:
        if "/up/" in message.topic:
            self.found[message.topic.rsplit("/", 1)[1]] += 1

    def after(self, seconds: float) -> dict[str, int]:
        self.device.now += seconds
        self.device.carry_out(self.device.agent.tick(self.device.now))
        self.core.hub.run()
        found, self.found = self.found, Counter()
        return dict(found)

    def add(self, kind: Kind, count: int) -> None:
        body = DeviceEvent("c", "t") if kind == EVENT else SampleBatch(MODEL, "", "", "sealed")
        for _ in range(count):
            assert self.device.house.outbox.add(kind, body, self.device.now)


@pytest.fixture
def heard(ram: Path) -> Heard:
    return Heard(ram / "d")


def test_a_record_is_sent_again_until_it_is_acknowledged(heard: Heard) -> None:
    heard.add(EVENT, 3)
    assert heard.after(0.25) == {"event": 3} and heard.after(RESEND - 1) == {}
    assert heard.after(1) == {"event": 3}
    heard.device.acknowledge(2)
    assert heard.after(RESEND) == {"event": 1}


def test_a_core_that_says_nothing_does_not_have_the_samples_sent_for_ever(heard: Heard) -> None:
    """A day's budget is paid once; repeating all of it every half minute would be many times that."""
    heard.add(SAMPLE, 20)
    assert heard.after(0.25) == {"sample": 20}
    assert sum(heard.after(60.0).get("sample", 0) for _ in range(60)) <= 3600 / RESEND_SAMPLE
    heard.device.house.outbox.acknowledged(SAMPLE, 1, 7)
    assert heard.after(0.25) == {"sample": 1}, "the next one the core waits for"


def test_a_clock_that_is_set_back_keeps_nothing_waiting(heard: Heard) -> None:
    heard.add(EVENT, 1)
    heard.add(SAMPLE, 1)
    assert heard.after(0.25) == {"event": 1, "sample": 1}
    assert heard.after(-86_400.0) == {"event": 1, "sample": 1}
