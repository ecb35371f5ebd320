"""Slow answers on trial: the release's own fault, or a busy host, as the release before shows when run in turn."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from edge.states import Phase
from sync.messages import Gates
from tests.edge.device import Device, committed, new_device
from tests.edge.paced import QUICK, SLOW, Paced
from tests.edge.world import MODEL, Core

SOAK = Gates(soak_answers=1000)


def on_trial(folder: Path, new: list[float], old: list[float], gates: Gates = SOAK) -> Device:
    """A device on which release 2 is on trial after release 1; their runs take these seconds, over and over."""
    core = Core()
    first, second = core.ship(1), core.ship(2)
    device = new_device(core, folder).boot().commit(first)
    core.assign(second, device.identity, gates=gates)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION
    house = device.house
    live, warm = house.serving.incumbent(MODEL), house.bench.warm[MODEL]
    assert live is not None and warm is not None
    house.serving.put(MODEL, replace(live, session=Paced(live.session, device, cycle(new))))
    house.bench.warm[MODEL] = replace(warm, session=Paced(warm.session, device, cycle(old)))
    return device


def ask(device: Device, answers: int) -> None:
    for _ in range(answers):
        device.ask()


@pytest.fixture
def busy(ram: Path) -> Device:
    return on_trial(ram, [QUICK, SLOW, SLOW], [SLOW, QUICK])


def test_a_release_that_is_slow_where_the_one_before_is_not_goes_home(ram: Path) -> None:
    device = on_trial(ram, [SLOW], [QUICK])
    ask(device, 30)
    device.settle(15)
    assert committed(device, 1) and device.answering == 1
    assert "too-slow" in [card.criterion for card in device.cards()]
    assert "host-slow" not in device.codes()


def test_on_a_busy_host_both_are_slow_which_is_told_once_and_rolls_nothing_back(busy: Device) -> None:
    for _ in range(3):
        ask(busy, 30)
        busy.settle(15)
    assert busy.state.phase is Phase.PROBATION and busy.answering == 2
    assert busy.codes().count("host-slow") == 1
    (told,) = [event for event in busy.events() if event.code == "host-slow"]
    assert told.severity == "alarm" and "busy" in told.text


def test_a_busy_host_does_not_keep_a_release_from_its_commit(ram: Path) -> None:
    device = on_trial(ram, [QUICK, SLOW, SLOW], [SLOW, QUICK], Gates(soak_answers=25))
    ask(device, 40)
    device.settle(3)
    assert device.state.phase is Phase.PROBATION, "nobody is committed before it is known who is slow"
    device.settle(12)
    assert committed(device, 2)


@pytest.mark.parametrize(("old", "home"), [([QUICK], True), ([SLOW], False)])
def test_after_a_restart_on_trial_it_is_told_apart_as_well(ram: Path, old: list[float], home: bool) -> None:
    """The release before is not loaded then, as long as nobody is slow; what its load takes is nobody's growth."""
    device = on_trial(ram, [QUICK], [QUICK])
    device.cut_power()
    device.boot().settle(1)
    house, held = device.house, [100.0]
    house.guard.memory = lambda: held[0]
    live = house.serving.incumbent(MODEL)
    assert device.state.phase is Phase.PROBATION and live is not None and MODEL not in house.bench.warm
    house.serving.put(MODEL, replace(live, session=Paced(live.session, device, cycle([SLOW]))))
    ask(device, 30)
    device.settle(1)
    warm = house.bench.warm[MODEL]
    assert warm is not None and warm.slot.release.number == 1
    house.bench.warm[MODEL] = replace(warm, session=Paced(warm.session, device, cycle(old)))
    house.bench.paces.clear()
    device.settle(15)
    assert device.answering == (1 if home else 2)
    assert ("host-slow" in device.codes()) is not home and len(device.cards()) == home


def test_few_slow_answers_among_many_make_no_p99(ram: Path) -> None:
    device = on_trial(ram, [QUICK] * 199 + [SLOW], [QUICK])
    ask(device, 200)
    device.settle(15)
    assert device.state.phase is Phase.PROBATION and "host-slow" not in device.codes()


def test_another_trial_on_a_busy_host_is_told_again(busy: Device) -> None:
    ask(busy, 30)
    busy.settle(15)
    busy.core.assign(busy.core.ship(3), busy.identity, gates=SOAK)
    busy.settle(6)
    assert busy.state.phase is Phase.PROBATION and MODEL not in busy.house.bench.host_slow
