"""Releases that the core signs by itself: what people allow it, what it does with that, and what devices make of it."""

from __future__ import annotations

import base64
import dataclasses
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from flask.testing import FlaskClient
from tuf.api.metadata import Metadata, TargetFile, Targets

from appliance.api import Refused
from appliance.core import automatic as opting
from appliance.core import owner
from appliance.core.key_ring import KeyRing
from appliance.errors import Trouble
from core import orders
from core.catalog import open_catalog
from core.catalog.wanted import Wanted
from core.console import create_pages
from core.handoffs import Candidate, RolloutState, Verdict
from core.release import automatic, gates, metadata, publish, signing
from edge import roots, trust
from edge.trust import Accepted
from sync import chunks, codec, messages, roles
from sync.errors import Untrusted
from sync.manifest import Binding, Manifest, Uplink, auto_role_of, role_of, target_path, terms_of
from sync.names import Digest, ModelName
from tests.core.desk import Desk
from tests.core.doors import TOKEN
from tests.core.office import Office
from tests.core.world import CATALOG_KEY, DAY, MODEL, ONE, World, project

OTHER = ModelName("other")
AUTO = auto_role_of(MODEL)
WIDE, NARROW = Uplink("sampled", asked=True), Uplink()
NOW = float(int(time.time()))  # what tuf itself goes by


@pytest.fixture
def office(ram: Path, tmp_path: Path) -> Office:
    """People have signed release 1, and it has arrived everywhere."""
    world = World(ram / "core", now=NOW)
    made = Office(world, Desk(world), tmp_path / "people")
    assert made.approve(world.stage(b"the first"), "owner").lacks == ()
    arrived(made)
    return made


class Device:
    """What a device makes of the trust files: tuf's client with a folder of its own, and the mark of its journal."""

    def __init__(self, office: Office, folder: Path) -> None:
        self.office, self.folder, self.mark = office, folder, dict[str, int]()
        self.root = office.files()["1.root.json"]

    def accept(self, number: int, files: dict[str, bytes] | None = None, digest: str = "") -> Accepted:
        wanted = Digest(digest) if digest else digest_of(self.office, number)
        files = self.office.files() if files is None else files
        found = trust.accept(self.folder, self.root, files, self.mark, MODEL, number, wanted, self.office.world.now)
        self.mark = found.versions
        return found

    def revoked(self, *numbers: int) -> list[int]:
        held = {(MODEL, number): digest_of(self.office, number) for number in numbers}
        found = trust.revoked(self.folder, self.root, self.office.files(), self.mark, held, self.office.world.now)
        self.mark = found.versions
        return [number for _, number in found.revoked]


@pytest.fixture
def device(office: Office, tmp_path: Path) -> Device:
    return Device(office, tmp_path / "device")


def digest_of(office: Office, number: int) -> Digest:
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None
    return found[0].digest


def state_of(office: Office, number: int) -> str:
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None
    return found[0].state


def arrived(office: Office) -> None:
    """The rollout that is under way ends, as if every device had committed its release."""
    fleet = office.world.catalog.fleet
    for key, rollout in fleet.rollouts():
        fleet.put_rollout(key, msgspec.structs.replace(rollout, state=RolloutState.COMPLETE))


def allow(office: Office, name: str = "owner") -> opting.Told:
    return opting.allow(office.api, office.folder(name), MODEL, name, office.world.now)


def end(office: Office, name: str = "owner") -> opting.Told:
    return opting.end(office.api, office.folder(name), MODEL, name, office.world.now)


def trained(office: Office, model: bytes, candidate: Candidate | None = None) -> dict[str, Any]:
    """What a training job hands in."""
    found = candidate or office.world.candidate(model)
    return office.world.must(orders.CommitCandidate(job=office.world.job(), candidate=found))


def said(outcome: Literal["pass", "inconclusive"], *names: str) -> tuple[Verdict, ...]:
    return tuple(Verdict(name, outcome, "") for name in names)


