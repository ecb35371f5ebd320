"""The one client that asks all servers: raw sockets, keep-alive, one request under way a connection."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass, field


@dataclass
class Load:
    """What a round of one server, model and number of connections saw; seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0


_READ = memoryview(bytearray(64 * 1024))  # of all connections: a fresh block for each read would be the client's limit


class Client(asyncio.BufferedProtocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, request: bytes, load: Load, ended: asyncio.Event) -> None:
        self._request, self._load, self._ended = request, load, ended
        self._answer, self._whole = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.is_set():
            self._load.wrong += 1

    def get_buffer(self, sizehint: int) -> memoryview:
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self._answer += _READ[:nbytes]
        if not self._whole:
            head, found, _ = self._answer.partition(b"\r\n\r\n")
            if not found:
                return
            length = re.search(rb"content-length: *(\d+)", head.lower())
            self._whole = len(head) + 4 + (int(length[1]) if length else 0)
        if len(self._answer) < self._whole:
            return
        self._load.latencies.append(time.perf_counter() - self._began)
        self._load.wrong += not self._answer.startswith(b"HTTP/1.1 200")
        if self._ended.is_set():
            self._transport.close()
        else:
            self._ask()

    def _ask(self) -> None:
        self._answer, self._whole, self._began = b"", 0, time.perf_counter()
        self._transport.write(self._request)


async def load_test(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Asks for `seconds`, after a quarter as much of warming up that does not count."""
    loop, ended, result = asyncio.get_running_loop(), asyncio.Event(), Load(seconds)
    for _ in range(connections):
        await loop.create_connection(lambda: Client(request, result, ended), "127.0.0.1", port)
    await asyncio.sleep(seconds / 4)
    result.latencies.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    result.seconds = time.perf_counter() - began
    counted = result.latencies.copy()
    ended.set()
    await asyncio.sleep(0.1)
    result.latencies = counted
    return result
