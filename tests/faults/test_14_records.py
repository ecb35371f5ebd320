"""Fault 14: a bad line under records. What the device let go of the core has committed, once and in order, and what the
core has not the device still holds."""

from __future__ import annotations

import pytest

from tests.core.world import World
from tests.faults.ears import MANY, SPEED, hearing, tell
from tests.faults.field import Field, hurried
from tests.faults.proxy import Mishaps

pytestmark = pytest.mark.broker


def test_14_both_lines_cut_again_and_again(world: World, open_field: Field) -> None:
    with hearing(world, open_field, None) as (core_line, ears), open_field.over() as (line, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen % 40 == 0:
                line.cut()
            if seen % 50 == 0:
                core_line.cut()

        tell(device, ears, after)
        assert line.traffic.cuts >= 2 and core_line.traffic.cuts >= 2


def test_14_records_and_acknowledgements_that_come_twice_or_in_another_order(world: World, open_field: Field) -> None:
    up, down = Mishaps("/up/", repeat=3, swap=7), Mishaps("/ack/", repeat=2, swap=5)
    with hearing(world, open_field, up) as (_, ears), open_field.over(packets=down) as (_, device):
        device.clock = hurried(SPEED)
        tell(device, ears, lambda seen: None)
    assert up.repeated and up.swapped and down.repeated and down.swapped


def test_14_a_core_that_is_killed_and_a_device_that_loses_power(world: World, open_field: Field) -> None:
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen % 30 == 0:
                ears.restart()
            if seen == MANY // 2:
                device.cut_power()
                device.boot()

        tell(device, ears, after)
