"""The pump: one thread, in order, with its tick, and an end when the walker breaks."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count

import pytest

from appliance.pump import BACKLOG, Pump
from tests.waiting import PATIENCE, eventually


@pytest.fixture
def pump() -> Iterator[Pump]:
    made = Pump("test", lambda: None, 60.0)
    made.start()
    yield made
    made.stop()


def test_everything_runs_in_order_on_one_thread(pump: Pump) -> None:
    seen: list[tuple[int, str]] = []
    futures = [
        pump.submit(lambda i=i: seen.append((i, threading.current_thread().name)))  # type: ignore[misc]
        for i in range(100)
    ]
    for future in futures:
        future.result(PATIENCE)
    assert seen == [(i, "test") for i in range(100)]


def test_a_result_comes_back(pump: Pump) -> None:
    assert pump.submit(lambda: 6 * 7).result(PATIENCE) == 42


def test_what_is_queued_before_the_stop_is_done() -> None:
    pump = Pump("test", lambda: None, 60.0)
    done: list[int] = []
    for i in range(10):
        pump.submit(lambda i=i: done.append(i))  # type: ignore[misc]
    pump.start()
    pump.stop()
    assert done == list(range(10))


def test_an_idle_pump_ticks() -> None:
    ticks: list[None] = []
    pump = Pump("test", lambda: ticks.append(None), 0.001)
    pump.start()
    eventually(lambda: len(ticks) > 3, "four ticks")
    pump.stop()


def test_a_busy_pump_ticks_too() -> None:
    """A fleet that never falls silent must not keep the walker from its rounds."""
    time = count()  # each look at the clock is a second later
    ticks: list[None] = []
    pump = Pump("test", lambda: ticks.append(None), 5.0, ticks=lambda: float(next(time)))
    futures = [pump.submit(lambda: len(ticks)) for _ in range(50)]
    pump.start()
    ticked = [future.result(PATIENCE) for future in futures]
    pump.stop()
    assert ticked[0] == 0
    assert ticked[-1] > 5


def test_a_pump_without_haste_rests_after_every_call() -> None:
    seen: list[str] = []
    pump = Pump("test", lambda: seen.append("tick"), 60.0, rest=lambda: seen.append("rest"))
    for name in ("one", "two"):
        pump.submit(lambda name=name: seen.append(name))  # type: ignore[misc]
    pump.start()
    pump.stop()
    assert seen == ["one", "rest", "two", "rest"]


def test_an_exception_out_of_the_walker_ends_by_on_broken(caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()
    pump = Pump("test", lambda: None, 60.0, broken.set)
    pump.start()
    future = pump.submit(lambda: 1 // 0)
    assert broken.wait(PATIENCE)
    pump.stop()
    with pytest.raises(ZeroDivisionError):
        future.result(0)
    assert "the walker broke" in caplog.text


def test_an_exception_in_the_tick_ends_by_on_broken() -> None:
    def tick() -> None:
        raise RuntimeError("walker")

    broken = threading.Event()
    pump = Pump("test", tick, 0.001, broken.set)
    pump.start()
    assert broken.wait(PATIENCE)
    pump.stop()


def test_a_flood_waits_outside(pump: Pump) -> None:
    """What strangers send must not pile up in memory: the link's thread stands still, and with it the line."""
    gate, done = threading.Event(), []
    pump.submit(gate.wait)

    def flood() -> None:
        for i in range(BACKLOG + 50):
            pump.post(lambda i=i: done.append(i))  # type: ignore[misc]

    sender = threading.Thread(target=flood, daemon=True)
    sender.start()
    eventually(lambda: pump._queue.qsize() == BACKLOG, "a full queue")
    assert sender.is_alive() and not done
    gate.set()
    sender.join(PATIENCE)
    eventually(lambda: done == list(range(BACKLOG + 50)), "everything, in order")


def test_what_a_start_made_is_not_looked_at_again() -> None:
    """In a process of its own, whose collector shall not change for all others."""
    script = """
import gc
import edge.http.pages
from appliance.pump import settled
made = len(gc.get_objects())
settled()
assert made > 10_000 and len(gc.get_objects()) < made / 100, (made, len(gc.get_objects()))
"""
    subprocess.run([sys.executable, "-P", "-c", script], check=True, timeout=PATIENCE)
