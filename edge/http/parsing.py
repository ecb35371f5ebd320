"""One connection: bytes in, requests in order, responses in the same order out (HTTP/1.1, keep-alive, pipelining).

Limits are enforced while bytes arrive, so that nobody can fill memory or hold a connection by sending slowly.
Small requests are answered on the loop itself, which is fastest; large ones, and those to a path that was seen
to be slow, in a thread, so that they hold up nobody else. What may wait is bounded: more is told to come back.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from functools import lru_cache, partial

import httptools
import msgspec

from edge.http import wire
from edge.http.capacity import Capacity
from edge.http.gathering import Gathering, answer, timed
from edge.http.wire import Request, Response

_LINGER_S = 5.0
_PIPELINED = 32  # requests read ahead of the one being answered
_RETRY = ("Retry-After", "1")  # seconds


class _Turn(msgspec.Struct, frozen=True):
    """What is to be answered next: a request, or a response that is settled already."""

    what: Request | Response
    keep_alive: bool
    head: bool


class Connection(asyncio.BufferedProtocol):
    """Speaks with one client. What it reads lies in a buffer that all connections share, until it has been parsed."""

    def __init__(self, capacity: Capacity, peers: set[Connection], gathering: Gathering) -> None:
        self._capacity, self._limits, self._peers = capacity, capacity.limits, peers
        self._gathering = gathering
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._turns: deque[_Turn] = deque()
        self._busy = self._full = self._done = self._mute = self._in_head = self._in_message = False
        self._raw_head = self._head_bytes = self._body_bytes = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.deadline = math.inf

    # --- the transport's calls
    # ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        door, source = self._capacity.door, transport.get_extra_info("peername")
        self._door = partial(door.refuse, str(source[0])) if door is not None else None
        self._peers.add(self)
        self._set_deadline(self._limits.idle_s)
        if len(self._peers) > self._limits.connections:
            self._refuse(503, f"more than {self._limits.connections} connections", _RETRY)
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        self._done = True
        self._let_go()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._capacity.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._mute:
            self._parse(self._capacity.buffer[:nbytes])

    def _parse(self, data: memoryview) -> None:
        was_in_head = self._in_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as plain HTTP; `on_message_complete` saw to it that the connection ends then
        except httptools.HttpParserError as error:
            self._in_message = True  # more of it may be on its way
            self._refuse(400, f"this is no HTTP/1.1: {error}")
        if was_in_head and self._in_head:
            self._raw_head += len(data)
            if self._raw_head > self._limits.head:
                self._refuse_head()
        self._advance()

    def eof_received(self) -> bool:
        """Whoever only shuts its sending side down still gets its answers."""
        self._mute, self._in_message = True, False  # of a half-sent one nothing more will come
        if self._done:
            self._transport.close()
        elif not self._busy and not self._turns:
            self._close()
        return self._transport.get_extra_info("sslcontext") is None  # TLS knows no half-closed connection

    def pause_writing(self) -> None:
        self._full = True
        self._set_deadline(self._limits.request_s)

    def resume_writing(self) -> None:
        self._full = False
        self._advance()

    # --- the parser's calls
    # -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        self._raw_head = self._head_bytes = self._body_bytes = 0
        self._url, self._headers, self._body = b"", {}, []
        self._set_deadline(self._limits.request_s)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._head_bytes += len(url)
        if self._head_bytes > self._limits.head:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text, headers = name.lower().decode("latin-1"), value.decode("latin-1"), self._headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._mute:
            return
        name = _host_name(self._headers.get("host", "localhost"))
        length = self._headers.get("content-length", "0")
        if self._capacity.hosts is not None and name not in self._capacity.hosts:
            self._refuse(421, f"this server answers to localhost, not to {name!r}")
        elif self._door and (refusal := self._door(self._headers.get("authorization", ""), self._loop.time())):
            self._refuse(*refusal)
        elif length.isdecimal() and int(length) > self._limits.body:
            self._refuse_body()
        elif self._headers.get("expect", "").lower() == "100-continue" and not self._busy and not self._turns:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._mute:
            return
        self._body_bytes += len(body)
        self._capacity.held += len(body)
        self._body.append(body)
        if self._body_bytes > self._limits.body:
            self._refuse_body()
        elif self._capacity.held > self._limits.held:
            self._refuse(503, "too many bodies are held already; send it again soon", _RETRY)

    def on_message_complete(self) -> None:
        if self._mute:
            return
        self._in_message = False
        method = self._parser.get_method().decode("latin-1")
        path = self._url.partition(b"?")[0].decode("latin-1")
        request = Request(method, path, self._headers, b"".join(self._body))
        self._body, self._body_bytes = [], 0  # the turn holds it now
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._turns.append(_Turn(request, keep_alive, method == "HEAD"))
        self._mute = not keep_alive
        self._set_deadline(self._limits.request_s)

    # --- answering
    # ----------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether nothing is under way here, so that closing loses nothing."""
        return self._done or (not self._busy and not self._turns and not self._in_message)

    def expire(self) -> None:
        """The deadline has passed: a half-sent request is told so, an idle or deaf client is let go."""
        if self._in_message and not self._full and not self._mute:
            self._refuse(408, f"a request must be complete within {self._limits.request_s:g} s")
            self._advance()
        else:
            self._transport.abort()

    def close(self) -> None:
        """Closes after what has been written is sent."""
        self._close()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    def _refuse_head(self) -> None:
        self._refuse(431, f"the head of a request may have {self._limits.head} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, f"a body may have {self._limits.body} bytes; send fewer rows at a time")

    def _refuse(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        """In its turn, the last thing said on this connection."""
        if not self._mute:
            self._mute = True
            self._drop_body()
            self._turns.append(_Turn(wire.error(status, text, *headers), keep_alive=False, head=False))

    def _advance(self) -> None:
        while self._turns and not self._busy and not self._full and not self._done:
            turn = self._turns.popleft()
            if isinstance(turn.what, Response):
                self._write(turn, turn.what)
            else:
                self._take(turn, turn.what)
        if self._done:
            return
        if len(self._turns) > _PIPELINED or self._full:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def _take(self, turn: _Turn, request: Request) -> None:
        """Answers here, or hands over to a thread; if too much waits for one already, says so."""
        capacity = self._capacity
        if capacity.inline(request):
            if capacity.together is not None and len(self._peers) > 1:
                self._wait()
                self._gathering.add(request, partial(self._settle, turn, request))
                return
            began = self._loop.time()
            (response,) = answer(capacity, (request,))
            capacity.learn(request, self._loop.time() - began)
            capacity.held -= len(request.body)
            self._write(turn, response)
        elif capacity.waiting >= self._limits.waiting:
            capacity.held -= len(request.body)
            self._write(turn, wire.error(503, "too many requests wait already; send it again soon", _RETRY))
        else:
            capacity.waiting += 1
            self._wait()
            future = self._loop.run_in_executor(capacity.pool, timed, capacity, request, self._loop.time)
            future.add_done_callback(partial(self._resume, turn, request))

    def _wait(self) -> None:
        self._busy, self.deadline = True, math.inf

    def _resume(self, turn: _Turn, request: Request, answered: asyncio.Future[tuple[Response, float]]) -> None:
        self._capacity.waiting -= 1
        response, seconds = answered.result()
        self._capacity.learn_aside(request, seconds)
        self._settle(turn, request, response)

    def _settle(self, turn: _Turn, request: Request, response: Response) -> None:
        self._capacity.held -= len(request.body)
        self._busy = False
        self._set_deadline(self._limits.request_s)
        if not self._done:
            self._write(turn, response)
            self._advance()

    def _write(self, turn: _Turn, response: Response) -> None:
        self._transport.write(wire.encode(response, keep_alive=turn.keep_alive, head=turn.head))
        if not turn.keep_alive or (self._mute and not self._turns):
            self._close()
        elif not self._in_message and not self._full:
            self._set_deadline(self._limits.idle_s)

    def _close(self) -> None:
        self._done = self._mute = True
        self._let_go()
        self._set_deadline(_LINGER_S)
        if self._in_message and self._transport.can_write_eof():
            # The client is still sending what was refused; a reset now would eat the refusal on its way.
            self._transport.write_eof()
        else:
            self._transport.close()

    def _drop_body(self) -> None:
        self._capacity.held -= self._body_bytes
        self._body, self._body_bytes = [], 0

    def _let_go(self) -> None:
        """Forgets what was read but will not be answered."""
        self._drop_body()
        self._capacity.held -= sum(len(turn.what.body) for turn in self._turns if isinstance(turn.what, Request))
        self._turns.clear()

    def _set_deadline(self, seconds: float) -> None:
        """While an answer is being computed there is none: that time is ours, not the client's."""
        if not self._busy:
            self.deadline = self._loop.time() + seconds


@lru_cache(64)  # strangers may invent names
def _host_name(host: str) -> str:
    """The name in a Host header, without its port, in lowercase."""
    name, colon, port = host.rpartition(":")
    return (name if name and port.isdecimal() else name + colon + port).lower()
