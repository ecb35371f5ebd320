"""The thread under a session, against a broker of a few scripted bytes: whatever that does, the line is tried again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from sync.line import Line
from sync.packets import Client

WELCOME = b"\x20\x03\x00\x00\x00"  # CONNACK
READING = b"\x30\x06\x00\x01t\x00hi"  # PUBLISH, QoS 0, topic t
PATIENCE_S = 20.0


@contextmanager
def broker(*visits: Callable[[socket.socket], None]) -> Iterator[tuple[int, threading.Event]]:
    """A port, and an event that is set when every visit has had its turn."""
    done = threading.Event()

    def serve() -> None:
        for visit in visits:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(PATIENCE_S)
                assert peer.recv(1024)[:1] == b"\x10"  # CONNECT
                visit(peer)
        done.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], done
        thread.join(PATIENCE_S)


class Session:
    """A client on its line. `came` has the payloads, `why` what ended sessions; `up` is released for each session, and
    `heard` for each payload."""

    def __init__(self, port: int, receive: Callable[[bytes], None] = lambda payload: None) -> None:
        self.came: list[bytes] = []
        self.why: list[str] = []
        self.up, self.heard = threading.Semaphore(0), threading.Semaphore(0)
        self.client = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
        self.client.on_connect = lambda *told: self.up.release()
        self.client.on_message = self._received
        self.client.connect_async("127.0.0.1", port, 60)
        self._receive = receive
        self.line = Line(self.client, self.why.append, lambda: 0.0)
        self.line.start()

    def _received(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        self.came.append(bytes(message.payload))
        self.heard.release()
        self._receive(self.came[-1])


def saying(words: bytes = b"") -> Callable[[socket.socket], None]:
    """A visit of a broker that says this, and then listens until its visitor goes."""

    def visit(peer: socket.socket) -> None:
        peer.sendall(WELCOME + words)
        while peer.recv(1024):
            pass

    return visit


@pytest.mark.parametrize(
    "nonsense",
    [b"\x20\xff\xff\xff\xff\xff", b"\x30\x02\xff\xff", b"\x30\x00", b"\x00\x00", b"\x90\x04\x00\x01\x7f\x7f"],
    ids=["a length without end", "a topic beyond the packet", "an empty publish", "no packet", "properties cut off"],
)
def test_a_broker_that_speaks_nonsense_is_left_and_tried_again(nonsense: bytes) -> None:
    with broker(saying(nonsense), saying()) as (port, done):
        session = Session(port)
        assert session.up.acquire(timeout=PATIENCE_S) and session.up.acquire(timeout=PATIENCE_S), session.why
        session.line.stop()
        assert done.wait(PATIENCE_S), "goodbye was said to the one that behaves"


def test_a_receiver_that_raises_costs_the_session_and_not_the_next_one() -> None:
    def refuse(payload: bytes) -> None:
        raise KeyError("nobody thought of this")

    with broker(saying(READING), saying()) as (port, done):
        session = Session(port, refuse)
        assert session.up.acquire(timeout=PATIENCE_S) and session.up.acquire(timeout=PATIENCE_S)
        session.line.stop()
        assert done.wait(PATIENCE_S)
    assert session.came == [b"hi"] and "nobody thought of this" in session.why[0]


def test_packets_that_come_as_one_are_all_taken_and_a_torn_one_is_waited_for() -> None:
    rest = threading.Event()

    def speak(peer: socket.socket) -> None:
        peer.sendall(WELCOME + 3 * READING + READING[:5])
        assert rest.wait(PATIENCE_S)
        peer.sendall(READING[5:])
        while peer.recv(1024):
            pass

    with broker(speak) as (port, _):
        session = Session(port)
        for _ in range(3):
            assert session.heard.acquire(timeout=PATIENCE_S)
        rest.set()
        assert session.heard.acquire(timeout=PATIENCE_S)
        session.line.stop()
    assert session.came == 4 * [b"hi"]


def test_the_last_of_those_that_came_together_is_known() -> None:
    told, enough = list[str](), threading.Event()

    def drained() -> None:
        if told:
            told.append("drained")
            enough.set()

    client = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
    client.on_message = lambda client, data, message: told.append("message")
    with broker(saying(3 * READING)) as (port, done):
        client.connect_async("127.0.0.1", port, 60)
        line = Line(client, told.append, lambda: 0.0, drained)
        line.start()
        assert enough.wait(PATIENCE_S)
        line.stop()
        assert done.wait(PATIENCE_S)
    assert told[:4] == ["message", "message", "message", "drained"]


def test_half_a_packet_of_a_lost_session_is_not_read_into_the_next() -> None:
    def tear(peer: socket.socket) -> None:
        peer.sendall(WELCOME + READING + READING[:5])

    with broker(tear, saying(READING)) as (port, _):
        session = Session(port)
        assert session.heard.acquire(timeout=PATIENCE_S) and session.heard.acquire(timeout=PATIENCE_S)
        session.line.stop()
    assert session.came == 2 * [b"hi"]


def test_what_another_thread_says_goes_out_at_once() -> None:
    """Each once the one before has come: unwoken, the line would sleep on for a second before each."""
    said = threading.Semaphore(0)

    def listen(peer: socket.socket) -> None:
        peer.sendall(WELCOME)
        while piece := peer.recv(1024):
            for _ in range(piece.count(b"word")):
                said.release()

    with broker(listen) as (port, done):
        session = Session(port)
        assert session.up.acquire(timeout=PATIENCE_S)
        for _ in range(100):
            session.client.publish("t", b"word")
            assert said.acquire(timeout=PATIENCE_S)
        session.line.stop()
        assert done.wait(PATIENCE_S)


def test_a_line_that_never_began_can_be_stopped_and_one_that_waits_stops_at_once() -> None:
    client = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
    Line(client, lambda why: None, lambda: 0.0).stop()
    tried = threading.Event()

    def pause() -> float:
        tried.set()
        return 1e6

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client.connect_async("127.0.0.1", port, 60)
    why: list[str] = []
    line = Line(client, why.append, pause)
    line.start()
    assert tried.wait(PATIENCE_S)
    line.stop()
    assert "refused" in why[0]


@pytest.mark.parametrize("host", ["broker..example", "x" * 70])
def test_a_name_that_none_can_be_is_told_and_tried_again(host: str) -> None:
    tries = threading.Semaphore(0)
    client = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
    client.connect_async(host, 1883, 60)
    line = Line(client, lambda why: tries.release(), lambda: 0.0)
    line.start()
    assert tries.acquire(timeout=PATIENCE_S) and tries.acquire(timeout=PATIENCE_S)
    line.stop()


def test_whoever_is_told_and_raises_does_not_end_the_line() -> None:
    told = threading.Event()

    def failed(why: str) -> None:
        told.set()
        raise MemoryError

    client = Client(CallbackAPIVersion.VERSION2, "c", protocol=paho.MQTTv5)
    client.connect_async("broker..example", 1883, 60)
    line = Line(client, failed, lambda: 0.0)
    line.start()
    assert told.wait(PATIENCE_S) and line._thread.is_alive()
    line.stop()


def test_a_peer_that_reads_no_more_does_not_keep_a_stop_waiting_for_ever() -> None:
    released = threading.Event()

    def sit(peer: socket.socket) -> None:
        peer.sendall(WELCOME)
        assert released.wait(60)

    with broker(sit) as (port, _):
        session = Session(port)
        assert session.up.acquire(timeout=PATIENCE_S)
        for _ in range(200):
            session.client.publish("t", bytes(100_000))
        session.line.stop()
        released.set()
