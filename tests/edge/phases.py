"""How a device comes to stand in a phase, and to lose its power right after the write that leads into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.journal import Journal
from edge.states import Deployment, Phase
from sync.messages import Arm
from tests.edge.device import Device, committed
from tests.edge.power import PowerCut
from tests.edge.stage import HARMFUL, Stage
from tests.edge.world import MODEL


@dataclass(frozen=True)
class Cell:
    """How a device comes to stand in a phase: the release it is given (as an `arm` beside release 1, or in its place),
    what it is asked, and who answers in the end; `before`: who was committed."""

    number: int = 2
    ask: int = 0
    ends_with: int = 2
    arm: bool = False
    before: int | None = 1

    def order(self, stage: Stage, device: Device) -> None:
        if not self.arm:
            stage.core.assign(stage.shipped[self.number], device.identity)
            return
        own = stage.core.order(stage.shipped[self.number], device.identity)
        arms = (Arm(own.manifest, self.number, own.keys, 0, 5000),)
        stage.core.assign(stage.shipped[1], device.identity, mode="split", arms=arms, seed="seed")

    def ended(self, device: Device) -> bool:
        """Whether it came to the end it would have had without any blow."""
        if not self.arm:
            return committed(device, self.ends_with)
        arms = {lane.slot.release.number: lane.share for lane in device.state.lanes if not lane.fallen}
        loaded = set(device.house.serving.arms(MODEL))
        return (device.state.phase, arms, loaded) == (Phase.LIVE_SPLIT, {self.number: 5000}, {self.number})


CELLS = {
    Phase.NO_MODEL: Cell(before=None),
    Phase.STEADY: Cell(),
    Phase.FETCHING: Cell(),
    Phase.STAGED: Cell(),
    Phase.PROVING: Cell(),
    Phase.SHADOW: Cell(),
    Phase.PROBATION: Cell(),
    Phase.LIVE_SPLIT: Cell(ends_with=1, arm=True),
    Phase.REVERTING: Cell(4, HARMFUL, 1),
}


def dies_in(phase: Phase) -> Callable[[Path], Journal]:
    """A journal whose device loses power right after the write that leads into `phase`."""

    class Dying(Journal):
        def write(self, deployment: Deployment, *because: Any) -> None:
            super().write(deployment, *because)
            if deployment.phase is phase:
                raise PowerCut

    return Dying.open


def killed_in(stage: Stage, folder: Path, phase: Phase) -> Device:
    """A device that is switched off, and stood in `phase` when its power was cut."""
    cell = CELLS[phase]
    device = stage.device(folder, settled=cell.before is not None)
    cell.order(stage, device)
    device.journal_kind = dies_in(phase)
    with pytest.raises(PowerCut):
        _play(device, cell)
    device.cut_power()
    device.journal_kind = Journal.open
    return device


def _play(device: Device, cell: Cell) -> None:
    device.boot()
    device.settle(6, ask=cell.ask)
