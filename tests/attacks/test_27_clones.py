"""Attack 27: one identity in two places, as of a disk that was copied. Both are stopped, and a person is told."""

from __future__ import annotations

import pytest

from core import orders
from sync import topics
from sync.messages import EVENT, DeviceEvent
from tests.attacks.ground import Ground, Session, greet, obey
from tests.core.world import ONE, TENANT, TWO, Device, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def report(core: Session, world: World, ground: Ground, device: Device, boot: str, seq: int) -> None:
    """One box reports over its own session; the core hears it and acts."""
    session = ground.session(ground.tls(device.certificate, device.keys.signing), ONE)
    message = device.report(boot=boot, seq=seq, at=world.now + seq)
    count = len(core.heard)
    session.say(message.topic, message.payload, retain=True)
    eventually(lambda: len(core.heard) > count, "the report")
    world.actions.clear()
    world.hear(core.heard[count])
    obey(ground, core, world.actions)


def test_27_two_boxes_with_one_identity_are_both_stopped(own_ground: Ground, world: World) -> None:
    device, other = world.enrol(ONE), world.enrol(TWO)
    core = own_ground.core()
    core.listen(topics.reported(TENANT, ONE), topics.up(TENANT, ONE, EVENT), topics.up(TENANT, TWO, EVENT))
    serving = own_ground.session(own_ground.tls(other.certificate, other.keys.signing), TWO)
    report(core, world, own_ground, device, "the box", 7)
    assert "device-cloned" not in world.codes()
    report(core, world, own_ground, device, "its copy", 7)
    (alarm,) = [e for e in world.catalog.events.newest() if e.code == "device-cloned"]
    assert alarm.severity == "alarm" and "falaj device replace" in alarm.text
    found = world.catalog.fleet.device(ONE)
    assert found is not None and found.state == "cloned"

    # Neither is heard: the broker keeps the words of both, and what came before is refused at the core.
    late = own_ground.session(own_ground.tls(device.certificate, device.keys.signing), ONE)
    said, refused = len(core.heard), len(late.refused)
    late.say(topics.up(TENANT, ONE, EVENT), device.record(DeviceEvent("all-well", "x"), 1).payload)
    eventually(lambda: len(late.refused) > refused or len(core.heard) > said, "an answer")
    assert len(core.heard) == said and "Not authorized" in late.refused[-1]
    world.hear(device.report(boot="the box", seq=8))
    assert world.codes()[-1] == "refused-barred"
    serving.say(topics.up(TENANT, TWO, EVENT), other.record(DeviceEvent("all-well", "x"), 1).payload)
    eventually(lambda: len(core.heard) > said, "the word of a device beside them")
    world.hear(core.heard[-1])
    assert world.catalog.fleet.received(TWO, other.epoch, "event") == 1 and serving.changes == [True]


def test_27_a_new_box_under_the_name_is_heard_and_neither_of_the_two(own_ground: Ground, world: World) -> None:
    device = world.enrol(ONE)
    core = own_ground.core()
    core.listen(topics.reported(TENANT, ONE))
    report(core, world, own_ground, device, "the box", 7)
    report(core, world, own_ground, device, "its copy", 7)
    world.actions.clear()
    world.must(orders.Replace(device=ONE))
    obey(own_ground, core, world.actions)
    world.actions.clear()
    new = world.enrol(ONE)
    obey(own_ground, core, world.actions)
    report(core, world, own_ground, new, "the new box", 1)
    assert world.codes().count("device-cloned") == 1 and new.epoch == 2
    assert greet(own_ground.broker.port, own_ground.tls(device.certificate, device.keys.signing).context()) is None
