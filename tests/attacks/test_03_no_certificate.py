"""Attack 3: a client without a certificate, or with one that is not the tenant's, or not any more."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from appliance.broker_words import Denied
from core.fleet import enrolment
from sync import topics
from sync.mqtt import Tls
from tests.attacks.ground import ATTACKER, DAY, VICTIM, Ground, certify, greet, supervise
from tests.core.world import TENANT, World
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def foreign(ground: Ground) -> Tls:
    """The right name, by an authority of the same tenant's name that is another."""
    other = enrolment.create_authority(TENANT, ground.now)
    return ground.tls(*certify(VICTIM, other, ground.now))


def self_signed(ground: Ground) -> Tls:
    pair = enrolment.create_authority(TENANT, ground.now)
    return ground.tls(pair.certificate, pair.key)


def expired(ground: Ground) -> Tls:
    return ground.tls(*certify(VICTIM, ground.authority, ground.now - 400 * DAY))


def not_yet(ground: Ground) -> Tls:
    return ground.tls(*certify(VICTIM, ground.authority, ground.now + 10 * DAY))


def servers(ground: Ground) -> Tls:
    """A server's certificate is not for clients, whatever name it bears."""
    pair = enrolment.issue_server(ground.authority, (str(VICTIM),), ground.now)
    return ground.tls(pair.certificate, pair.key)


@pytest.mark.parametrize("made", [foreign, self_signed, expired, not_yet, servers])
def test_03_a_certificate_that_does_not_hold_opens_no_session(ground: Ground, made: Callable[[Ground], Tls]) -> None:
    refused(ground, made(ground).context(), "certificate verify failed")


def test_03_without_a_certificate_there_is_no_session(ground: Ground) -> None:
    context = ssl.create_default_context(cadata=ground.authority.certificate.decode())
    refused(ground, context, "peer did not return a certificate")


def test_03_older_protocols_are_not_spoken(ground: Ground) -> None:
    context = ground.device_tls(VICTIM).context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused(ground, context, "unsupported protocol")


def refused(ground: Ground, context: ssl.SSLContext, reason: str) -> None:
    """No session, the core is told why, and who has one goes on: the core's next word arrives, and the core has heard
    nothing."""
    ground.turned_down()
    core, other = ground.core(), ground.device(ATTACKER)
    core.listen(f"{topics.tenant_root(TENANT)}/d/+/#")
    other.listen(topics.desired(TENANT, ATTACKER))
    assert greet(ground.broker.port, context) is None
    found = Denied()

    def told() -> bool:
        found.add(ground.turned_down())
        return bool(found)

    eventually(told, "the end of the handshake")
    assert found == Denied(handshakes={reason: 1})
    core.say(topics.desired(TENANT, ATTACKER), b"goes on")
    eventually(lambda: bool(other.heard) and bool(core.topics()), "the next word, and its own copy at the core")
    assert core.changes == other.changes == [True]
    assert core.topics() == [topics.desired(TENANT, ATTACKER)], "its own word alone"


def test_03_it_is_told_once(own_ground: Ground, world: World) -> None:
    """Of many in a row one event; nobody can say whose they were."""
    context, heard = expired(own_ground).context(), Denied()
    assert greet(own_ground.broker.port, context) is None

    def counted(times: int) -> bool:
        heard.add(supervise(own_ground, world))
        return sum(heard.handshakes.values()) == times

    eventually(lambda: counted(1), "the first")
    for _ in range(5):
        assert greet(own_ground.broker.port, context) is None
    eventually(lambda: counted(6), "all of them")
    (event,) = [e for e in world.catalog.events.newest(100) if e.code == "handshake-refused"]
    assert (event.source, event.severity, event.facts["times"]) == ("core", "notice", "1")
    assert "certificate verify failed" in event.text


def test_03_the_devices_own_certificate_opens_one(ground: Ground) -> None:
    assert greet(ground.broker.port, ground.device_tls(VICTIM).context()) == 0
