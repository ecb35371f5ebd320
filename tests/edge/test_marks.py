"""Who was being asked when a process ended: marks in memory that outlives it, and what is made of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import onnxruntime as ort
import pytest

from edge.deadlines import Deadlines
from edge.health import DAY, crashing
from edge.marks import SIZE, Marks
from edge.runtime import RunFailed, load
from edge.states import Phase
from sync.chunks import digest
from sync.messages import Gates
from tests.edge import bad_graphs, graphs
from tests.edge.device import Device, committed
from tests.edge.guardrails import index

ONE, TWO = digest(b"one"), digest(b"two")


def test_what_was_asked_at_the_end_is_found_at_the_next_beginning() -> None:
    memory = bytearray(SIZE)
    marks = Marks(memory)
    first, second = marks.begin(ONE.encode()), marks.begin(TWO.encode())
    assert first != second
    marks.end(first)
    assert Marks(memory).found() == {TWO}
    assert Marks(memory).found() == frozenset(), "and once"


def test_more_questions_than_slots_leave_no_mark_and_no_error() -> None:
    marks = Marks(bytearray(SIZE))
    held = [marks.begin(ONE.encode()) for _ in range(100)]
    for one in held:
        marks.end(one)
    assert marks.begin(TWO.encode()) >= 0


@pytest.mark.parametrize("left", [b"\xff" * SIZE, b"\0" * SIZE, bytes(range(256)) * (SIZE // 256)])
def test_memory_that_holds_anything_is_no_digest(left: bytes) -> None:
    assert all(len(one) == 64 and one.isalnum() for one in Marks(bytearray(left)).found())


def test_a_run_leaves_no_mark_whether_it_answers_or_breaks() -> None:
    memory = bytearray(SIZE)
    model = bad_graphs.grows(1 << 26)
    session = load(model, deadlines=Deadlines(lambda: 0.0, Marks(memory)))
    session.run(index(0))
    with pytest.raises(RunFailed):
        session.run(index(2))
    assert Marks(memory).found() == frozenset()
    assert graphs.classifier() != model


def test_a_load_that_ends_the_process_leaves_its_mark(tmp_path: Path) -> None:
    """What it was proved with has been replaced, say: the next start must know whom not to load again and again."""
    marks, model = tmp_path / "marks", bad_graphs.crashes(on_load=True)
    marks.write_bytes(bytes(SIZE))
    done = subprocess.run([sys.executable, "-P", "-c", LOADS, str(marks)], input=model, check=False, timeout=60)
    assert done.returncode == -signal.SIGFPE
    assert Marks(bytearray(marks.read_bytes())).found() == {digest(model)}


LOADS = """
import mmap, sys
from edge.deadlines import Deadlines, standing
from edge.marks import SIZE, Marks
from edge.runtime import load
with open(sys.argv[1], "r+b") as file:
    load(sys.stdin.buffer.read(), deadlines=Deadlines(standing, Marks(mmap.mmap(file.fileno(), SIZE))))
"""


@pytest.mark.parametrize(
    ("crashes", "now", "given_up"),
    [((), 0.0, False), ((1.0, 2.0), 3.0, False), ((1.0, 2.0, 3.0), 4.0, True), ((1.0, 2.0, 3.0), DAY + 2.5, False)],
)
def test_three_crashes_within_a_day_are_enough(crashes: tuple[float, ...], now: float, given_up: bool) -> None:
    assert bool(crashing(crashes, now, Gates())) is given_up


@pytest.fixture
def device(device: Device) -> Device:
    """Release 2 is committed too."""
    return device.commit(device.core.ship(2))


def crashed(device: Device) -> Device:
    """Its process ended of a fault while what serves was asked; a good many answers came before."""
    device.settle(5, ask=0)
    assert device.state.serving is not None
    device.found = frozenset({device.state.serving.release.artifact})
    device.cut_power()
    device.boot(link=False)
    device.found = frozenset()
    return device


def test_a_committed_release_that_crashes_the_agent_thrice_a_day_goes_home(device: Device) -> None:
    for _ in range(2):
        crashed(device)
        assert committed(device, 2)
    crashed(device)
    assert committed(device, 1)
    (card,) = device.house.journal.why()
    assert (card.criterion, card.phase) == ("crash-loop", Phase.STEADY.value) and "3 times" in card.text
    assert device.codes().count("agent-crashed") == 3


def test_crashes_that_are_days_apart_are_forgiven(device: Device) -> None:
    for _ in range(5):
        crashed(device)
        assert committed(device, 2)
        device.now += DAY


def test_a_kill_is_no_crash(device: Device) -> None:
    for _ in range(5):
        device.settle(2, ask=0)
        device.cut_power()
        device.boot(link=False)
    assert committed(device, 2) and device.state.serving is not None and device.state.serving.crashes == ()


def test_memory_that_a_fault_wrote_into_names_nobody_and_ends_nothing() -> None:
    memory = bytearray(b"z" * SIZE)
    assert Marks(memory).found() == frozenset() and memory == bytes(SIZE)


def test_a_fault_is_that_of_the_model_its_thread_was_asking() -> None:
    memory = bytearray(SIZE)
    marks = Marks(memory)
    marks.begin(ONE.encode())  # the one that always answers well, and is always being asked
    other = threading.Thread(target=marks.begin, args=(TWO.encode(),))
    other.start()
    other.join()
    assert other.ident is not None
    assert Marks(bytearray(memory)).found(other.ident) == {TWO}
    assert Marks(bytearray(memory)).found(threading.get_ident()) == {ONE}
    assert Marks(bytearray(memory)).found() == {ONE, TWO}, "a thread that Python does not know"


def test_whoever_stops_a_process_that_hangs_means_who_is_late() -> None:
    memory, now = bytearray(SIZE), [0.0]
    runs = Deadlines(lambda: now[0], Marks(memory))
    slow, quick = ort.RunOptions(), ort.RunOptions()
    runs.begin(slow, None, ONE.encode(), 1.0)
    now[0] = 5.0
    runs.begin(quick, None, TWO.encode(), 1.0)
    runs.sweep()
    elsewhere = threading.get_ident() + 1
    assert Marks(bytearray(memory)).found(elsewhere) == {ONE}
    runs.end(slow)
    assert Marks(bytearray(memory)).found(elsewhere) == frozenset(), "a disk hung, say: nobody is to blame"


def test_an_end_that_was_asked_for_says_nothing_against_a_release_on_trial(device: Device) -> None:
    device.core.assign(device.core.ship(3), device.identity, gates=Gates(soak_answers=1000))
    device.settle(5, ask=0)
    assert device.state.phase is Phase.PROBATION
    for _ in range(5):
        device.agent.stop(device.now)
        device.cut_power()
        device.boot(link=False)
    assert device.state.phase is Phase.PROBATION and device.answering == 3
    for _ in range(3):
        device.cut_power()
        device.boot(link=False)
    assert committed(device, 2), "three that nobody asked for"
