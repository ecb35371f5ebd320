"""Fault 15: a session is lost. What a link hears of retained messages afterwards: state again, chunks only if asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sync import topics
from sync.link import Message, Publish
from sync.mqtt import FEW, MqttLink
from sync.names import Digest
from tests.edge.world import DEVICE, TENANT
from tests.faults.field import Field
from tests.faults.proxy import FaultProxy, Mishaps, Packet
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.broker
STATE, LIVE = topics.desired(TENANT, DEVICE), topics.core_status(TENANT)
CHUNKS = tuple(topics.blob(TENANT, Digest("a" * 64), i) for i in range(FEW + 4))


@contextmanager
def listener(field: Field) -> Iterator[tuple[FaultProxy, MqttLink, list[Message]]]:
    for topic in (STATE, *CHUNKS):
        field.core.link.publish(Publish(topic, b"kept", retain=True))
    field.core.settle()
    came: list[Message] = []
    with FaultProxy(field.broker.port) as line:
        link = MqttLink(replace(field.device_at, port=line.port))
        link.subscribe(STATE, LIVE)
        link.start(came.append, lambda up, reason: None)
        try:
            assert link.wait_until_up(PATIENCE)
            link.subscribe(*CHUNKS)
            eventually(lambda: len(came) == 1 + len(CHUNKS), "the state and the chunks")
            yield line, link, came
        finally:
            link.stop()


def again(line: FaultProxy, link: MqttLink, field: Field, came: list[Message]) -> list[str]:
    """Cuts the line; what came of the next session until a live word, said after it was up."""
    came.clear()
    line.cut()
    eventually(lambda: not link.listening, "the loss")
    eventually(lambda: {STATE, LIVE} <= link.listening, "the next session")
    field.core.link.publish(Publish(LIVE, b"live"))
    eventually(lambda: any(m.payload == b"live" for m in came), "the live word")
    return [m.topic for m in came if m.payload != b"live"]


def test_15_state_is_heard_again_and_chunks_are_not(open_field: Field) -> None:
    with listener(open_field) as (line, link, came):
        assert again(line, link, open_field, came) == [STATE]
        link.subscribe(CHUNKS[0])
        eventually(lambda: came[-1].topic == CHUNKS[0], "the chunk that was asked for again")


def test_15_chunks_given_up_while_away_are_not_heard_when_the_core_publishes_them_anew(open_field: Field) -> None:
    with listener(open_field) as (line, link, came):
        link.unsubscribe(*CHUNKS[:2])  # too few for a packet of their own
        again(line, link, open_field, came)
        came.clear()
        for topic in (*CHUNKS[:3], STATE):
            open_field.core.link.publish(Publish(topic, b"anew", retain=True))
        eventually(lambda: any(m.topic == STATE for m in came), "the last of them")
        assert [m.topic for m in came] == [CHUNKS[2], STATE]


def test_15_chunks_are_given_up_many_at_a_time(open_field: Field) -> None:
    with listener(open_field) as (_, link, came):
        came.clear()
        for topic in CHUNKS[:FEW]:
            link.unsubscribe(topic)
        eventually(lambda: not link._left, "the broker's answer to the one packet")
        for topic in (*CHUNKS, STATE):
            open_field.core.link.publish(Publish(topic, b"anew", retain=True))
        eventually(lambda: any(m.topic == STATE for m in came), "the last of them")
        assert [m.topic for m in came] == [*CHUNKS[FEW:], STATE]


def test_15_the_proxy_harms_only_what_it_is_told_to() -> None:
    first, second = (b"\x30\x08\x00\x03a/b" + number for number in (b"\x00one", b"\x00two"))
    mishaps = Mishaps("a/b", repeat=2)
    assert mishaps(Packet("down", first)) == [first]
    assert mishaps(Packet("down", second)) == [second, second]
    assert mishaps(Packet("up", b"\xc0\x00")) == [b"\xc0\x00"]
    swapping = Mishaps("a/b", swap=1)
    assert swapping(Packet("down", first)) == []
    assert Packet("down", first).topic == "a/b"
