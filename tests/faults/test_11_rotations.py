"""Fault 11: killed, or its power cut, in the middle of a new root (a key is replaced), of another identity or of a
schema that is brought up to date. The old one holds or the new one, never neither and never a mixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.core import owner
from core.orders import OnlineRole
from tests.attacks.estate import Estate
from tests.core.world import MODEL
from tests.faults.loop import mountable
from tests.faults.nth import told


def test_11_killed_at_any_touch_while_a_root_is_adopted(ram: Path) -> None:
    assert told("rotation", 1, ram) >= 3


def test_11_killed_at_any_touch_while_another_identity_is_written(ram: Path) -> None:
    assert told("joining", 1, ram) >= 12


@pytest.mark.slow
@pytest.mark.parametrize(("story", "least"), [("rotation-power", 3), ("joining-power", 12)])
def test_11_the_power_is_cut_at_any_touch(ram: Path, story: str, least: int) -> None:
    mountable(ram)
    assert told(story, 1, ram) >= least


def test_11_killed_at_any_touch_while_a_catalog_is_migrated(ram: Path) -> None:
    assert told("migration", 3, ram) >= 10


@pytest.mark.parametrize("phase", ["fetching", "probation"])
@pytest.mark.parametrize("role", ["timestamp", pytest.param("snapshot", marks=pytest.mark.slow), "director"])
def test_11_an_online_key_is_replaced_while_a_release_is_under_way(ram: Path, role: OnlineRole, phase: str) -> None:
    """On one device it has begun, the other is off. It loses its power before it has taken in the new root."""
    estate = Estate(ram, "press-1", "press-2")
    assert estate.release() == 1
    estate.leave("press-2")
    number = estate.stage()
    owner.approve(estate.api, estate.owner, MODEL, number, "test", estate.world.now)
    _until(estate, phase)
    root = estate.mark("press-1")["root"]
    assert owner.rotate_online(estate.api, estate.owner, role, "test", estate.world.now).lacks == ()
    assert estate.box("press-1").phase(MODEL) == phase and estate.mark("press-1")["root"] == root
    estate.leave("press-1")
    estate.come_back("press-1", "press-2")
    assert estate.serves("press-2") == 1 and estate.serves("press-1") in (1, number)
    estate.until_serving(number)
    assert {estate.mark(name)["root"] for name in estate.boxes} == {root + 1}
    assert not {"release-refused", "golden-mismatch"} & {*estate.codes("press-1"), *estate.codes("press-2")}


def _until(estate: Estate, phase: str) -> None:
    """A message at a time, a step of time where none is under way, until the device stands there."""
    world = estate.world
    for _ in range(5000):
        if estate.box("press-1").phase(MODEL) == phase:
            return
        if not world.hub.deliver(1):
            world.now += 1.0
            world._carry_out(world.steward.tick(world.now))
            estate.box("press-1").tick(world.now)
    raise AssertionError(f"it never came to {phase}")
