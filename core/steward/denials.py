"""Whom the broker turned down: a device of ours that speaks or listens where it may not, and strangers that never got a
session. Each is told of once an hour, with how often it was since; a restart forgets the hour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core import orders
from core.steward.house import House
from sync.names import DeviceId

TOLD_EVERY = 3600.0  # seconds
TOPIC = 200  # characters of what is kept of a topic, or of OpenSSL's reason


def heard(house: House, order: orders.BrokerDenied, now: float) -> dict[str, Any]:
    """One event a device, kind and hour, and one of all strangers. In a transaction."""
    for name, topic, times in _due(house, "words", order.words, now):
        text = f"{name} wrote where it may not, first to {topic!r}; the broker denied it. {_hint(name)}"
        house.event(now, "publish-denied", text, severity="alarm", source=name, topic=topic, times=times)
    for name, topic, times in _due(house, "filters", order.filters, now):
        text = f"{name} asked to hear what is not its own, first {topic!r}; nothing of it is delivered. {_hint(name)}"
        house.event(now, "subscribe-denied", text, severity="alarm", source=name, topic=topic, times=times)
    if order.handshakes:
        _strangers(house, order.handshakes, now)
    return {}


def _due(
    house: House, kind: str, denied: Mapping[DeviceId, tuple[str, int]], now: float
) -> Iterator[tuple[DeviceId, str, str]]:
    """(device, first topic, how often since it was told last) of whom is to be told now. Of a device that is denied
    everything nothing is told: that it is, was told."""
    for name, (topic, times) in denied.items():
        device = house.catalog.fleet.device(name)
        if device is None or not device.active:
            continue
        told, since = house.memory.denied.get((kind, name), (float("-inf"), 0))
        due = not 0 <= now - told < TOLD_EVERY
        house.memory.denied[kind, name] = (now, 0) if due else (told, since + times)
        if due:
            yield name, topic[:TOPIC], str(since + times)


def _hint(name: DeviceId) -> str:
    return (
        "Its certificate is in other hands or its software is not ours: look at it, or end it by "
        f"`falaj device revoke {name} --reason TEXT`"
    )


def _strangers(house: House, handshakes: Mapping[str, int], now: float) -> None:
    told, since = house.memory.strangers
    total = dict(since)
    for reason, times in handshakes.items():
        total[reason[:TOPIC]] = total.get(reason[:TOPIC], 0) + times
    if 0 <= now - told < TOLD_EVERY:
        house.memory.strangers = (told, total)
        return
    house.memory.strangers = (now, {})
    times = sum(total.values())
    reasons = ", ".join(f"{reason} ({total[reason]})" for reason in sorted(total, key=lambda one: -total[one]))
    text = (
        f"the broker ended {times} {'connection' if times == 1 else 'connections'} before there was a session: "
        f"{reasons}. Whose they were nobody can tell: a device whose certificate ran out or was revoked, a program "
        "without one, a scan of ports; when and from where is in the broker's log"
    )
    house.event(now, "handshake-refused", text, severity="notice", times=str(times), reasons=reasons)
