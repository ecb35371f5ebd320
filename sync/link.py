"""The port to the wire. `sync.mqtt` carries it over MQTT 5, `sync.loopback` in memory; walkers never see either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec


class LinkDown(Exception):
    """The link is not there or refuses; what to do next stands in the message."""


class Message(msgspec.Struct, frozen=True):
    """One message that arrived. `retained` is true for the broker's stored copy, not for a live one; `receipt` is
    what `acknowledge` needs on a link that leaves acknowledging to its receiver."""

    topic: str
    payload: bytes
    qos: int = 0
    retained: bool = False
    receipt: int = 0
    response_topic: str | None = None
    correlation: bytes | None = None


class Publish(msgspec.Struct, frozen=True):
    """One message to send."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    expiry: int | None = None  # seconds the broker keeps it for an absent receiver
    correlation: bytes | None = None


class LineReport(msgspec.Struct, frozen=True):
    """What a site lets its line carry down of releases and tables; 0: no limit. Only chunks count."""

    bytes_today: int  # asked for, of the UTC day
    daily_bytes: int
    bytes_per_second: int
    waits: bool = False  # for tomorrow: the budget of today is spent


AROUND = 64  # bytes: more than an MQTT 5 PUBLISH of ours has beside topic and payload


def packet_size(topic: str, payload: int) -> int:
    """Bytes a packet takes at most that carries so many bytes on this topic: what a broker's limit is compared with."""
    return len(topic) + payload + AROUND


Receiver = Callable[[Message], None]
Watcher = Callable[[bool, str], None]  # (up, reason)


class Link(Protocol):
    """A session with a broker. Calls never block on the network; lost sessions come back by themselves."""

    def start(self, receiver: Receiver, watcher: Watcher) -> None:
        """Connects and goes on trying; calls `receiver` and `watcher` from the link's own thread."""

    def publish(self, message: Publish) -> None:
        """Sends a message, in order. While the link is down it is dropped, unless the link was made to keep it:
        whoever needs it to arrive tells it again after the reconnect."""

    def subscribe(self, *patterns: str) -> None:
        """Adds topic filters; they are renewed after every reconnect."""

    def unsubscribe(self, *patterns: str) -> None:
        """Takes filters away."""

    def stop(self) -> None:
        """Ends the session cleanly; a will, if any, is not sent."""


LONGEST = 60.0  # seconds between two tries to connect, at most


def pause(tries: int, chance: float) -> float:
    """Seconds before a connection is tried again that failed or was lost, after so many tries in vain: the upper half
    of a range that doubles from 1 s to a minute, by `chance` from 0 to 1."""
    return min(LONGEST, 2.0 ** min(tries, 6)) * (0.5 + 0.5 * chance)
