"""Attack 31: a device's clock is set back, so that what has expired seems to hold; or years forward, so that nothing
does. Serving goes on in both; the first installs nothing, the second recovers when the clock is right again.

tuf's client reads the machine's own clock, which these tests leave alone: it stands for the wrong clock where the
device's time is the right one, and the other way round.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sync import topics
from sync.messages import Assignment
from sync.names import TrustFile
from tests.edge.device import Device, committed, serving_device
from tests.edge.world import DAY, MODEL, NOW, TENANT, Core

YEAR = 365 * DAY


@pytest.fixture
def device(core: Core, ram: Path) -> Device:
    """Release 1 is committed and answers."""
    return serving_device(core, ram)


def frozen(core: Core, device: Device, *, knows: bool) -> bytes:
    """An order for release 2, whose metadata has long expired by the true time, 30 days on; the clock says it has not.
    `knows`: the device has heard a signed time of those 30 days later."""
    assert device.state.order is not None
    if knows:
        device.now = core.now = NOW + 30 * DAY
        core.desire(core.assignment(device.state.order))
        device.settle(2)
        assert device.house.assignment is not None and device.house.assignment.ts == core.now
        device.acknowledge(999)
    device.now = core.now = NOW
    return core.assignment(core.order(core.ship(2), device.identity))


def test_31_a_clock_set_back_makes_nothing_hold_that_has_expired(core: Core, device: Device) -> None:
    envelope, before = frozen(core, device, knows=True), device.house.journal.high_water()
    core.desire(envelope)
    device.settle(12, ask=0)
    assert committed(device, 1) and device.house.journal.high_water() == before
    assert device.codes() == ["clock-unset"]
    assert device.reported().clock == "unset"
    device.cut_power()
    device.boot().settle(8, ask=0)
    assert committed(device, 1), "the time it heard is kept over a power cut"


def test_31_without_a_later_signed_time_it_could_not_know(core: Core, device: Device) -> None:
    """The same frozen broker, and a device that was away all the time: the limit of a clock without a floor."""
    core.desire(frozen(core, device, knows=False))
    device.settle(12, ask=0)
    assert committed(device, 2)


def test_31_without_a_clock_the_time_that_was_signed_counts(core: Core, device: Device) -> None:
    """A box that counts from 1970, to which a folder brought a signed time: by the machine's clock nothing ever ends,
    and a folder with metadata of long ago would do."""
    order = core.order(core.ship(2), device.identity)
    core.now, device.now = NOW + 30 * DAY, 5000.0
    assert device.house.time.learn(core.now, device.now)
    core.desire(core.assignment(order))
    device.settle(12, ask=0)
    assert device.answering == 1
    assert device.codes().count("trust-expired") == 1, "told, and asked for again: somebody may keep newer ones back"
    core.renew(core.now)
    core.publish_trust()
    device.settle(60, ask=0)
    assert committed(device, 2)


def test_31_a_little_behind_is_no_attack(core: Core, device: Device) -> None:
    device.now = NOW - 3600
    core.assign(core.ship(2), device.identity)
    device.settle(12, ask=0)
    assert committed(device, 2)


def test_31_years_ahead_it_serves_and_recovers_when_the_clock_is_right(core: Core, device: Device) -> None:
    device.now = NOW + 3 * YEAR
    before = device.house.journal.counter("desired_seq")
    core.assign(core.ship(2), device.identity)
    device.settle(12, ask=0)
    assert committed(device, 1) and device.house.journal.counter("desired_seq") == before
    assert device.codes() == ["refused-untrusted", "trust-expired"], "it hears no revocation either"
    device.now = NOW + 60
    device.settle(14, ask=0)
    assert committed(device, 2), "nobody had to send the order once more"


def test_31_ahead_in_the_middle_of_an_update_and_right_again(core: Core, device: Device) -> None:
    """What waits for a few seconds must not wait for years."""
    device.cut_power()
    core.assign(core.ship(2), device.identity)
    core.hub.retained.pop(topics.trust(TENANT, TrustFile("timestamp.json")))
    device.boot().settle(3, ask=0)
    assert device.state.serving is not None and device.state.phase.value == "fetching"
    device.now = NOW + 3 * YEAR
    device.settle(3, ask=0)
    device.now = NOW + 60
    core.publish_trust()
    device.settle(14, ask=0)
    assert committed(device, 2)


def test_31_another_director_may_count_time_anew(core: Core, device: Device) -> None:
    """A stolen director's key that signed for the far future is no lasting harm: the floor goes with the key."""
    order = core.order(core.ship(1), device.identity)
    core.desire(core.assignment(order, ts=NOW + YEAR, expires=NOW + 2 * YEAR))
    device.settle(2)
    assert device.house.clock_is_off(device.now)
    assert isinstance(device.house.assignment, Assignment)
    device.house.journal.adopt(device.house.trust.root, device.house.journal.high_water(), orders_void=True)
    assert not device.house.clock_is_off(device.now) and device.state.model == MODEL
