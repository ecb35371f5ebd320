"""A stage for stories of the walker: a core with good and bad releases, and as many copies of one device as wanted."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edge.lifecycle import AT_REST
from edge.states import Phase
from sync import topics
from tests.edge.device import Device, new_device
from tests.edge.world import DEVICE, MODEL, TENANT, Core, Shipped

NAN = float("nan")
HARMFUL = 2  # the index where release 4 answers NaN; all others have a number there


@dataclass(frozen=True)
class Stage:
    """A core with five releases (3 fails its proof, 4 its trial) and a device that committed release 1."""

    core: Core
    shipped: dict[int, Shipped]
    empty: Device
    settled: Device

    def device(self, folder: Path, *, settled: bool = True) -> Device:
        """A copy of the device, its folder being `folder`; nothing new is assigned to it yet."""
        self.core.hub.retained.pop(topics.desired(TENANT, DEVICE), None)
        model = self.settled if settled else self.empty
        shutil.copytree(model.folder, folder)
        return Device(self.core, folder, model.identity, now=model.now)


def new_stage(folder: Path) -> Stage:
    core = Core()
    shipped = {number: core.ship(number) for number in (1, 2)}
    shipped[3] = core.ship(3, golden_table=(9.0, 9.0, 9.0))
    shipped[4] = core.ship(4, (4.0, 4.5, NAN))
    shipped[5] = core.ship(5)
    settled = new_device(core, folder / "settled").boot()
    empty = Device(core, folder / "empty", settled.identity)
    empty.folder.mkdir()
    settled.commit(shipped[1])
    settled.cut_power()
    return Stage(core, shipped, empty, settled)


def outcome(device: Device) -> dict[str, object]:
    """What a person would call the end of the story."""
    state = device.state
    return {
        "phase": state.phase,
        "serving": state.serving.release.number if state.serving else None,
        "answering": device.answering,
        "previous": [slot.release.number for slot in state.previous],
        "quarantined": {q.manifest for q in device.house.journal.quarantined(MODEL)},
    }


def assert_sane(device: Device, *, retried: bool = False) -> None:
    """What answers is what the journal says, was verified, and never is a release that failed its proof; nor one with
    a verdict against it, unless such are `retried`."""
    state = device.house.deployments.get(MODEL)
    incumbent = device.house.serving.incumbent(MODEL)
    assert (state.serving.release if state and state.serving else None) == (
        incumbent.slot.release if incumbent else None
    )
    if state is not None and state.phase in AT_REST:
        assert (state.phase is not Phase.NO_MODEL) is (incumbent is not None)
    if incumbent is not None:
        assert device.answering == incumbent.slot.release.number != 3
        assert state is not None and state.validated is not None
        if state.phase is not Phase.PROBATION and not retried:
            refused = {q.manifest for q in device.house.journal.quarantined(MODEL)}
            assert incumbent.slot.release.manifest not in refused