def apply(office: Office, uplink: Uplink) -> None:
    """The project, with another word on what may leave a device."""
    changed = project()
    model = msgspec.structs.replace(changed.models[MODEL], uplink=uplink)
    office.world.must(
        orders.ApplyProject(project=msgspec.structs.replace(changed, models={MODEL: model}), folder=str(office.home))
    )


def console_of(office: Office) -> FlaskClient:
    """A browser that came by the link."""
    path, now = office.world.folder / "catalog.db", office.world.now
    made = create_pages(lambda: open_catalog(path, CATALOG_KEY, read_only=True), TOKEN, lambda: now).test_client()
    assert made.get("/", query_string={"token": TOKEN}).status_code == 200
    return made


def signer_of(office: Office) -> roles.CryptoSigner:
    """What a thief of the core has: the key by which it signs releases of the model."""
    found = automatic.allowed(office.files(), MODEL)
    assert found is not None
    return next(s for s in map(roles.signer, office.world.online.held(AUTO)) if s.public_key.keyid == found.key.keyid)


def online(office: Office) -> publish.OnlineSigners:
    keys = office.world.house.keys
    return publish.OnlineSigners(roles.signer(keys.snapshot), roles.signer(keys.timestamp))


class Thief:
    """Whoever broke into the core: has its online keys, and the one by which it signs releases of the model."""

    def __init__(self, office: Office, signer: roles.CryptoSigner | None = None) -> None:
        self.office, self.files = office, office.files()
        self.signer = signer or signer_of(office)

    def shows(self, payload: bytes, path: str = "") -> dict[str, bytes]:
        """All files, with this manifest in the core's role, under a path that is not its own if one is given."""
        number, now = codec.decode(Manifest, payload, 1 << 20).number, self.office.world.now
        fresh = automatic.released(self.files, MODEL, number, payload, self.signer, now)
        if path:
            (name,) = fresh
            role: Metadata[Targets] = Metadata.from_bytes(fresh[name])
            role.signed.targets = {path: TargetFile.from_data(path, payload, ["sha256"])}
            role.signatures.clear()
            role.sign(self.signer)
            fresh = {name: metadata.write(role)}
        self.files |= fresh | {f"{chunks.digest(payload)}.manifest": payload}
        self.files |= publish.renew(self.files, online(self.office), now)
        return self.files


def made_up(office: Office, number: int, **changes: Any) -> bytes:
    """A manifest as people never saw it: that of release 1 under another number, changed."""
    found = office.world.catalog.releases.release(MODEL, 1)
    assert found is not None
    document = codec.decode(Manifest, found[1], 1 << 20)
    return codec.encode(msgspec.structs.replace(document, number=number, **changes))


# --- what people allow ------------------------------------------------------------------------------------------


def test_where_nobody_allowed_it_a_candidate_waits_for_a_person(office: Office) -> None:
    assert "automatic" not in trained(office, b"the second")
    assert state_of(office, 2) == "staged" and automatic.all_allowed(office.files()) == {}


def test_allowed_it_is_signed_rolled_out_and_believed_by_devices(office: Office, device: Device) -> None:
    device.accept(1)
    assert allow(office).lacks == ()
    assert trained(office, b"the second")["automatic"] is True
    assert state_of(office, 2) == "approved"
    assert [r.number for _, r in office.world.catalog.fleet.rollouts()] == [2]
    assert office.world.codes()[-2:] == ["release-staged", "release-auto-signed"]
    found = device.accept(2)
    assert found.manifest.number == 2 and found.record.auto
    assert trust.verify(found.record, MODEL, 2) == found.manifest, "and offline, from its record"
    assert device.mark[AUTO] == 2 and device.revoked(1, 2) == []


def test_what_is_shown_says_who_signed(office: Office) -> None:
    allow(office)
    trained(office, b"the second")
    shown = office.desk.get("/v1/status")["trust"]["automatic"]
    assert shown == {MODEL: {"keyid": signer_of(office).public_key.keyid, "releases": [2]}}
    html = console_of(office).get("/").text
    assert html.count("signed automatically") == 1 and "The core releases <b>motion</b> by itself" in html
    assert "no person signed release 2" in html and "falaj trust auto motion --off" in html
    office.approve(2, "owner")
    assert office.desk.get("/v1/status")["trust"]["automatic"][MODEL]["releases"] == [], "a person signed it too"


