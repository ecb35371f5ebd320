"""What the steward does by itself: assignments only one device can use, renewals in time, rollouts that move."""

from __future__ import annotations

import base64

import pytest
from tuf.api.metadata import Metadata, Timestamp

from core import orders
from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from sync import codec, roles, sealing, topics
from sync.errors import Damaged
from sync.manifest import LIMIT, Manifest
from sync.messages import ASSIGNMENT_TYPE, Assignment, CoreStatus
from sync.names import DeviceId, TrustFile
from tests.core.world import DAY, MODEL, ONE, TENANT, THREE, TWO, Device, World, serving


def desired(world: World, device: DeviceId) -> Assignment | None:
    """The newest assignment that was sent, verified as the device would."""
    payload = world.last(topics.desired(TENANT, device))
    if payload is None:
        return None
    key = roles.signer(world.house.keys.director).public_key
    return roles.verify(payload, ASSIGNMENT_TYPE, Assignment, [key])


def must_desire(world: World, device: DeviceId) -> Assignment:
    found = desired(world, device)
    assert found is not None
    return found


def rollout(world: World) -> Rollout:
    return world.catalog.fleet.rollouts()[0][1]


def test_a_release_goes_to_the_canary_first_and_then_to_all(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    number, manifest = world.release()
    assert rollout(world).state is State.CANARY
    order = must_desire(world, ONE).models[MODEL]
    assert (order.manifest, order.number, order.mode, order.gates) == (manifest, number, "live", rollout(world).gates)
    assert desired(world, TWO) is None
    world.hear(one.report({MODEL: serving(manifest, phase="probation")}))
    assert desired(world, TWO) is None
    world.hear(one.report({MODEL: serving(manifest)}))
    assert must_desire(world, TWO).models[MODEL].manifest == manifest
    world.hear(two.report({MODEL: serving(manifest)}))
    assert rollout(world).state is State.COMPLETE
    moves = [c for c in world.codes() if c.startswith("rollout-")]
    assert moves == ["rollout-canary", "rollout-ramp", "rollout-complete"]
    late = world.enrol(THREE)
    assert must_desire(world, late.name).models[MODEL].manifest == manifest


def test_a_canary_that_enrols_late_starts_the_rollout(world: World) -> None:
    world.release()
    assert rollout(world).state is State.APPROVED and "watch-1" in rollout(world).reason
    world.enrol(ONE)
    assert rollout(world).state is State.CANARY


def test_a_verdict_takes_every_device_back_to_the_release_before(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    first, good = world.release(b"good")
    for device in (one, two):
        world.hear(device.report({MODEL: serving(good)}))
    second, bad = world.release(b"bad")
    world.hear(one.report({MODEL: serving(bad, second)}))
    assert must_desire(world, TWO).models[MODEL].number == second
    world.hear(two.report({MODEL: serving(good, first, quarantined={bad: 0}, reason="p99 of 80 ms")}))
    assert rollout(world).state is State.REVERSING
    for name in (ONE, TWO):
        order = must_desire(world, name).models[MODEL]
        assert (order.number, order.manifest, order.mode) == (first, good, "live")
    alarm = next(e for e in world.catalog.events.newest() if e.code == "rollout-reversing")
    assert alarm.severity == "alarm" and "watch-2" in alarm.text and "p99 of 80 ms" in alarm.text
    world.hear(one.report({MODEL: serving(good, first)}))
    assert rollout(world).state is State.REVERSED


def test_without_a_release_before_the_model_is_switched_off(world: World) -> None:
    one = world.enrol(ONE)
    _, bad = world.release()
    world.hear(one.report({MODEL: serving(bad, phase="no_model", quarantined={bad: 0})}))
    assert must_desire(world, ONE).models[MODEL].mode == "off"


def test_assignments_are_numbered_without_going_back(world: World) -> None:
    one = world.enrol(ONE)
    numbers = []
    for model in (b"one", b"two", b"three"):
        _, manifest = world.release(model)
        numbers.append(must_desire(world, ONE).seq)
        world.hear(one.report({MODEL: serving(manifest)}))
        world.reopen()
    assert numbers == [1, 2, 3]
    world.tick(4 * DAY)
    assert must_desire(world, ONE).seq == 4


def test_only_the_devices_own_key_opens_what_it_is_sent(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    number, _ = world.release(b"plain model")
    order = must_desire(world, ONE).models[MODEL]
    _, payload = world.catalog.releases.release(MODEL, number) or pytest.fail("no release")
    blob = codec.decode(Manifest, payload, LIMIT).variants[0].blob
    wrapped = base64.b64decode(order.keys[blob.sealed])
    context = sealing.wrap_context(TENANT, ONE, blob.sealed)
    key = sealing.unwrap(wrapped, one.keys.sealing, context)
    opened = sealing.unseal_artifact(world.house.blobs.get(blob.sealed), key, TENANT, blob.plain)
    assert opened == b"plain model"
    for private, words in ((two.keys.sealing, context), (one.keys.sealing, context.replace(ONE, TWO))):
        with pytest.raises(Damaged):
            sealing.unwrap(wrapped, private, words)
    assert set(order.keys) == set(world.catalog.releases.keys(MODEL, number))


def test_nothing_that_is_sent_is_plain(world: World) -> None:
    world.enrol(ONE)
    world.release(b"a canary in the model" * 20)
    assert not any(b"canary in the model" in m.payload or m.payload == b"golden" for m in world.sent)


def test_assignments_are_renewed_before_they_expire(world: World) -> None:
    world.enrol(ONE)
    world.release()
    first = must_desire(world, ONE)
    world.tick(3.4 * DAY)
    assert must_desire(world, ONE) == first
    world.tick(0.2 * DAY)
    second = must_desire(world, ONE)
    assert (second.seq, second.models.keys()) == (2, first.models.keys())
    assert first.expires > world.now and second.expires == world.now + 7 * DAY


def test_the_timestamp_is_renewed_before_it_expires(world: World) -> None:
    def timestamp() -> Timestamp:
        data = world.last(topics.trust(TENANT, TrustFile("timestamp.json")))
        assert data is not None
        metadata: Metadata[Timestamp] = Metadata.from_bytes(data)
        return metadata.signed

    world.tick(3.4 * DAY)
    assert timestamp().version == 1
    world.tick(0.2 * DAY)
    assert (timestamp().version, timestamp().snapshot_meta.version) == (2, 1), "the snapshot says the same"
    assert timestamp().expires.timestamp() == pytest.approx(world.now + 7 * DAY, abs=1)
    assert world.codes()[-1] == "trust-renewed"
    for _ in range(30):  # and so on, without anybody
        world.tick(DAY)
        assert timestamp().expires.timestamp() > world.now


def test_a_tick_with_nothing_to_do_does_nothing(world: World) -> None:
    world.enrol(ONE)
    world.release()
    events = len(world.codes())
    assert world.tick(1.0) == world.tick(1.0) == []
    assert len(world.codes()) == events


def test_an_order_looks_at_no_assignment_that_it_does_not_concern(world: World) -> None:
    world.enrol(ONE)
    world.release()
    job, asked = world.job(), list[str]()
    world.catalog._db.set_trace_callback(asked.append)
    world.must(orders.JobProgress(job=job, stage="train", done=0.5))
    assert asked and not any("FROM assignment" in statement for statement in asked)


def test_a_device_that_enrols_again_gets_its_models_for_its_new_keys(world: World) -> None:
    one = world.enrol(ONE)
    _, manifest = world.release()
    world.hear(one.report({MODEL: serving(manifest)}))
    again = world.enrol(ONE)
    found = must_desire(world, ONE)
    assert (found.epoch, found.seq, found.models[MODEL].manifest) == (2, 1, manifest)
    assert _opens(found, again) and not _opens(found, one)


def _opens(assignment: Assignment, device: Device) -> bool:
    digest, wrapped = next(iter(assignment.models[MODEL].keys.items()))
    try:
        context = sealing.wrap_context(TENANT, device.name, digest)
        sealing.unwrap(base64.b64decode(wrapped), device.keys.sealing, context)
    except Damaged:
        return False
    return True


def test_a_broker_that_lost_everything_gets_everything_again(world: World) -> None:
    world.enrol(ONE)
    world.release()
    before = {m.topic: m.payload for m in world.sent if m.retain}
    world.reopen()
    world.sent.clear()
    world.take(world.steward.link_changed(True, world.now))
    again = {m.topic: m.payload for m in world.sent if m.retain}
    status = again.pop(topics.core_status(TENANT))
    assert codec.decode(CoreStatus, status).state == "online"
    stale = {t for t in before if t.endswith(("1.snapshot.json", "1.targets.json"))}
    assert again == {t: p for t, p in before.items() if t not in stale}
    assert world.take(world.steward.link_changed(False, world.now)) == []


def test_a_release_that_is_not_approved_is_not_put_on_the_broker(world: World) -> None:
    world.stage(b"waits for its owner")
    world.sent.clear()
    world.take(world.steward.link_changed(True, world.now))
    assert not any("/blob/" in m.topic or m.topic.endswith(".manifest") for m in world.sent)
