"""Fault 27: no descriptor, no thread, no inode, no room for a log line is left. The agent is degraded, not dead: who
is there is answered, and when there is room again all goes on, in the same process."""

from __future__ import annotations

import http.client
import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from appliance.demo.fleet import free_ports
from appliance.edge.proofs import Proofs
from edge import proving
from edge.states import Failure, FailureClass, Phase, Proof, Prove, Proved
from tests.edge.device import Device, committed
from tests.edge.world import MODEL
from tests.faults.box import PATIENCE, Box, new_box
from tests.faults.small_disk import SmallDisk, small_disk

STACK = 512 << 20  # bytes: no stack of a thread that ended before is as large, to be used again
QUESTION = json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [0]}]})


def make(disk: SmallDisk, aside: Path) -> Box:
    one, two, three = free_ports(3)
    return new_box(disk, aside, (one, two, three))


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Box]:
    with make(SmallDisk(tmp_path / "disk"), tmp_path).ended() as box:
        yield box


def ask(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", f"/v2/models/{MODEL}/infer", QUESTION)
    response = connection.getresponse()
    response.read()
    return response.status


def test_without_descriptors_who_is_there_is_answered_and_strangers_later(plain: Box) -> None:
    plain.start()
    with closing(http.client.HTTPConnection("127.0.0.1", plain.http_port, timeout=10)) as there:
        _starve(plain, there)


def _starve(plain: Box, there: http.client.HTTPConnection) -> None:
    assert plain.process is not None
    pid = plain.process.pid
    assert ask(there) == 200
    # It answers before it has begun with its lines, and a start without descriptors is another matter.
    plain.until(lambda: all(f"{line}: no connection" in plain.said() for line in ("uplink", "local broker")), "lines")
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    looks = [_descriptors(pid) for _ in range(50)]
    held = set.intersection(*looks)  # one that is open for a moment would leave a place for a stranger
    free = next(n for n in range(max(held) + 2) if n not in held)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    for _ in range(50):
        assert ask(there) == 200
    strangers = [http.client.HTTPConnection("127.0.0.1", plain.http_port, timeout=0.2) for _ in range(3)]
    for stranger in strangers:  # the kernel takes the connection, the agent cannot
        with closing(stranger), pytest.raises((TimeoutError, OSError, http.client.HTTPException)):
            ask(stranger)
    assert ask(there) == 200
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    plain.until(lambda: plain.answer() == 1.0, "strangers to be answered")
    assert ask(there) == 200 and plain.process.pid == pid


def _descriptors(pid: int) -> set[int]:
    """Those open now; it is some time until the next look, so that a try of a line does not last for all of them."""
    time.sleep(0.01)
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def test_without_a_thread_a_proof_is_put_off_and_made_when_there_is_one(device: Device) -> None:
    """Threads need room for their stacks, which the system refuses; a limit on their number does not bind root."""
    told: queue.SimpleQueue[Proved] = queue.SimpleQueue()
    proofs, outcomes = Proofs(told.put), []

    def prove(job: Prove) -> Proof | Failure:
        proofs.begin(job)
        outcomes.append(told.get(timeout=PATIENCE).outcome)
        return outcomes[-1]

    device.prover = prove
    device.core.assign(device.core.ship(2), device.identity)
    with no_room_for_stacks():
        device.settle(3, ask=0)
    assert device.state.phase is Phase.STAGED and device.answering == 1
    assert isinstance(outcomes[0], Failure) and "start new thread" in outcomes[0].text
    assert (outcomes[0].kind, outcomes[0].code) == (FailureClass.ENVIRONMENT, "prove-no-child")
    device.settle(12, ask=0)
    assert isinstance(outcomes[-1], Proof) and committed(device, 2), "in the same process"
    assert device.house.journal.quarantined(MODEL) == ()


@contextmanager
def no_room_for_stacks() -> Iterator[None]:
    """This process may grow by a little, and each new thread wants more."""
    limits, stack = resource.getrlimit(resource.RLIMIT_AS), threading.stack_size(STACK)
    resource.setrlimit(resource.RLIMIT_AS, (proving.memory("VmSize") + STACK // 2, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        threading.stack_size(stack)


@pytest.mark.slow
def test_without_inodes_it_starts_and_answers_and_goes_on_when_there_are_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4096) as disk:
        box = make(disk, tmp_path)
        with box.ended():
            box.start()
            box.end()
            subprocess.run(["mount", "-o", "remount,nr_inodes=60", str(disk.folder)], check=True)
            taken = _take_inodes(disk.folder)
            box.start()
            assert box.answer() == 1.0 and len(taken) > 0
            box.until(lambda: box.disk_says() not in ("", "works"), "the refusal to be shown")
            assert box.answer() == 1.0
            for file in taken:
                file.unlink()
            box.until(lambda: box.disk_says() == "works", "the disk to work again")
            assert box.answer() == 1.0


def _take_inodes(folder: Path) -> list[Path]:
    taken: list[Path] = []
    while True:
        file = folder / f"empty-{len(taken)}"
        try:
            file.touch()
        except OSError:  # none is left: that is what was wanted
            return taken
        taken.append(file)


@pytest.mark.slow
def test_a_log_that_takes_nothing_keeps_nobody_from_an_answer(plain: Box) -> None:
    argv = [sys.executable, "-P", "-m", "appliance.cli", "-v", "edge", "run", "--dir", str(plain.folder.root)]
    with Path("/dev/full").open("wb") as full:
        plain.process = subprocess.Popen(argv, stdout=full, stderr=full)
    plain.until(lambda: plain.answer() == 1.0, "an answer")
    for _ in range(20):
        assert plain.answer() == 1.0
    plain.end()
