"""Owners who are deceived, hurried or at odds: a core that was broken into, a colleague who means no good, clocks that
differ, a command that two people give at once, keys that were lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from securesystemslib.signer import Key

from appliance.api import Refused
from appliance.core import owner
from appliance.core.key_ring import KeyRing
from appliance.errors import Trouble
from core import orders
from core.console.trust_state import trust_state
from core.release import layout as layouts
from core.release import metadata, publish, signing
from core.release.layout import BadLayout, Layout, Quorum
from sync import roles
from sync.errors import Untrusted
from sync.manifest import role_of
from tests.core.desk import Desk
from tests.core.office import Office
from tests.core.world import DAY, MODEL, World


@pytest.fixture
def office(tmp_path: Path) -> Office:
    world = World(tmp_path / "core")
    return Office(world, Desk(world), tmp_path / "people")


def order(office: Office, layout: Layout, *names: str, life: float = 0.0, releases: bool = False) -> orders.ChangeTrust:
    """A change of keys as nobody's `falaj trust` makes it, signed by these people."""
    until = metadata.later(office.world.now + life, signing.LIFE)
    drafts = signing.change(office.files(), layout, until, releases=releases)
    for name in names:
        drafts = signing.sign(office.files(), drafts, KeyRing(office.folder(name)).signers())
    return orders.ChangeTrust(actor="mallory", metadata={name: data.decode() for name, data in drafts.items()})


# --- what people are shown --------------------------------------------------------------------------------------


def under(keyid: str, key: Key) -> Key:
    """Another key under the id of somebody's."""
    return roles.key_from_dict(keyid, key.to_dict())


def _director(layout: Layout, thief: Key) -> Layout:
    return replace(layout, online={**layout.online, "director": under(layout.online["director"].keyid, thief)})


def _approver(layout: Layout, thief: Key) -> Layout:
    mine = layouts.key_of(under(layout.releases.keys[0].keyid, thief), "dana")
    return replace(layout, releases=Quorum((mine, *layout.releases.keys[1:]), layout.releases.threshold))


@pytest.mark.parametrize("swapped", [_director, _approver])
def test_another_key_under_a_known_id_is_shown_to_nobody(
    office: Office, swapped: Callable[[Layout, Key], Layout]
) -> None:
    """By ids alone nothing would seem to change, and whoever signs would hand the tenant over."""
    office.hardened()
    thief = roles.signer(roles.new_signing_key()).public_key
    asked = order(office, swapped(office.layout(), thief), "amal")
    answer = office.world.order(asked)
    assert (answer.ok, answer.code) == (False, "bad-layout") and "not the id of its key" in answer.error


def test_a_key_that_is_called_otherwise_is_told(office: Office) -> None:
    office.hardened()
    layout = office.layout()
    renamed = replace(layout, root=Quorum((layouts.key_of(layout.root.keys[0], "zoe"), *layout.root.keys[1:]), 2))
    assert any("amal" in line and "zoe" in line for line in layouts.told(layout, renamed))


def test_what_shall_hold_for_ever_is_signed_by_nobody(office: Office) -> None:
    """The core would refuse it; one that was broken into would not."""
    office.hardened()
    asked = order(office, office.layout(), "amal", releases=True)
    assert office.world.order(asked).ok
    shown = owner.pending(office.api, office.folder("badr"))
    assert shown is not None and shown.text[-1].startswith("holds until ")
    forever = signing.change(office.files(), office.layout(), metadata.later(office.world.now + 3e9, signing.LIFE))
    with pytest.raises(Untrusted, match="365 days"):
        owner.sign(office.api, office.folder("badr"), replace(shown, drafts=forever), "badr", office.world.now)


def test_a_release_that_was_revoked_is_not_signed_back(office: Office, tmp_path: Path) -> None:
    """A core that was broken into shows the role as it was before the revocation: the next two approvals would have
    signed the revoked release along."""
    number = office.world.stage()
    office.approve(number, "owner")
    old = {name: data for name, data in office.files().items() if name.endswith(f"{role_of(MODEL)}.json")}
    owner.revoke(office.api, office.folder("owner"), MODEL, number, "bad", "owner", office.world.now)
    with office.world.catalog.transaction():
        office.world.catalog.releases._db.execute("DELETE FROM trust_file WHERE name LIKE '2.model.%'")
    assert {n for n in office.files() if role_of(MODEL) in n} == set(old)
    with pytest.raises(Untrusted, match=f"{role_of(MODEL)} 1, and your keys have seen 2"):
        office.approve(office.world.stage(), "owner")


