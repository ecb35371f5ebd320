"""Fault 21: memory runs out. The proving child dies alone, of its own limit or by the system's hand; an agent that the
system kills serves again what it served, verified anew."""

from __future__ import annotations

import configparser
import gc
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from appliance.demo.fleet import free_ports
from appliance.edge import install
from edge import proving, runtime
from edge.agent import resuming
from edge.agent.leaving import TRIES, give_up
from edge.proving import Ended
from edge.states import Event, Failure, FailureClass, Phase, Proof, Prove, Slot
from sync.names import Digest, ModelName
from tests.edge import bad_graphs, graphs
from tests.edge.cramped import Cramped
from tests.edge.device import Device, committed
from tests.edge.world import table_of
from tests.faults.box import place
from tests.faults.small_disk import SmallDisk


@pytest.mark.parametrize("graph", [graphs.memory_bomb(), bad_graphs.grows(2048, at=1)], ids=["64 GiB", "2 GiB"])
def test_a_child_beyond_its_limit_dies_alone_and_that_is_a_verdict(device: Device, graph: bytes) -> None:
    device.prover = lambda job: proving.prove(job.request, 60.0)
    device.core.assign(device.core.ship(2, graph=graph), device.identity)
    device.settle(5, ask=0)
    assert committed(device, 1)
    assert device.codes()[-2:] == ["prove-crashed", "returned"]


def test_a_child_that_the_system_kills_is_nobodys_fault_and_proves_again(device: Device) -> None:
    outcomes: list[Proof | Failure] = []

    def killed_once(job: Prove) -> Proof | Failure:
        run = _killed if not outcomes else proving.run_child
        outcomes.append(proving.prove(job.request, 60.0, run))
        return outcomes[-1]

    device.prover = killed_once
    device.core.assign(device.core.ship(2, bad_graphs.TABLE), device.identity)
    device.settle(4, ask=0)
    assert device.state.phase is Phase.STAGED and device.answering == 1
    device.settle(10, ask=0)
    first, second = outcomes
    assert isinstance(first, Failure) and (first.kind, first.code) == (FailureClass.ENVIRONMENT, "prove-killed")
    assert isinstance(second, Proof) and committed(device, 2)
    assert device.house.journal.quarantined(device.state.model) == ()


