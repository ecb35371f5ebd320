"""Fault 5: a release kills the process that asks it, again and again. A real process, and a model that a processor
itself stops (SIGFPE): after the third start it is given up, and the release before answers."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from appliance.demo.fleet import free_ports
from edge import slots
from edge.journal import Journal
from edge.states import Phase, Proof
from sync.chunks import digest
from sync.messages import SHARES, Arm, Gates
from sync.reports import Validated
from tests.edge import bad_graphs
from tests.edge.device import Device, committed, new_device
from tests.edge.world import MODEL, Core
from tests.faults.box import Box, place
from tests.faults.small_disk import SmallDisk

LONG = Gates(soak_answers=1000)
VALIDATED = Validated(digest(b""), 0.0, 1.0)


def on_trial(folder: Path, *, incumbent: bool = True, gates: Gates = LONG) -> Device:
    """A device with a release on trial that crashes whoever asks index 2."""
    core = Core()
    device = new_device(core, folder / "device").boot()
    if incumbent:
        device.commit(core.ship(1))
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    core.assign(core.ship(2, bad_graphs.TABLE, graph=bad_graphs.crashes()), device.identity, gates=gates)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION and device.answering == 2
    return device


def test_a_committed_release_that_crashes_now_and_then_goes_home_as_well(tmp_path: Path) -> None:
    """On its hundredth call, say: it answers well in between, and was committed long ago."""
    device = on_trial(tmp_path, gates=Gates(soak_answers=3))
    device.settle(4, ask=0)
    assert committed(device, 2)
    box = box_of(device, tmp_path)
    with box.ended():
        for _ in range(3):
            box.start()
            assert [box.answer() for _ in range(99)] == [2.0] * 99
            crash(box)
        box.start()
        assert box.answer() == 1.0 and box.answer(2) == 1.25
        (card,) = box.status()["why"]
        assert card["criterion"] == "crash-loop" and "3 times within a day" in card["text"]
        assert "Floating-point exception" in box.said() or "Floating point exception" in box.said()


def box_of(device: Device, tmp_path: Path) -> Box:
    one, two, three = free_ports(3)
    return place(device, SmallDisk(tmp_path), tmp_path, (one, two, three))


def crash(box: Box, key: str = "") -> None:
    """Asks what it dies of, and waits until it has."""
    assert box.process is not None
    assert box.answer(2, key=key) is None
    assert box.process.wait(30) == -signal.SIGFPE
    box.process = None


@pytest.mark.slow
def test_an_arm_that_kills_the_agent_falls_at_its_third_crash_and_the_incumbent_answers_its_keys(
    tmp_path: Path,
) -> None:
    core = Core()
    device = new_device(core, tmp_path / "device").boot()
    first, second = core.ship(1), core.ship(2, bad_graphs.TABLE, graph=bad_graphs.crashes())
    device.commit(first)
    device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    order = core.order(second, device.identity)
    arms = (Arm(order.manifest, 2, order.keys, 0, SHARES),)
    core.assign(first, device.identity, mode="split", arms=arms, seed="seed")
    device.settle(8)
    assert device.state.phase is Phase.LIVE_SPLIT
    box = box_of(device, tmp_path)
    with box.ended():
        for _ in range(3):
            box.start()
            assert box.answer() == 1.0 and [box.answer(key="m") for _ in range(99)] == [2.0] * 99
            crash(box, key="m")
        box.start()
        assert box.answer(key="m") == 1.0 and box.answer(2, key="m") == 1.25
        (card,) = box.status()["why"]
        assert card["criterion"] == "crash-loop" and card["phase"] == "live_split"


@pytest.mark.slow
def test_a_release_that_kills_the_agent_is_given_up_at_its_third_start(tmp_path: Path) -> None:
    box = box_of(on_trial(tmp_path), tmp_path)
    with box.ended():
        for _ in range(2):
            box.start()
            assert box.answer() == 2.0
            crash(box)
        box.start()
        assert box.answer() == 1.0 and box.answer(2) == 1.25
        assert box.status()["models"][MODEL]["phase"] == "steady"
        (card,) = box.status()["why"]
        assert card["criterion"] == "crash-loop"


@pytest.mark.slow
def test_a_committed_release_that_ends_the_agent_where_it_is_loaded_goes_home_as_well(tmp_path: Path) -> None:
    """It loaded when it was proved; the onnxruntime of today breaks on it, before anybody has asked it anything."""
    core = Core()
    device = new_device(core, tmp_path / "device").boot().commit(core.ship(1))
    device.prover = lambda job: None
    core.assign(core.ship(2, bad_graphs.TABLE, graph=bad_graphs.crashes(on_load=True)), device.identity)
    device.settle(4)
    assert device.state.phase is Phase.PROVING
    later = slots.begin_trial(replace(device.state, phase=Phase.SHADOW), VALIDATED, device.now)
    device.house.journal.write(slots.mark_good(later, device.now))
    box = box_of(device, tmp_path)
    with box.ended():
        for _ in range(3):
            with pytest.raises(AssertionError, match="it ended"):
                box.start()
        box.start()
        assert box.answer() == 1.0
        (card,) = box.status()["why"]
        assert card["criterion"] == "crash-loop" and "3 times within a day" in card["text"]


@pytest.mark.slow
def test_without_a_release_before_it_nobody_answers_and_that_is_declared(tmp_path: Path) -> None:
    box = box_of(on_trial(tmp_path, incumbent=False), tmp_path)
    with box.ended():
        for _ in range(2):
            box.start()
            crash(box)
        box.start(answering=False)
        box.until(lambda: box.status().get("models", {}).get(MODEL, {}).get("phase") == "no_model", "nobody")
        assert box.answer() is None
    journal = Journal.open(box.folder.journal)
    assert len(journal.quarantined(MODEL)) == 1
    journal.close()