def test_the_first_release_of_a_model_is_for_people(ram: Path, tmp_path: Path) -> None:
    world = World(ram / "core", now=NOW)
    office = Office(world, Desk(world), tmp_path / "people")
    world.stage()
    with pytest.raises(Untrusted, match="people have signed no release of motion yet"):
        allow(office)


def test_an_organisation_allows_it_by_as_many_as_sign_a_release(office: Office) -> None:
    office.hardened()
    assert allow(office, "dana").lacks == ("releases: 1 more of eve",)
    assert automatic.all_allowed(office.files()) == {} and trained(office, b"the second") != {}
    assert state_of(office, 2) == "staged"
    with pytest.raises(Trouble, match="none of your keys is asked for"):
        allow(office, "amal")
    assert allow(office, "eve").lacks == (), "the key that waited was asked for again, and is the same"
    assert trained(office, b"the third")["automatic"] is True
    assert end(office, "eve").lacks == ("releases: 1 more of dana",) and state_of(office, 3) == "approved"
    assert end(office, "dana").lacks == () and state_of(office, 3) == "revoked"


# --- what ends it -----------------------------------------------------------------------------------------------


def test_ended_what_only_the_core_signed_is_revoked_and_the_next_one_waits(office: Office, device: Device) -> None:
    allow(office)
    trained(office, b"the second")
    arrived(office)
    trained(office, b"the third")
    device.accept(3)
    office.approve(2, "owner")
    assert [r.number for _, r in office.world.catalog.fleet.rollouts()] == [3], (
        "approving what serves rolls nothing out"
    )
    assert end(office).releases == (f"{MODEL}@3",)
    assert [state_of(office, number) for number in (1, 2, 3)] == ["approved", "approved", "revoked"]
    assert device.revoked(1, 2, 3) == [3]
    with pytest.raises(Untrusted, match="not among the signed releases"):
        device.accept(3)
    assert device.accept(2).record.auto == b"", "which a person approved"
    assert "automatic" not in trained(office, b"the fourth") and state_of(office, 4) == "staged"
    with pytest.raises(Untrusted, match="nothing to end"):
        end(office)


def test_what_ended_does_not_come_back_when_it_is_allowed_anew(office: Office, device: Device) -> None:
    allow(office)
    trained(office, b"the second")
    device.accept(2)
    old = signer_of(office).public_key.keyid
    end(office)
    allow(office)
    assert signer_of(office).public_key.keyid != old, "each time a key of its own"
    assert device.revoked(1, 2) == [2]
    assert trained(office, b"the third")["automatic"] is True
    assert device.accept(3).manifest.number == 3 and device.mark[AUTO] > 2


def test_allowed_once_more_it_is_another_key_and_what_was_signed_stays(office: Office, device: Device) -> None:
    allow(office)
    trained(office, b"the second")
    old = signer_of(office)
    allow(office)
    assert device.accept(2).manifest.number == 2
    with pytest.raises(Untrusted, match=r"trust files: auto\.motion"):
        device.accept(9, Thief(office, old).shows(payload := made_up(office, 9)), chunks.digest(payload))


def test_one_release_of_the_core_can_be_revoked_by_people_alone(office: Office, device: Device) -> None:
    """The core signs on: people's word of that number comes before its own."""
    allow(office)
    trained(office, b"the second")
    device.accept(2)
    assert owner.revoke(office.api, office.folder("owner"), MODEL, 2, "it is bad", "owner", office.world.now) == ()
    assert state_of(office, 2) == "revoked" and device.revoked(1, 2) == [2]
    arrived(office)
    assert trained(office, b"the third")["automatic"] is True
    assert device.revoked(1, 2, 3) == [2] and device.accept(3).manifest.number == 3


