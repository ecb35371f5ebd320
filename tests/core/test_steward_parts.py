"""What the core's supervisor cannot keep up: told once, shown while it is so, and told once more when it is over."""

from __future__ import annotations

import pytest

from core.orders import PartsFailing
from tests.core.world import START, World


@pytest.fixture
def world(bare: World) -> World:
    """Trust does not matter here."""
    return bare


def told(world: World) -> list[tuple[str, str, str]]:
    """Of every event about a part, oldest first: code, severity, text."""
    events = reversed(world.catalog.events.newest(100))
    return [(e.code, e.severity, e.text) for e in events if e.code.startswith("part-")]


def test_it_is_told_as_it_begins_and_as_it_ends_and_never_between(world: World) -> None:
    first, second = "cannot be renewed: no key", "cannot be renewed: no disk"
    for text in (first, first, second):
        world.must(PartsFailing(parts={"certificates": text}))
        world.now += 60
    (row,) = world.catalog.failing.all()
    assert (row.part, row.since, row.text) == ("certificates", START, second), "what is in the way now, since when"
    world.must(PartsFailing(parts={"certificates": second, "broker": "no memory"}))
    world.must(PartsFailing(parts={"broker": "no memory"}))
    assert told(world) == [
        ("part-failing", "alarm", f"certificates: {first}"),
        ("part-failing", "alarm", "broker: no memory"),
        ("part-works-again", "notice", "certificates: what was in the way is gone"),
    ]
    assert [row.part for row in world.catalog.failing.all()] == ["broker"]


def test_a_steward_that_begins_anew_tells_nothing_twice_and_ends_what_is_over(world: World) -> None:
    world.must(PartsFailing(parts={"console": "it ended 5 times"}))
    world.reopen()
    world.must(PartsFailing(parts={"console": "it ended 6 times"}))
    world.reopen()
    world.must(PartsFailing(parts={}))
    world.must(PartsFailing(parts={}))
    assert [code for code, _, _ in told(world)] == ["part-failing", "part-works-again"]
    assert world.catalog.failing.all() == ()


def test_a_text_without_end_is_cut(world: World) -> None:
    world.must(PartsFailing(parts={"console": "x" * 100_000}))
    assert len(world.catalog.failing.all()[0].text) == 1000
