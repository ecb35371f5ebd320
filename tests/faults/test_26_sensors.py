"""Fault 26: a sensor stands still, sends a hundred times as much, comes hours late, or says everything twice. The
stream goes on, what is late or repeated changes no answer, and no prediction is made twice.

That rows which come up twice are learned from once is in `tests/core/test_samples.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge import graphs
from tests.edge.bound import BINDING, Box

HOUR = 3600.0


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Box]:
    yield from _box(tmp_path / "a.db")


@pytest.fixture
def calm(tmp_path: Path) -> Iterator[Box]:
    """The same stream without any fault."""
    yield from _box(tmp_path / "b.db")


def _box(path: Path) -> Iterator[Box]:
    box = Box(path)
    box.go_live(graphs.manifest(1, (BINDING,)))
    yield box
    box.buffers.close()


def ids(box: Box) -> list[str]:
    return [p.id for p in box.predictions()]


def test_everything_twice_gives_every_prediction_once(local: Box, calm: Box) -> None:
    for ts in range(40):
        calm.send(float(ts))
        for _ in range(2):
            local.send(float(ts))
    assert local.predictions() == calm.predictions() and len(set(ids(local))) == len(ids(local))
    assert local.log.count(("ack", 39.0)) <= 2


def test_what_comes_hours_late_is_acknowledged_and_changes_nothing(local: Box, calm: Box) -> None:
    for ts in range(40):
        at = 10 * HOUR + ts
        calm.send(at)
        local.send(at)
        local.send(at - 5 * HOUR)
    assert local.predictions() == calm.predictions()
    local.bindings.settle(everything=True)
    assert sum(kind == "ack" for kind, _ in local.log) == 80


def test_a_hundred_times_as_much_for_a_while_costs_no_reading_and_is_not_kept(local: Box, calm: Box) -> None:
    for ts in range(60):
        calm.send(float(ts))
    for ts in range(20):
        local.send(float(ts))
    for n in range(2000):
        local.send(20 + n / 100)
    for ts in range(40, 60):
        local.send(float(ts))
    local.bindings.settle(everything=True)
    said = local.predictions()
    assert sum(kind == "ack" for kind, _ in local.log) == 2040
    assert [p.ts for p in said] == sorted(p.ts for p in said) and len(set(ids(local))) == len(said)
    assert said[-1].quality == "ok"
    assert kept(local) == kept(calm), "what is kept of a stream is its newest window, however much came"


def kept(box: Box) -> int:
    """Bytes of what a start would find of its streams."""
    box.bindings.settle(everything=True)
    box.buffers.close()
    size = box.path.stat().st_size
    box.start()
    return size


def test_a_sensor_that_stands_still_is_answered_as_it_says(local: Box) -> None:
    for ts in range(100):
        local.send(float(ts), payload=b'{"ts": %d, "x": 0.5, "y": 0.5}' % ts)
    said = local.predictions()
    assert len(said) == 49 and {(p.quality, p.value) for p in said} == {("ok", said[0].value)}
