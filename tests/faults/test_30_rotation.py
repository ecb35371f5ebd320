"""Fault 30: keys are replaced while some of the devices are away, several times over; who comes back late catches up by
itself, and nobody is stranded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance import certificates
from appliance.core import owner
from appliance.core.key_ring import KeyRing
from appliance.core.state import authority_folder
from core.fleet import enrolment, renewal
from core.orders import Authority, OnlineRole
from core.release import layout
from core.release.metadata import root_in_force
from sync.durable import write_private
from tests.attacks.estate import Estate, Holders
from tests.core.world import MODEL

BOXES = tuple(f"press-{i}" for i in range(1, 11))
AWAY = BOXES[-3:]
ROLES: tuple[OnlineRole, ...] = ("timestamp", "snapshot", "director")


def rotated(estate: Estate) -> int:
    """All keys there are, one after the other, then to another profile; the number of the root that is reached."""
    now = estate.world.now
    for role in ROLES:
        assert owner.rotate_online(estate.api, estate.owner, role, "test", now).lacks == ()
    KeyRing(estate.owner).make("second", "the owner")
    assert owner.rotate(estate.api, estate.owner, "owner", "second", "test", now).lacks == ()
    people = estate.home / "people"
    estate.harden(Holders(people, ("amal", "badr", "carim")), Holders(people, ("dana", "eve")), 2)
    root = root_in_force(estate.trust())
    assert root is not None and layout.read(root).profile == "organisation"
    return int(root.version)


def approve(estate: Estate) -> int:
    number = estate.stage()
    for name in ("dana", "eve"):
        owner.approve(estate.api, estate.home / "people" / name, MODEL, number, name, estate.world.now)
    return number


def test_30_late_devices_catch_up_with_every_rotation_at_once(ram: Path) -> None:
    """Ten boxes, three of which are switched off while all keys there are change."""
    estate = Estate(ram, *BOXES)
    assert estate.release() == 1
    estate.leave(*AWAY)
    before = {name: estate.identity(name) for name in BOXES}
    reached = rotated(estate)
    estate.pass_time(4)
    assert reached == 6
    assert {estate.mark(name)["root"] for name in BOXES[:-3]} == {reached}
    number = approve(estate)
    estate.until_serving(number, *BOXES[:-3])
    estate.come_back(*AWAY)
    assert {estate.serves(name) for name in AWAY} == {1}, "they serve from the first moment on"
    estate.until_serving(number)
    assert {estate.mark(name)["root"] for name in BOXES} == {reached}
    assert {name: estate.identity(name) for name in BOXES} == before, "nobody touched a device"
    # An order of the new director may come before the root that names it: refused, and asked for again after the root.
    assert {text.partition(": ")[2] for text in estate.refused()} <= {"no valid signature of a trusted key"}


def test_30_a_core_that_is_killed_between_rotations_signs_with_the_right_keys(ram: Path) -> None:
    """And who joins then learns the newest root alone."""
    estate = Estate(ram, "press-1", "press-2")
    assert estate.release() == 1
    estate.leave("press-2")
    for role in ROLES:
        owner.rotate_online(estate.api, estate.owner, role, "test", estate.world.now)
        estate.world.kill_core()
        estate.world.start_core()
    estate.come_back("press-2")
    newcomer = estate.boxes["press-3"] = estate.world.join("press-3")
    assert '"version":4' in (newcomer.folder.identity / "root.json").read_text()
    number = estate.release()
    assert {estate.serves(name) for name in estate.boxes} == {number}


# --- the certificate authority ----------------------------------------------------------------------------------


def certificate_of(estate: Estate, name: str) -> bytes:
    return estate.identity(name)["device.pem"]


def believes(estate: Estate, name: str) -> list[str]:
    """Fingerprints of those whom a box takes for the broker."""
    return [enrolment.fingerprint(pem.encode()) for pem in certificates.authorities(estate.identity(name)["ca.pem"])]


def state(estate: Estate) -> dict[str, Any]:
    return estate.world.order(Authority())


def finish(estate: Estate, *strand: str) -> Any:
    """The steward's answer."""
    return estate.world._ask(Authority(step="finish", strand=strand))  # type: ignore[arg-type]


