"""Attack 4: another valid device calls itself by the victim's client id. The victim does not even notice."""

from __future__ import annotations

import pytest

from sync import topics
from tests.attacks.ground import ATTACKER, VICTIM, Ground
from tests.core.world import TENANT
from tests.waiting import eventually

pytestmark = pytest.mark.broker
DESIRED = topics.desired(TENANT, VICTIM)


def test_04_the_victims_session_stays_and_keeps_its_messages(ground: Ground) -> None:
    core, victim = ground.core(), ground.device(VICTIM)
    victim.listen(DESIRED)
    attacker = ground.device(ATTACKER, client_id=VICTIM)
    attacker.listen(DESIRED, confirmed=False)
    attacker.listen(topics.desired(TENANT, ATTACKER))
    core.say(DESIRED, b"for the victim")
    core.say(topics.desired(TENANT, ATTACKER), b"for the attacker")
    eventually(lambda: bool(victim.heard) and bool(attacker.heard), "both messages")
    assert victim.changes == [True], "never disturbed"
    assert [m.payload for m in victim.heard] == [b"for the victim"]
    assert [m.payload for m in attacker.heard] == [b"for the attacker"]


def test_04_what_waits_for_an_absent_victim_is_not_handed_out(ground: Ground) -> None:
    core, victim = ground.core(), ground.device(VICTIM, keep=True)
    victim.listen(DESIRED)
    victim.link.stop()
    core.say(DESIRED, b"waits")
    attacker = ground.device(ATTACKER, client_id=VICTIM, keep=True)
    attacker.listen(topics.desired(TENANT, ATTACKER))
    core.say(topics.desired(TENANT, ATTACKER), b"the end")
    eventually(lambda: bool(attacker.heard), "the attacker's own message")
    assert [m.payload for m in attacker.heard] == [b"the end"]
    back = ground.device(VICTIM, keep=True)
    eventually(lambda: [m.payload for m in back.heard] == [b"waits"], "what waited for the victim")
    attacker.link.stop()
    back.link.stop()
