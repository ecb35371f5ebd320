"""Fault 22: a release on trial hangs on an input that its proof never saw. Who asked is told after the deadline, the
release before answers from then on, and the process stays the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from edge.states import Phase, Proof
from sync.messages import Gates
from tests.edge import bad_graphs
from tests.edge.device import serving_device
from tests.edge.world import MODEL, Core
from tests.faults.box import place
from tests.faults.small_disk import SmallDisk


@pytest.mark.slow
def test_a_release_that_hangs_on_trial_is_stopped_and_leaves(tmp_path: Path) -> None:
    core = Core()
    device = serving_device(core, tmp_path / "device")
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    endless = core.ship(2, bad_graphs.TABLE, graph=bad_graphs.ENDLESS)
    core.assign(endless, device.identity, gates=Gates(soak_answers=1000))
    device.settle(4)
    assert device.state.phase is Phase.PROBATION
    one, two, three = free_ports(3)
    box = place(device, SmallDisk(tmp_path), tmp_path, (one, two, three))
    with box.ended():
        box.start()
        assert box.answer() == 2.0 and box.process is not None
        process = box.process.pid
        assert box.answer(2) is None, "it hung, and was stopped: an error, no answer"
        box.until(lambda: box.answer() == 1.0, "the release before")
        assert box.answer(2) == 1.25 and box.process.pid == process
        box.until(lambda: box.status()["why"] != [], "the card to be shown")
        (card,) = box.status()["why"]
        assert card["criterion"] == "guardrail" and "failed answers" in card["text"]
        assert box.status()["models"][MODEL]["phase"] == "steady"
