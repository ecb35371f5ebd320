"""A training job has the processor while a release is on trial: the agent says so, gives no verdict, and commits it.

A real agent's process, real graphs, real burners: twice as many as there are cores, each multiplying matrices as a
training does. How fast any of it is on the machine of the test is not asserted.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from appliance.demo.fleet import free_ports
from edge.outbox import Outbox
from edge.runtime import load
from edge.states import Phase
from sync import codec
from sync.manifest import Profile
from sync.messages import EVENT, DeviceEvent, Gates, Record
from tests.edge import bad_graphs
from tests.edge.device import new_device
from tests.edge.world import EPOCH, MODEL, Core, table_of
from tests.faults.box import Box, place
from tests.faults.small_disk import SmallDisk
from tests.waiting import eventually

TURNS = 10_000  # of a loop: so long that others get the processor in between
ROOM = 1.5  # that the profile leaves above what the processor needs
SOAK = Gates(soak_answers=500)
PATIENCE = 300.0  # seconds until it gives up; a busy machine may take its time
TRAINING = """
import numpy
weights = numpy.random.default_rng(1).normal(size=(256, 256)).astype("f4")
while True:
    weights -= 1e-4 * numpy.tanh(weights @ weights)
"""


def needs(graph: bytes) -> float:
    """Milliseconds of the processor that one answer takes, whatever else it does meanwhile."""
    session, spent = load(graph), list[float]()
    for _ in range(20):
        before = time.thread_time()
        session.run({"i": np.array([0], np.int64)})
        spent.append(1000 * (time.thread_time() - before))
    return statistics.median(spent)


@contextmanager
def training() -> Iterator[None]:
    """Jobs that leave no core alone."""
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    jobs = [subprocess.Popen([sys.executable, "-c", TRAINING], env=alone) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def events(box: Box, aside: Path) -> list[DeviceEvent]:
    """All that wait for the core, from a copy: the agent has the file."""
    source = sqlite3.connect(f"file:{box.folder.outbox}?mode=ro", uri=True)
    with closing(source) as live, closing(sqlite3.connect(aside)) as copy:
        live.backup(copy)
    found = Outbox(aside, EPOCH, "test")
    bodies = [bytes(codec.decode(Record, document).body) for kind, _, document in found.pending(1000) if kind == EVENT]
    found.close()
    return [codec.decode(DeviceEvent, body) for body in bodies]


def numbered(graph: bytes, number: int) -> bytes:
    """The same with the answers of release `number`."""
    model = onnx.load_from_string(graph)
    (table,) = (constant for constant in model.graph.initializer if constant.name == "table")
    table.CopyFrom(numpy_helper.from_array(np.array(table_of(number), np.float32), "table"))
    return model.SerializeToString()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """Release 2 is on trial after release 1; one takes as long as the other."""
    core, graph = Core(), bad_graphs.spins(TURNS, TURNS, TURNS)
    profile = Profile(p99_ms=ROOM * needs(graph))
    first, second = (core.ship(n, graph=numbered(graph, n), profile=profile) for n in (1, 2))
    device = new_device(core, tmp_path / "device").boot().commit(first)
    core.assign(second, device.identity, gates=SOAK)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION, device.state.reason
    made = place(device, SmallDisk(tmp_path), tmp_path, tuple(free_ports(3)))  # type: ignore[arg-type]
    with made.ended():
        made.start()
        yield made


def phase(box: Box) -> tuple[str, int]:
    """Of the model, and the release that answers."""
    state = box.status()["models"][MODEL]
    return state["phase"], state["serving"]["number"]


@pytest.mark.slow
def test_a_busy_host_is_told_of_and_rolls_nothing_back(box: Box, tmp_path: Path) -> None:
    def alarmed() -> bool:
        assert [box.answer() for _ in range(10)] == [2.0] * 10
        return "host-slow" in {event.code for event in events(box, tmp_path / "copy.db")}

    with training():
        eventually(alarmed, "the alarm", PATIENCE)
        (told,) = [event for event in events(box, tmp_path / "copy.db") if event.code == "host-slow"]
        assert told.severity == "alarm" and "this host is busy" in told.text
        assert phase(box) == ("probation", 2) and not box.status()["why"]

    def committed() -> bool:
        assert [box.answer() for _ in range(10)] == [2.0] * 10
        return phase(box) == ("steady", 2)

    eventually(committed, "its commit", PATIENCE)
    assert not box.status()["why"] and not box.status()["models"][MODEL]["quarantined"]
