"""Attack 3: a certificate that was revoked. Cut off in the middle of its session, and not let in again.

Access is tried by delivery: a broker may grant a subscription and refuse the messages. What comes after something else
is told by a witness that hears both: the broker delivers in order.
"""

from __future__ import annotations

import pytest

from core import orders
from core.steward import Access
from sync import topics
from sync.messages import EVENT
from sync.names import DeviceId, Kind
from tests.attacks.ground import Ground, Session, greet, obey, supervise
from tests.core.world import ONE, TENANT, TWO, Device, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def session_of(ground: Ground, device: Device, *, up: bool = True) -> Session:
    return ground.session(ground.tls(device.certificate, device.keys.signing), device.name, up=up)


def orders_of(name: DeviceId) -> str:
    return topics.desired(TENANT, name)


def do(world: World, ground: Ground, core: Session, order: orders.AnyOrder) -> None:
    """An order at the core, carried out to the end."""
    world.actions.clear()
    world.must(order)
    obey(ground, core, world.actions)


def test_03_a_revoked_device_is_cut_in_the_middle_of_its_session(own_ground: Ground, world: World) -> None:
    device, other = world.enrol(ONE), world.enrol(TWO)
    core, session, witness = own_ground.core(), session_of(own_ground, device), session_of(own_ground, other)
    session.listen(orders_of(ONE))
    witness.listen(orders_of(TWO))
    core.say(orders_of(ONE), b"while it may hear")
    eventually(lambda: bool(session.heard), "its own word")

    state, known = world.catalog.fleet.device(TWO), world.codes()
    do(world, own_ground, core, orders.Revoke(device=ONE, reason="stolen"))
    eventually(lambda: False in session.changes, "the end of its session")
    tls = own_ground.tls(device.certificate, device.keys.signing)
    assert greet(own_ground.broker.port, tls.context()) is None, "no new session"
    count = len(session.heard)
    core.say(orders_of(ONE), b"for nobody")
    core.say(orders_of(TWO), b"the end")
    eventually(lambda: bool(witness.heard), "the end")
    assert [m.payload for m in session.heard[count:]] == []
    assert witness.changes == [True] and world.catalog.fleet.device(TWO) == state, "nobody else is disturbed"
    assert world.codes() == [*known, "device-revoked"], "told once"
    eventually(lambda: bool(supervise(own_ground, world)), "that it knocks again")
    assert world.codes() == [*known, "device-revoked", "handshake-refused"]


def test_03_the_rules_alone_silence_a_session_that_goes_on(own_ground: Ground, world: World) -> None:
    """Also where nobody could end it: neither does it hear, nor is it heard, whatever the broker grants."""
    device, other = world.enrol(ONE), world.enrol(TWO)
    core, session, witness = own_ground.core(), session_of(own_ground, device), session_of(own_ground, other)
    core.listen(f"{topics.tenant_root(TENANT)}/d/+/up/+")
    session.listen(orders_of(ONE))
    witness.listen(orders_of(TWO))
    world.actions.clear()
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    obey(own_ground, None, [a for a in world.actions if isinstance(a, Access)])

    def silenced() -> bool:
        """One more word for each; the reload takes the broker a moment that nobody is told of."""
        heard, told = len(session.heard), len(witness.heard)
        core.say(orders_of(ONE), b"a word")
        core.say(orders_of(TWO), b"a word")
        eventually(lambda: len(witness.heard) > told, "the witness's word")
        return len(session.heard) == heard

    eventually(silenced, "the rules")
    session.listen(orders_of(ONE), f"{topics.tenant_root(TENANT)}/blob/+/+")
    assert silenced(), "also after a new subscription, which the broker grants"
    session.say(topics.up(TENANT, ONE, EVENT))
    witness.say(topics.up(TENANT, TWO, Kind("end")))
    eventually(lambda: bool(core.heard), "the end")
    assert core.topics() == [topics.up(TENANT, TWO, Kind("end"))]
    assert session.changes == [True]


def test_03_who_was_replaced_is_cut_and_the_new_box_is_not(own_ground: Ground, world: World) -> None:
    old = world.enrol(ONE)
    core, session = own_ground.core(), session_of(own_ground, old)
    do(world, own_ground, core, orders.Replace(device=ONE))
    eventually(lambda: False in session.changes, "the end of the old session")
    world.actions.clear()
    new = world.enrol(ONE)
    obey(own_ground, core, world.actions)
    box = session_of(own_ground, new)
    box.listen(orders_of(ONE))
    core.say(orders_of(ONE), b"for the new box")
    eventually(lambda: bool(box.heard), "its word")
    assert greet(own_ground.broker.port, own_ground.tls(old.certificate, old.keys.signing).context()) is None
    assert session.heard == []


def test_03_it_stays_cut_after_the_core_and_the_broker_are_started_anew(own_ground: Ground, world: World) -> None:
    device = world.enrol(ONE)
    core = own_ground.core()
    do(world, own_ground, core, orders.Revoke(device=ONE, reason="stolen"))
    own_ground.close_sessions()
    config = (own_ground.broker.folder / "mosquitto.conf").read_text()
    own_ground.broker.stop()
    own_ground.broker.start(config)
    assert greet(own_ground.broker.port, own_ground.tls(device.certificate, device.keys.signing).context()) is None
    assert f"user {ONE}\ntopic deny falaj/1/#" in (own_ground.broker.folder / "acl").read_text()
