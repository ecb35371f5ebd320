"""Attack 3: a client without a certificate, or with one that is not the tenant's, or not any more."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from core.fleet import enrolment
from sync import topics
from sync.mqtt import Tls
from tests.attacks.ground import ATTACKER, DAY, VICTIM, Ground, certify, greet
from tests.core.world import TENANT
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
    refused(ground, made(ground).context())


def test_03_without_a_certificate_there_is_no_session(ground: Ground) -> None:
    refused(ground, ssl.create_default_context(cadata=ground.authority.certificate.decode()))


def test_03_older_protocols_are_not_spoken(ground: Ground) -> None:
    context = ground.device_tls(VICTIM).context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused(ground, context)


def refused(ground: Ground, context: ssl.SSLContext) -> None:
    """No session, and who has one goes on: the core's next word arrives, and the core has heard nothing. Nobody of ours
    sees more of it: Mosquitto notes a handshake that fails in its own log, and not each of them."""
    core, other = ground.core(), ground.device(ATTACKER)
    core.listen(f"{topics.tenant_root(TENANT)}/d/+/#")
    other.listen(topics.desired(TENANT, ATTACKER))
    assert greet(ground.broker.port, context) is None
    core.say(topics.desired(TENANT, ATTACKER), b"goes on")
    eventually(lambda: bool(other.heard) and bool(core.topics()), "the next word, and its own copy at the core")
    assert core.changes == other.changes == [True]
    assert core.topics() == [topics.desired(TENANT, ATTACKER)], "its own word alone"


def test_03_the_devices_own_certificate_opens_one(ground: Ground) -> None:
    assert greet(ground.broker.port, ground.device_tls(VICTIM).context()) == 0
