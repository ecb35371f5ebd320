"""Fleets join: lists of boxes, tokens for a site, a person's word; each box once, under its own name."""

from __future__ import annotations

from msgspec.structs import replace

from appliance.keys import new_device_keys
from core import orders
from core.fleet import boxes as lists
from core.handoffs import Box
from sync.enrolment import fingerprint
from sync.names import DeviceId, Serial, SiteId
from tests.core.newcomers import SITE, ask, boxes, join, site_token, token_in
from tests.core.world import ONE, World


def test_two_hundred_boxes_of_a_list_join_by_one_token(world: World) -> None:
    text = "serial,name,site,labels\n" + "".join(f"SN-{n:03},box-{n:03},north,line=a;old\n" for n in range(200))
    answer = world.must(orders.ImportBoxes(boxes=lists.read(text)))
    assert answer == {"boxes": 200, "sites": ["north"]}
    token = site_token(world, uses=200)
    for n in range(200):
        assert join(world, token, f"SN-{n:03}").name == f"box-{n:03}"
    assert len(world.catalog.fleet.devices()) == 200
    assert not ask(world, token, "SN-000", new_device_keys("x")).ok, "all uses are used"


def test_a_box_learns_its_labels_when_it_joins(world: World) -> None:
    """By whatever token: of its site, its own, or as the successor of another."""
    world.must(orders.ImportBoxes(boxes=boxes(2)))
    keys, careful = new_device_keys("SN-001"), site_token(world, uses=1, approve=True)
    at_once = ask(world, site_token(world, uses=1), "SN-000", new_device_keys("SN-000"))
    assert at_once.result["labels"] == ("line=a",)
    assert "labels" not in ask(world, careful, "SN-001", keys).result
    world.must(orders.Accept())
    assert ask(world, careful, "SN-001", keys).result["labels"] == ("line=a",)
    relabelled = replace(boxes(1)[0], labels=("line=b", "spare"))
    world.must(orders.ImportBoxes(boxes=(relabelled,)))
    token = token_in(world.must(orders.Replace(device=relabelled.name)))
    assert ask(world, token, None, new_device_keys("x"), device=relabelled.name).result["labels"] == ("line=b", "spare")
    own = token_in(world.must(orders.IssueToken(device=ONE)))
    assert ask(world, own, None, new_device_keys("y"), device=ONE).result["labels"] == (), "nobody announced it"


def test_a_box_that_lost_its_answer_asks_again_and_uses_nothing_up(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=boxes(2)))
    token, keys = site_token(world, uses=2), new_device_keys("SN-000")
    first, second = (ask(world, token, "SN-000", keys) for _ in range(2))
    assert first.ok and first.result == second.result
    world.now += 3601
    assert ask(world, token, "SN-000", keys).result == first.result, "also when the token has expired"
    assert not ask(world, token, "SN-001", new_device_keys("SN-001")).ok
    assert [d.epoch for d in world.catalog.fleet.devices()] == [1]


def test_another_box_with_the_same_number_is_turned_away_and_told(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=boxes(1)))
    token = site_token(world, uses=5)
    device = join(world, token, "SN-000")
    answer = ask(world, token, "SN-000", new_device_keys("SN-000"))
    assert answer.code == "serial-taken" and "falaj device replace box-000" in answer.hint
    found = world.catalog.fleet.device(DeviceId("box-000"))
    assert found is not None and (found.epoch, found.state) == (device.epoch, "enrolled")
    assert world.catalog.events.newest(1)[0].severity == "alarm"


def test_one_key_is_one_device_however_many_names_it_asks_for(world: World) -> None:
    """Else a copied disk, or a liar with the token of a site, has two votes where two devices decide."""
    world.must(orders.ImportBoxes(boxes=boxes(3)))
    token, careful = site_token(world, uses=3), site_token(world, uses=3, approve=True)
    first = join(world, token, "SN-000")
    answer = ask(world, token, "SN-001", first.keys)
    assert (answer.ok, answer.code) == (False, "key-taken") and world.codes()[-1] == "key-taken"
    assert world.catalog.fleet.device(DeviceId("box-001")) is None
    keys = new_device_keys("SN-001")
    assert ask(world, careful, "SN-001", keys).ok and ask(world, careful, "SN-002", keys).ok
    assert world.order(orders.Accept(devices=(DeviceId("box-001"),))).ok
    assert world.order(orders.Accept(devices=(DeviceId("box-002"),))).code == "key-taken"
    world.must(orders.Revoke(device=DeviceId("box-001"), reason="its name was wrong"))
    assert world.order(orders.Accept(devices=(DeviceId("box-002"),))).ok


