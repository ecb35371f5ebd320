"""Attack 25: one key is stolen, each in its turn, by somebody who owns the broker besides and knows the core's files.

Each test does what the thief can do with it, shows that no unapproved model gets in, and puts another key in its place
without touching a device. Profile `organisation`: root 2 of 3, releases 2 of 2.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from appliance.core import owner
from appliance.core.key_ring import KeyRing
from core.fleet import enrolment
from core.orders import OnlineRole, Revoke
from core.release import metadata
from core.release.metadata import newest, newest_root
from sync import codec, roles, sealing, topics
from sync.errors import Damaged
from sync.link import Message
from sync.manifest import role_of, target_path
from sync.messages import ASSIGNMENT_TYPE, REPORTED_TYPE, Assignment, Reported
from sync.names import DEFAULT_TENANT, DeviceId, Digest
from tests.attacks.estate import Estate, Holders, signed
from tests.core.world import MODEL

BOXES = ("press-1", "press-2")
ROOTS, APPROVERS = ("amal", "badr", "carim"), ("dana", "eve")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A hardened tenant whose boxes have committed releases 1 and 2, and the order by which the first got release 1."""
    home = tmp_path_factory.mktemp("prepared") / "estate"
    estate = Estate(home, *BOXES)
    estate.release()
    first = estate.world.hub.retained[topics.desired(DEFAULT_TENANT, DeviceId("press-1"))]
    estate.release()
    estate.harden(Holders(home / "people", ROOTS), Holders(home / "people", APPROVERS), 2)
    estate.pass_time(3)
    estate.close()
    return home, first


class Scene:
    """The tenant, with a release 3 that is staged and that nobody approved."""

    def __init__(self, estate: Estate, first_order: bytes) -> None:
        self.estate, self.first_order = estate, first_order
        self.evil = estate.stage()
        found = estate.world.steward.house.catalog.releases.release(MODEL, self.evil)
        assert found is not None
        self.manifest = found[1]
        estate.pass_time(2)
        self.before = {name: estate.identity(name) for name in BOXES}
        self.told = {name: len(estate.codes(name)) for name in BOXES}

    def approved(self) -> int:
        """A next release by both approvers, committed everywhere: the tenant lives on, and nobody touched a device."""
        number = self.estate.stage()
        for name in APPROVERS:
            owner.approve(self.estate.api, self.folder(name), MODEL, number, name, self.estate.world.now)
        self.estate.until_serving(number)
        assert {name: self.estate.identity(name) for name in BOXES} == self.before
        return number

    def unmoved(self, *codes: str) -> None:
        """Both boxes answer with release 2 after some time, and this is all they told besides."""
        self.estate.pass_time(6)
        assert [self.estate.serves(name) for name in BOXES] == [2, 2]
        for name in BOXES:
            new = self.estate.codes(name)[self.told[name] :]
            assert new == list(codes), (name, new)
            self.told[name] += len(new)
            held = {s.release.number for s in _slots(self.estate, name)}
            assert self.evil not in held

    def folder(self, name: str) -> Path:
        return self.estate.home / "people" / name

    def signer(self, name: str) -> roles.CryptoSigner:
        (found,) = KeyRing(self.folder(name)).signers()
        return found

    def signed_by(self, *names: str) -> None:
        """Further holders sign the change of keys that waits."""
        for name in names:
            lacks = self.estate.sign(self.folder(name))
        assert lacks == ()

    def forged(self, **stolen: bytes) -> dict[str, bytes]:
        """Metadata that names the unapproved release, signed with what was stolen, and else with a key of the thief."""
        files, own = self.estate.trust(), roles.new_signing_key()
        role: Metadata[Targets] = newest(files, role_of(MODEL), Targets)
        role.signed.version += 1
        path = target_path(MODEL, self.evil)
        role.signed.targets[path] = TargetFile.from_data(path, self.manifest, ["sha256"])
        timestamp: Metadata[Timestamp] = metadata.parse(files["timestamp.json"], Timestamp)
        snapshot: Metadata[Snapshot] = newest(files, "snapshot", Snapshot)
        snapshot.signed.version += 1
        snapshot.signed.meta[f"{role_of(MODEL)}.json"] = MetaFile(role.signed.version)
        data = signed(snapshot, stolen.get("snapshot", own))
        timestamp.signed.version += 1
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        return {
            f"{role.signed.version}.{role_of(MODEL)}.json": signed(role, stolen.get("release", own)),
            f"{snapshot.signed.version}.snapshot.json": data,
            f"{hashlib.sha256(self.manifest).hexdigest()}.manifest": self.manifest,
            "timestamp.json": signed(timestamp, stolen.get("timestamp", own)),
        }

    def order(self, key: bytes, envelope: bytes | None = None, name: str = "press-1", **changes: Any) -> None:
        """A newer order for a box, made from one that was captured, signed with `key`, retained by the broker."""
        topic = topics.desired(DEFAULT_TENANT, DeviceId(name))
        newest_order = codec.decode(Assignment, roles.peek(self.estate.world.hub.retained[topic]))
        found = codec.decode(Assignment, roles.peek(envelope)) if envelope else newest_order
        wanted = msgspec.structs.replace(found.models[MODEL], retry=99, **changes)
        forged = msgspec.structs.replace(
            newest_order, seq=newest_order.seq + 1, ts=self.estate.world.now, models={MODEL: wanted}
        )
        self.estate.say(topic, roles.sign(forged, ASSIGNMENT_TYPE, key))


