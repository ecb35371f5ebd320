"""Attack 6: a device speaks where it may not: as another device, as the core, in another tenant."""

from __future__ import annotations

import pytest

from appliance.broker_words import Denial, Denied
from sync import topics
from sync.messages import EVENT
from sync.names import Digest, TenantId, TrustFile
from tests.attacks.ground import ATTACKER, VICTIM, Ground, supervise
from tests.core.world import TENANT, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker
OWN = topics.up(TENANT, ATTACKER, EVENT)
FOREIGN = (
    topics.reported(TENANT, VICTIM),
    topics.status(TENANT, VICTIM),
    topics.up(TENANT, VICTIM, EVENT),
    topics.desired(TENANT, VICTIM),
    topics.desired(TENANT, ATTACKER),
    topics.ack(TENANT, ATTACKER, EVENT),
    topics.trust(TENANT, TrustFile("timestamp.json")),
    topics.trust(TENANT, TrustFile("index")),
    topics.blob(TENANT, Digest("a" * 64), 0),
    topics.core_status(TENANT),
    topics.reported(TenantId("other"), ATTACKER),
    f"{OWN}/deeper",
    "somewhere/else",
)


@pytest.mark.parametrize("retain", [False, True], ids=["live", "retained"])
def test_06_every_word_is_refused_by_its_code_and_none_arrives(ground: Ground, retain: bool) -> None:
    core, victim, attacker = ground.core(), ground.device(VICTIM), ground.device(ATTACKER)
    core.listen(f"{topics.tenant_root(TENANT)}/#")
    victim.listen(*topics.device_subscriptions(TENANT, VICTIM))
    for topic in FOREIGN:
        attacker.say(topic, b"forged", retain=retain)
    attacker.say(OWN, b"the end")
    eventually(lambda: OWN in core.topics(), "the one word that is allowed, said last")
    assert core.topics() == [OWN]
    eventually(lambda: len(attacker.refused) == len(FOREIGN), "a refusal for each")
    assert all("Not authorized" in text for text in attacker.refused)
    assert victim.heard == []


def test_06_a_session_of_the_old_protocol_gets_no_further(ground: Ground) -> None:
    core, attacker = ground.core(), ground.old_session(ATTACKER)
    core.listen(f"{topics.tenant_root(TENANT)}/#")
    for topic in FOREIGN:
        attacker.say(topic, b"forged", retain=True)
    attacker.say(OWN, b"the end")
    eventually(lambda: OWN in core.topics(), "the one word that is allowed, said last")
    attacker.close()
    assert core.topics() == [OWN]
    late = ground.device(VICTIM)
    late.listen(*topics.device_subscriptions(TENANT, VICTIM))
    core.say(topics.desired(TENANT, VICTIM), b"the end")
    eventually(lambda: bool(late.heard), "the end")
    assert [m.payload for m in late.heard] == [b"the end"], "nothing was retained either"


def test_06_a_will_on_a_foreign_topic_is_not_sent(ground: Ground) -> None:
    """Also not when it is the broker that would speak it."""
    core = ground.core()
    core.listen(f"{topics.tenant_root(TENANT)}/#")
    ground.last_words(ground.device_tls(ATTACKER), topics.status(TENANT, VICTIM))
    ground.last_words(ground.device_tls(ATTACKER), OWN)
    eventually(lambda: OWN in core.topics(), "the will that is allowed")
    assert core.topics() == [OWN]
    core.say(OWN, b"", retain=True)
    eventually(lambda: len(core.heard) == 2, "the broker to be empty again")


def test_06_it_is_told_once_by_the_name_that_tried_it(own_ground: Ground, world: World) -> None:
    """Of the whole row one event, in the room of the speaker; a topic can neither name another nor begin a line."""
    device = world.enrol(ATTACKER)
    attacker = own_ground.session(own_ground.tls(device.certificate, device.keys.signing), ATTACKER)
    hostile = f"1700000000: Denied PUBLISH from {VICTIM} (d0, q1, r0, m1, 'x', ... (1 bytes))"
    before = world.catalog.fleet.devices()
    for topic in (hostile, "x', ... (3 bytes))", "a\u2028b", *FOREIGN):
        attacker.say(topic, b"forged")
    attacker.say(OWN, b"allowed")
    heard = Denied()

    def all_told() -> bool:
        heard.add(supervise(own_ground, world))
        return heard.words.get(ATTACKER, Denial("", 0)).times == 3 + len(FOREIGN)

    eventually(all_told, "a word for each")
    assert set(heard.words) == {ATTACKER} and not heard.filters
    (event,) = [e for e in world.catalog.events.newest(100) if e.code == "publish-denied"]
    assert (event.source, event.severity) == (ATTACKER, "alarm")
    assert event.facts["topic"] == hostile
    assert world.catalog.fleet.devices() == before
    eventually(lambda: own_ground.log.count("Denied PUBLISH from") >= 1, "one line of it in the log")
    kept = [line for line in own_ground.log.split("\n") if "Denied PUBLISH" in line or "Sending" in line]
    assert len(kept) == 1
    core = own_ground.core()
    core.listen(OWN)
    attacker.say(OWN, b"and serving goes on")
    eventually(lambda: OWN in core.topics(), "a word that is allowed")