# --- what waits for a person all the same -----------------------------------------------------------------------


def test_other_terms_than_people_signed_wait_for_them(office: Office) -> None:
    """The project is the core's to change: what may leave a device is not."""
    allow(office)
    apply(office, WIDE)
    assert "people allowed other terms" in trained(office, b"the second")["waits"]
    assert state_of(office, 2) == "staged" and "auto-release-waits" in office.world.codes()
    office.approve(2, "owner")
    arrived(office)
    assert "waits" in trained(office, b"the third"), "approving one release allows no other terms"
    allow(office)
    assert trained(office, b"the fourth")["automatic"] is True


def test_a_gate_in_doubt_and_a_rollout_under_way_wait_for_a_person(office: Office) -> None:
    allow(office)
    doubtful = msgspec.structs.replace(
        office.world.candidate(b"the second"), verdicts=said("inconclusive", *gates.NEEDED)
    )
    assert trained(office, b"", doubtful)["waits"] == "G2, G6, G7, G8, G9 did not pass it without a doubt"
    assert trained(office, b"the third")["automatic"] is True
    assert trained(office, b"the fourth")["waits"] == "the rollout of release 3 has not ended"
    assert [state_of(office, number) for number in (2, 3, 4)] == ["staged", "approved", "staged"]


def test_a_key_that_was_lost_is_said_and_another_is_brought(office: Office) -> None:
    allow(office)
    office.world.online.kept.clear()
    assert "falaj trust auto motion --on" in trained(office, b"the second")["waits"]
    allow(office)
    assert trained(office, b"the third")["automatic"] is True


@pytest.mark.parametrize("names", [(), gates.NEEDED[1:]], ids=["none", "one less"])
def test_where_a_gate_said_nothing_a_person_looks(office: Office, names: tuple[str, ...]) -> None:
    """Whatever the job says that handed it in: it is what reads data of strangers."""
    allow(office)
    silent = msgspec.structs.replace(office.world.candidate(), verdicts=said("pass", *names), accepted=True)
    lacking = ", ".join(sorted({*gates.NEEDED} - {*names}))
    assert trained(office, b"", silent)["waits"] == f"{lacking} said nothing of it" and state_of(office, 2) == "staged"


def test_what_people_tightened_is_not_widened_by_the_core(office: Office) -> None:
    """They approve 3 on narrower terms, and the project is turned back: a person signs that, not the core."""
    apply(office, WIDE)
    trained(office, b"the second")
    assert office.approve(2, "owner").auto == ""
    arrived(office)
    allow(office)
    apply(office, NARROW)
    trained(office, b"the third")
    told = office.approve(3, "owner").auto
    assert "on other terms than those of release 3" in told and "until you sign `falaj trust auto motion --on`" in told
    arrived(office)
    apply(office, WIDE)
    assert "people signed release 3 since, on other terms" in trained(office, b"the fourth")["waits"]
    apply(office, NARROW)
    allow(office)
    assert trained(office, b"the fifth")["automatic"] is True


def test_a_release_of_before_that_people_roll_out_counts_as_well(office: Office) -> None:
    """What was staged first and approved last has the lower number, and the word of people all the same."""
    apply(office, WIDE)
    trained(office, b"the second, wide")
    apply(office, NARROW)
    trained(office, b"the third")
    office.approve(3, "owner")
    arrived(office)
    allow(office)
    office.approve(2, "owner")
    arrived(office)
    assert "release 2 was rolled out last, on other terms" in trained(office, b"the fourth")["waits"]


def test_other_terms_take_no_release_away_that_is_in_force(office: Office, device: Device) -> None:
    """Devices hold all of the core's role to one delegation: under another, none could fetch what serves any more."""
    allow(office)
    trained(office, b"the second")
    arrived(office)
    apply(office, WIDE)
    trained(office, b"the third")
    office.approve(3, "owner")
    arrived(office)
    made = office.world.codes().count("online-key-made")
    with pytest.raises(Untrusted, match=r"the core alone signed 2 of motion, on other terms.*approve motion@2"):
        allow(office)
    assert office.world.codes().count("online-key-made") == made, "and no key waits for it in vain"
    assert device.accept(2).manifest.number == 2
    office.approve(2, "owner")
    allow(office)
    assert device.accept(2).record.auto == b"" and device.revoked(1, 2, 3) == []