def _killed(request: bytes, deadline_s: float) -> Ended:
    """The real child, met by the kernel's killer before it has read its request."""
    command = [sys.executable, "-I", "-m", "edge.proving", "60"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.send_signal(signal.SIGKILL)
    out, err = child.communicate()
    return Ended(child.returncode, out, err)


def test_the_unit_bounds_its_memory_and_brings_it_back() -> None:
    """As it is installed: what is killed for want of memory is started again, however often."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(install.unit("field", Path("/opt/falaj/bin/falaj")))
    wanted = {"MemoryMax": "1G", "Restart": "always", "RestartSec": "1", "WatchdogSec": "60"}
    assert {name: unit["Service"].get(name) for name in wanted} == wanted
    assert unit["Unit"]["StartLimitIntervalSec"] == "0", "it is never given up"


@pytest.mark.slow
def test_an_agent_that_the_system_kills_serves_again_what_it_served(device: Device, tmp_path: Path) -> None:
    one, two, three = free_ports(3)
    box = place(device, SmallDisk(tmp_path), tmp_path, (one, two, three))
    with box.ended():
        for _ in range(2):
            box.start()
            assert box.answer() == 1.0
            box.end(killed=True)
        box.start()
        assert box.answer() == 1.0 and box.status()["models"]["motion"]["phase"] == "steady"


@contextmanager
def short_of_memory(mb: int) -> Iterator[None]:
    """This process gets no more than so many MiB beside what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (proving.memory("VmSize") + mb * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_load_without_memory_says_so_and_not_that_the_model_is_bad() -> None:
    weights = numpy_helper.from_array(np.zeros((32, 2**20), np.float32), "weights")  # 128 MiB
    inputs, outputs = [graphs.value("x", [1])], [graphs.value("y", [32, 2**20])]
    model = graphs.finish([helper.make_node("Add", ["x", "weights"], ["y"])], inputs, outputs, [weights])
    for mb in (16, 144):  # Python's own error, and one of onnxruntime's
        with short_of_memory(mb), pytest.raises(runtime.NoMemory):
            runtime.load(model)
    assert runtime.load(model).inputs[0].name == "x"


def test_a_committed_release_without_memory_at_the_boot_waits_for_it(device: Device) -> None:
    """The one before answers meanwhile, which is said; there is no verdict on what did nothing wrong."""
    device.commit(device.core.ship(2, graph=bad_graphs.grows(64, at=1)))
    device.cut_power()
    del device.house, device.agent
    gc.collect()  # what the process before had is not there to be used again
    with short_of_memory(32):
        device.boot()
        assert device.answering == 1
        device.settle(8)
        assert device.state.phase is Phase.STEADY and device.codes().count("no-memory") == 1
    device.settle(12)
    assert committed(device, 2) and device.house.journal.quarantined(device.state.model) == ()


@pytest.fixture
def short(device: Device) -> set[Digest]:
    """Sealed digests of what this device, which serves release 2 over release 1, has no memory for."""
    large: set[Digest] = set()
    device.artifacts_kind = lambda folder: Cramped(folder, large)
    start_anew(device)
    device.commit(device.core.ship(2))
    return large


def start_anew(device: Device) -> None:
    device.cut_power()
    device.boot().settle(2)


def model_of(slot: Slot | None) -> Digest:
    assert slot is not None
    return slot.manifest.variants[0].blob.sealed


def test_who_lacks_memory_at_the_boot_is_stood_in_for_and_comes_back(device: Device, short: set[Digest]) -> None:
    short.add(model_of(device.state.serving))
    start_anew(device)
    assert device.answering == 1 and device.state.phase is Phase.STEADY
    short.clear()
    device.settle(8)
    assert committed(device, 2) and device.codes().count("no-memory") == 1
    assert device.house.blocked.times(resuming.place(device.state.model)) == 0


@pytest.mark.parametrize("behind", [True, False], ids=["stood in for", "nobody answers"])
def test_who_lacks_memory_at_the_boot_can_be_replaced_and_taken_off(
    device: Device, short: set[Digest], behind: bool
) -> None:
    short.add(model_of(device.state.serving))
    if not behind:
        short.add(model_of(device.state.previous[0]))
    start_anew(device)
    assert device.answering == (1 if behind else None)
    device.commit(device.core.ship(3), 10)
    short.add(model_of(device.state.serving))
    start_anew(device)
    device.core.assign(device.core.ship(4), device.identity, mode="off")
    device.settle(3)
    assert device.state.phase is Phase.NO_MODEL and device.answering is None


def test_a_trial_that_lacks_memory_at_the_boot_is_not_judged_by_a_stand_in(device: Device, short: set[Digest]) -> None:
    device.core.assign(device.core.ship(3), device.identity)
    device.settle(3)
    assert device.state.phase is Phase.PROBATION and device.answering == 3
    short.add(model_of(device.state.serving))
    start_anew(device)
    device.settle(10, ask=0)
    assert device.state.phase is Phase.PROBATION and device.answering == 2
    short.clear()
    device.settle(20, ask=0)
    assert committed(device, 3)


def test_a_release_that_must_go_answers_no_more_though_none_can_be_loaded(device: Device, short: set[Digest]) -> None:
    short.add(model_of(device.state.previous[0]))
    degrade(device)
    device.settle(2)
    assert device.state.phase is Phase.REVERTING and device.answering is None
    assert device.house.blocked.holds(device.state.model, device.now)
    short.clear()
    device.settle(8)
    assert committed(device, 1) and device.codes().count("no-memory") == 1
    assert device.house.blocked.times(device.state.model) == 0


def test_a_way_home_for_which_memory_never_comes_ends(device: Device, short: set[Digest]) -> None:
    short.add(model_of(device.state.previous[0]))
    degrade(device)
    for _ in range(2 * TRIES):
        device.settle(1)
        device.now += 1800.0
    assert device.state.phase is Phase.NO_MODEL and device.answering is None
    assert device.codes().count("return-failed") == 1


def test_other_models_have_their_turn_while_one_waits_to_go_back(device: Device, short: set[Digest]) -> None:
    short.add(model_of(device.state.previous[0]))
    degrade(device)
    other = ModelName("other")
    order = device.core.order(device.core.ship(1, table_of(5), model=other), device.identity)
    device.core.desire(device.core.assignment(models={other: order}))
    device.settle(12)
    assert device.state.phase is Phase.REVERTING and device.house.deployments[other].phase is Phase.PROBATION


def degrade(device: Device) -> None:
    """The release that serves is given up; nobody of before is in memory."""
    failure = Failure(FailureClass.VERDICT, "guardrail", "it answers nothing that is right")
    give_up(device.house, device.state, Event.DEGRADED, failure.text, device.now, failure)
    device.carry_out(device.agent.tick(device.now))


def test_a_second_shortage_is_told_and_met_with_short_pauses_again(device: Device, short: set[Digest]) -> None:
    for times in (1, 2):
        short.add(model_of(device.state.serving) if times == 1 else model_of(device.state.previous[0]))
        if times == 1:
            start_anew(device)
        else:
            degrade(device)
        device.settle(40)
        assert device.codes().count("no-memory") == times
        short.clear()
        device.settle(45)
        assert device.state.phase is Phase.STEADY and device.answering == 3 - times