def test_a_root_that_is_hidden_is_missed(office: Office, tmp_path: Path) -> None:
    """A core that says it has none yet would have a first root signed, of whatever layout."""
    office.hardened()
    office.world.must(order(office, office.layout(), "amal"))
    assert owner.pending(office.api, office.folder("badr")) is not None, "his keys know the root now"
    other = World(tmp_path / "another core")
    badr, carim, thief = office.publics("badr", "carim", "thief")
    desk, root = Desk(other), Quorum((badr, carim, thief), 2)
    owner.init_organisation(desk, office.folder("thief"), root, Quorum((thief,), 1), "thief", other.now)  # type: ignore[arg-type]
    with pytest.raises(Untrusted, match="your keys know the root of a tenant"):
        owner.pending(desk, office.folder("badr"))  # type: ignore[arg-type]


def test_a_core_that_was_made_anew_is_not_begun_with_keys_that_know_another(office: Office, tmp_path: Path) -> None:
    """It was begun, and from then on nothing could be signed there: the keys knew the root of the core before."""
    other = World(tmp_path / "another core")
    desk = Desk(other)
    with pytest.raises(Untrusted, match=r"remove .*root\.json"):
        owner.init(desk, office.folder("owner"), "owner", other.now)  # type: ignore[arg-type]
    assert other.catalog.releases.trust() == {}
    for name in ("root.json", "seen.json"):
        (office.folder("owner") / name).unlink(missing_ok=True)
    owner.init(desk, office.folder("owner"), "owner", other.now)  # type: ignore[arg-type]
    with pytest.raises(Refused) as refused:
        owner.init(desk, office.folder("owner"), "owner", other.now)  # type: ignore[arg-type]
    assert refused.value.code == "trust-exists"


# --- two at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [600.0, -600.0])
def test_clocks_that_differ_make_no_signature_void(office: Office, behind: float) -> None:
    office.hardened()
    number = office.world.stage()
    office.approve(number, "dana")
    office.world.now -= behind
    assert office.approve(number, "eve").lacks == ()
    assert "signatures-dropped" not in office.world.codes()


def test_two_who_rotate_the_same_key_sign_the_same_change(office: Office) -> None:
    """Each gives the same command; before, each had another key made, and the signatures of the other were void."""
    office.hardened()
    api, now = office.api, office.world.now
    assert owner.rotate_online(api, office.folder("amal"), "timestamp", "amal", now).lacks
    assert owner.rotate_online(api, office.folder("amal"), "timestamp", "amal", now).lacks, "whoever signs twice ..."
    assert owner.rotate_online(api, office.folder("badr"), "timestamp", "badr", now).lacks == ()
    assert "signatures-dropped" not in office.world.codes()
    publish.check_online(office.files())


def test_a_key_that_waits_for_its_root_is_not_lost_to_whoever_asks_for_another(office: Office) -> None:
    office.hardened()
    owner.rotate_online(office.api, office.folder("amal"), "timestamp", "amal", office.world.now)
    office.world.must(orders.TrustKeys(fresh=("timestamp",)))
    with pytest.raises(Trouble, match="none of your keys"):
        owner.rotate_online(office.api, office.folder("dana"), "timestamp", "dana", office.world.now)
    assert office.sign("badr") == ()
    publish.check_online(office.files())


def test_whoever_puts_another_change_in_the_place_of_one_that_waits_is_told(office: Office) -> None:
    office.hardened()
    now = office.world.now
    assert len(owner.renew(office.api, office.folder("amal"), "amal", now).text) == 1
    changed = owner.rotate_online(office.api, office.folder("badr"), "timestamp", "badr", now)
    assert changed.text[-1].startswith("what waited for signatures before is void")
    again = owner.rotate_online(office.api, office.folder("badr"), "timestamp", "badr", now)
    assert "void" not in again.text[-1]