def test_no_core_keeps_a_delegation_that_takes_releases_away(office: Office) -> None:
    """Whatever program signed it."""
    allow(office)
    trained(office, b"the second")
    arrived(office)
    apply(office, WIDE)
    trained(office, b"the third")
    office.approve(3, "owner")
    found = office.world.catalog.releases.release(MODEL, 3)
    assert found is not None
    role = metadata.newest(office.files(), role_of(MODEL), Targets)
    role.signed.version += 1
    role.signed.delegations.roles[AUTO].unrecognized_fields[roles.TERMS_FIELD] = terms_of(found[1])
    texts = {role_of(MODEL): sign_anyhow(metadata.write(role), KeyRing(office.folder("owner")).signers())}
    answer = office.world.order(orders.Automatic(model=MODEL, on=True, metadata=texts))
    assert answer.code == "untrusted" and "the core alone signed 2 of motion" in answer.error


def test_a_role_that_grew_too_large_for_devices_waits_for_a_person(office: Office, device: Device) -> None:
    """Well before they refuse its file, and with it every revocation."""
    allow(office)
    trained(office, b"the second")
    arrived(office)
    role = metadata.newest(office.files(), AUTO, Targets)
    for number in range(1000, 3100):
        path = target_path(MODEL, number)
        role.signed.targets[path] = TargetFile.from_data(path, str(number).encode(), ["sha256"])
    role.signatures.clear()
    role.sign(signer_of(office))
    office.world.catalog.releases.put_trust({f"{role.signed.version}.{AUTO}.json": metadata.write(role)})
    assert "names as many releases as it may" in trained(office, b"the third")["waits"]
    assert len(metadata.write(role)) < roots.TRUST_FILE_LIMIT / 1.5 and device.accept(2).manifest.number == 2


def test_all_that_ends_is_one_alarm(office: Office) -> None:
    """Of many releases as of one; nobody goes back to one of them."""
    allow(office)
    for number in (2, 3, 4):
        trained(office, str(number).encode())
        arrived(office)
    fleet = office.world.catalog.fleet
    office.world.enrol(ONE)
    fleet.want(ONE, Wanted(MODEL, 4, "live", messages.Gates(), 0))
    told = office.world.codes(1000).count("release-revoked")
    assert end(office).releases == tuple(f"{MODEL}@{number}" for number in (2, 3, 4))
    assert office.world.codes(1000).count("release-revoked") == told + 1
    event = next(e for e in office.world.catalog.events.newest() if e.code == "release-revoked")
    assert event.facts["number"] == "2, 3, 4" and event.severity == "alarm"
    assert fleet.wanted(ONE)[0].number == 1, "back to what people signed"
    ((_, rollout),) = fleet.rollouts()
    assert (rollout.number, rollout.previous, rollout.state) == (4, 1, RolloutState.REVERSED)


# --- keys that are not here -------------------------------------------------------------------------------------


def alarms(office: Office) -> list[str]:
    found = office.world.catalog.events.newest(1000)
    return [e.text for e in reversed(found) if e.code == "online-key-missing" and e.severity == "alarm"]


def test_half_a_backup_ends_no_core(office: Office) -> None:
    """The keys of snapshot and timestamp are another time's: what is due to be signed anew waits, as theirs does."""
    allow(office)
    trained(office, b"the second")
    before, house = office.files(), office.world.house
    house.keys = dataclasses.replace(house.keys, snapshot=roles.new_signing_key())
    office.world.tick(20 * DAY)
    assert office.files() == before and "trust-renewed" not in office.world.codes()
    office.world.reopen()
    office.world.tick()
    assert metadata.newest(office.files(), AUTO, Targets).signed.version == 3, "signed anew once they are back"


