"""Identities end: revoked, replaced, seen twice. Whoever may not speak is refused, and waited for by nobody."""

from __future__ import annotations

import base64

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from appliance import certificates
from core import orders
from core.handoffs import RolloutState
from core.steward import Access, Cut
from sync import carried, codec, roles, topics
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.messages import ASSIGNMENT_TYPE, Ack, Assignment, DeviceEvent, Status
from sync.names import DeviceId, Kind
from tests.core.newcomers import ask, boxes, join, site_token
from tests.core.world import DAY, MODEL, ONE, TENANT, TWO, Device, World, _online, request, serving


def state(world: World, name: DeviceId) -> str:
    found = world.catalog.fleet.device(name)
    assert found is not None
    return found.state


def access(world: World) -> tuple[set[int], tuple[DeviceId, ...]]:
    """(serial numbers on the list, names denied), as the broker was told last."""
    last = next(a for a in reversed(world.actions) if isinstance(a, Access))
    return {entry.serial_number for entry in x509.load_pem_x509_crl(last.revocations)}, last.denied


def serial_of(device: Device) -> int:
    return x509.load_pem_x509_certificate(device.certificate).serial_number


def cuts(world: World) -> list[DeviceId]:
    return [a.device for a in world.actions if isinstance(a, Cut)]


def desired(world: World, name: DeviceId) -> Assignment:
    envelope = world.last(topics.desired(TENANT, name))
    assert envelope
    return roles.verify(envelope, ASSIGNMENT_TYPE, Assignment, [roles.signer(_online["director"]).public_key])


# --- revoked ----------------------------------------------------------------------------------------------------


def test_a_revoked_device_is_listed_denied_cut_and_refused(world: World) -> None:
    device = world.enrol(ONE)
    world.hear(device.report())
    world.must(orders.Revoke(device=ONE, reason="stolen", actor="anna"))
    assert access(world) == ({serial_of(device)}, (ONE,)) and cuts(world) == [ONE]
    assert state(world, ONE) == "revoked"
    event = world.catalog.events.newest(1)[0]
    assert (event.code, event.severity, event.facts["reason"]) == ("device-revoked", "alarm", "stolen")
    for topic in (topics.desired, topics.reported, topics.status):
        assert world.last(topic(TENANT, ONE)) == b"", "nothing of it stays on the broker"
    before = world.catalog.fleet.device(ONE)
    for said in (
        device.report(),
        device.record(DeviceEvent("all-well", "x"), 1),
        device.message("status", codec.encode(Status("online", 1.0, "b", 1))),
    ):
        world.hear(said)
        assert world.codes()[-1] == "refused-barred"
    assert world.catalog.fleet.device(ONE) == before


def test_the_order_in_which_the_broker_is_told(world: World) -> None:
    """The list and the rules first: else the device would be back before they hold."""
    world.enrol(ONE)
    world.actions.clear()
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    kinds = [type(a) for a in world.actions if isinstance(a, Access | Cut)]
    assert kinds == [Access, Cut]


def test_a_start_tells_the_broker_anew(world: World) -> None:
    device = world.enrol(ONE)
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    world.actions.clear()
    world.reopen()
    assert access(world) == ({serial_of(device)}, (ONE,))


@pytest.mark.parametrize("order", [orders.Revoke(device=ONE, reason="stolen"), orders.Replace(device=ONE)])
def test_a_core_killed_before_it_told_the_broker_clears_what_is_left_of_a_device_that_is_gone(
    world: World, order: orders.AnyOrder
) -> None:
    one = world.enrol(ONE)
    number, digest = world.release()
    world.hear(one.report({MODEL: serving(digest, number)}))
    assert world.last(topics.desired(TENANT, ONE))
    assert world.steward.order(order, world.now)[0].ok, "and what it wants done is never carried out"
    world.reopen()
    world.sent.clear()
    world.take(world.steward.start(world.now) + world.steward.link_changed(True, world.now))
    assert [world.last(topic(TENANT, ONE)) for topic in (topics.desired, topics.reported, topics.status)] == [b""] * 3
    assert ONE in access(world)[1]


def test_revoking_says_why_and_whom_and_once(world: World) -> None:
    world.enrol(ONE)
    assert world.order(orders.Revoke(device=ONE, reason=" ")).code == "no-reason"
    assert world.order(orders.Revoke(device=TWO, reason="x")).code == "no-such-device"
    world.must(orders.Revoke(device=ONE, reason="x"))
    assert world.order(orders.Revoke(device=ONE, reason="x")).code == "revoked-already"


