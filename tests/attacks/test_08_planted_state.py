"""Attack 8: retained messages and wills that plant something for the core to find. It is not believed, and goes."""

from __future__ import annotations

import pytest

from core.steward import Action, Send
from sync import topics
from sync.messages import EVENT, DeviceEvent
from sync.names import Kind
from tests.attacks.ground import Ground, Session
from tests.core.world import ONE, START, TENANT, TWO, Device, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker
ROOT = topics.tenant_root(TENANT)
LIE = DeviceEvent("release-committed", "all is well")
PLANTED = (topics.up(TENANT, ONE, EVENT), f"{ROOT}/d/{ONE}/up/Not-A-Kind", topics.up(TENANT, ONE, Kind("evidence")))


def walk(world: World, core: Session, count: int) -> None:
    """The steward hears `count` messages of its session and answers on it."""
    eventually(lambda: len(core.heard) >= count, f"{count} messages")
    for message in core.heard[:count]:
        carry_out(core, world.hear(message))
    del core.heard[:count]


def carry_out(core: Session, actions: list[Action]) -> None:
    for action in actions:
        if isinstance(action, Send):
            core.link.publish(action.message)


def plant(ground: Ground, device: Device) -> None:
    """While the core is away: one retained message of each sort, one of them by a will."""
    session = ground.session(ground.tls(device.certificate, device.keys.signing), ONE)
    for topic in PLANTED[:2]:
        session.say(topic, device.record(LIE, 1).payload, retain=True)
    session.say(topics.status(TENANT, ONE), b"{}", retain=True)
    witness = ground.core()
    witness.listen(*topics.core_subscriptions(TENANT))
    ground.sessions.remove(session)
    session.link.stop()
    ground.last_words(ground.tls(device.certificate, device.keys.signing), PLANTED[2], device.record(LIE, 1).payload)
    eventually(lambda: PLANTED[2] in witness.topics(), "the will")
    ground.sessions.remove(witness)
    witness.link.stop()


def test_08_what_is_planted_is_ignored_told_and_cleared(own_ground: Ground, world: World) -> None:
    device, other = world.enrol(ONE), world.enrol(TWO)
    serving = own_ground.session(own_ground.tls(other.certificate, other.keys.signing), TWO)
    plant(own_ground, device)
    before, events = world.catalog.fleet.devices(), len(world.codes())
    core = own_ground.core()
    core.listen(*topics.core_subscriptions(TENANT))
    walk(world, core, 4)
    assert world.catalog.fleet.devices() == before
    assert [world.catalog.fleet.received(ONE, device.epoch, kind) for kind in ("event", "evidence")] == [0, 0]
    assert sorted(world.codes()[events:]) == [
        "refused-bad-name", "refused-malformed", "refused-untrusted", "refused-untrusted",
    ]  # fmt: skip
    assert "release-committed" not in world.codes()
    walk(world, core, 3)  # its own clearings come back, and say nothing
    assert len(world.codes()) == events + 4
    serving.say(topics.up(TENANT, TWO, EVENT), other.record(DeviceEvent("all-well", "x"), 1).payload)
    walk(world, core, 1)
    assert world.catalog.fleet.received(TWO, other.epoch, "event") == 1, "a device beside is heard all the while"
    assert serving.changes == [True] and core.changes == [True]
    own_ground.close_sessions()

    late = own_ground.core()
    late.listen(f"{ROOT}/d/+/up/+")
    late.say(topics.up(TENANT, ONE, Kind("end")))
    eventually(lambda: bool(late.heard), "the end")
    assert late.topics() == [topics.up(TENANT, ONE, Kind("end"))], "the broker holds none of it any more"


def test_08_the_same_words_live_are_taken(own_ground: Ground, world: World) -> None:
    """What is refused above is the planting, not the record."""
    device = world.enrol(ONE)
    core = own_ground.core()
    core.listen(*topics.core_subscriptions(TENANT))
    core.heard.clear()
    session = own_ground.session(own_ground.tls(device.certificate, device.keys.signing), ONE)
    session.say(PLANTED[0], device.record(LIE, 1).payload)
    walk(world, core, 1)
    event = world.catalog.events.newest(1)[0]
    assert (event.source, event.code) == (ONE, "release-committed") and world.now > START
