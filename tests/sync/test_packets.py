"""Our packing and reading of a PUBLISH beside paho's own, and what waits to be sent, which goes out as one."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import tomllib
from collections import deque
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from sync import packets
from sync.link import Message
from sync.packets import Client, plain, properties

ROOT = Path(__file__).resolve().parents[2]
OVERRIDDEN = sorted(name for name in vars(Client) if name.startswith("_") and not name.startswith("__"))


@given(
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.binary(max_size=300) | st.binary(min_size=65_535, max_size=65_535),
)
def test_the_bytes_are_those_that_paho_makes_and_reads(expiry: int | None, correlation: bytes | None) -> None:
    by_name = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if expiry is not None:
        by_name.MessageExpiryInterval = expiry
    if correlation is not None:
        by_name.CorrelationData = correlation
    ours = properties(expiry, correlation)
    assert (b"\0" if ours is None else ours.pack()) == by_name.pack()  # type: ignore[no-untyped-call]


def test_a_message_without_properties_has_none() -> None:
    assert properties(None, None) is None
    assert str(properties(60, None)) == "05020000003c"


# --- what comes ---


class Theirs:
    """paho alone: the message of a PUBLISH as it reads it, by way of what `sync.mqtt` makes of that."""

    def __init__(self) -> None:
        self.came: list[paho.MQTTMessage] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "t", protocol=paho.MQTTv5, manual_ack=True)
        self.client.on_message = lambda client, data, message: self.came.append(message)

    def read(self, head: int, packet: bytes) -> Message:
        self.came.clear()
        self.client._in_packet = {"command": head, "packet": bytearray(packet)}  # type: ignore[typeddict-item]
        self.client._handle_publish()
        (m,) = self.came
        response = getattr(m.properties, "ResponseTopic", None)
        correlation = getattr(m.properties, "CorrelationData", None)
        return Message(m.topic, bytes(m.payload), m.qos, m.retain, m.mid, response, correlation)


THEIRS = Theirs()
TEXT = st.text(min_size=1, max_size=20)
ANY = st.binary(min_size=0, max_size=60)
# Bytes that look like the packet of a question, so that most of a drawn one is read.
PARTS = st.lists(
    st.sampled_from([b"\0\1t", b"\0\2ab", b"\0", b"\x05", b"\x08\0\1r", b"\x09\0\1c", b"\x0b\0\1c"]) | ANY, max_size=5
).map(b"".join)


def packed(topic: str, receipt: int | None, response: str | None, correlation: bytes | None, more: int = 0) -> bytes:
    """What follows the length of a PUBLISH, by paho; `more`: seconds of expiry."""
    said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if more:
        said.MessageExpiryInterval = more
    if response is not None:
        said.ResponseTopic = response
    if correlation is not None:
        said.CorrelationData = correlation
    mid = b"" if receipt is None else receipt.to_bytes(2, "big")
    name = topic.encode()
    return len(name).to_bytes(2, "big") + name + mid + said.pack() + b'{"id": 1}'  # type: ignore[no-untyped-call]


@given(TEXT, st.none() | st.integers(1, 65_535), st.none() | TEXT, st.none() | ANY, st.booleans())
def test_a_question_is_read_as_paho_reads_it(
    topic: str, receipt: int | None, response: str | None, correlation: bytes | None, retain: bool
) -> None:
    for forbidden in ("\0", "\ufeff"):
        topic, response = topic.replace(forbidden, "x"), response and response.replace(forbidden, "x")
    head = 0x30 | retain | (2 if receipt is not None else 0)
    packet = packed(topic, receipt, response, correlation)
    found = plain(head, packet)
    simple = response is None or (response.isascii() and response.isprintable())
    assert found == (THEIRS.read(head, packet) if simple else None)


@given(st.sampled_from([0x30, 0x31, 0x32, 0x33, 0x3A, 0x34, 0x36]), PARTS)
def test_what_paho_would_not_read_so_is_left_to_paho(head: int, packet: bytes) -> None:
    found = plain(head, packet)
    assert found is None or found == THEIRS.read(head, packet)


@pytest.mark.parametrize(
    ("head", "packet"),
    [
        (0x34, packed("t", 7, None, None)), (0x30, packed("", None, None, None)),
        (0x30, packed("t", None, "r", b"c", more=60)), (0x30, b""), (0x30, b"\0\1t"), (0x30, b"\0\1t\5\x08\0\1r"),
        (0x30, b"\0\1t\x08\x08\0\1r\x08\0\1s"), (0x30, b"\0\1t\4\x08\0\2r"), (0x30, b"\0\1t\2\x08\0"),
        (0x30, b"\0\1\xff\0"), (0x30, b"\0\1t\4\x08\0\1\n"),
    ],
    ids=["QoS 2", "no topic", "an expiry", "empty", "no properties", "cut off", "a word cut off", "its length cut off",
         "twice", "not UTF-8", "a control"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_paho(head: int, packet: bytes) -> None:
    assert plain(head, packet) is None


@pytest.mark.parametrize("manual", [False, True])
def test_a_plain_message_is_acknowledged_by_whoever_should(manual: bool) -> None:
    client, came = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5, manual_ack=manual), list[Message]()
    client.received, client.on_socket_register_write = came.append, lambda *told: None
    client._in_packet = {"command": 0x32, "packet": bytearray(packed("t", 7, "r", b"c"))}  # type: ignore[typeddict-item]
    client._handle_publish()
    assert came == [Message("t", b'{"id": 1}', 1, False, 7, "r", b"c")]
    assert [bytes(one["packet"]) for one in client._out_packet] == ([] if manual else [b"\x40\x02\x00\x07"])


# --- what goes ---


class Wire:
    """A socket that takes so many bytes each time it is asked, and nothing where that is nought."""

    def __init__(self, takes: list[int]) -> None:
        self.takes, self.went, self.asked = deque(takes), b"", 0

    def send(self, buffer: bytes | bytearray) -> int:
        self.asked += 1
        takes = self.takes.popleft() if self.takes else len(buffer)
        if not takes:
            raise BlockingIOError
        self.went += bytes(buffer[:takes])
        return min(takes, len(buffer))

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing is held."""


