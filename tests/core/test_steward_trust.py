"""Owners at their desks and the steward that collects what they sign: profiles, thresholds, keys that change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root, Targets

from appliance.api import Refused
from appliance.core import owner
from appliance.core.key_ring import KeyRing
from appliance.errors import Trouble
from core import orders
from core.console.trust_state import trust_state
from core.fleet import enrolment
from core.release import checking, metadata, publish, signing
from core.release import layout as layouts
from core.release.layout import BadLayout, Quorum
from sync import chunks, codec, roles
from sync.errors import Untrusted
from sync.manifest import role_of
from sync.messages import ASSIGNMENT_TYPE, Assignment
from tests.core.desk import Desk
from tests.core.office import Office
from tests.core.world import DAY, MODEL, ONE, THREE, TWO, World, serving


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "core")


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


@pytest.fixture
def office(world: World, desk: Desk, tmp_path: Path) -> Office:
    return Office(world, desk, tmp_path / "people")


# --- releases ---------------------------------------------------------------------------------------------------


def test_one_owner_is_enough_for_a_single_owner(office: Office) -> None:
    number = office.world.stage()
    assert office.approve(number, "owner").lacks == ()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "approved"
    assert office.world.catalog.releases.proposals() == []


def test_an_organisations_release_waits_for_everybody_it_needs(office: Office) -> None:
    office.hardened()
    number = office.world.stage()
    assert office.approve(number, "dana").lacks == ("releases: 1 more of eve",)
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "staged" and not office.world.catalog.fleet.rollouts()
    assert f"1.{role_of(MODEL)}.json" not in office.files(), "nothing of it is published"
    (waiting,) = office.desk.get("/v1/status")["trust"]["waiting"]
    assert (waiting["subject"], waiting["signed"], waiting["lacks"]) == (
        f"{MODEL}@{number}", ["dana"], ["releases: 1 more of eve"],
    )  # fmt: skip
    assert office.approve(number, "dana").lacks, "whoever signs twice has signed once"
    assert office.approve(number, "eve").lacks == ()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "approved"
    assert [r.number for _, r in office.world.catalog.fleet.rollouts()] == [number]
    assert office.world.catalog.releases.proposals() == []


def test_signatures_wait_over_a_restart_of_the_core(office: Office) -> None:
    office.hardened()
    number = office.world.stage()
    office.approve(number, "dana")
    office.world.reopen()
    assert office.approve(number, "eve").lacks == ()


def test_whoever_is_not_asked_adds_nothing(office: Office) -> None:
    office.hardened()
    number = office.world.stage()
    for stranger in ("owner", "amal"):
        with pytest.raises(Trouble, match="none of your keys is asked for"):
            office.approve(number, stranger)
    assert office.world.catalog.releases.proposals() == []


def test_one_key_under_two_names_is_one(office: Office) -> None:
    (key,) = office.publics("dana")
    twin = roles.key_from_dict("0" * 64, key.to_dict())
    with pytest.raises(BadLayout, match="one key stands there twice"):
        Quorum((key, twin), 2)
    with pytest.raises(BadLayout, match="3 of 2 keys cannot sign"):
        Quorum(office.publics("dana", "eve"), 3)


def test_of_two_releases_of_a_model_that_wait_one_is_signed_first(office: Office) -> None:
    """Each would be the next version of the same role: the other one's signatures are void, and said to be."""
    office.hardened()
    first, second = office.world.stage(), office.world.stage()
    office.approve(first, "dana")
    office.approve(second, "dana")
    assert office.approve(second, "eve").lacks == ()
    assert office.world.catalog.releases.proposals() == []
    assert "signatures-dropped" in office.world.codes()


def test_what_waits_and_is_not_what_it_says_is_signed_by_nobody_else(office: Office) -> None:
    """One approver hands in metadata that names the release, and a delegation besides."""
    office.hardened()
    number = office.world.stage()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None
    until = metadata.later(office.world.now, signing.LIFE)
    drafts = dict(signing.approval(office.files(), MODEL, number, found[1], until))
    role = metadata.parse(drafts[role_of(MODEL)], Targets)
    role.signed.unrecognized_fields["x"] = 1
    drafts[role_of(MODEL)] = metadata.write(role)
    (dana,) = KeyRing(office.folder("dana")).signers()
    texts = {n: data.decode() for n, data in signing.sign(office.files(), drafts, [dana]).items()}
    answer = office.world.order(orders.Approve(model=MODEL, number=number, metadata=texts))
    assert (answer.ok, answer.code) == (False, "untrusted") and "something else" in answer.error


