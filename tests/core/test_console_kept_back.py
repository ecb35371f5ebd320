"""Attack 11 as the core sees it, by its own clock: a device that speaks, and is not let hear."""

from __future__ import annotations

from core.console.concerns import PATIENCE, concerns
from core.console.facts import gather
from tests.core.world import ONE, World


def said(world: World) -> list[str]:
    found = concerns(gather(world.catalog, world.now), world.now)
    return [concern.text for concern in found if concern.subject == ONE and "not taken in" in concern.text]


def test_a_device_whose_orders_are_kept_back_is_told_of(world: World) -> None:
    device = world.enrol(ONE)
    world.hear(device.report(seen=0))
    world.release()
    world.tick(1.0)
    world.hear(device.report(seen=0))
    assert said(world) == [], "it may just not have come yet"
    world.now += PATIENCE + 60.0
    assert said(world) == [], "it may be away: that is another concern"
    world.hear(device.report(seen=0))
    (text,) = said(world)
    assert text.startswith("speaks, and has not taken in what it was told")
    newest = world.catalog.fleet.assignment(ONE)
    assert newest is not None
    world.hear(device.report(seen=newest[1]))
    assert said(world) == []