def test_a_damaged_key_is_said_once_and_the_others_go_on(office: Office) -> None:
    allow(office)
    office.world.online.damaged.add(AUTO)
    office.world.reopen()
    assert len(alarms(office)) == 1 and "move it away; then `falaj trust auto motion --on`" in alarms(office)[0]
    for _ in range(3):
        office.world.tick(10 * DAY)
    assert len(alarms(office)) == 1
    assert "does not open" in trained(office, b"the second")["waits"]
    with pytest.raises(Refused, match="does not open"):
        allow(office)
    office.world.online.damaged.clear()
    del office.world.online.kept[AUTO]
    allow(office)
    arrived(office)
    assert trained(office, b"the third")["automatic"] is True


def test_a_lost_key_is_an_alarm_before_anything_waits(office: Office) -> None:
    allow(office)
    office.world.tick(3600)
    assert alarms(office) == []
    office.world.online.kept.clear()
    office.world.tick(3600)
    office.world.tick(3600)
    assert len(alarms(office)) == 1 and "the key of auto.motion is not here" in alarms(office)[0]
    office.world.reopen()
    assert len(alarms(office)) == 2, "and once in each start"


@pytest.mark.parametrize("clock", ["ours", "tuf's"])
def test_a_role_of_the_core_that_expired_keeps_no_revocation_away(office: Office, tmp_path: Path, clock: str) -> None:
    """Its key was lost a month ago. People revoke a release of this model, and one of another."""
    signer, now = KeyRing(office.folder("owner")).signers(), office.world.now
    allow(office)
    trained(office, b"the second")
    files, manifest = office.files(), made_up(office, 1, model=OTHER)
    until = metadata.later(now, signing.LIFE)
    files |= signing.as_files(signing.sign(files, signing.approval(files, OTHER, 1, manifest, until), signer))
    if clock == "ours":
        now += 30 * DAY
    else:
        role = metadata.newest(files, AUTO, Targets)
        role.signed.version, role.signed.expires = role.signed.version + 1, metadata.later(now, timedelta(days=-1))
        role.sign(signer_of(office))
        files[f"{role.signed.version}.{AUTO}.json"] = metadata.write(role)
    held = {(MODEL, 1): digest_of(office, 1), (MODEL, 2): digest_of(office, 2), (OTHER, 1): chunks.digest(manifest)}

    def standing() -> trust.Standing:
        files.update(publish.renew(files, online(office), now))
        return trust.revoked(tmp_path / "tuf", files["1.root.json"], files, {}, held, now)

    assert standing().revoked == () and [*standing().expired] == [MODEL]
    for model in (OTHER, MODEL):
        files |= signing.as_files(signing.sign(files, signing.revocation(files, model, 1, until), signer))
    found = standing()
    assert found.revoked == ((MODEL, 1), (OTHER, 1)) and "expired" in found.expired[MODEL]


def test_over_a_restart_and_a_month_the_core_goes_on(office: Office, device: Device) -> None:
    allow(office)
    trained(office, b"the second")
    office.world.reopen()
    for _ in range(10):
        office.world.tick(3 * DAY)
    version = metadata.newest(office.files(), AUTO, Targets).signed.version
    assert version == 4, "begun, one release, signed anew twice in thirty days"
    device.accept(2)
    arrived(office)
    assert trained(office, b"the third")["automatic"] is True


# --- changes of keys --------------------------------------------------------------------------------------------


def test_a_rotation_keeps_it_and_says_so(office: Office, device: Device) -> None:
    allow(office)
    trained(office, b"the second")
    (new,) = office.publics("second-owner")
    changed = owner.rotate(
        office.api, office.folder("owner"), "owner", str(office.folder("second-owner") / "second-owner.pub"), "owner",
        office.world.now,
    )  # fmt: skip
    assert changed.lacks and any("the core goes on signing releases by itself" in line for line in changed.text)
    assert office.sign("second-owner") == ()
    assert [key.keyid for key in office.layout().releases.keys] == [new.keyid]
    assert device.accept(2).manifest.number == 2
    arrived(office)
    assert trained(office, b"the third")["automatic"] is True and device.accept(3).manifest.number == 3
    owner.renew(office.api, office.folder("second-owner"), "second-owner", office.world.now)
    assert device.revoked(2, 3) == []