def test_what_shall_hold_for_ever_is_refused(office: Office) -> None:
    number = office.world.stage()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None
    until = metadata.later(office.world.now + 30 * DAY, signing.LIFE)
    drafts = signing.approval(office.files(), MODEL, number, found[1], until)
    signed = signing.sign(office.files(), drafts, KeyRing(office.folder("owner")).signers())
    texts = {name: data.decode() for name, data in signed.items()}
    answer = office.world.order(orders.Approve(model=MODEL, number=number, metadata=texts))
    assert answer.code == "untrusted" and "365 days" in answer.error


# --- revocation -------------------------------------------------------------------------------------------------


def test_a_release_is_revoked_by_as_many_as_approve_one(office: Office) -> None:
    office.hardened()
    number = office.world.stage()
    office.approve(number, "dana")
    office.approve(number, "eve")
    now = office.world.now
    assert owner.revoke(office.api, office.folder("dana"), MODEL, number, "bad rows", "dana", now) != ()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "approved"
    assert owner.revoke(office.api, office.folder("eve"), MODEL, number, "bad rows", "eve", now) == ()
    found = office.world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "revoked"
    assert "release-revoked" in office.world.codes()
    office.world.tick(5)
    assert [r.state.value for _, r in office.world.catalog.fleet.rollouts()] == ["reversed"]


def test_devices_hear_below_what_nothing_serves_any_more(office: Office) -> None:
    first, second = office.world.stage(), office.world.stage()
    assert office.world.catalog.releases.floor(MODEL) == 1, "nothing is approved"
    for number in (first, second):
        office.approve(number, "owner")
    assert office.world.catalog.releases.floor(MODEL) == first
    owner.revoke(office.api, office.folder("owner"), MODEL, first, "x", "owner", office.world.now)
    assert office.world.catalog.releases.floor(MODEL) == second


def test_what_was_revoked_is_neither_approved_nor_revoked_again(office: Office) -> None:
    number = office.world.stage()
    with pytest.raises(Untrusted, match="there is no model"):
        owner.revoke(office.api, office.folder("owner"), MODEL, number, "x", "owner", office.world.now)
    office.approve(number, "owner")
    owner.revoke(office.api, office.folder("owner"), MODEL, number, "x", "owner", office.world.now)
    with pytest.raises(Refused) as refused:
        office.approve(number, "owner")
    assert refused.value.code == "release-revoked"
    with pytest.raises(Untrusted, match="nothing to revoke"):
        owner.revoke(office.api, office.folder("owner"), MODEL, number, "x", "owner", office.world.now)


def test_devices_are_told_the_release_before_or_nothing(office: Office) -> None:
    one, two = office.world.enrol(ONE), office.world.enrol(TWO)
    for number in (office.world.stage(), office.world.stage()):
        signed = office.approve(number, "owner")
        for device in (one, two):
            office.world.hear(device.report({MODEL: serving(chunks.Digest(signed.digest), number)}))
        office.world.tick(5)
    wanted = office.world.catalog.fleet.wanted
    assert {w.number for w in (*wanted(ONE), *wanted(TWO))} == {2}
    owner.revoke(office.api, office.folder("owner"), MODEL, 2, "bad rows", "owner", office.world.now)
    assert {(w.number, w.mode) for w in (*wanted(ONE), *wanted(TWO))} == {(1, "live")}
    office.world.enrol(THREE)
    office.world.tick(5)
    assert {(w.number, w.mode) for w in wanted(THREE)} <= {(1, "live")}, "who enrols later does not get it either"
    owner.revoke(office.api, office.folder("owner"), MODEL, 1, "bad rows", "owner", office.world.now)
    assert {w.mode for w in (*wanted(ONE), *wanted(TWO))} == {"off"}


# --- keys -------------------------------------------------------------------------------------------------------


def test_an_organisation_from_the_first_day(world: World, desk: Desk, tmp_path: Path) -> None:
    api: Any = desk
    rings = {name: KeyRing(tmp_path / name) for name in ("amal", "badr", "carim", "dana")}
    keys = {name: ring.public(str(ring.make(name))) for name, ring in rings.items()}
    root = Quorum(tuple(keys[n] for n in ("amal", "badr", "carim")), 2)
    result = owner.init_organisation(api, tmp_path / "amal", root, Quorum((keys["dana"],), 1), "amal", world.now)
    assert list(result["waiting"]["signed"]) == ["amal"] and world.catalog.releases.trust() == {}
    assert not desk.get("/v1/status")["trust"]["initialised"]
    for name in ("badr", "dana"):
        shown = owner.pending(api, tmp_path / name)
        assert shown is not None and "the first root: 2 of amal" in shown.text[0]
        lacks = owner.sign(api, tmp_path / name, shown, name, world.now).lacks
    assert lacks == ()
    state = trust_state(world.catalog.releases.trust())
    assert (state.profile, state.badge) == ("organisation", "root needs 2 of 3 keys, a release 1 of 1")
    assert state.root is not None and [h.name for h in state.root.holders] == ["amal", "badr", "carim"]


