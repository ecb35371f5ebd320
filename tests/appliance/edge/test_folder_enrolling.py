"""Joining by a folder: what lies in it, what a thief can do with it, and what becomes of answers that are lost."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from appliance.edge.enrolling import EnrolFailed, Waits, read_token
from appliance.edge.folder_enrolling import ask, asks, complete
from appliance.edge.state import EdgeFolder, identity
from appliance.keys import box_public, new_device_keys
from core.handoffs import Box
from core.orders import Accept, ImportBoxes, IssueSiteToken, Replace
from sync import codec, roles
from sync.enrolment import ENROLMENT_TYPE, EnrolRequest, hash_secret, prove_request
from sync.names import DEFAULT_TENANT, DeviceId, Serial, SiteId
from tests.journey.by_folder import FarCore

ONE, TWO = DeviceId("far-1"), DeviceId("far-2")
NORTH = SiteId("north")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> FarCore:
    return FarCore(tmp_path_factory.mktemp("core"), 1_800_000_000.0)


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


@pytest.fixture
def box(tmp_path: Path) -> EdgeFolder:
    return EdgeFolder(tmp_path / "box")


def answer_in(stick: Path) -> Path:
    (found,) = (stick / "falaj" / "1" / DEFAULT_TENANT / "enrol").glob("*/answer")
    return found


def request_in(stick: Path) -> Path:
    (found,) = (stick / "falaj" / "1" / DEFAULT_TENANT / "enrol").glob("*/request")
    return found


def test_a_box_joins_and_cleans_up(core: FarCore, stick: Path, box: EdgeFolder) -> None:
    told = ask(box, stick, core.token(ONE), core.now)
    assert asks(box) and not box.enrolled() and complete(box, stick) is None
    assert core.trip(stick).enrolled == [ONE]
    answer = complete(box, stick)
    assert answer is not None and identity(box).device == ONE and len(told) == 29
    assert not asks(box) and not box.asking.exists()
    assert not list((stick / "falaj" / "1" / DEFAULT_TENANT / "enrol").rglob("re*"))


def test_the_secret_is_nowhere_in_the_folder(core: FarCore, stick: Path, box: EdgeFolder) -> None:
    token = core.token(ONE)
    ask(box, stick, token, core.now)
    core.trip(stick)
    lying = b"".join(path.read_bytes() for path in stick.rglob("*") if path.is_file())
    assert len(lying) > 2000
    assert read_token(token).secret.encode() not in lying and token.encode() not in lying
    assert read_token(token).secret.encode() in read_token_bytes(box)  # the same search finds it where it must be


def read_token_bytes(box: EdgeFolder) -> bytes:
    text = (box.asking / "token").read_text()
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_an_answer_may_be_lost_any_number_of_times(core: FarCore, stick: Path, box: EdgeFolder) -> None:
    ask(box, stick, core.token(ONE), core.now)
    before = core.trip(stick)
    answer_in(stick).unlink()
    assert core.trip(stick).enrolled == before.enrolled == [ONE]
    assert core.trip(stick).written == 0, "nothing has changed"
    first = complete(box, stick)
    assert first is not None and core.catalog.fleet.device(ONE).epoch == first.epoch


def test_asking_again_is_the_same_request(core: FarCore, stick: Path, box: EdgeFolder, tmp_path: Path) -> None:
    token = core.token(ONE)
    other = tmp_path / "other"
    other.mkdir()
    assert ask(box, stick, token, core.now) == ask(box, other, token, core.now)
    core.trip(other)
    assert complete(box, stick) is None and complete(box, other) is not None


def bent(core: FarCore, stick: Path) -> None:
    path = answer_in(stick)
    path.write_bytes(path.read_bytes().replace(b'"uplink_port":8883', b'"uplink_port":8884'))


def of_another_core(core: FarCore, stick: Path) -> None:
    path = answer_in(stick)
    path.write_bytes(path.read_bytes().replace(b'"proof":"', b'"proof":"0'))


def junk(core: FarCore, stick: Path) -> None:
    answer_in(stick).write_bytes(b"\x00" * 100)


@pytest.mark.parametrize("lie", [bent, of_another_core, junk])
def test_an_answer_that_is_not_the_cores_is_refused(
    core: FarCore, stick: Path, box: EdgeFolder, lie: Callable[[FarCore, Path], None]
) -> None:
    ask(box, stick, core.token(ONE), core.now)
    core.trip(stick)
    lie(core, stick)
    with pytest.raises(EnrolFailed, match="the answer in the folder"):
        complete(box, stick)
    assert not box.enrolled() and asks(box)
    core.trip(stick)
    assert complete(box, stick) is not None


def test_a_captured_folder_enrols_nobody_else(core: FarCore, stick: Path, box: EdgeFolder, tmp_path: Path) -> None:
    """The thief has the request, and neither the secret nor the keys: with keys of its own the proof does not hold, and
    with the box's words unchanged it is the box that joins."""
    ask(box, stick, core.token(ONE), core.now)
    captured = codec.decode(EnrolRequest, roles.peek(request_in(stick).read_bytes()))
    assert captured.proof and not captured.secret
    stolen = tmp_path / "stolen"
    thief = new_device_keys(ONE)
    own = replace(
        captured, csr=thief.csr.decode(), sealing_key=base64.b64encode(thief.sealing_public).decode()
    )  # the proof as it was captured
    sealing = replace(captured, sealing_key=own.sealing_key)  # what it is sealed to, under the box's own request
    for lie in (own, prove_request(own, hash_secret("a guess")), replace(own, proof="", secret="a guess"), sealing):
        shutil.copytree(stick, stolen)
        request_in(stolen).write_bytes(roles.sign(lie, ENROLMENT_TYPE, thief.signing))
        done = core.trip(stolen)
        assert len(done.turned_away) == 1 and not done.enrolled
        shutil.rmtree(stolen)
    assert "enrolment-refused" in core.codes()
    core.trip(stick)
    answer = complete(box, stick)
    assert answer is not None and core.catalog.fleet.device(ONE).sealing_key == _sealing_public(box)