@pytest.fixture
def scene(prepared: tuple[Path, bytes], tmp_path: Path) -> Scene:
    home, first = prepared
    return Scene(Estate.again(home, tmp_path / "estate", *BOXES), first)


ONLINE: list[OnlineRole] = ["timestamp", "snapshot"]


@pytest.mark.parametrize("role", ONLINE)
def test_25_an_online_key_delays_and_installs_nothing(scene: Scene, role: OnlineRole) -> None:
    scene.estate.plant(scene.forged(**{role: scene.estate.stolen(role)}))
    scene.unmoved("refused-untrusted")
    owner.rotate_online(scene.estate.api, scene.folder("amal"), role, "amal", scene.estate.world.now)
    scene.signed_by("badr")
    assert scene.approved() > 2


def test_25_one_of_two_approvers_publishes_nothing(scene: Scene) -> None:
    """Neither by the core's own commands, nor with forged metadata on the broker."""
    estate, now = scene.estate, scene.estate.world.now
    signed = owner.approve(estate.api, scene.folder("dana"), MODEL, scene.evil, "thief", now)
    assert signed.lacks == ("releases: 1 more of eve",)
    estate.plant(scene.forged(release=(scene.folder("dana") / "dana.key").read_bytes()))
    scene.unmoved("refused-untrusted")
    KeyRing(scene.folder("dana")).make("dana2", "dana, again")
    owner.rotate(estate.api, scene.folder("dana"), "dana", "dana2", "dana", now)
    scene.signed_by("amal", "badr", "eve")
    assert "signatures-dropped" in estate.core_codes(), "what the thief signed counts no more"
    (scene.folder("dana") / "dana.key").unlink()
    assert scene.approved() > 2


def test_25_one_of_three_root_keys_changes_no_root(scene: Scene) -> None:
    estate = scene.estate
    data = newest_root(estate.trust())
    assert data is not None
    root: Metadata[Root] = metadata.parse(data, Root)
    thief = scene.signer("amal")
    root.signed.version += 1
    for role in ("root", "targets"):
        root.signed.roles[role].keyids[:], root.signed.roles[role].threshold = [thief.public_key.keyid], 1
    root.signed.keys[thief.public_key.keyid] = thief.public_key
    estate.plant({f"{root.signed.version}.root.json": signed(root, (scene.folder("amal") / "amal.key").read_bytes())})
    scene.unmoved("refused-untrusted")
    KeyRing(scene.folder("badr")).make("amal2", "amal, again")
    owner.rotate(estate.api, scene.folder("badr"), "amal", "amal2", "badr", estate.world.now)
    if estate.world.get("/v1/trust")["waiting"]:
        scene.signed_by("carim")
    state = estate.world.get("/v1/status")["trust"]
    assert {h["name"] for h in state["root"]["holders"]} == {"amal, again", "badr", "carim"}
    assert scene.approved() > 2


