"""Fault 13: the broker goes away and comes back: restarted, killed, away for long, with its store wiped. No record that
was acknowledged is lost or counted twice, and a download under way ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from appliance.broker import Broker
from sync import topics
from sync.link import Publish
from sync.mqtt import MqttLink
from tests.core.world import World
from tests.edge.world import DEVICE, TENANT, Shipped
from tests.faults.ears import MANY, SPEED, Ears, hearing, tell
from tests.faults.field import Field, Wired, hurried
from tests.faults.plain_broker import kill, restart, save, start, wipe
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.broker
SIZE = 2_000_000  # bytes of the model: 21 chunks
STATE, LATER = topics.desired(TENANT, DEVICE), topics.core_status(TENANT)


def killed(broker: Broker) -> None:
    kill(broker)
    start(broker)


@pytest.mark.parametrize(
    ("blow", "left"),
    [(restart, {STATE, LATER}), (killed, {STATE}), (wipe, set())],
    ids=["restarted", "killed", "wiped"],
)
def test_13_what_a_broker_knows_after_each_blow(
    open_field: Field, blow: Callable[[Broker], None], left: set[str]
) -> None:
    """The control: asked to end it writes what it knows; a kill takes what came after the last save, a wipe all."""
    core, broker = open_field.core, open_field.broker
    core.link.publish(Publish(STATE, b"saved", retain=True))
    core.settle()
    save(broker)
    core.link.publish(Publish(LATER, b"not saved", retain=True))
    core.settle()
    core.link.stop()
    blow(broker)
    heard: list[str] = []
    link = MqttLink(open_field.device_at)
    link.subscribe(STATE, LATER)
    link.start(lambda message: heard.append(message.topic), lambda up, reason: None)
    try:
        assert link.wait_until_up(PATIENCE)
        eventually(lambda: {STATE, LATER} <= link.listening, "the broker's answer")
        link.publish(Publish(topics.status(TENANT, DEVICE), b"{}"))
        eventually(lambda: not link.unconfirmed, "the answer to that: what is retained came before it")
    finally:
        link.stop()
    assert set(heard) == left


def test_13_restarted_and_killed_no_record_is_lost_or_counted_twice(world: World, open_field: Field) -> None:
    broker = open_field.broker
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen == MANY // 3:
                restart(broker)
            if seen == 2 * MANY // 3:
                killed(broker)

        tell(device, ears, after)


@pytest.mark.slow
def test_13_wiped_and_away_for_ten_minutes_no_record_is_lost_or_counted_twice(world: World, open_field: Field) -> None:
    broker = open_field.broker
    with hearing(world, open_field, None) as (_, ears), open_field.over() as (_, device):
        device.clock = hurried(SPEED)

        def after(seen: int) -> None:
            if seen == MANY // 3:
                save(broker)
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


def saved_and_killed(broker: Broker) -> None:
    """As the steward has it: the store was written once the release was on the broker."""
    save(broker)
    killed(broker)


@contextmanager
def under_way(field: Field) -> Iterator[tuple[Wired, Shipped]]:
    """A device that has some chunks of the release it is to run."""
    shipped = field.core.ship_large(1, SIZE)
    with field.over() as (_, device):
        device.clock = hurried(10.0)
        field.core.assign(shipped, device.identity)
        device.until(lambda: len(device.came) > 5, "some chunks")
        yield device, shipped


@pytest.mark.parametrize("blow", [restart, saved_and_killed], ids=["restarted", "killed-after-a-save"])
def test_13_a_store_that_was_written_brings_a_download_to_its_end_without_the_core(
    open_field: Field, blow: Callable[[Broker], None]
) -> None:
    core, broker = open_field.core, open_field.broker
    with under_way(open_field) as (device, _):
        core.link.stop()  # whatever the broker has from here on it has kept
        blow(broker)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert device.codes()[-1] == "release-committed"


def saved_and_wiped(broker: Broker) -> None:
    save(broker)
    wipe(broker)


@pytest.mark.parametrize("blow", [killed, saved_and_wiped], ids=["killed-before-a-save", "wiped"])
def test_13_what_a_store_lost_under_a_download_is_fetched_when_the_core_publishes_it_again(
    open_field: Field, blow: Callable[[Broker], None]
) -> None:
    """The broker has nothing, so nothing comes; the core publishes all in its next session."""
    core, broker = open_field.core, open_field.broker
    with under_way(open_field) as (device, shipped):
        blow(broker)
        assert core.link.wait_until_up(30.0)  # type: ignore[attr-defined]
        device.until(lambda: "download-stalled" in device.codes(), "the silence to be told")
        assert not device.has(1), "nobody but the core has it"
        core.approve(shipped, 1)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert device.codes()[-1] == "release-committed"
        assert sum(device.came.values()) - len(device.came) <= 16, "only what was under way came twice"
