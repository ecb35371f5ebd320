"""Requests that are there at the same time: answered together, path by path, in the same turn of the loop.

Nobody waits for company: whatever has been read when the loop has gone once through its sockets is answered then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge.http import wire
from edge.http.capacity import Capacity
from edge.http.wire import Request, Response

log = logging.getLogger("falaj.http")

Reply = Callable[[Response], None]


class Gathering:
    """The requests of one server that wait for the end of this turn of the loop; touched on its loop alone."""

    def __init__(self, capacity: Capacity, loop: asyncio.AbstractEventLoop) -> None:
        self._capacity, self._loop = capacity, loop
        self._waiting: dict[str, list[tuple[Request, Reply]]] = {}

    def add(self, request: Request, reply: Reply) -> None:
        """`reply` is called with the response in the next turn of the loop."""
        if not self._waiting:
            self._loop.call_soon(self._answer_all)
        self._waiting.setdefault(request.path, []).append((request, reply))

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for turns in waiting.values():
            began = self._loop.time()
            responses = answer(self._capacity, [request for request, _ in turns])
            self._capacity.learn(turns[0][0], self._loop.time() - began, len(turns))
            for (_, reply), response in zip(turns, responses, strict=True):
                reply(response)


def answer(capacity: Capacity, requests: Sequence[Request]) -> list[Response]:
    """The responses to requests to one path, in order; never raises."""
    try:
        if capacity.together is not None and len(requests) > 1:
            return capacity.together(requests)
        return [capacity.handle(request) for request in requests]
    except Exception:  # the border of the process to its clients: reported, and the connections live on
        log.exception("%s %s failed", requests[0].method, requests[0].path)
    if len(requests) > 1:  # one of them brings the others down, so each is asked for itself
        return [response for request in requests for response in answer(capacity, [request])]
    return [wire.error(500, "this server failed to answer; its log says why")]


def timed(capacity: Capacity, request: Request, ticks: Callable[[], float]) -> tuple[Response, float]:
    """The response to one request, and the seconds that it took by `ticks`; never raises."""
    began = ticks()
    (response,) = answer(capacity, [request])
    return response, ticks() - began
