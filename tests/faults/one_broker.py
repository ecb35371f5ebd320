"""A broker in memory that is killed, wiped and cut as a real one may be; what it loses is what a real one would."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from sync import topics
from sync.link import Message
from sync.loopback import Hub
from sync.names import DeviceId
from tests.edge.world import DEVICE, TENANT

REPORTED = topics.reported(TENANT, DEVICE)


def access(client: str, action: str, topic: str) -> bool:
    """The broker's rules, from the same table."""
    if client == topics.CORE_NAME:
        return topics.matches(f"{topics.tenant_root(TENANT)}/#", topic)
    return topics.device_may(action, TENANT, DeviceId(client), topic)  # type: ignore[arg-type]


@dataclass
class OneBroker(Hub):
    """A broker that keeps what it was told to keep, and of which a kill takes the rest. As MQTT has it, what one
    client says under one topic is not overtaken by what it says there later; a repetition may come at any time."""

    saved: dict[str, bytes] = field(default_factory=dict)
    delivered: list[tuple[str, Message]] = field(default_factory=list)  # to whom, what
    _said: deque[Message] = field(default_factory=deque)  # reports under way, oldest first

    def save(self) -> None:
        self.saved = dict(self.retained)

    def kill(self, *, wiped: bool) -> None:
        """kill -9: sessions and what was under way are gone; retained is what was saved, or nothing."""
        self.retained = {} if wiped else dict(self.saved)
        self._clients.clear()
        self._queue.clear()
        self._said.clear()

    def drop(self, client: str) -> None:
        """What was under way to this client is lost with its session."""
        self._queue = deque(entry for entry in self._queue if entry[0] != client)
        if client == topics.CORE_NAME:
            self._said.clear()

    def _deliver(self, client: str, topic: str, payload: bytes, qos: int, *, retained: bool) -> None:
        super()._deliver(client, topic, payload, qos, retained=retained)
        if topic == REPORTED:
            self._said.append(self._queue[-1][1])

    def _take(self) -> tuple[str, Message]:
        client, message = super()._take()
        if message.topic == REPORTED and self._said:
            message = self._said.popleft()
        self.delivered.append((client, message))
        return client, message

    def replay(self, area: str, which: int) -> None:
        """Something of this area that was delivered comes once more, however old it is."""
        known = [entry for entry in self.delivered if f"/{area}" in entry[1].topic]
        if known:
            self._queue.append(known[which % len(known)])