def test_no_rollout_waits_for_a_revoked_device(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    number, manifest = world.release()
    world.hear(one.report({MODEL: serving(manifest)}))
    world.tick(1.0)
    assert world.catalog.fleet.rollouts()[0][1].state is RolloutState.RAMP
    world.must(orders.Revoke(device=TWO, reason="stolen"))
    sent = len(world.sent)
    world.tick(1.0)
    world.tick(4 * DAY)
    assert world.catalog.fleet.rollouts()[0][1].state is RolloutState.COMPLETE
    assert topics.desired(TENANT, TWO) not in [m.topic for m in world.sent[sent:]], "nothing is signed for it"
    assert number == 1 and two.epoch == 1


def test_an_open_token_ends_with_the_device(world: World) -> None:
    world.enrol(ONE)
    token = world.token(ONE)
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    row = world.catalog.fleet.token(ONE)
    assert row is not None and row.used is not None and token.device == ONE


def test_every_list_has_a_higher_number(world: World) -> None:
    numbers = []
    for name in (ONE, TWO):
        world.enrol(name)
        world.must(orders.Revoke(device=name, reason="x"))
        last = next(a for a in reversed(world.actions) if isinstance(a, Access))
        crl = x509.load_pem_x509_crl(last.revocations)
        numbers.append(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    assert numbers == sorted(set(numbers))


# --- replaced ---------------------------------------------------------------------------------------------------


def test_another_box_takes_name_and_models_by_one_order(world: World) -> None:
    old = world.enrol(ONE)
    _, manifest = world.release()
    world.hear(old.report({MODEL: serving(manifest)}))
    assert world.must(orders.Replace(device=ONE))["device"] == ONE
    assert state(world, ONE) == "replaced" and access(world) == ({serial_of(old)}, (ONE,))
    new = world.enrol(ONE)
    assert new.epoch == 2 and state(world, ONE) == "enrolled"
    assert access(world) == ({serial_of(old)}, ()), "the name may speak again, the old certificate may not"
    order = desired(world, ONE)
    assert (order.epoch, order.models[MODEL].manifest) == (2, manifest)
    assert order.certificate.encode() == new.certificate
    world.hear(old.report())
    assert world.codes()[-1] == "refused-untrusted"
    world.hear(new.report({MODEL: serving(manifest)}))
    assert "device-cloned" not in world.codes()
    assert world.order(orders.Replace(device=TWO)).code == "no-such-device"


def test_a_name_that_was_revoked_is_given_to_another_box_and_not_back_to_the_old_one(world: World) -> None:
    old = world.enrol(ONE)
    _, manifest = world.release()
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    new = world.enrol(ONE)
    assert (new.epoch, state(world, ONE)) == (2, "enrolled")
    assert access(world) == ({serial_of(old)}, ()), "the old certificate stays on the list"
    assert desired(world, ONE).epoch == 2 and desired(world, ONE).certificate.encode() == new.certificate
    for said in (old.report({MODEL: serving(manifest)}), old.record(DeviceEvent("all-well", "x"), 1)):
        world.hear(said)
        assert world.codes()[-1] == "refused-untrusted"
    world.hear(new.report({MODEL: serving(manifest)}))
    assert "device-cloned" not in world.codes()
    world.reopen()
    assert access(world) == ({serial_of(old)}, ()), "told again at each start"


def test_who_was_revoked_by_a_clock_that_was_ahead_stays_revoked(world: World) -> None:
    """By that clock the certificate had ended already; by the right one it would open a session again."""
    old, right = world.enrol(ONE), world.now
    world.now += 3 * 365 * DAY
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    world.now = right
    world.reopen()
    assert access(world) == ({serial_of(old)}, (ONE,))


def test_what_was_taken_back_meanwhile_does_not_come_back_with_the_new_box(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    _, first = world.release(b"first")
    for device in (one, two):
        world.hear(device.report({MODEL: serving(first)}))
        world.tick(1.0)
    assert world.catalog.fleet.rollouts()[0][1].state is RolloutState.COMPLETE
    number, second = world.release(b"second")
    world.must(orders.Replace(device=TWO))
    world.must(orders.Force(model=MODEL, number=number, reason="a drill"))
    retry = world.catalog.fleet.rollouts()[0][1].retry
    world.hear(one.report({MODEL: serving(first, quarantined={second: retry})}))
    world.tick(1.0)
    world.enrol(TWO)
    world.tick(1.0)
    assert desired(world, TWO).models[MODEL].manifest == first


# --- seen twice -------------------------------------------------------------------------------------------------


def quiet(world: World, device: Device, boots: list[tuple[str, int, float]]) -> bool:
    """Whether reports of these (boot, seq, time) are taken without an alarm."""
    for boot, seq, ts in boots:
        world.hear(device.report(boot=boot, seq=seq, at=ts))
    return "device-cloned" not in world.codes()


def test_restarts_and_late_words_are_no_clone(world: World) -> None:
    device = world.enrol(ONE)
    assert quiet(
        world, device, [("a", 1, 1.0), ("a", 2, 2.0), ("b", 3, 3.0), ("a", 2, 2.0), ("c", 9, 4.0), ("c", 9, 4.0)]
    )
    assert state(world, ONE) == "enrolled"


@pytest.mark.parametrize(
    "boots",
    [
        pytest.param([("a", 1, 1.0), ("b", 1, 1.5)], id="the same number twice"),
        pytest.param([("a", 1, 1.0), ("a", 1, 1.5)], id="also within one start, as of a copied machine"),
        pytest.param([("a", 1, 1.0), ("b", 2, 2.0), ("a", 3, 3.0)], id="an agent that was started anew comes back"),
        pytest.param([("a", 500, 1.0), ("b", 101, 2.0)], id="a copy of an old disk counts behind"),
    ],
)
def test_one_identity_in_two_places_is_stopped(world: World, boots: list[tuple[str, int, float]]) -> None:
    device = world.enrol(ONE)
    assert not quiet(world, device, boots)
    assert state(world, ONE) == "cloned" and access(world) == (set(), (ONE,)) and cuts(world) == [ONE]
    world.hear(device.report(boot="a", seq=900))
    assert world.codes()[-1] == "refused-barred"
    assert world.codes().count("device-cloned") == 1


def test_a_clone_that_is_found_by_folder_is_stopped_on_the_line_too(world: World) -> None:
    device = world.enrol(ONE)
    quiet(world, device, [("a", 1, 1.0)])
    word = carried.Word("reported", msgspec.Raw(device.report(boot="b", seq=1, at=1.5).payload))
    bundle = carried.bundles(TENANT, ONE, device.epoch, world.now, [word], device.keys.signing)[0]
    assert world.order(orders.CarryIn(device=ONE, bundle=bundle.decode())).code == "barred"
    assert state(world, ONE) == "cloned" and access(world) == (set(), (ONE,)) and cuts(world) == [ONE]


def test_who_may_speak_again_is_told_at_once_what_holds_now(world: World) -> None:
    device = world.enrol(ONE)
    world.release()
    quiet(world, device, [("a", 1, 1.0), ("b", 1, 1.5)])
    world.tick(8 * DAY)
    assert desired(world, ONE).expires < world.now, "nothing is told to who may not speak"
    world.must(orders.Accept(devices=(ONE,)))
    assert desired(world, ONE).expires > world.now


def test_a_person_says_that_it_is_one_box_after_all_or_replaces_it(world: World) -> None:
    device = world.enrol(ONE)
    quiet(world, device, [("a", 1, 1.0), ("b", 1, 1.5)])
    world.must(orders.Accept(devices=(ONE,)))
    assert state(world, ONE) == "enrolled" and access(world) == (set(), ())
    assert world.order(orders.Accept(devices=(ONE,))).code == "not-waiting"
    world.hear(device.report(boot="b", seq=2, at=2.0))
    assert world.codes()[-1] != "refused-barred"
    world.hear(device.report(boot="a", seq=2, at=2.5))
    assert state(world, ONE) == "cloned", "the other one is still there"
    world.must(orders.Replace(device=ONE))
    assert state(world, ONE) == "replaced" and access(world)[0] == {serial_of(device)}


# --- renewed ----------------------------------------------------------------------------------------------------


def renewal(of: Device, *, signer: bytes | None = None, csr: str | None = None, **lies: object) -> bytes:
    said = {
        "tenant": TENANT,
        "device": of.name,
        "epoch": of.epoch,
        "csr": csr or of.keys.csr.decode(),
    } | lies
    return roles.sign(RenewalRequest(**said), RENEWAL_TYPE, signer or of.keys.signing)  # type: ignore[arg-type]


def test_the_next_certificate_is_for_the_same_key_and_stands_in_the_assignment(world: World) -> None:
    device = world.enrol(ONE)
    world.now += 300 * DAY
    world.hear(device.record(renewal(device), 1, "csr"))
    found = x509.load_pem_x509_certificate(desired(world, ONE).certificate.encode())
    old = x509.load_pem_x509_certificate(device.certificate)
    assert found.public_key() == old.public_key() and found.subject == old.subject
    assert found.not_valid_after_utc > old.not_valid_after_utc
    assert "certificate-renewed" in world.codes()
    assert world.last(topics.ack(TENANT, ONE, "csr"))  # type: ignore[arg-type]
    world.must(orders.Revoke(device=ONE, reason="stolen"))
    assert access(world)[0] == {old.serial_number, found.serial_number}, "both hold, so both end"


def test_who_asks_again_is_told_again_and_given_nothing_new(world: World) -> None:
    device = world.enrol(ONE)
    world.now += 300 * DAY
    for n in (1, 2, 3):
        world.hear(device.record(renewal(device), n, "csr"))
    assert world.codes().count("certificate-renewed") == 1
    seqs = {desired(world, ONE).seq}
    assert seqs == {3}


@pytest.mark.parametrize(
    "case", ["another key signs", "another device", "another epoch", "another key", "another name"]
)
def test_what_is_not_the_devices_own_request_is_refused(world: World, case: str) -> None:
    device, other = world.enrol(ONE), world.enrol(TWO)
    bodies = {
        "another key signs": renewal(device, signer=other.keys.signing),
        "another device": renewal(device, device=TWO),
        "another epoch": renewal(device, epoch=7),
        "another key": renewal(device, csr=other.keys.csr.decode()),
        "another name": renewal(device, csr=certificates.request("core@falaj", device.keys.signing)),
    }
    world.now += 300 * DAY
    world.hear(device.record(bodies[case], 1, "csr"))
    assert world.codes()[-1] == "renewal-refused"
    assert world.last(topics.desired(TENANT, ONE)) is None


def crooked(of: Device, old: bytes, new: bytes) -> str:
    """The device's own certificate request with other bytes in it, signed all the same."""
    csr = x509.load_pem_x509_csr(of.keys.csr)
    info = csr.tbs_certrequest_bytes.replace(old, new, 1)
    key = load_pem_private_key(of.keys.signing, None)
    assert info != csr.tbs_certrequest_bytes and isinstance(key, Ed25519PrivateKey)
    der = csr.public_bytes(Encoding.DER).replace(csr.tbs_certrequest_bytes, info)[:-64] + key.sign(info)
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    "change", [(b"\x02\x01\x00", b"\x02\x01\x01"), (str(ONE).encode(), b"\xff" * len(ONE))],
    ids=["of a version that is none", "for a name that is no text"],
)  # fmt: skip
def test_a_request_that_no_library_reads_is_kept_as_an_event_and_stops_nobody(
    world: World, change: tuple[bytes, bytes]
) -> None:
    device = world.enrol(ONE)
    world.hear(device.record(renewal(device, csr=crooked(device, *change)), 1, "csr"))
    assert world.codes()[-1] == "record-malformed"
    assert world.last(topics.ack(TENANT, ONE, Kind("csr"))) == codec.encode(Ack(1, 1, "b")), "it does not come again"
    envelope = request(world.token(TWO), device.keys, csr=crooked(device, *change))
    assert world.order(orders.Enrol(envelope=envelope.decode())).code == "enrolment-refused"


def test_a_body_that_is_no_request_is_kept_as_an_event(world: World) -> None:
    device = world.enrol(ONE)
    world.hear(device.record(DeviceEvent("x", "y"), 1, "csr"))
    assert world.codes()[-1] == "record-malformed"


def test_a_box_of_a_site_is_replaced_like_any_other(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=boxes(1)))
    token = site_token(world, uses=5)
    join(world, token, "SN-000")
    world.must(orders.Replace(device=DeviceId("box-000")))
    assert ask(world, token, "SN-000", world.enrol(TWO).keys).code == "serial-taken", (
        "the token of a site hands nothing on"
    )
    assert world.enrol(DeviceId("box-000")).epoch == 2
