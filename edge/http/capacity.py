"""What one server takes on: the limits for a client, and what all connections share of memory and threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from edge.http.doorkeeper import Doorkeeper
from edge.http.wire import Request, Response

Handle = Callable[[Request], Response]
Together = Callable[[Sequence[Request]], list[Response]]  # requests to one path that came at once, answered in order
_INLINE = 64 * 1024  # bytes of a body answered on the loop
_READ = 256 * 1024  # bytes of one read from a socket
_SLOW_S = 0.005  # an answer that takes longer on the loop holds up the others
_HANGS_S = 0.1  # one that takes longer is no stumble of the machine: its path goes aside at once
_OFTEN = 3  # so often in a row, and its path is answered aside: once may be the machine's doing
_PROBE = 64  # answers aside until the loop tries again
_PATHS = 64  # remembered; strangers may invent paths
_OWN = "/v1/"  # below it the third part is an entity or a prediction, of which there is no end


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked of the server. Bytes and seconds."""

    body: int = 16 * 1024 * 1024
    head: int = 16 * 1024
    idle_s: float = 75.0  # between requests
    request_s: float = 10.0  # from a request's first byte to its last, and for taking the response
    connections: int = 256
    held: int = 64 * 1024 * 1024  # bytes of bodies in memory, of all connections together
    waiting: int = 64  # requests that wait for a thread or are in one


@dataclass(slots=True)
class Capacity:
    """What the connections of one server share; touched on its loop alone. `hosts` are the names a client may call
    the server by; None takes any. With `together`, requests that are there at the same time are answered so."""

    handle: Handle
    limits: Limits
    pool: Executor
    hosts: frozenset[str] | None = None
    together: Together | None = None
    door: Doorkeeper | None = None  # asks every request for a token
    # Read into over and over: a fresh block for each read, as asyncio would have it, costs more than a small model.
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_READ)))
    held: int = 0  # bytes
    waiting: int = 0
    _suspects: dict[str, int] = field(default_factory=dict)  # by path: slow answers in a row
    _aside: dict[str, int] = field(default_factory=dict)  # by path: answers until the loop tries again

    def inline(self, request: Request) -> bool:
        """Whether this one is answered on the loop itself: it is small, and its path has been quick. Ask once each."""
        if len(request.body) > _INLINE:
            return False
        place = _place(request.path)
        left = self._aside.get(place)
        if left is not None:
            self._aside[place] = _PROBE if left == 0 else left - 1
        return not left

    def learn(self, request: Request, seconds: float, answers: int = 1) -> None:
        """How long the loop was held by so many answers, given together, decides where the next ones are given."""
        place = _place(request.path)
        if seconds > _HANGS_S or seconds / answers > _SLOW_S:
            slow = self._suspects.pop(place, 0) + (1 if seconds <= _HANGS_S else _OFTEN)
            if slow < _OFTEN:
                _remember(self._suspects, place, slow)
            else:
                _remember(self._aside, place, _PROBE)
        elif self._suspects or self._aside:
            self._suspects.pop(place, None)
            self._aside.pop(place, None)

    def learn_aside(self, request: Request, seconds: float) -> None:
        """What an answer aside took, once a thread was there: the loop tries none of a path that still hangs. What is
        aside for its size says nothing of the small ones."""
        place = _place(request.path)
        if seconds > _HANGS_S and place in self._aside and len(request.body) <= _INLINE:
            self._aside[place] = _PROBE


def _remember(places: dict[str, int], place: str, number: int) -> None:
    """The newest `_PATHS` are kept."""
    if place not in places and len(places) >= _PATHS:
        del places[next(iter(places))]
    places[place] = number


def _place(path: str) -> str:
    """What is quick or slow as one: a path, or all of ours that differ by the entity alone."""
    return path if not path.startswith(_OWN) else "/".join(path.split("/", 3)[:3])