def _sealing_public(box: EdgeFolder) -> bytes:
    return box_public(identity(box).sealing_key)


def test_a_used_token_admits_no_other_box(core: FarCore, stick: Path, box: EdgeFolder, tmp_path: Path) -> None:
    token = core.token(ONE)
    ask(box, stick, token, core.now)
    core.trip(stick)
    epoch = core.catalog.fleet.device(ONE).epoch
    late = tmp_path / "late"
    late.mkdir()
    ask(EdgeFolder(tmp_path / "second"), late, token, core.now)
    done = core.trip(late)
    assert not done.enrolled and "the token does not hold" in next(iter(done.turned_away.values()))
    assert core.catalog.fleet.device(ONE).epoch == epoch


def test_boxes_of_a_site_cannot_take_each_others_answers(core: FarCore, stick: Path, tmp_path: Path) -> None:
    """One token, two boxes: whoever carries the folder exchanges their answers."""
    boxes = tuple(Box(Serial(f"SN-{n}"), DeviceId(f"north-{n}"), NORTH, (f"line={n}",)) for n in (1, 2))
    core.order(ImportBoxes(boxes=boxes))
    token = core.order(IssueSiteToken(site=NORTH, uses=2))["token"]
    folders = {n: EdgeFolder(tmp_path / f"box-{n}") for n in (1, 2)}
    for n, folder in folders.items():
        ask(folder, stick, token, core.now, Serial(f"SN-{n}"))
    assert sorted(core.trip(stick).enrolled) == ["north-1", "north-2"]
    one, two = sorted((stick / "falaj" / "1" / DEFAULT_TENANT / "enrol").glob("*/answer"))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    for folder in folders.values():
        with pytest.raises(EnrolFailed, match="is not this token's core's"):
            complete(folder, stick)
    core.trip(stick)
    assert {complete(folder, stick).device for folder in folders.values()} == {"north-1", "north-2"}  # type: ignore[union-attr]
    assert {folder.enrolment().device: folder.enrolment().labels for folder in folders.values()} == {
        "north-1": ("line=1",), "north-2": ("line=2",),
    }  # fmt: skip


def test_a_box_that_waits_for_a_person_is_answered_on_a_later_trip(core: FarCore, stick: Path, box: EdgeFolder) -> None:
    token = core.order(IssueSiteToken(site=SiteId("south"), uses=1, approve=True))["token"]
    told = ask(box, stick, token, core.now, Serial("SN-9"))
    assert core.trip(stick).waiting == ["sn-9"]
    with pytest.raises(Waits, match=told):
        complete(box, stick)
    core.order(Accept(devices=(DeviceId("sn-9"),)))
    assert core.trip(stick).enrolled == ["sn-9"]
    assert complete(box, stick) is not None


def test_a_box_takes_its_name_up_again_and_keeps_what_was_sealed_to_it(
    core: FarCore, stick: Path, box: EdgeFolder
) -> None:
    ask(box, stick, core.token(ONE), core.now)
    core.trip(stick)
    complete(box, stick)
    before = identity(box)
    token = core.order(Replace(device=ONE))["token"]
    with pytest.raises(EnrolFailed, match="is enrolled already as far-1"):
        ask(box, stick, token, core.now)
    ask(box, stick, token, core.now, again=True)
    core.trip(stick)
    assert complete(box, stick) is not None
    after = identity(box)
    assert after.epoch == before.epoch + 1 and after.sealing_key == before.sealing_key
    assert after.signing_key != before.signing_key
