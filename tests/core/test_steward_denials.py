"""Whom the broker turned down is told of once an hour, with all that was since; never of a device that may not speak at
all."""

from __future__ import annotations

from core.catalog.events import Event
from core.orders import BrokerDenied, Revoke
from core.steward.denials import TOLD_EVERY, TOPIC
from sync.names import DeviceId
from tests.core.world import World

WATCH, OTHER = DeviceId("watch-1"), DeviceId("watch-2")


def told(world: World, code: str = "publish-denied") -> list[Event]:
    """Oldest first."""
    return [e for e in reversed(world.catalog.events.newest(100)) if e.code == code]


def test_one_event_a_device_and_hour_with_how_many_there_were(world: World) -> None:
    for name in (WATCH, OTHER):
        world.enrol(name)
    world.must(BrokerDenied(words={WATCH: ("core/status", 3), OTHER: ("x", 1)}))
    world.now += TOLD_EVERY - 1
    for times in (30, 10):
        world.must(BrokerDenied(words={WATCH: ("trust/index", times)}))
    world.now += 1
    world.must(BrokerDenied(words={WATCH: ("elsewhere", 2)}))
    assert [(e.source, e.severity, e.facts["topic"], e.facts["times"]) for e in told(world)] == [
        (WATCH, "alarm", "core/status", "3"),
        (OTHER, "alarm", "x", "1"),
        (WATCH, "alarm", "elsewhere", "42"),
    ]
    assert f"falaj device revoke {WATCH}" in told(world)[0].text


def test_of_one_that_was_denied_all_or_that_nobody_knows_nothing_is_told(world: World) -> None:
    world.enrol(WATCH)
    world.must(Revoke(device=WATCH, reason="sold"))
    world.must(BrokerDenied(words={WATCH: ("core/status", 3), OTHER: ("core/status", 1)}))
    assert told(world) == []


def test_a_topic_is_cut_and_shown_so_that_it_forges_no_text(world: World) -> None:
    world.enrol(WATCH)
    world.must(BrokerDenied(words={WATCH: ("a\u2028\x1b[2J" + "x" * 10_000, 1)}))
    (event,) = told(world)
    assert len(event.facts["topic"]) == TOPIC
    assert event.text.isprintable() and len(event.text) < 500


def test_what_a_device_asked_to_hear_is_told_for_itself(world: World) -> None:
    world.enrol(WATCH)
    world.must(BrokerDenied(words={WATCH: ("x", 1)}, filters={WATCH: ("#", 4), OTHER: ("#", 1)}))
    world.must(BrokerDenied(filters={WATCH: ("$SYS/#", 2)}))
    (event,) = told(world, "subscribe-denied")
    assert (event.source, event.severity, event.facts["topic"], event.facts["times"]) == (WATCH, "alarm", "#", "4")
    assert f"falaj device revoke {WATCH}" in event.text and len(told(world)) == 1
    world.now += TOLD_EVERY
    world.must(BrokerDenied(filters={WATCH: ("+", 1)}))
    assert [e.facts["times"] for e in told(world, "subscribe-denied")] == ["4", "3"]


def test_strangers_are_told_of_together_once_an_hour_by_reason(world: World) -> None:
    world.must(BrokerDenied(handshakes={"certificate verify failed": 1}))
    for _ in range(3):
        world.must(BrokerDenied(handshakes={"certificate verify failed": 1, "wrong version number": 2}))
    world.now += TOLD_EVERY
    world.must(BrokerDenied())
    assert len(told(world, "handshake-refused")) == 1, "nothing came since: nothing is told"
    world.must(BrokerDenied(handshakes={"no cipher": 1, "x" * 10_000: 1}))
    first, second = told(world, "handshake-refused")
    assert (first.source, first.severity, first.facts["times"]) == ("core", "notice", "1")
    assert "1 connection before" in first.text
    assert second.facts["times"] == "11"
    assert second.facts["reasons"].startswith("wrong version number (6), certificate verify failed (3), ")
    assert len(second.text) < 1000