def wired(takes: list[int]) -> tuple[Client, Any]:
    client, wire = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5), Wire(takes)
    client.on_socket_register_write = lambda *told: None
    client._sock = wire  # type: ignore[assignment]
    return client, wire


@example([(40_000, 0), (40_000, 1), (20, 1)], [1000, 0, 50_000, 0])
@given(
    st.lists(st.tuples(st.sampled_from([0, 20, 300, 40_000, 70_000]), st.integers(0, 1)), max_size=8),
    st.lists(st.sampled_from([0, 1, 1000, 50_000]), max_size=12),
)
def test_what_waits_goes_out_in_order_however_much_is_taken_at_once(
    messages: list[tuple[int, int]], takes: list[int]
) -> None:
    client, wire = wired(takes)
    alone, one_by_one = wired([])
    for number, (size, qos) in enumerate(messages):
        for one in (client, alone):
            one.publish("t", bytes([number]) * size, qos)
        alone.loop_write()
    client.disconnect()
    alone.disconnect()
    alone.loop_write()
    for _ in range(len(takes) + 1):
        if client._sock is not None:
            client.loop_write()
    assert wire.went == one_by_one.went and not client.want_write()
    assert client._sock is None, "paho saw that the goodbye had gone"


def test_what_waits_is_one_write() -> None:
    client, wire = wired([])
    for number in range(16):
        client.publish("t", bytes([number]) * 300, number % 2)
        client.ack(number, 1)
    client.loop_write()
    assert wire.asked == 1 and len(wire.went) > 16 * 300


# --- what we take of paho that it does not promise ---


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_there_and_takes_what_it_took(name: str) -> None:
    """A method that paho has renamed is never called, and nobody would see that a packet has no bound any more."""
    theirs, ours = getattr(paho.Client, name, None), getattr(Client, name)
    assert callable(theirs), f"paho has no {name} any more: see sync/packets.py"
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_every_private_name_that_is_used_is_paho_s() -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    tree = ast.parse(Path(packets.__file__).read_text())
    used = {
        node.attr
        for one in tree.body if isinstance(one, ast.ClassDef) and one.name == "Client"
        for node in ast.walk(one)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }  # fmt: skip
    assert len(OVERRIDDEN) >= 2 and used
    assert [name for name in sorted(used) if not hasattr(client, name)] == []
    assert "remaining_length" in client._in_packet


def test_paho_is_the_one_that_was_looked_at() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (bound,) = (Requirement(one) for one in wanted if one.startswith("paho-mqtt"))
    assert bound.specifier.contains(importlib.metadata.version("paho-mqtt"))
    assert any(one.operator == "<" for one in bound.specifier), "overridden names may go with any minor version"
