"""Attack 4: another valid device calls itself by the victim's client id. The victim does not even notice, and nor does
the core: to the broker it is the attacker's own session, whatever it calls itself, so there is no event."""

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
    core.listen(f"{topics.tenant_root(TENANT)}/d/+/status")
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
    victim.say(topics.status(TENANT, VICTIM), b"still here")
    eventually(lambda: bool(core.heard), "the victim's word")
    assert [m.payload for m in core.heard] == [b"still here"], "no will of the victim's was spoken"


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
