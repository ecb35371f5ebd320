"""What time it is for a box without a clock."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge.agent.timing import Time
from edge.states import CLOCK_FLOOR
from tests.edge.device import new_device
from tests.edge.world import DAY, NOW, Core

SIGNED = CLOCK_FLOOR + 300 * DAY


def test_without_a_signed_time_the_machine_is_believed() -> None:
    assert Time().at(100.0) == 100.0 and Time().at(NOW) == NOW


def test_a_box_without_a_clock_counts_on_from_the_signed_time() -> None:
    time = Time()
    assert time.learn(SIGNED, 100.0) and time.unset
    assert time.at(100.0) == SIGNED and time.at(160.0) == SIGNED + 60.0


def test_a_clock_that_is_set_says_the_time_itself() -> None:
    time = Time()
    time.learn(SIGNED, 100.0)
    assert time.at(NOW) == NOW and not time.unset
    assert not time.learn(NOW + 5 * DAY, NOW), "a folder does not set a clock that runs"


def test_an_older_signed_time_changes_nothing() -> None:
    time = Time()
    time.learn(SIGNED, 100.0)
    assert not time.learn(SIGNED - DAY, 200.0) and time.at(200.0) == SIGNED + 100.0


@given(st.lists(st.tuples(st.floats(0, 1e8), st.none() | st.floats(CLOCK_FLOOR, 3e9)), max_size=30))
def test_time_never_goes_back_while_the_machine_counts_on(steps: list[tuple[float, float | None]]) -> None:
    time, machine, last = Time(), 0.0, 0.0
    for passed, signed in steps:
        machine += passed
        if signed is not None:
            time.learn(signed, machine)
        now = time.at(machine)
        assert now >= last or machine >= CLOCK_FLOOR
        last = now


def test_a_start_in_1970_goes_on_from_what_was_reported_last(tmp_path: Path) -> None:
    core = Core()
    device = new_device(core, tmp_path)
    device.now = 100.0
    device.boot(link=False)
    device.house.time.learn(SIGNED, device.now)
    device.connect()
    device.settle(5)
    assert device.reported().clock == "unset" and device.reported().ts >= SIGNED
    said = device.reported().ts
    device.cut_power()
    device.now = 100.0
    device.boot()
    device.settle(2)
    assert device.reported().ts >= int(said)


def test_a_start_in_1970_that_was_told_nothing_installs_nothing(tmp_path: Path) -> None:
    core = Core()
    device = new_device(core, tmp_path)
    device.now = 100.0
    device.boot()
    core.assign(core.ship(1), device.identity)
    device.settle(10)
    assert "clock-unset" in device.codes() and device.answering is None
    device.house.time.learn(NOW, device.now)
    device.settle(10, ask=0)
    assert device.answering == 1, "with a signed time it does"