def test_what_one_key_allowed_does_not_follow_into_an_organisation(office: Office) -> None:
    allow(office)
    with pytest.raises(Refused, match="which one key allowed: end that first"):
        office.harden()
    end(office)
    office.hardened()


# --- attacks ----------------------------------------------------------------------------------------------------


def test_a_core_cannot_allow_itself(office: Office) -> None:
    """Its online keys sign no role of a model, neither at its own desk nor on a device."""
    key = office.world.must(orders.AutoKey(model=MODEL))
    body = {name: said for name, said in key.items() if name != "keyid"}
    public = roles.key_from_dict(key["keyid"], body)
    until = metadata.later(office.world.now, signing.LIFE)
    found = office.world.catalog.releases.release(MODEL, 1)
    assert found is not None
    drafts = automatic.opting_in(office.files(), MODEL, public, terms_of(found[1]), until)
    for signers in (
        [],
        [roles.signer(office.world.house.keys.director)],
        [roles.signer(office.world.online.held(AUTO)[-1])],
    ):
        texts = {name: sign_anyhow(data, signers) for name, data in drafts.items()}
        answer = office.world.order(orders.Automatic(model=MODEL, on=True, metadata=texts))
        assert (answer.ok, answer.code) == (False, "untrusted")
    assert automatic.all_allowed(office.files()) == {}


def test_a_role_that_nobody_delegated_is_nobody(office: Office, device: Device) -> None:
    thief = roles.signer(roles.new_signing_key())
    payload = made_up(office, 7)
    with pytest.raises(Untrusted, match="not among the signed releases"):
        device.accept(7, Thief(office, thief).shows(payload), chunks.digest(payload))
    allow(office)
    with pytest.raises(Untrusted, match=r"trust files: auto\.motion"):
        device.accept(7, Thief(office, thief).shows(payload), chunks.digest(payload))


def test_with_the_cores_key_other_weights_under_this_model_and_nothing_else(office: Office, device: Device) -> None:
    """What docs/security.md says of it, no more and no less."""
    allow(office)
    device.accept(1)
    thief, payload = Thief(office), made_up(office, 7)
    assert device.accept(7, thief.shows(payload), chunks.digest(payload)).manifest.number == 7
    told = Binding("site/{entity}/imu", "elsewhere")
    for changes in ({"uplink": Uplink("sampled", asked=True)}, {"bindings": (told,)}, {"classes": ("a", "b", "c")}):
        payload = made_up(office, 8, **changes)
        with pytest.raises(Untrusted, match="on other terms than people allowed"):
            device.accept(8, thief.shows(payload), chunks.digest(payload))


def test_it_signs_no_release_of_another_model(office: Office, device: Device) -> None:
    """Neither by a path of its own role nor by what the manifest says."""
    allow(office)
    payload = made_up(office, 7, model=OTHER)
    thief = Thief(office)
    files = thief.shows(payload, target_path(OTHER, 7))
    with pytest.raises(Untrusted, match="not among the signed releases"):
        trust.accept(device.folder, device.root, files, {}, OTHER, 7, chunks.digest(payload), office.world.now)
    with pytest.raises(Untrusted, match="on other terms than people allowed"):
        device.accept(7, thief.shows(payload, target_path(MODEL, 7)), chunks.digest(payload))


def test_what_people_say_of_a_number_comes_before_what_the_core_says(office: Office, device: Device) -> None:
    allow(office)
    payload = made_up(office, 1, created=1.0)
    files = Thief(office).shows(payload)
    with pytest.raises(Untrusted, match="not among the signed releases"):
        device.accept(1, files, chunks.digest(payload))
    assert device.accept(1, files).record.auto == b""


