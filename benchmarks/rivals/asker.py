"""The client that asks over MQTT: one raw socket, so that it is never the slower side. MQTT 5, QoS 0."""

from __future__ import annotations

import socket
import struct
import time
from collections import deque
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.rivals.client import Load

REPLY = "falaj/local/bench/reply/asker"
_PUBLISH = 3  # the packet's type


class Asker:
    """A session that listens on `REPLY`; raises OSError where there is no broker, or nobody answers for 30 s."""

    def __init__(self, port: int, user: str, password: Path) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bytes = b""
        flags = b"\xc2"  # user, password, clean start
        head = _text("MQTT") + b"\5" + flags + struct.pack(">H", 600) + b"\0"
        self._socket.sendall(_packet(0x10, head + _text("asker") + _text(user) + _text(password.read_text())))
        self._socket.sendall(_packet(0x82, b"\0\1\0" + _text(REPLY) + b"\0"))
        while self._next()[0] != 9:  # SUBACK
            pass

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, topic: str, body: bytes, seconds: float) -> bytes:
        """The payload of the answer to one question; raises TimeoutError."""
        self._socket.settimeout(seconds)
        self._socket.sendall(question(topic, body))
        try:
            return self._answer()
        finally:
            self._socket.settimeout(30)

    def load_test(self, topic: str, body: bytes, under_way: int, seconds: float) -> Load:
        """Asks for `seconds` with so many questions under way, after a quarter as much of warming up."""
        packet, begun = question(topic, body), deque[float]()
        for _ in range(under_way):
            begun.append(time.perf_counter())
            self._socket.sendall(packet)
        latencies, wrong, start = list[float](), 0, time.perf_counter() + seconds / 4
        while (now := time.perf_counter()) < start + seconds or not latencies:
            told = self._answer()
            if now >= start:
                latencies.append(time.perf_counter() - begun[0])
                wrong += b'"outputs"' not in told
            begun.popleft()
            begun.append(time.perf_counter())
            self._socket.sendall(packet)
        for _ in range(under_way):
            self._answer()
        p50, p99 = (float(p) for p in np.percentile(latencies, (50, 99)))
        return Load(len(latencies), now - start, p50, p99, wrong)

    def drain(self, seconds: float = 0.3) -> None:
        """Lets go of answers to questions that were given up, until none has come for a while."""
        self._socket.settimeout(seconds)
        try:
            while True:
                self._answer()
        except TimeoutError:
            self._socket.settimeout(30)

    def _answer(self) -> bytes:
        while True:
            kind, packet = self._next()
            if kind == _PUBLISH:
                at = 2 + int.from_bytes(packet[:2], "big")
                return packet[at + 1 + packet[at] :]  # properties are shorter than 128 bytes

    def _next(self) -> tuple[int, bytes]:
        while True:
            length = at = 0
            for at, byte in enumerate(self._bytes[1:5]):
                length |= (byte & 127) << 7 * at
                if byte < 128:
                    break
            else:
                byte = 128
            end = 2 + at + length
            if byte < 128 and len(self._bytes) >= end:
                packet, self._bytes = self._bytes[:end], self._bytes[end:]
                return packet[0] >> 4, packet[2 + at :]
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionError("the broker ended the session")
            self._bytes += received


def question(topic: str, body: bytes) -> bytes:
    """The packet of a question: response topic and correlation data with it."""
    properties = b"\x08" + _text(REPLY) + b"\x09" + _text("4711")
    return _packet(0x30, _text(topic) + bytes([len(properties)]) + properties + body)


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _packet(first: int, rest: bytes) -> bytes:
    length, size = len(rest), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([first]) + size + bytes([length]) + rest
