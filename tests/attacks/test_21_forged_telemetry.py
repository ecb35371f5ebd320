"""Attack 21: telemetry in another's name. Who speaks is the name in the certificate, to which the broker holds a topic;
whatever a payload says of itself must agree with it, and with the key that signed or sealed it."""

from __future__ import annotations

from typing import Any

import pytest

from sync import codec, roles, topics
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.link import Message
from sync.messages import DeviceEvent, Status
from sync.names import DeviceId, Digest, TenantId
from sync.reports import Side, WhyCard
from tests.attacks.ground import Ground
from tests.core.world import MODEL, ONE, START, TENANT, TWO, Device, World, serving
from tests.waiting import eventually

EVENT = DeviceEvent("drift-alarm", "believe me", MODEL, "alarm")
LIE = serving(Digest("a" * 64), quarantined={Digest("b" * 64): 0})


@pytest.fixture
def victim(world: World) -> Device:
    return world.enrol(ONE)


@pytest.fixture
def liar(world: World, victim: Device) -> Device:
    return world.enrol(TWO)


def on_the_topic_of(device: Device, message: Message) -> Message:
    """The same payload, where only `device` can put it."""
    return device.message(message.topic.split("/", 5)[5], message.payload)


def refused(world: World, message: Message, code: str) -> None:
    """Nothing is known that was not known before, and one event of whoever said it tells so."""
    fleet = world.catalog.fleet
    before = fleet.devices(), [fleet.received(d.device, d.epoch, k) for d in fleet.devices() for k in ("event", "why")]
    count = len(world.codes())
    world.hear(message)
    after = fleet.devices(), [fleet.received(d.device, d.epoch, k) for d in fleet.devices() for k in ("event", "why")]
    assert after == before and fleet.whys() == [] and world.codes()[count:] == [code]
    assert world.catalog.events.newest(1)[0].source == topics.speaker(message.topic)


@pytest.mark.parametrize("lie", [{"device": ONE}, {"tenant": TenantId("rival")}, {"epoch": 2}], ids=str)
def test_21_a_report_that_speaks_of_another_is_refused_from_its_own_topic(
    world: World, liar: Device, lie: dict[str, Any]
) -> None:
    refused(world, liar.report({MODEL: LIE}, **lie), "refused-untrusted")


def test_21_the_victims_own_report_says_nothing_on_another_topic(world: World, victim: Device, liar: Device) -> None:
    refused(world, on_the_topic_of(liar, victim.report({MODEL: LIE})), "refused-untrusted")


def test_21_nor_does_a_report_in_the_victims_place_under_another_key(
    world: World, victim: Device, liar: Device
) -> None:
    """As if the broker had let it through: the key of the certificate decides."""
    refused(world, on_the_topic_of(victim, liar.report({MODEL: LIE}, device=ONE)), "refused-untrusted")


@pytest.mark.parametrize("kind", ["event", "why"])
def test_21_a_record_opens_on_its_own_devices_topic_alone(
    world: World, victim: Device, liar: Device, kind: str
) -> None:
    new, old = Side(2, Digest("b" * 64)), Side(1, Digest("a" * 64))
    body = EVENT if kind == "event" else WhyCard(MODEL, START, "shadow", "guardrail", "x", new, old)
    refused(world, on_the_topic_of(liar, victim.record(body, 1, kind=kind)), "refused-damaged")
    world.hear(victim.record(body, 1, kind=kind))
    assert world.catalog.fleet.received(ONE, victim.epoch, kind) == 1, "the victim's own word is taken"


def test_21_a_request_for_anothers_certificate_is_refused(world: World, victim: Device, liar: Device) -> None:
    before = world.catalog.fleet.certificate(ONE), world.catalog.fleet.certificate(TWO)
    asked = RenewalRequest(TENANT, ONE, victim.epoch, victim.keys.csr.decode())
    for key in (liar.keys.signing, victim.keys.signing):
        body = roles.sign(asked, RENEWAL_TYPE, key)
        n = world.catalog.fleet.received(TWO, liar.epoch, "csr") + 1
        world.hear(liar.record(body, n, kind="csr"))
        assert world.codes()[-1] == "renewal-refused"
    assert (world.catalog.fleet.certificate(ONE), world.catalog.fleet.certificate(TWO)) == before


@pytest.mark.broker
def test_21_the_broker_lets_nobody_speak_in_anothers_place(
    own_ground: Ground, world: World, victim: Device, liar: Device
) -> None:
    """Every word of telemetry, in the victim's own good documents, sent by another certificate."""
    core = own_ground.core()
    core.listen(*topics.core_subscriptions(TENANT))
    session = own_ground.session(own_ground.tls(liar.certificate, liar.keys.signing), liar.name)
    stolen = [victim.report({MODEL: LIE}), victim.record(EVENT, 1), victim.record(b"{}", 1, kind="metrics")]
    stolen.append(victim.message("status", codec.encode(Status("offline", START, "b", 9))))
    for message in stolen:
        session.say(message.topic, message.payload)
        session.say(message.topic.replace(TENANT, "rival"), message.payload)
    own = liar.message("status", codec.encode(Status("online", START, "b", 1)))
    session.say(own.topic, own.payload)
    eventually(lambda: bool(core.heard) and len(session.refused) == 2 * len(stolen), "the one word that is its own")
    assert core.topics() == [own.topic]
    world.hear(core.heard[0])
    found = world.catalog.fleet.device(DeviceId(ONE))
    assert found is not None and found.status != "offline" and found.report is None