def test_what_the_core_hands_a_person_to_allow_is_held_to_what_people_signed(office: Office) -> None:
    """A core that was broken into shows another manifest under the number: its terms would be the thief's."""

    class Lying:
        def get(self, path: str) -> Any:
            found = office.api.get(path)
            if path.startswith("/v1/releases/"):
                other = made_up(office, 1, uplink=Uplink("sampled"))
                found["manifest_base64"] = base64.b64encode(other).decode()
            return found

        def order(self, order: Any) -> Any:
            return office.api.order(order)

    with pytest.raises(Trouble, match="another manifest of motion 1 than people signed"):
        opting.allow(Lying(), office.folder("owner"), MODEL, "owner", office.world.now)  # type: ignore[arg-type]


def test_a_record_is_believed_by_the_delegation_alone(office: Office, device: Device) -> None:
    """On a device's own disk: the core's role by another key, none, or under a role that does not let the core sign."""
    before = device.accept(1).record
    allow(office)
    trained(office, b"the second")
    record = device.accept(2).record
    forged: Metadata[Targets] = Metadata.from_bytes(record.auto)
    forged.signatures.clear()
    forged.sign(roles.signer(roles.new_signing_key()))
    for auto, role in ((metadata.write(forged), record.role), (b"", record.role), (record.auto, before.role)):
        with pytest.raises(Untrusted):
            trust.verify(msgspec.structs.replace(record, auto=auto, role=role), MODEL, 2)
    assert trust.verify(record, MODEL, 2).number == 2


def test_a_newer_role_of_the_core_is_no_matter_for_what_people_signed(office: Office, device: Device) -> None:
    """tuf's client does not look into it then: what lies in its folder is of another time."""
    allow(office)
    trained(office, b"the second")
    device.accept(2)
    arrived(office)
    trained(office, b"the third")
    assert device.accept(1).versions[AUTO] == 2 and device.accept(3).versions[AUTO] == 3


@pytest.mark.parametrize("what", ["terms", "more"])
def test_what_says_more_than_that_is_kept_by_no_core_whoever_signed_it(office: Office, what: str) -> None:
    """An owner's key in wrong hands, or a wrong program: other terms than people's release has, or a field more."""
    key = office.world.must(orders.AutoKey(model=MODEL))
    public = roles.key_from_dict(key["keyid"], {name: said for name, said in key.items() if name != "keyid"})
    found = office.world.catalog.releases.release(MODEL, 1)
    assert found is not None
    terms = Digest("0" * 64) if what == "terms" else terms_of(found[1])
    until = metadata.later(office.world.now, signing.LIFE)
    (draft,) = automatic.opting_in(office.files(), MODEL, public, terms, until).values()
    role: Metadata[Targets] = Metadata.from_bytes(draft)
    if what == "more":
        role.signed.unrecognized_fields["x"] = 1
    (signer,) = KeyRing(office.folder("owner")).signers()
    texts = {role_of(MODEL): sign_anyhow(metadata.write(role), [signer])}
    answer = office.world.order(orders.Automatic(model=MODEL, on=True, metadata=texts))
    assert (answer.ok, answer.code) == (False, "untrusted") and "says something else" in answer.error
    assert automatic.all_allowed(office.files()) == {}


def test_a_snapshot_without_the_cores_role_is_refused(office: Office, device: Device) -> None:
    """Devices that saw a version of it are held to that, whether it counts or not."""
    allow(office)
    trained(office, b"the second")
    device.accept(2)
    end(office)
    assert device.accept(1).versions[AUTO] == 2
    without = {name: data for name, data in office.files().items() if f".{AUTO}." not in name}
    with pytest.raises(Untrusted):
        device.accept(1, without | publish.renew(without, online(office), office.world.now))


def sign_anyhow(data: bytes, signers: list[roles.CryptoSigner]) -> str:
    role: Metadata[Targets] = Metadata.from_bytes(data)
    for one in signers:
        role.sign(one, append=True)
    return metadata.write(role).decode()
