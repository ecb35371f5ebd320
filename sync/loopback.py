"""The in-memory twin of a broker: retained messages, access rules and wills, and faults on request.

It may lose, repeat and reorder, as a bad line does; a seeded `random.Random` decides, so a run can be repeated.
Delivery happens in `Hub.run()`, on the caller's thread: no clock, no threads, no surprise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from sync.link import Message, Publish, Receiver, Watcher
from sync.topics import matches

Access = Callable[[str, str, str], bool]  # (client, "read" | "write", topic) -> allowed


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances per delivery. A lost QoS 1 message is delivered later, as a broker would repeat it."""

    lose: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0


@dataclass
class Hub:
    """One broker in memory. `access` decides per client, action and topic; the default allows all."""

    rng: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - faults, not secrets
    faults: Faults = Faults()
    access: Access = lambda client, action, topic: True
    retained: dict[str, bytes] = field(default_factory=dict)
    passed: list[tuple[str, bytes]] = field(default_factory=list)  # everything published, for searches in tests
    _clients: dict[str, LoopbackLink] = field(default_factory=dict)
    _queue: deque[tuple[str, Message]] = field(default_factory=deque)

    def connect(self, client: str, will: Publish | None = None) -> LoopbackLink:
        """A link for this client; a second one under the same name takes the session over."""
        return LoopbackLink(self, client, will)

    def run(self, limit: int = 100_000) -> int:
        """Delivers until nothing is under way; returns how many messages arrived."""
        delivered = self.deliver(limit)
        if self._queue:
            raise RuntimeError(f"{limit} messages and no end: a loop between two parties?")
        return delivered

    def deliver(self, most: int) -> int:
        """Delivers so many messages at most, and leaves the rest under way; returns how many arrived."""
        delivered = 0
        while self._queue and delivered < most:
            client, message = self._take()
            link = self._clients.get(client)
            if link is None or link.receiver is None:
                continue
            delivered += 1
            link.receiver(message)
        return delivered

    def _take(self) -> tuple[str, Message]:
        if len(self._queue) > 1 and self.rng.random() < self.faults.reorder:
            self._queue.rotate(-1)
        client, message = self._queue.popleft()
        if message.qos and self.rng.random() < self.faults.repeat:
            self._queue.append((client, message))
        if self.rng.random() < self.faults.lose and message.qos and self._queue:
            self._queue.append((client, message))
            return self._take_next()
        return client, message

    def _take_next(self) -> tuple[str, Message]:
        return self._queue.popleft()

    def _publish(self, client: str, message: Publish) -> None:
        if not self.access(client, "write", message.topic):
            return
        self.passed.append((message.topic, message.payload))
        if message.retain:
            if message.payload:
                self.retained[message.topic] = message.payload
            else:
                self.retained.pop(message.topic, None)
        for name, link in self._clients.items():
            if any(matches(p, message.topic) for p in link.patterns):
                self._deliver(name, message.topic, message.payload, message.qos, retained=False)

    def _replay(self, client: str, pattern: str) -> None:
        for topic, payload in self.retained.items():
            if matches(pattern, topic):
                self._deliver(client, topic, payload, 1, retained=True)

    def _deliver(self, client: str, topic: str, payload: bytes, qos: int, *, retained: bool) -> None:
        if self.access(client, "read", topic):
            self._queue.append((client, Message(topic, payload, qos, retained)))

    def _enter(self, link: LoopbackLink) -> None:
        self._clients[link.client] = link

    def _leave(self, link: LoopbackLink, *, clean: bool) -> None:
        if self._clients.get(link.client) is not link:
            return
        del self._clients[link.client]
        if link.will is not None and not clean:
            self._publish(link.client, link.will)


class LoopbackLink:
    """A `sync.link.Link` on a Hub."""

    def __init__(self, hub: Hub, client: str, will: Publish | None) -> None:
        self.hub = hub
        self.client = client
        self.will = will
        self.patterns: list[str] = []
        self.receiver: Receiver | None = None
        self._watcher: Watcher | None = None
        self._up = False

    def start(self, receiver: Receiver, watcher: Watcher) -> None:
        self.receiver, self._watcher = receiver, watcher
        self.hub._enter(self)
        self._up = True
        for pattern in self.patterns:
            self.hub._replay(self.client, pattern)
        watcher(True, "connected")

    def publish(self, message: Publish) -> None:
        if self._up:
            self.hub._publish(self.client, message)

    def subscribe(self, *patterns: str) -> None:
        for pattern in patterns:
            if pattern not in self.patterns:
                self.patterns.append(pattern)
            if self._up:
                self.hub._replay(self.client, pattern)

    def unsubscribe(self, *patterns: str) -> None:
        self.patterns = [p for p in self.patterns if p not in patterns]

    def stop(self) -> None:
        self._up = False
        self.hub._leave(self, clean=True)

    def cut(self) -> None:
        """The session is lost: the will goes out, nothing more arrives until `start` is called again."""
        self._up = False
        self.hub._leave(self, clean=False)
        if self._watcher is not None:
            self._watcher(False, "cut")
