"""Fault 21: memory runs out. The proving child dies alone, of its own limit or by the system's hand; an agent that the
system kills serves again what it served, verified anew."""

from __future__ import annotations

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
from edge import proving, runtime
from edge.proving import Ended
from edge.states import Failure, FailureClass, Phase, Proof, Prove
from tests.edge import bad_graphs, graphs
from tests.edge.device import Device, committed
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
    """Nobody answers meanwhile, which is said; there is no verdict on what did nothing wrong."""
    device.commit(device.core.ship(2, graph=bad_graphs.grows(64, at=1)))
    device.cut_power()
    del device.house, device.agent
    gc.collect()  # what the process before had is not there to be used again
    with short_of_memory(32):
        device.boot()
        assert device.house.serving.incumbent(device.state.model) is None
        device.settle(8)
        assert device.state.phase is Phase.STEADY and device.codes().count("no-memory") == 1
    device.settle(12)
    assert committed(device, 2) and device.house.journal.quarantined(device.state.model) == ()
