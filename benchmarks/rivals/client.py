"""The one client that asks all servers: raw sockets, keep-alive, one request under way a connection.

One poll, one read and one write an answer and nothing around them, so that a quick server does not wait for its asker.
"""

from __future__ import annotations

import re
import select
import socket
import time
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_READ = 64 * 1024  # bytes
_PATIENCE_S = 30.0


@dataclass
class Load:
    """What a round of one server, model and number of connections saw; seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0


class Client:
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, port: int, request: bytes) -> None:
        self._request = request
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.place = self._socket.fileno()
        self.began = 0.0
        self._answer = b""

    def ask(self) -> None:
        self._answer, self.began = b"", time.perf_counter()
        self._socket.sendall(self._request)

    def read(self) -> bool | None:
        """Takes in what has come: whether a whole answer is good; None while more of it is on its way."""
        piece = self._socket.recv(_READ)
        self._answer = self._answer + piece if self._answer else piece
        head = self._answer.find(b"\r\n\r\n")
        length = _LENGTH.search(self._answer, 0, head) if head >= 0 else None
        if piece and (head < 0 or len(self._answer) < head + 4 + (int(length[1]) if length else 0)):
            return None
        return self._answer.startswith(b"HTTP/1.1 200")

    def close(self) -> None:
        self._socket.close()


def load_test(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Asks for `seconds`, after a quarter as much of warming up that does not count.

    Ends at the first answer that is wrong, or that ends its connection.
    """
    clients = [Client(port, request) for _ in range(connections)]
    try:
        return _asked({client.place: client for client in clients}, seconds)
    finally:
        for client in clients:
            client.close()


def _asked(clients: dict[int, Client], seconds: float) -> Load:
    poll = select.epoll()
    for place, client in clients.items():
        poll.register(place, select.EPOLLIN)
        client.ask()
    load, now = Load(seconds), time.perf_counter()
    start = now + seconds / 4
    while now < start + seconds:
        for place, _ in poll.poll(_PATIENCE_S):
            client = clients[place]
            good = client.read()
            if good is None:
                continue
            now = time.perf_counter()
            if now >= start:
                load.latencies.append(now - client.began)
            if not good:
                load.wrong += 1
                return load
            client.ask()
        now = max(now, time.perf_counter())
    load.seconds = now - start
    return load