def test_whoever_has_no_key_here_makes_no_signature_void(office: Office) -> None:
    """A layout that names a stranger asks for that stranger's signature; it must not push the others' out."""
    office.hardened()
    owner.renew(office.api, office.folder("amal"), "amal", office.world.now)
    stranger = office.publics("mallory")
    layout = office.layout()
    root = Quorum((*layout.root.keys, *stranger), 2)
    answer = office.world.order(order(office, replace(layout, root=root), "mallory"))
    assert (answer.ok, answer.code) == (False, "untrusted") and "key is in force" in answer.error
    waiting = office.world.catalog.releases.proposal("root")
    assert waiting is not None and waiting.signed == ("amal",)
    assert office.sign("badr", "dana", "eve") == ()


# --- one person -------------------------------------------------------------------------------------------------


def test_two_key_files_do_not_make_two_people(office: Office) -> None:
    ring, approvers = KeyRing(office.folder("amal")), Quorum(office.publics("dana"), 1)
    twice = tuple(ring.public(str(ring.make(name, holder))) for name, holder in (("a1", "Amal"), ("a2", " amal")))
    root = Quorum((*twice, *office.publics("badr")), 2)
    with pytest.raises(BadLayout, match="amal holds two"):
        owner.harden(office.api, office.folder("owner"), root, approvers, "owner", office.world.now)


def test_a_root_that_one_lost_key_would_end_is_not_made(office: Office) -> None:
    root, approvers = Quorum(office.publics("amal", "badr", "carim"), 3), Quorum(office.publics("dana"), 1)
    with pytest.raises(BadLayout, match="one that is lost"):
        owner.harden(office.api, office.folder("owner"), root, approvers, "owner", office.world.now)


def test_an_absent_holder_is_replaced_by_those_who_are_there(office: Office) -> None:
    """Of the root, carim; of two approvers who must both sign, eve: nothing could be released before."""
    office.hardened()
    for gone, comes in (("carim", "carim2"), ("eve", "eve2")):
        office.publics(comes)
        new = str(office.folder(comes) / f"{comes}.pub")
        owner.rotate(office.api, office.folder("amal"), gone, new, "amal", office.world.now)
        office.sign("badr", *(("dana", "eve2") if gone == "eve" else ()))
        assert gone not in [layouts.name_of(key) for key in office.layout().people]
    number = office.world.stage()
    office.approve(number, "dana")
    assert office.approve(number, "eve2").lacks == ()


# --- keys that were lost, and time that was wrong ---------------------------------------------------------------


def lose(office: Office, *lost: orders.OnlineRole) -> None:
    """The core starts, and has other keys than the root names: as after a restore of half a backup."""
    fresh = {role: roles.new_signing_key() for role in lost}
    office.world.house.keys = replace(office.world.house.keys, **fresh)  # type: ignore[arg-type]
    office.world.take(office.world.steward.start(office.world.now))


def test_with_keys_that_no_root_names_the_core_signs_nothing_and_says_so(office: Office) -> None:
    number = office.world.stage()
    office.approve(number, "owner")
    before = office.files()
    lose(office, "timestamp", "director")
    alarm = next(e for e in office.world.catalog.events.newest(5) if e.code == "online-key-missing")
    assert alarm.severity == "alarm" and "falaj trust rotate --role director" in alarm.text
    office.world.tick(5 * DAY)
    assert office.files() == before, "what devices believe is not written over by what they do not"
    changed = owner.rotate_online(office.api, office.folder("owner"), "director", "owner", office.world.now)
    assert changed.lacks == () and any("timestamp" in line for line in changed.text), "both at once"
    publish.check_online(office.files())
    office.world.tick(5 * DAY)
    assert office.files()["timestamp.json"] != before["timestamp.json"]


def test_what_was_signed_by_a_clock_that_was_ahead_is_signed_anew(office: Office) -> None:
    """Else it would hold for years, and hide from every device that time stands still."""
    office.approve(office.world.stage(), "owner")
    right = office.world.now
    office.world.now += 3650 * DAY
    office.world.tick(DAY)
    office.world.now = right
    office.world.tick(DAY)
    expires = trust_state(office.files()).timestamp.expires  # type: ignore[union-attr]
    assert expires < office.world.now + 8 * DAY
