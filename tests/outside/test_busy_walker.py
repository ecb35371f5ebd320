"""Whoever asks over MQTT beside a sensor is answered while the agent's walker is held up: it loads a model, or waits
for its disk. The agent is in this process, with its real broker, so that a test can hold its walker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.edge.node import UNACKED, EdgeNode
from appliance.settings import EdgeSettings, load
from tests.edge.world import DEVICE, MODEL
from tests.journey.site import PATIENCE, Application, Site, open_site
from tests.waiting import eventually

pytestmark = pytest.mark.broker
REPLY = f"falaj/local/{DEVICE}/reply/asker"


@contextmanager
def running(site: Site) -> Iterator[EdgeNode]:
    """The agent with its local broker, without its HTTP and its uplink."""
    root = site.box.folder.root
    node = EdgeNode(site.box.folder, load(EdgeSettings, root / "edge.toml", "FALAJ_EDGE__"))
    pumps = (node.pump, node.pairs, node.settling)
    for pump in pumps:
        pump.start()
    node.pump.submit(lambda: node._carry_out(node.agent.start(time.time()))).result(PATIENCE)
    node.local_broker.start()
    node.local.start(node.bindings, node.requests)
    try:
        eventually(lambda: "plant/+/vib" in node.local.listening, "the session", PATIENCE)
        yield node
    finally:
        node.local.stop()
        for pump in pumps:
            pump.stop()
        for room in (node.buffers, node.rooms, node.house.outbox, node.house.journal, node._lock):
            room.close()
        node.local_broker.stop()


@contextmanager
def held(node: EdgeNode) -> Iterator[None]:
    """The walker is at one thing all the while."""
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        over.wait(2 * PATIENCE)  # nothing may be raised here: it would end the process

    working = node.pump.submit(work)
    assert begun.wait(PATIENCE)
    try:
        yield
        assert not working.done()
    finally:
        over.set()


def ask(asker: Application, count: int, beside: Callable[[int], None]) -> None:
    """Questions with QoS 1, each after something else has come over MQTT, and their answers."""
    for number in range(count):
        beside(number)
        question = {"id": number, "reply_to": REPLY, "data": [0.0]}
        asker.publish(f"falaj/local/{DEVICE}/infer/{MODEL}", question)
    eventually(lambda: len(asker.heard) >= count, "the answers", PATIENCE)
    assert [answer["id"] for answer in asker.heard] == list(range(count))
    assert {answer["prediction"]["quality"] for answer in asker.heard} == {"ok"}


def test_questions_beside_a_sensor_are_answered_while_the_walker_loads_a_model(tmp_path: Path) -> None:
    """Each reading ends a window, whose prediction the broker must confirm before a checkpoint: that waits for no
    walker, and so neither do the acknowledgements behind it, of which the broker lets a few wait alone."""
    begin = float(int(time.time()))
    with (
        open_site(tmp_path) as site, running(site) as node, site.application(REPLY, name="asker") as asker,
        site.application("plant/+/state", name="sensor") as sensor, held(node),
    ):  # fmt: skip
        ask(asker, 3 * UNACKED, lambda number: sensor.send(begin + number))
        sensor.until(3 * UNACKED)
