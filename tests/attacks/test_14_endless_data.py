"""Attack 14: a broker that sends without end, more than anything may have, or hardly at all. Nothing is kept beyond
what was signed, memory has an end, asking again slows down, and the release before goes on serving."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.agent.trusting import TRUST_BYTES, TRUST_FILES
from edge.roots import TRUST_FILE_LIMIT
from edge.states import Listen
from sync import topics
from sync.link import Message
from sync.mqtt import LARGEST, Broker, MqttLink
from sync.names import Digest, TrustFile
from tests.attacks.field import Field
from tests.attacks.ground import Ground
from tests.edge.device import committed
from tests.edge.world import DEVICE, TENANT, Core, Shipped
from tests.hosting import hosting
from tests.waiting import eventually

HOURS = 7200.0  # seconds
FLOOD = 300  # messages; none of the counts below depends on it


def say(field: Field, topic: str, payload: bytes) -> None:
    """The broker says something to the device, as often as it likes."""
    device = field.device
    device.carry_out(device.agent.handle(Message(topic, payload, 0, True), device.now))


def stopped(field: Field, core: Core) -> tuple[Shipped, Digest]:
    """Release 3 is assigned, and the broker gives out no chunk of its model."""
    shipped = core.ship(3)
    digest = next(iter(shipped.sealed))
    for topic in [t for t in core.hub.retained if f"/blob/{digest}/" in t]:
        del core.hub.retained[topic]
    core.assign(shipped, field.device.identity)
    field.device.settle(2, ask=0)
    assert digest in field.device.house.downloads
    return shipped, digest


def parts(field: Field) -> int:
    return sum(p.stat().st_size for p in field.device.house.artifacts.folder.glob("*.part"))


def test_14_chunks_without_end_are_not_kept_and_told_of_once(field: Field, core: Core) -> None:
    shipped, digest = stopped(field, core)
    device, chance = field.device, random.Random(7)
    told = device.codes()
    for n in range(FLOOD):
        index = n % 5 if n % 2 else chance.randrange(10**9)
        say(field, topics.blob(TENANT, digest, index), chance.randbytes(chance.choice((1, 256, 100_000))))
        say(field, topics.blob(TENANT, Digest("f" * 64), index), b"x" * 100_000)
    assert parts(field) == 0 and device.house.downloads[digest].have == set()
    assert device.codes()[len(told) :] == ["chunk-damaged"] and device.events()[-1].severity == "alarm"
    assert device.answering == 2, "the release before goes on"
    core.publish_blob(shipped, digest)
    device.settle(12, ask=0)
    assert committed(device, 3), "and the right ones are still welcome"


def test_14_right_chunks_again_and_again_take_their_signed_length_once(field: Field, core: Core) -> None:
    shipped, digest = stopped(field, core)
    device = field.device
    first = shipped.sealed[digest][: device.house.downloads[digest].blob.chunk]
    for _ in range(FLOOD):
        say(field, topics.blob(TENANT, digest, 0), first)
    assert parts(field) == len(first) <= sum(map(len, shipped.sealed.values()))
    assert device.codes()[-1] == "release-offered" and device.answering == 2


def test_14_metadata_beyond_every_limit_is_not_held(field: Field, core: Core) -> None:
    device = field.device
    before = device.house.journal.high_water()
    say(field, topics.trust(TENANT, TrustFile("9.snapshot.json")), b"{" + b" " * TRUST_FILE_LIMIT)
    assert device.codes() == ["refused-untrusted"] and "9.snapshot.json" not in device.house.trust.files
    for n in range(TRUST_FILES + FLOOD):
        say(field, topics.trust(TENANT, TrustFile(f"{n}.x.json")), b"y" * 20_000)
        files = device.house.trust.files
        assert sum(map(len, files.values())) <= TRUST_BYTES and len(files) <= TRUST_FILES
    assert set(device.codes()) == {"refused-untrusted"} and device.house.journal.high_water() == before
    assert device.answering == 2


def test_14_one_that_hardly_sends_is_asked_ever_less_often(field: Field, core: Core) -> None:
    """Two hours in which the broker says nothing: patience doubles up to five minutes, and it is told once."""
    _, digest = stopped(field, core)
    device = field.device
    asked = 0
    listen = device.listen

    def counting(action: Listen) -> None:
        nonlocal asked
        asked += sum(f"/blob/{digest}/" in pattern for pattern in action.patterns)
        listen(action)

    device.listen = counting  # type: ignore[method-assign]
    over = device.now + HOURS
    while device.now < over:
        device.now += 10.0
        device.carry_out(device.agent.tick(device.now))
    assert device.codes().count("download-stalled") == 1 and device.answering == 2
    assert 1 < asked <= 20 + HOURS / 300.0, "one chunk in five minutes"


@contextmanager
def announcing(ground: Ground, size: int) -> Iterator[tuple[int, list[int]]]:
    """A listener with the broker's own certificate that greets, then announces one packet of `size` bytes and sends on
    and on; the bytes it could send to each connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(ground.folder / "server.pem", ground.folder / "server.key")
    sent: list[int] = []

    def pour(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as line:
            line.recv(4096)
            line.sendall(b"\x20\x03\x00\x00\x00" + b"\x30" + _length(size) + struct.pack(">H", 1) + b"x\x00")
            sent.append(0)
            while sent[-1] < size:
                line.sendall(b"z" * 65_536)
                sent[-1] += 65_536

    with hosting(pour) as port:
        yield port, sent


def _length(size: int) -> bytes:
    """MQTT's variable byte integer."""
    out = b""
    while True:
        size, digit = divmod(size, 128)
        out += bytes([digit | (0x80 if size else 0)])
        if not size:
            return out


@pytest.mark.broker
def test_14_a_packet_without_end_ends_the_session_and_not_the_memory(ground: Ground, tmp_path: Path) -> None:
    size, came = 200_000_000, list[Message]()
    with announcing(ground, size) as (port, sent):
        link = MqttLink(Broker("127.0.0.1", port, DEVICE, ground.device_tls(DEVICE)), chance=lambda: 0.0)
        changes: list[bool] = []
        link.start(came.append, lambda up, reason: changes.append(up))
        try:
            eventually(lambda: changes.count(False) >= 2, "the session to end, and the next")
        finally:
            link.stop()
        assert not came and max(sent) < size / 4, f"it took {max(sent)} bytes, {LARGEST} may a packet have"
