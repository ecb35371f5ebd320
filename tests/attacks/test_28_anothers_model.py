"""Attack 28: a device asks for a model that was assigned to another. All of a tenant hear the same sealed chunks; the
order, and with it the wrapped key, goes to the device that it is for, and opens for its key alone."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest

from core.steward import SendBlob
from sync import codec, sealing, topics
from sync.errors import Damaged
from sync.manifest import LIMIT, Manifest
from sync.messages import ModelOrder
from sync.names import Digest
from tests.attacks.ground import Ground, Session, greet, obey, open_ground
from tests.core.pairs import desired
from tests.core.world import MODEL, ONE, TENANT, TWO, Device, World, serving
from tests.waiting import eventually

pytestmark = pytest.mark.broker
SECRET = b"a canary in the model" * 40


def session_of(ground: Ground, device: Device) -> Session:
    return ground.session(ground.tls(device.certificate, device.keys.signing), device.name)


@dataclass
class Case:
    """One release, for the first watch alone: it is the canary. The second is the thief."""

    world: World
    thief: Device
    blob: Digest

    def order(self) -> ModelOrder:
        return desired(self.world, ONE).models[MODEL]


@pytest.fixture
def case(world: World) -> Case:
    world.enrol(ONE)
    thief = world.enrol(TWO)
    number, _ = world.release(SECRET)
    found = world.catalog.releases.release(MODEL, number)
    assert found is not None
    return Case(world, thief, codec.decode(Manifest, found[1], LIMIT).variants[0].blob.sealed)


def test_28_on_the_wire_it_gets_ciphertext_and_no_key(own_ground: Ground, case: Case) -> None:
    core, session = own_ground.core(), session_of(own_ground, case.thief)
    root = topics.tenant_root(TENANT)
    session.listen(f"{root}/blob/#", f"{root}/trust/#", f"{root}/d/{ONE}/desired", f"{root}/d/+/desired", f"{root}/d/#")
    obey(own_ground, core, case.world.actions, case.world.house)
    core.say(topics.desired(TENANT, TWO), b"the end")
    eventually(lambda: session.topics()[-1:] == [topics.desired(TENANT, TWO)], "all of it")
    blobs = [m for m in session.heard if "/blob/" in m.topic]
    assert blobs and not any(m.topic == topics.desired(TENANT, ONE) for m in session.heard)
    heard = b"".join(m.payload for m in session.heard)
    assert SECRET not in heard and SECRET[:64] not in heard
    assert not any(wrapped.encode() in heard for wrapped in case.order().keys.values())


def test_28_the_ground_passes_over_no_blob_in_silence(own_ground: Ground, case: Case) -> None:
    blobs = [action for action in case.world.actions if isinstance(action, SendBlob)]
    with pytest.raises(AssertionError, match="no house"):
        obey(own_ground, own_ground.core(), list(blobs))


def test_28_a_stolen_order_does_not_open_for_the_thief(case: Case) -> None:
    """Even with the victim's whole assignment in hand, and under any name."""
    wrapped = base64.b64decode(case.order().keys[case.blob])
    for name in (ONE, TWO):
        context = sealing.wrap_context(TENANT, name, case.blob)
        with pytest.raises(Damaged):
            sealing.unwrap(wrapped, case.thief.keys.sealing, context)


def test_28_asking_the_core_for_it_brings_no_key(case: Case) -> None:
    """It reports that it runs it, wants it, has it, misses its chunks: these come again for all, an order does not."""
    world, manifest, before = case.world, case.order().manifest, case.world.codes()
    said = serving(manifest, wanted=manifest)
    world.hear(case.thief.report({MODEL: said}, missing={case.blob: (0, 1, 10**9)}, have=(case.blob,)))
    world.tick(60.0)
    sent = world.last(topics.desired(TENANT, TWO))
    assert sent is None or MODEL not in desired(world, TWO).models
    assert world.catalog.fleet.rollouts()[0][1].assigned == (ONE,)
    assert world.codes() == before, (
        "a report of its own is no attack by its form: what it says of itself is shown, is all"
    )


def test_28_another_tenants_device_is_not_even_let_in(own_ground: Ground, case: Case) -> None:
    """The same name, a good certificate, of another tenant's authority."""
    rival = open_ground(own_ground.folder / "rival")
    stranger = rival.device_tls(ONE)
    rival.broker.stop()
    tls = own_ground.tls(stranger.certificate.read_bytes(), stranger.key.read_bytes())
    assert greet(own_ground.broker.port, tls.context()) is None
    assert case.world.catalog.fleet.device(ONE) is not None, "the name itself is known here"