def test_25_the_director_chooses_among_approved_releases_and_no_others(scene: Scene) -> None:
    estate, key = scene.estate, scene.estate.stolen("director")
    scene.order(key, manifest=Digest(hashlib.sha256(scene.manifest).hexdigest()), number=scene.evil)
    estate.pass_time(6)
    assert estate.serves("press-1") == 2
    assert estate.codes("press-1")[scene.told["press-1"] :] == ["release-offered", "refused-untrusted"]
    scene.order(key, envelope=scene.first_order)  # an older one that was approved: this is what it can do
    estate.until_serving(1, "press-1")
    owner.rotate_online(estate.api, scene.folder("amal"), "director", "amal", estate.world.now)
    scene.signed_by("carim")
    estate.until_serving(2)
    scene.order(key, envelope=scene.first_order)
    estate.pass_time(4)
    assert estate.serves("press-1") == 2 and estate.codes("press-1")[-1] == "refused-untrusted"
    assert scene.approved() > 2


def test_25_the_authority_of_the_broker_is_the_broker_and_no_more(scene: Scene) -> None:
    """It lets the thief in as the core or as any device: so it plants what it likes and speaks under any name. No word
    of it is believed."""
    estate = scene.estate
    stolen = estate.world.steward.house.authority
    assert enrolment.issue_core(stolen, estate.world.now).certificate
    own = roles.new_signing_key()
    certificate = enrolment.certify(
        stolen, DEFAULT_TENANT, DeviceId("press-1"), bytes(32), estate.world.now, enrolment.LEAF_LIFE
    )
    assert certificate
    scene.order(own, manifest=Digest(hashlib.sha256(scene.manifest).hexdigest()), number=scene.evil)
    estate.plant(scene.forged())
    estate.pass_time(6)
    assert estate.serves("press-1") == 2
    assert sorted(estate.codes("press-1")[scene.told["press-1"] :]) == ["refused-untrusted"] * 2
    _report_as(estate, "press-1", own)
    assert "refused-untrusted" in [e.code for e in estate.world.steward.house.catalog.events.newest(5)]


def test_25_a_device_speaks_for_itself_alone(scene: Scene) -> None:
    """Its keys sign no release, no order, no report of another; what was sealed to another it does not open."""
    estate = scene.estate
    stolen = estate.box("press-2").agent.house.identity
    scene.order(stolen.signing_key, manifest=Digest(hashlib.sha256(scene.manifest).hexdigest()), number=scene.evil)
    estate.plant(scene.forged(release=stolen.signing_key))
    estate.pass_time(6)
    assert [estate.serves(name) for name in BOXES] == [2, 2]
    assert sorted(estate.codes("press-1")[scene.told["press-1"] :]) == ["refused-untrusted"] * 2
    _report_as(estate, "press-1", stolen.signing_key)
    assert "refused-untrusted" in [e.code for e in estate.world.steward.house.catalog.events.newest(5)]
    order = codec.decode(Assignment, roles.peek(scene.first_order)).models[MODEL]
    for digest, wrapped in order.keys.items():
        context = sealing.wrap_context(DEFAULT_TENANT, DeviceId("press-1"), digest)
        with pytest.raises(Damaged):
            sealing.unwrap(base64.b64decode(wrapped), stolen.sealing_key, context)
    estate.world.order(Revoke(device=DeviceId("press-2"), reason="stolen"))
    estate.leave("press-2")
    number = estate.stage()
    for name in APPROVERS:
        owner.approve(estate.api, scene.folder(name), MODEL, number, name, estate.world.now)
    estate.until_serving(number, "press-1")
    assert estate.identity("press-1") == scene.before["press-1"]


def _report_as(estate: Estate, name: str, key: bytes) -> None:
    """A report under somebody's name, signed with another key, on that name's own topic."""
    house, device = estate.world.steward.house, DeviceId(name)
    known = house.catalog.fleet.device(device)
    assert known is not None
    lie = Reported(DEFAULT_TENANT, device, known.epoch, 9999, estate.world.now, "b", 1, {})
    message = Message(topics.reported(DEFAULT_TENANT, device), roles.sign(lie, REPORTED_TYPE, key), 1)
    estate.world._carry_out(estate.world.steward.handle(message, estate.world.now))
    after = house.catalog.fleet.device(device)
    assert after is not None and (after.report is None or after.report.seq != 9999)


def _slots(estate: Estate, name: str) -> list[Any]:
    d = estate.box(name).agent.house.deployments[MODEL]
    return [slot for slot in (d.serving, d.candidate, *d.previous) if slot is not None]
