"""A person holds a device: what serves goes on, nothing new is tried and nobody is switched; going home is not held."""

from __future__ import annotations

import pytest

from edge.states import Phase
from sync.messages import Gates
from tests.edge.device import Device, committed
from tests.edge.world import MODEL

LONG = Gates(soak_answers=10_000)


@pytest.fixture
def device(device: Device) -> Device:
    """It is held while there is a file."""
    device.house.guard.held = (device.folder / "hold").exists
    return device


def hold(device: Device, yes: bool) -> None:
    file = device.folder / "hold"
    if yes:
        file.touch()
    else:
        file.unlink()


def test_a_release_is_fetched_and_waits_before_its_proof(device: Device) -> None:
    hold(device, True)
    device.core.assign(device.core.ship(2), device.identity)
    device.settle(30, ask=0)
    assert device.state.phase is Phase.STAGED and device.answering == 1 and not device.jobs
    assert "the file `hold`" in device.reported().models[MODEL].reason
    hold(device, False)
    device.settle(12, ask=0)
    assert committed(device, 2) and device.reported().models[MODEL].reason == ""


def test_nobody_is_switched_while_it_is_held(device: Device) -> None:
    device.core.assign(device.core.ship(2), device.identity, mode="shadow")
    device.settle(4)
    assert device.state.phase is Phase.SHADOW
    hold(device, True)
    device.core.assign(device.core.ship(2), device.identity, mode="live")
    device.settle(20, ask=0)
    assert device.state.phase is Phase.SHADOW and device.answering == 1
    hold(device, False)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_going_home_is_not_held(device: Device) -> None:
    device.core.assign(device.core.ship(2), device.identity, gates=LONG)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION
    hold(device, True)
    device.ask(99)
    device.settle(1)
    assert committed(device, 1)
