"""Attack 5: names that are more than a name: wildcards, separators, NUL, look-alikes, the core's own. At every door."""

from __future__ import annotations

import json

import pytest
from cryptography import x509
from flask.testing import FlaskClient

from appliance.keys import new_device_keys
from core.fleet import boxes as lists
from core.fleet.guesses import TOLD
from core.orders import ImportBoxes
from sync import roles, topics
from sync.enrolment import ENROLMENT_TYPE
from sync.names import BadName, DeviceId, Serial
from tests.core.newcomers import boxes, join, site_token
from tests.core.world import ONE, World, request

NAMES = (
    "+", "#", "watch/1", "d/+", "$SYS", "$share/g/x", "core@falaj", "watch-1\x00", "\x00", "", " watch-1", "watch-1\n",
    "Watch-1", "wаtch-1", "watch\u20101", "ｗatch-1", "..", "../watch-1", "watch_1", "%u", "%c", "w" * 64,
)  # fmt: skip


@pytest.fixture
def world(lone_world: World) -> World:
    return lone_world


@pytest.mark.parametrize("name", NAMES)
def test_05_no_such_name_gets_in_by_a_request(world: World, client: FlaskClient, name: str) -> None:
    token = world.token(ONE)
    before = world.codes()
    response = client.post("/v1/enrol", data=request(token, new_device_keys(ONE), device=name))
    assert response.status_code in (400, 403) and "certificate" not in response.get_json()
    assert world.catalog.fleet.devices() == []
    assert world.codes() == [*before, "enrolment-refused"]
    honest = client.post("/v1/enrol", data=request(token, new_device_keys(ONE)))
    assert honest.status_code == 200, "the token has lost nothing by it, and the door is open"


def test_05_names_without_end_are_told_of_a_few_times_an_hour(world: World, client: FlaskClient) -> None:
    for name in NAMES * 3:
        client.post("/v1/enrol", data=request(world.token(ONE), new_device_keys(ONE), device=name))
    told = world.codes()
    assert told.count("enrolment-refused") == TOLD and told.count("enrolment-flood") == 1
    quoted = [e for e in world.catalog.events.newest(100) if e.code.startswith("enrolment-")]
    assert all(len(e.text) < 500 for e in quoted)


@pytest.mark.parametrize("name", NAMES)
def test_05_nor_by_a_list_or_an_order_or_a_topic(world: World, name: str) -> None:
    with pytest.raises(BadName):
        DeviceId(name)
    with pytest.raises(lists.BadLine):
        # blanks around a field are a habit of spreadsheets, and no part of it
        lists.read(f"serial,name,site\nA,{name.strip() if name.strip() != 'watch-1' else '#'},n\n")
    with pytest.raises(BadName):
        topics.parse(f"{topics.tenant_root(world.house.tenant)}/d/{name}/status")


@pytest.mark.parametrize("serial", ["+", "#", "a/b", "SN\x00", "", "SN 1", "ＳN1", "../x", "S" * 65, "core@falaj"])
def test_05_nor_as_a_serial_number(world: World, client: FlaskClient, serial: str) -> None:
    world.must(ImportBoxes(boxes=boxes(1)))
    token, keys = site_token(world, uses=5, approve=True), new_device_keys("x")
    with pytest.raises(BadName):
        Serial(serial)
    said = {"tenant": token.tenant, "device": None, "secret": token.secret, "csr": keys.csr.decode(),
            "sealing_key": "AA==", "site": str(token.site), "serial": serial}  # fmt: skip
    envelope, before = roles.sign(json.loads(json.dumps(said)), ENROLMENT_TYPE, keys.signing), world.codes()
    assert client.post("/v1/enrol", data=envelope).status_code == 400
    assert world.catalog.identities.all_waiting() == []
    assert world.codes() == [*before, "enrolment-refused"]
    assert join(world, site_token(world, uses=1), "SN-000").name == "box-000", "an honest box joins"


def test_05_a_box_cannot_choose_its_name(world: World) -> None:
    """Not by the name in its request for a certificate, nor beside its serial number."""
    world.must(ImportBoxes(boxes=boxes(1)))
    device = join(world, site_token(world, uses=1), "SN-000")
    assert x509.load_pem_x509_certificate(device.certificate).subject.rfc4514_string() == "CN=box-000"
