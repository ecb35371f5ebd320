"""What the core is told of how releases do: records of the outbox, small, kept over a disk that refuses."""

from __future__ import annotations

from dataclasses import replace as changed
from pathlib import Path
from secrets import token_bytes

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from edge.agent.accounting import ROOM, account
from edge.http.metrics import Metrics
from edge.kept import Kept
from edge.performance import EVERY, Performance
from edge.telemetry import Telemetry
from sync import codec, records
from sync.manifest import Drift
from sync.messages import METRICS, Prediction, Record
from sync.names import Kind
from sync.performance import BINS, MOST_CLASSES, UNIT, Confidence, Interval, Tally, outside
from sync.sketch import BELOW, COUNTERS, MAX_STREAMS, Sketch
from tests.core.world import REPORTS_KEY
from tests.edge import graphs
from tests.edge.device import Device, serving_device
from tests.edge.refusal import Refusal
from tests.edge.world import CLASSES, DEVICE, MODEL, TENANT, Core

DRIFT = Drift(window=20, baseline=80, turns=8)
SURE = (0.05, 0.05, 0.9)


class Accounts:
    """A device that serves release 1, and what it counts."""

    def __init__(self, device: Device, folder: Path) -> None:
        self.device, self.elapsed, self.metrics = device, 0.0, Metrics()
        self.performance = Performance(self.metrics.counted)
        kept = Kept(folder, TENANT, bytes(32), "drift", token_bytes, lambda code, text: None)
        self.telemetry = Telemetry(kept, lambda model, report: None)
        device.house.outbox.alarms_apart = True  # as a core of today says
        self.go_on(0.0)

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            self.metrics.observe(MODEL, 1, 0.002, 1)
            self.performance.see(Prediction("p", MODEL, self.device.now, "ok", CLASSES[2], SURE, CLASSES, release=1))

    def go_on(self, seconds: float, *, ending: bool = False) -> None:
        self.elapsed += seconds
        house, now = self.device.house, self.device.now + self.elapsed
        account(house, self.performance, self.telemetry, now, self.elapsed, ending=ending)

    def waiting(self) -> list[Interval]:
        """What lies in the outbox."""
        pending = self.device.house.outbox.pending(100)
        found = (codec.decode(Record, document) for kind, _, document in pending if kind == METRICS)
        return [codec.decode(Interval, bytes(record.body)) for record in found]


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(serving_device(Core(), tmp_path / "device"), tmp_path / "drift")


def test_an_hour_is_one_record_and_an_idle_one_none(accounts: Accounts) -> None:
    accounts.answer(3)
    accounts.go_on(EVERY)
    accounts.go_on(EVERY)
    (found,) = accounts.waiting()
    assert (found.model, found.number, found.tally.answers, found.sketch) == (MODEL, 1, 3, None)


def test_a_core_of_before_is_told_nothing_and_one_of_today_all(accounts: Accounts) -> None:
    accounts.device.house.outbox.alarms_apart = False
    accounts.answer(3)
    accounts.go_on(EVERY)
    accounts.answer(2)
    accounts.go_on(EVERY)
    assert accounts.waiting() == []
    accounts.device.house.outbox.alarms_apart = True
    accounts.go_on(1.0)
    (found,) = accounts.waiting()
    assert found.tally.answers == 5


def test_an_agent_that_is_told_to_end_keeps_what_it_counted(accounts: Accounts) -> None:
    accounts.answer(2)
    accounts.go_on(60)
    assert accounts.waiting() == []
    accounts.go_on(0, ending=True)
    assert [one.tally.answers for one in accounts.waiting()] == [2]


def test_a_disk_that_refuses_loses_no_count_and_repeats_none(tmp_path: Path) -> None:
    refusal = Refusal()
    device = serving_device(Core(), tmp_path / "device")
    device.cut_power()
    device = changed(device, outbox_kind=refusal.outbox()).boot().settle(3)
    accounts = Accounts(device, tmp_path / "drift")
    accounts.answer(2)
    refusal.left = 0
    accounts.go_on(EVERY)
    assert device.house.disk.reason and accounts.waiting() == []
    accounts.answer()
    accounts.go_on(1)
    refusal.heal()
    device.settle(120)
    assert not device.house.disk.reason
    accounts.go_on(1)
    accounts.go_on(1)
    assert [one.tally.answers for one in accounts.waiting()] == [3]


def test_the_newest_drift_window_goes_along(accounts: Accounts) -> None:
    accounts.telemetry.watch(replace(graphs.manifest(1), model=MODEL, drift=DRIFT))
    rng = np.random.default_rng(1)
    rows = [rng.normal(0, 1, (DRIFT.window * 60, 2)), np.full((DRIFT.window, 2), (0.0, -90.0))]
    for i, part in enumerate(rows):
        accounts.telemetry.observe(MODEL, 100.0 * i, part)
    accounts.answer()
    accounts.go_on(EVERY)
    (found,) = accounts.waiting()
    assert found.sketch is not None and found.sketch.rows == DRIFT.window
    assert found.sketch.counts[1][BELOW] == DRIFT.window
    assert list(outside(found).values()) == [0.0, 1.0] and len(found.streams) == 2
    assert "-90" not in codec.encode(found).decode(), "counters, and no reading"


def largest(streams: int) -> Interval:
    """As large as an honest device can make it in a long hour."""
    one = Confidence((9_999_999,) * BINS, tuple(9_999_999 * (i * UNIT // BINS) for i in range(BINS)))
    classes = {f"{i:0{4096 // MOST_CLASSES - 4}d}": one for i in range(MOST_CLASSES)}
    sketch = Sketch("f" * 16, ((65_535,) * COUNTERS,) * streams) if streams else None
    names = tuple(f"channel-{i}-of-a-plant" for i in range(streams))
    return Interval(MODEL, 1, 1.8e9, EVERY, Tally(10**9, 10**9, (10**9,) * 13, classes), names, sketch)


def test_the_largest_record_is_taken_by_the_wire() -> None:
    whole = largest(MAX_STREAMS)
    found = whole if len(codec.encode(whole)) <= ROOM else largest(0)
    sealed = records.seal(
        Record(1, 1, 1.8e9, "b" * 32, msgspec.Raw(codec.encode(found))), TENANT, DEVICE, Kind("metrics"), REPORTS_KEY
    )
    assert len(codec.encode(found)) <= ROOM and len(codec.encode(sealed)) <= codec.LIMIT
