"""What the broker denied to a device is told once an hour, with all that was denied since; never of one that may not
speak at all."""

from __future__ import annotations

from core.catalog.events import Event
from core.orders import Revoke, WordsDenied
from core.steward.denials import TOLD_EVERY, TOPIC
from sync.names import DeviceId
from tests.core.world import World

WATCH, OTHER = DeviceId("watch-1"), DeviceId("watch-2")


def told(world: World) -> list[Event]:
    """Oldest first."""
    return [e for e in reversed(world.catalog.events.newest(100)) if e.code == "publish-denied"]


def test_one_event_a_device_and_hour_with_how_many_there_were(world: World) -> None:
    for name in (WATCH, OTHER):
        world.enrol(name)
    world.must(WordsDenied(denied={WATCH: ("core/status", 3), OTHER: ("x", 1)}))
    world.now += TOLD_EVERY - 1
    for times in (30, 10):
        world.must(WordsDenied(denied={WATCH: ("trust/index", times)}))
    world.now += 1
    world.must(WordsDenied(denied={WATCH: ("elsewhere", 2)}))
    assert [(e.source, e.severity, e.facts["topic"], e.facts["times"]) for e in told(world)] == [
        (WATCH, "alarm", "core/status", "3"),
        (OTHER, "alarm", "x", "1"),
        (WATCH, "alarm", "elsewhere", "42"),
    ]
    assert f"falaj device revoke {WATCH}" in told(world)[0].text


def test_of_one_that_was_denied_all_or_that_nobody_knows_nothing_is_told(world: World) -> None:
    world.enrol(WATCH)
    world.must(Revoke(device=WATCH, reason="sold"))
    world.must(WordsDenied(denied={WATCH: ("core/status", 3), OTHER: ("core/status", 1)}))
    assert told(world) == []


def test_a_topic_is_cut_and_shown_so_that_it_forges_no_text(world: World) -> None:
    world.enrol(WATCH)
    world.must(WordsDenied(denied={WATCH: ("a\u2028\x1b[2J" + "x" * 10_000, 1)}))
    (event,) = told(world)
    assert len(event.facts["topic"]) == TOPIC
    assert event.text.isprintable() and len(event.text) < 500