def test_a_token_opens_its_site_alone(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=(*boxes(1), Box(Serial("SN-S"), DeviceId("south-1"), SiteId("south")))))
    token = site_token(world, uses=5)
    assert ask(world, token, "SN-S", new_device_keys("x")).code == "serial-unknown"
    assert ask(world, token, "SN-S", new_device_keys("x"), site=SiteId("south")).code == "enrolment-refused"
    assert ask(world, token, "SN-404", new_device_keys("x")).code == "serial-unknown"
    assert ask(world, token, None, new_device_keys("x")).code == "serial-unknown"
    assert ask(world, token, "SN-000", new_device_keys("x"), secret="guess").code == "enrolment-refused"
    assert world.catalog.fleet.devices() == [] and world.catalog.identities.all_waiting() == []


def test_with_approval_a_box_waits_for_a_person_and_keeps_its_keys(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=boxes(1)))
    token, keys = site_token(world, uses=2, approve=True), new_device_keys("SN-000")
    told = ask(world, token, "SN-000", keys)
    (waiting,) = world.catalog.identities.all_waiting()
    assert told.result == {"waiting": "box-000", "fingerprint": fingerprint(waiting.signing_key)}
    assert world.codes()[-1] == "device-waiting" and world.catalog.fleet.devices() == []
    assert ask(world, token, "SN-000", keys).result == told.result
    assert ask(world, token, "SN-000", new_device_keys("SN-000")).code == "serial-taken"
    assert world.must(orders.Accept(devices=(DeviceId("box-000"),))) == {"accepted": ["box-000"]}
    assert ask(world, token, "SN-000", keys).result["device"] == "box-000"
    assert world.catalog.identities.all_waiting() == []


def test_with_approval_a_box_nobody_announced_waits_under_its_number(world: World) -> None:
    token = site_token(world, uses=3, approve=True)
    for serial in ("AB_12.C", "ZZ-9"):
        assert ask(world, token, serial, new_device_keys(serial)).ok
    assert world.must(orders.Accept())["accepted"] == ["ab-12-c", "zz-9"]
    assert [d.device for d in world.catalog.fleet.devices()] == ["ab-12-c", "zz-9"]


def test_an_unannounced_box_never_takes_a_device_that_is_there(world: World) -> None:
    world.enrol(ONE)
    token = site_token(world, uses=3, approve=True)
    assert ask(world, token, str(ONE), new_device_keys("x")).code == "serial-taken"
    assert world.catalog.identities.all_waiting() == []


def test_who_waits_can_be_sent_away(world: World) -> None:
    token = site_token(world, uses=3, approve=True)
    ask(world, token, "ZZ-9", new_device_keys("x"))
    world.must(orders.Revoke(device=DeviceId("zz-9"), reason="not ours"))
    assert world.catalog.identities.all_waiting() == []
    assert world.order(orders.Accept(devices=(DeviceId("zz-9"),))).code == "not-waiting"


def test_a_list_is_taken_whole_or_not_at_all(world: World) -> None:
    world.must(orders.ImportBoxes(boxes=boxes(2)))
    world.must(orders.ImportBoxes(boxes=boxes(2)))  # the same again does no harm
    taken = Box(Serial("SN-999"), DeviceId("box-001"), SITE)
    assert world.order(orders.ImportBoxes(boxes=(*boxes(5), taken))).code == "box-taken"
    for twin in (Box(Serial("SN-777"), DeviceId("box-003"), SITE), Box(Serial("SN-003"), DeviceId("other"), SITE)):
        assert world.order(orders.ImportBoxes(boxes=(*boxes(5)[2:], twin))).code == "box-twice"
    assert len(world.catalog.identities.boxes()) == 2
    join(world, site_token(world, uses=1), "SN-000")
    renamed = Box(Serial("SN-000"), DeviceId("another"), SITE)
    assert world.order(orders.ImportBoxes(boxes=(renamed,))).code == "box-taken"


def test_a_sites_secret_is_not_kept_and_a_token_for_nobody_is_none(world: World) -> None:
    token = site_token(world, uses=1)
    assert token.secret not in str(world.catalog.events.newest())
    assert world.order(orders.IssueSiteToken(site=SITE, uses=0)).code == "no-uses"
