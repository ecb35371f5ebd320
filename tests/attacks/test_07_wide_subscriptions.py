"""Attack 7: a device subscribes to all there is. Whatever the broker grants, nothing of others is delivered.

One session publishes everything and, last, a word for the attacker: the broker delivers in order, so when that
word is there, all before it was delivered or never will be.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.broker_words import Denial, Denied
from sync import topics
from sync.messages import EVENT
from sync.names import Kind, TenantId, TrustFile
from tests.attacks.ground import ATTACKER, VICTIM, Ground, Session, supervise
from tests.core.world import TENANT, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker
END = topics.ack(TENANT, ATTACKER, Kind("end"))
ROOT = topics.tenant_root(TENANT)
WIDE = (
    "#", "+/#", "falaj/#", "+/+/+/d/#", f"{ROOT}/#", f"{ROOT}/+/+/+", f"{ROOT}/d/+/desired", f"{ROOT}/d/{VICTIM}/#",
    f"{ROOT}/d/+/up/+", f"{topics.tenant_root(TenantId('other'))}/#", "$SYS/#", "$SYS/broker/clients/#",
    "$share/g/#", f"$share/g/{ROOT}/#", f"$share/g/{ROOT}/d/{VICTIM}/desired",
)  # fmt: skip
SECRET = (
    topics.desired(TENANT, VICTIM),
    topics.reported(TENANT, VICTIM),
    topics.status(TENANT, VICTIM),
    topics.up(TENANT, VICTIM, EVENT),
    topics.ack(TENANT, VICTIM, EVENT),
    f"{ROOT}/d/{VICTIM}/labels",
    f"{ROOT}/d/{VICTIM}/cmd/1",
    topics.reported(TENANT, ATTACKER),
)


def speak(core: Session) -> None:
    """All that is not for the attacker, first; then the end."""
    for topic in SECRET:
        core.say(topic, b"a word for others", retain=True)
        core.say(topic, b"a word for others")
    core.say(END, b"the end")


@pytest.fixture
def core(ground: Ground) -> Iterator[Session]:
    """The core; what it retained is cleared afterwards."""
    core = ground.core()
    yield core
    core.listen(f"{ROOT}/#")
    for topic in (*SECRET, END):
        core.say(topic, b"", retain=True)
    eventually(lambda: any(m.topic == END and not m.payload for m in core.heard), "the broker to be empty again")


def test_07_wide_subscriptions_hear_nothing_of_others(ground: Ground, core: Session) -> None:
    speak(core)  # so that there is something retained too
    attacker = ground.device(ATTACKER)
    attacker.listen(END)
    attacker.listen(*WIDE, confirmed=False)
    attacker.listen(topics.desired(TENANT, ATTACKER))  # confirmed after all the others
    victim = ground.device(VICTIM)
    victim.listen(topics.desired(TENANT, VICTIM))
    speak(core)
    eventually(lambda: END in attacker.topics(), "the end")
    assert set(attacker.topics()) == {END}
    eventually(lambda: len(victim.heard) >= 2, "the victim's own words")
    assert victim.changes == core.changes == [True], "whom they are for hears them all the same"


def test_07_nor_in_the_old_protocol(ground: Ground, core: Session) -> None:
    speak(core)
    attacker = ground.old_session(ATTACKER)
    attacker.listen(END, *WIDE)
    speak(core)
    eventually(lambda: END in attacker.heard, "the end")
    attacker.close()
    assert set(attacker.heard) == {END}


def test_07_each_device_hears_its_own(ground: Ground, core: Session) -> None:
    victim = ground.device(VICTIM)
    victim.listen(f"{ROOT}/d/{VICTIM}/#", topics.desired(TENANT, VICTIM), f"{ROOT}/d/{VICTIM}/ack/+")
    speak(core)
    eventually(lambda: topics.ack(TENANT, VICTIM, EVENT) in victim.topics(), "its own topics")
    assert not any(f"/{ATTACKER}/" in t for t in victim.topics())


def test_07_it_is_told_once_by_the_name_that_tried_it(own_ground: Ground, world: World) -> None:
    """Of the whole row one event, in the room of who asked; a filter can neither name another nor begin a line."""
    device, victim = world.enrol(ATTACKER), world.enrol(VICTIM)
    before = world.catalog.fleet.devices()
    attacker = own_ground.session(own_ground.tls(device.certificate, device.keys.signing), VICTIM)
    own = (*topics.device_subscriptions(TENANT, ATTACKER), topics.trust(TENANT, TrustFile("timestamp.json")))
    attacker.listen(*own)
    hostile = f"1700000000: {VICTIM} 1 x"
    attacker.listen(hostile, *WIDE, confirmed=False)
    heard = Denied()

    def all_told() -> bool:
        heard.add(supervise(own_ground, world))
        return heard.filters.get(ATTACKER, Denial("", 0)).times == 1 + len(WIDE)

    eventually(all_told, "each of them")
    assert set(heard.filters) == {ATTACKER} and not heard.words
    (event,) = [e for e in world.catalog.events.newest(100) if e.code == "subscribe-denied"]
    assert (event.source, event.severity) == (ATTACKER, "alarm")
    assert event.facts["topic"] in {hostile, *WIDE}
    assert world.catalog.fleet.devices() == before
    core, session = own_ground.core(), own_ground.session(
        own_ground.tls(victim.certificate, victim.keys.signing), VICTIM
    )  # fmt: skip
    session.listen(topics.desired(TENANT, VICTIM))
    core.say(topics.desired(TENANT, VICTIM), b"goes on")
    eventually(lambda: bool(session.heard), "serving to go on")
    assert attacker.topics() == []