def test_30_the_authority_follows_another_and_strands_nobody(ram: Path) -> None:
    """Ten boxes, three of which are switched off from before the next authority is made until it shall be in force."""
    estate = Estate(ram, *BOXES)
    assert estate.release() == 1
    estate.leave(*AWAY)
    old = state(estate)["authority"]
    told = estate.world.order(Authority(step="begin"))
    new = told["next"]
    assert (told["authority"], told["devices"], told["unheard"]) == (old, 10, sorted(BOXES))
    estate.pass_time(3)
    assert (state(estate)["unheard"], state(estate)["unrenewed"]) == (sorted(AWAY), [])
    assert {tuple(believes(estate, name)) for name in BOXES[:-3]} == {(old, new)}
    assert {tuple(believes(estate, name)) for name in AWAY} == {(old,)}

    refused = finish(estate)
    assert (refused.ok, refused.code) == (False, "devices-behind")
    assert refused.error.startswith(f"{', '.join(sorted(AWAY))}: not known")
    newcomer = estate.boxes["press-11"] = estate.world.join("press-11")
    estate.leave("press-1")  # it has changed already, and is away when the old one goes
    estate.come_back(*AWAY)
    estate.pass_time(3)
    assert finish(estate).ok and not finish(estate).ok, "once"
    estate.pass_time(2)
    estate.come_back("press-1")
    estate.pass_time(2)
    new_pem = authority_folder(estate.world.core, estate.world.keys).held()[0].certificate
    assert enrolment.fingerprint(new_pem) == new
    for name in (*BOXES, newcomer.name):
        assert believes(estate, name) == [new]
        assert certificates.check_issued(certificate_of(estate, name), new_pem)
        assert estate.codes(name).count("certificate-refused") == 0
    assert {estate.serves(name) for name in BOXES} == {1}
    assert estate.release() == 2, "and the tenant lives on"


def test_30_who_is_left_behind_is_named_first_and_comes_back_by_hand(ram: Path) -> None:
    estate = Estate(ram, "press-1", "press-2")
    before = certificate_of(estate, "press-2")
    estate.leave("press-2")
    estate.world.order(Authority(step="begin"))
    estate.pass_time(2)
    assert finish(estate, "press-1").code == "devices-behind", "another name is not this one's"
    assert finish(estate, "press-2").ok
    assert "press-2" in estate.world.steward.house.catalog.events.newest(1)[0].text
    assert not renewal.issued_by(before, authority_folder(estate.world.core, estate.world.keys).held()[0].certificate)
    # The order that waits for it names the next authority and its certificate: a folder brings it, where no line can.
    estate.come_back("press-2")
    estate.pass_time(2)
    assert believes(estate, "press-2") == believes(estate, "press-1") == [state(estate)["authority"]]


@pytest.mark.parametrize("cut", ["nothing", "half a file", "authorities alone"])
def test_30_a_power_cut_between_any_two_writes_of_a_device_is_caught_up(ram: Path, cut: str) -> None:
    estate = Estate(ram, "press-1", "press-2")
    for step in ("begin", "finish"):
        before = estate.identity("press-1")
        estate.world.order(Authority(step=step))  # type: ignore[arg-type]
        estate.pass_time(3)
        after = estate.identity("press-1")
        assert after["ca.pem"] != before["ca.pem"]
        estate.leave("press-1")
        own = estate.boxes["press-1"].folder.identity
        write_private(own / "device.pem", before["device.pem"])
        if cut != "authorities alone":
            write_private(own / "ca.pem", before["ca.pem"])
        if cut == "half a file":
            (own / "ca.pem.tmp").write_bytes(after["ca.pem"][:99])
        found = certificates.check_issued((own / "device.pem").read_bytes(), (own / "ca.pem").read_bytes())
        assert found, "it believes whom its certificate is by, wherever it was cut"
        estate.come_back("press-1")
        estate.pass_time(3)
        assert {n: c for n, c in estate.identity("press-1").items() if not n.endswith(".tmp")} == after
        assert state(estate)["unheard"] == state(estate)["unrenewed"] == []


def test_30_a_core_that_is_killed_between_the_steps_goes_on_where_it_was(ram: Path) -> None:
    """Before it has told anybody, and again before it has told that the old one is gone."""
    estate = Estate(ram, "press-1")
    house = estate.world.steward.house
    house.authorities.bring(enrolment.create_authority(house.tenant, estate.world.now))
    estate.world.kill_core()
    estate.world.start_core()
    estate.pass_time(3)
    assert len(believes(estate, "press-1")) == 2 and not state(estate)["unrenewed"]
    estate.world.steward.house.authorities.settle()
    estate.world.kill_core()
    estate.world.start_core()
    estate.pass_time(3)
    assert believes(estate, "press-1") == [state(estate)["authority"]]
    assert state(estate)["next"] is None
