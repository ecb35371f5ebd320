"""What a site's line may carry down: the day's budget is never exceeded, the rate is kept, and all of it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.budget import DAY, Budget
from edge.metering import Meter
from sync.link import LineReport
from sync.messages import EVENT
from tests.edge.device import Device, committed, new_device
from tests.edge.world import CHUNK, MODEL, NOW, Core

MORNING = float(int(NOW // DAY) * DAY)  # of a UTC day


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    found = Budget(tmp_path / "budget.db", int(MORNING // DAY), lambda code, text: None)
    yield found
    found.close()


def test_without_limits_there_is_room_for_everything_and_nothing_to_tell() -> None:
    meter = Meter()
    assert meter.room(CHUNK, NOW) > 10**9 and meter.pay(10**12, NOW) and meter.report(NOW) is None and not meter.waits


@settings(max_examples=25, deadline=None)
@given(asks=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 40_000)), max_size=40), daily=st.integers(0, 4000))
def test_no_day_takes_more_than_its_budget(
    asks: list[tuple[int, int]], daily: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    budget = Budget(tmp_path_factory.mktemp("b") / "budget.db", 0, lambda code, text: None)
    meter, now, days = Meter(daily, 0, budget), MORNING, dict[int, int]()
    for wanted, later in asks:
        count = min(wanted, meter.room(100, now))
        if count and meter.pay(100 * count, now):
            days[int(now // DAY)] = days.get(int(now // DAY), 0) + 100 * count
        now += later
    assert all(spent <= daily for spent in days.values()) or not daily
    budget.close()


def test_the_rate_is_kept_over_any_time(budget: Budget) -> None:
    meter, carried, now = Meter(0, 1000, budget), 0, MORNING
    while now < MORNING + 60.0:
        count = meter.room(100, now)
        assert meter.pay(100 * count, now) if count else True
        carried += 100 * count
        now += 0.25
    assert 55_000 <= carried <= 61_000


def test_a_rate_below_a_chunk_a_second_carries_one_now_and_then() -> None:
    meter = Meter(0, 100)
    assert meter.room(400, 0.0) == 1 and meter.pay(400, 0.0)
    assert meter.room(400, 3.9) == 0
    assert meter.room(400, 4.0) == 1
    assert meter.room(400, -1000.0) == 1, "a clock that was set back keeps nothing waiting"


def test_where_the_account_cannot_be_kept_nothing_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    path.mkdir()
    (path / "in the way").touch()
    budget = Budget(path, int(MORNING // DAY), lambda code, text: None)
    meter = Meter(10**9, 0, budget)
    assert meter.room(100, MORNING) == 0 and meter.waits and not meter.pay(100, MORNING)
    budget.close()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return new_device(Core(), tmp_path / "device")


def test_a_release_larger_than_a_day_comes_over_days_and_alarms_go_all_the_while(
    device: Device, tmp_path: Path
) -> None:
    core = device.core
    account = Budget(tmp_path / "budget.db", int(device.now // DAY), lambda code, text: None)
    core.assign(core.ship(1, (1.0, 1.5, *[0.0] * 600)), device.identity)
    device.boot()
    device.house.line.meter = Meter(3 * CHUNK, 0, account)
    device.settle(5)
    assert any(download.have for download in device.house.downloads.values()) and not there(device)
    assert device.codes().count("download-budget-spent") == 1
    line = device.reported().line
    assert line == LineReport(line.bytes_today, 3 * CHUNK, 0, waits=True) and 0 < line.bytes_today <= 3 * CHUNK
    assert device.house.events.report(device.now, "drift-alarm", "still told", MODEL, "alarm")
    device.settle(2)
    assert device.codes()[-1] == "drift-alarm" and device.house.outbox.waiting(EVENT)
    for _ in range(12):
        if there(device):
            break
        device.now += DAY
        core.renew(device.now)
        core.publish_trust()
        device.settle(6, ask=0)
    assert there(device), device.state
    assert device.codes().count("download-budget-spent") >= 3, "once a day"
    account.close()


def there(device: Device) -> bool:
    return MODEL in device.house.deployments and device.state.serving is not None and committed(device, 1)