def test_a_root_that_one_person_could_sign_is_no_organisations(office: Office) -> None:
    releases = Quorum(office.publics("dana"), 1)
    for root in (Quorum(office.publics("amal", "badr"), 2), Quorum(office.publics("amal", "badr", "carim"), 1)):
        with pytest.raises(BadLayout, match="two of three keys"):
            owner.harden(office.api, office.folder("owner"), root, releases, "owner", office.world.now)


def test_hardening_signs_what_there_is_anew(office: Office) -> None:
    """Root, targets and the roles of all models; the releases stay, and so does their order."""
    number = office.world.stage()
    office.approve(number, "owner")
    before = metadata.newest(office.files(), role_of(MODEL), Targets).signed.targets
    office.harden()
    assert office.layout().profile == "single-owner", "before everybody has signed nothing has changed"
    assert office.sign("amal", "badr", "dana", "eve") == ()
    assert office.layout().profile == "organisation"
    assert metadata.newest(office.files(), role_of(MODEL), Targets).signed.targets == before
    checking.check_base(office.files())
    publish.check_online(office.files())
    with pytest.raises(Trouble, match="organisation already"):
        office.harden()


def test_every_key_can_be_replaced_by_those_who_must_sign(office: Office) -> None:
    office.hardened()
    office.publics("eve2")
    new = str(office.folder("eve2") / "eve2.pub")
    changed = owner.rotate(office.api, office.folder("dana"), "eve", new, "dana", office.world.now)
    assert changed.text == (changed.text[0], changed.text[1]) and "eve (" in changed.text[0]
    assert office.sign("amal", "carim", "eve2") == ()
    assert [layouts.name_of(key) for key in office.layout().releases.keys] == ["dana", "eve2"]
    number = office.world.stage()
    office.approve(number, "dana")
    with pytest.raises(Trouble, match="none of your keys"):
        office.approve(number, "eve")
    assert office.approve(number, "eve2").lacks == ()


def test_a_key_that_nobody_has_or_two_have_is_not_replaced(office: Office) -> None:
    office.publics("new")
    new = str(office.folder("new") / "new.pub")
    with pytest.raises(Trouble, match=r"'nobody' is no key of this tenant; there are: owner \("):
        owner.rotate(office.api, office.folder("owner"), "nobody", new, "owner", office.world.now)
    with pytest.raises(Trouble, match="is no public key"):
        owner.rotate(office.api, office.folder("owner"), "owner", "absent", "owner", office.world.now)


@pytest.mark.parametrize("role", layouts.ONLINE)
def test_the_cores_own_keys_are_made_by_it_and_named_by_the_owner(office: Office, role: orders.OnlineRole) -> None:
    device = office.world.enrol(ONE)
    office.approve(office.world.stage(), "owner")
    office.world.tick(1)
    old = getattr(office.world.house.keys, role)
    assert owner.rotate_online(office.api, office.folder("owner"), role, "owner", office.world.now).lacks == ()
    new = getattr(office.world.house.keys, role)
    assert new != old and roles.signer(new).public_key.keyid == office.layout().online[role].keyid
    publish.check_online(office.files())
    office.world.reopen()
    assert getattr(office.world.house.keys, role) == new, "the root in force says which key counts"
    envelope = office.world.catalog.fleet.assignment(device.name)
    assert envelope is not None
    roles.verify(envelope[3], ASSIGNMENT_TYPE, Assignment, [roles.signer(office.world.house.keys.director).public_key])


def test_an_online_key_that_was_made_and_never_named_is_of_no_account(office: Office) -> None:
    before = office.world.house.keys
    office.world.must(orders.TrustKeys(fresh=("director",)))
    office.world.must(orders.TrustKeys(fresh=("director", "snapshot")))
    office.world.reopen()
    assert office.world.house.keys == before
    assert owner.rotate_online(office.api, office.folder("owner"), "director", "owner", office.world.now).lacks == ()


def test_a_root_over_keys_of_another_time_is_refused(office: Office) -> None:
    """Two rotations at once, and the first one's change is not waited for: the key that it asked for has gone."""
    office.hardened()
    first = office.world.must(orders.TrustKeys(fresh=("timestamp",)))["timestamp"]
    office.world.must(orders.TrustKeys(fresh=("timestamp",)))
    body = {field: value for field, value in first.items() if field != "keyid"}
    online = {**office.layout().online, "timestamp": roles.key_from_dict(first["keyid"], body)}
    layout = layouts.Layout(office.layout().root, office.layout().releases, online)
    drafts = signing.change(office.files(), layout, metadata.later(office.world.now, signing.LIFE))
    signed = signing.sign(office.files(), drafts, KeyRing(office.folder("amal")).signers())
    answer = office.world.order(orders.ChangeTrust(metadata={n: data.decode() for n, data in signed.items()}))
    assert answer.code == "untrusted" and "do it again" in answer.error
    publish.check_online(office.files())


