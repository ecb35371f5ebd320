"""Fault 13: the broker goes away and comes back: restarted, killed, away for long, with its store wiped. No record that
was acknowledged is lost or counted twice, and a download under way ends."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from appliance.broker import Broker, local_config
from tests.core.world import World
from tests.faults.ears import MANY, SPEED, Ears, hearing, tell
from tests.faults.field import Field, Wired, hurried
from tests.waiting import eventually

pytestmark = pytest.mark.broker
SIZE = 2_000_000  # bytes of the model: 21 chunks


def kill(broker: Broker) -> None:
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not broker.alive(), "its end")


def start(broker: Broker) -> None:
    broker.start(local_config(broker.folder, broker.port))


def wipe(broker: Broker) -> None:
    kill(broker)
    shutil.rmtree(broker.folder / "store")
    start(broker)


def test_13_restarted_and_killed_no_record_is_lost_or_counted_twice(world: World, open_field: Field) -> None:
    broker = open_field.broker
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen == MANY // 3:
                broker.stop()
                start(broker)
            if seen == 2 * MANY // 3:
                kill(broker)
                start(broker)

        tell(device, ears, after)


@pytest.mark.slow
def test_13_wiped_and_away_for_ten_minutes_no_record_is_lost_or_counted_twice(world: World, open_field: Field) -> None:
    broker = open_field.broker
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen == MANY // 3:
                wipe(broker)
            if seen == 2 * MANY // 3:
                away(broker, device, ears)

        tell(device, ears, after)


def away(broker: Broker, device: Wired, ears: Ears) -> None:
    """Until both ends have tried in vain again and again: ten minutes by the device's clock."""
    begun = device.clock()
    kill(broker)
    eventually(lambda: device.clock() > begun + 600.0, "ten minutes of the device")
    start(broker)


def test_13_killed_under_a_download_what_its_store_lost_is_fetched_when_the_core_publishes_it_again(
    open_field: Field,
) -> None:
    """Killed before it wrote its store, the broker has nothing; the core publishes all in its next session."""
    core, broker = open_field.core, open_field.broker
    shipped = core.ship_large(1, SIZE)
    with open_field.over() as (_, device):
        device.clock = hurried(10.0)
        core.assign(shipped, device.identity)
        device.until(lambda: len(device.came) > 5, "some chunks")
        kill(broker)
        start(broker)
        assert core.link.wait_until_up(30.0)  # type: ignore[attr-defined]
        core.approve(shipped, 1)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert device.codes()[-1] == "release-committed"
        assert sum(device.came.values()) - len(device.came) <= 16, "only what was under way came twice"