def test_what_people_signed_is_renewed_with_the_same_keys(office: Office) -> None:
    office.approve(office.world.stage(), "owner")
    before = trust_state(office.files())
    office.world.now += 200 * DAY
    changed = owner.renew(office.api, office.folder("owner"), "owner", office.world.now)
    after = trust_state(office.files())
    assert changed.lacks == () and "nobody's key changes" in changed.text[0]
    for role in ("root", "targets"):
        old, new = getattr(before, role), getattr(after, role)
        assert (new.version, new.expires - old.expires) == (old.version + 1, 200 * DAY)
    assert after.models[MODEL].version == before.models[MODEL].version + 1


def test_online_metadata_is_signed_anew_by_itself(office: Office) -> None:
    """Snapshot and timestamp, at half of their life, for as long as the core runs; also under keys that changed."""
    office.approve(office.world.stage(), "owner")
    owner.rotate_online(office.api, office.folder("owner"), "timestamp", "owner", office.world.now)
    for _ in range(12):
        office.world.tick(2 * DAY)
        state = trust_state(office.files())
        assert state.timestamp is not None and state.timestamp.expires > office.world.now + 2 * DAY
        publish.check_online(office.files())
    assert office.world.codes().count("trust-renewed") == 6


def test_a_newcomer_is_told_the_root_in_force(office: Office) -> None:
    owner.renew(office.api, office.folder("owner"), "owner", office.world.now)
    assert office.world.token(ONE).root == chunks.digest(office.files()["2.root.json"])


# --- a core that was broken into --------------------------------------------------------------------------------


def test_a_core_with_another_history_gets_no_signature(office: Office, tmp_path: Path) -> None:
    """The owner's keys know their root: one that somebody else made is not extended, though it names their key."""
    number = office.world.stage()
    office.approve(number, "owner")
    (mine,) = KeyRing(office.folder("owner")).signers()
    alone, thief = Quorum((mine.public_key,), 1), roles.signer(roles.new_signing_key())
    both = Quorum((mine.public_key, thief.public_key), 1)
    forged = layouts.write(
        layouts.Layout(both, alone, office.layout().online), 2, metadata.later(office.world.now, signing.LIFE)
    )
    root: Metadata[Root] = Metadata(forged)
    root.sign(thief)
    with office.world.catalog.transaction():
        office.world.catalog.releases.put_trust({"2.root.json": metadata.write(root)})
    with pytest.raises(Untrusted, match="root 2 was not signed as root 1 asks"):
        office.approve(office.world.stage(), "owner")
    office.world.catalog.releases._db.execute("DELETE FROM trust_file WHERE name LIKE '%root.json'")
    first = json.loads(metadata.write(root))
    first["signed"]["version"] = 1
    with office.world.catalog.transaction():
        office.world.catalog.releases.put_trust({"1.root.json": json.dumps(first).encode()})
    with pytest.raises(Untrusted, match="another root than the one your keys know"):
        office.approve(office.world.stage(), "owner")


def test_what_was_slipped_into_the_targets_is_not_signed_along(office: Office) -> None:
    office.approve(office.world.stage(), "owner")
    name = f"1.{role_of(MODEL)}.json"
    role = metadata.parse(office.files()[name], Targets)
    role.signed.unrecognized_fields["x"] = 1
    with office.world.catalog.transaction():
        office.world.catalog.releases.put_trust({name: metadata.write(role)})
    with pytest.raises(Untrusted, match="its owners never signed"):
        office.approve(office.world.stage(), "owner")


def test_a_waiting_change_that_does_something_besides_is_shown_to_nobody(office: Office) -> None:
    office.harden()
    waiting = office.world.catalog.releases.proposal("root")
    assert waiting is not None
    targets = metadata.parse(waiting.metadata["targets"].encode(), Targets)
    targets.signed.unrecognized_fields["x"] = 1
    forged = {**waiting.metadata, "targets": metadata.write(targets).decode()}
    with office.world.catalog.transaction():
        office.world.catalog.releases.put_proposal(codec.decode(type(waiting), codec.encode(
            {**codec.builtins(waiting), "metadata": forged}), 1 << 20))  # fmt: skip
    with pytest.raises(Untrusted, match="something else"):
        owner.pending(office.api, office.folder("amal"))


def test_the_authority_is_of_no_use_for_signing(office: Office) -> None:
    pair = enrolment.create_authority(office.world.house.tenant, office.world.now)
    with pytest.raises(Untrusted, match="Ed25519"):
        roles.signer(pair.key)
