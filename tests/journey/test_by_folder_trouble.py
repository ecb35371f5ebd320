"""A bad day with a folder: it is too old, damaged, full or full of junk, the site's line has no budget left, or weeks
of records wait. What can be done is done, and whoever carries it is told what was not."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import msgspec
import pytest

from appliance.cli.carry import _day
from appliance.core.trips import ESCAPED, trip
from appliance.edge import folder_enrolling
from appliance.edge.visits import Turn
from appliance.stick import Stick, StickFailed, StickFull
from core.console.api import BODY_LIMIT
from core.orders import CarryIn
from edge.agent.reporting import TRIES
from edge.budget import DAY, Budget
from edge.metering import Meter
from edge.outbox import Outbox
from edge.states import LinkChanged
from sync import carried, codec, topics
from sync.names import DEFAULT_TENANT, DeviceId, Digest, Kind
from sync.sealing import public_half
from tests.journey.by_folder import MODEL, FarBox, FarCore, far_tenant, round_trip

FAR = DeviceId("far-1")
Tenant = tuple[FarCore, FarBox, Path]


@pytest.fixture
def tenant(ram: Path) -> Tenant:
    return far_tenant(ram / "far", FAR)


def next_release(core: FarCore, stick: Path) -> None:
    core.release(2, (2.0, 2.5, 2.25))
    core.trip(stick)


def test_what_a_folder_brings_is_no_lines(tenant: Tenant, tmp_path: Path) -> None:
    """A line that is slow or has no byte left of its day is what a folder is carried for."""
    core, box, stick = tenant
    next_release(core, stick)
    day = int(core.now // DAY)
    budget = Budget(tmp_path / "budget.db", day, lambda code, text: None)
    box.house.line.meter = Meter(daily_bytes=1, bytes_per_second=1, budget=budget)
    box.visit(stick)
    assert box.house.deployments[MODEL].serving.release.number == 2
    assert not any(budget.spent("chunks down", one) for one in range(day - 2, day + 3))
    budget.close()


def test_two_owners_of_one_name_do_not_share_a_folder(tenant: Tenant, tmp_path: Path) -> None:
    """Both tenants are called `default`; whoever comes second would overwrite, and clear away, what the first has."""
    _, box, stick = tenant
    other, _, others_stick = far_tenant(tmp_path / "other", FAR)
    before = {path: path.read_bytes() for path in stick.rglob("*") if path.is_file()}
    with pytest.raises(StickFailed, match="another owner"):
        other.trip(stick, FAR)
    assert {path: path.read_bytes() for path in stick.rglob("*") if path.is_file()} == before
    other.trip(others_stick)
    assert not box.visit(stick).refused


def test_the_line_is_asked_for_no_chunk_while_a_folder_is_here(tenant: Tenant) -> None:
    _, box, stick = tenant
    chunk, index = topics.blob(DEFAULT_TENANT, Digest("0" * 64), 0), topics.trust(DEFAULT_TENANT, "index")
    asked: list[tuple[str, ...]] = []
    box.visits._state = lambda: asked.append(box.visits.leaves((chunk, index))) or {}
    box.visit(stick)
    assert set(asked[:-1]) == {(index,)} and asked[-1] == (chunk, index)


def test_a_folder_that_is_too_old_is_told(tenant: Tenant) -> None:
    core, box, stick = tenant
    next_release(core, stick)
    box.visit(stick)  # tells the time
    core.now += 3601.0
    core.trip(stick)
    box.tick(8 * DAY)
    done = box.visit(stick)
    assert not done.refused and any("has expired" in text for text in done.told)
    core.now = box.house.time.at(box.clock)
    core.trip(stick)
    assert box.visit(stick).told == ()


def test_a_damaged_chunk_is_told_and_the_next_whole_folder_heals_it(tenant: Tenant, tmp_path: Path) -> None:
    core, box, stick = tenant
    next_release(core, stick)
    bad = shutil.copytree(stick, tmp_path / "bad")
    for file in bad.rglob("blob/*/0"):
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    done = box.visit(bad)
    assert done.told and all("is not what was signed" in text for text in done.told)
    assert box.phase == "fetching" and box.ask() == 1.0
    assert box.visit(stick).told == () and box.house.deployments[MODEL].serving.release.number == 2


class SmallStick(Stick):
    """A stick of `room` bytes."""

    room = 0

    def write(self, name: str, content: bytes) -> bool:
        used = sum(p.stat().st_size for p in self.place.rglob("*") if p.is_file())
        old = self.read(name)
        if old != content and used - len(old or b"") + len(content) > self.room:
            raise StickFull("it is full")
        return super().write(name, content)


def test_on_a_full_stick_the_new_takes_the_place_of_what_nobody_needs(tenant: Tenant) -> None:
    core, box, stick = tenant
    core.release(2, (2.0, 2.5, 2.25))
    blobs, house = stick / "falaj" / "1" / DEFAULT_TENANT / "blob", core.steward.house
    for n in range(3):  # of some release long ago
        old = blobs / (str(n) * 64)
        old.mkdir()
        (old / "0").write_bytes(bytes(100_000))
    small = SmallStick(stick, DEFAULT_TENANT)
    small.room = sum(p.stat().st_size for p in stick.rglob("*") if p.is_file()) + 1
    done = trip(small, core, house.blobs.get, (), lambda text: None)
    assert not done.devices[FAR].refused and done.devices[FAR].models[MODEL]["number"] == 2
    box.visit(stick)
    assert box.house.deployments[MODEL].serving.release.number == 2


def test_a_stick_that_is_too_small_is_said_to_be_so(tenant: Tenant) -> None:
    core, _, stick = tenant
    core.release(2, (2.0, 2.5, 2.25))
    small = SmallStick(stick, DEFAULT_TENANT)
    with pytest.raises(StickFull):
        trip(small, core, core.steward.house.blobs.get, (), lambda text: None)


@pytest.mark.parametrize("junk", [b"\0", b"\xff", b'"', b"\\"])
def test_junk_in_the_place_of_a_bundle_does_not_keep_the_others_from_being_heard(tenant: Tenant, junk: bytes) -> None:
    """As text in an order it would be up to six times as large, and more than the core takes at once."""
    core, box, stick = tenant
    box.visit(stick)
    (stick / "falaj" / "1" / DEFAULT_TENANT / "d" / FAR / "up" / "7").write_bytes(junk * carried.LIMIT)
    orders: list[int] = []

    class Counted:
        def order(self, order: object) -> dict[str, object]:
            orders.append(len(codec.encode(order)))
            return core.order(order)

    told = trip(Stick(stick, DEFAULT_TENANT), Counted(), core.steward.house.blobs.get, (), lambda text: None)
    assert max(orders) <= carried.LIMIT + 2 * ESCAPED < BODY_LIMIT
    assert told.devices[FAR].bundles == 1 and told.devices[FAR].refused == ["d/far-1/up/7: it is no bundle of a device"]
    honest = (stick / "falaj" / "1" / DEFAULT_TENANT / "d" / FAR / "up" / "0").read_bytes()
    assert len(codec.encode(CarryIn(device=FAR, bundle=honest.decode()))) < len(honest) + ESCAPED


@pytest.mark.parametrize("ts", [1e300, -1e300, 1e15])
def test_a_device_that_names_no_time_is_shown_all_the_same(ts: float) -> None:
    assert _day(ts) == "at no time there is"


class CountedOutbox(Outbox):
    """Counts how often all that waits is read."""

    reads = 0

    def pending(self, limit: int = 100) -> list[tuple[Kind, int, bytes]]:
        self.reads += 1
        return super().pending(limit)


def test_what_waits_is_not_read_again_for_each_file(tenant: Tenant) -> None:
    """After weeks alone it is thousands of records, and a release has thousands of chunks."""
    core, box, stick = tenant
    next_release(core, stick)
    box.house.outbox.close()
    box.house.outbox = box.house.events.outbox = CountedOutbox(box.folder.outbox, box.house.identity.epoch, "boot-1")
    done = box.visit(stick)
    events = box.house.outbox.last(Kind("event"))
    assert done.brought >= 8 and box.house.outbox.reads <= 8
    round_trip(core, box, stick)
    assert core.catalog.fleet.received(FAR, 1, "event") >= events


def test_the_other_links_limit_holds_while_a_folder_is_here(tenant: Tenant) -> None:
    """It hears all that is said here, and one packet beyond what its broker takes would end its session."""
    _, box, _ = tenant
    box.visits._uplink = lambda: LinkChanged(True, session=3, limit=9000)
    box.visits.turn(Turn(begins=True))
    assert box.house.line.keeps and box.house.line.limit == 9000
    box.visits.turn(Turn(ends=True))
    assert (box.house.line.keeps, box.house.line.limit, box.house.line.session) == (False, 9000, 3)


def test_the_last_words_of_a_box_that_joins_anew_are_heard(tenant: Tenant) -> None:
    """They lie on the stick that brings its request, and nobody else will ever say them."""
    core, box, stick = tenant
    box.house.events.report(box.house.time.at(box.clock), "last-word", "before it is set up anew")
    box.visit(stick)
    folder_enrolling.ask(box.folder, stick, core.token(FAR), box.clock, again=True)
    done = core.trip(stick)
    assert done.enrolled == [FAR] and core.catalog.fleet.device(FAR).epoch == 2
    assert "last-word" in core.codes(FAR) and not done.devices[FAR].refused


def test_a_carrier_that_brings_answers_and_takes_no_words_along_costs_no_record(tenant: Tenant) -> None:
    """Without words the core stands where it stood: that is no sign of a record that it cannot take in."""
    core, box, stick = tenant
    box.house.events.report(box.house.time.at(box.clock), "kept-back", "the core must hear this")
    for _ in range(2 * TRIES):
        box.visit(stick)
        withheld = shutil.copytree(stick, stick.with_name("withheld"), dirs_exist_ok=True)
        shutil.rmtree(stick / "falaj" / "1" / DEFAULT_TENANT / "d" / FAR / "up")
        box.tick(3601.0)
        core.now += 3601.0
        core.trip(stick, FAR)
    assert not box.house.outbox.quarantined()
    core.trip(withheld)
    assert "kept-back" in core.codes(FAR)


def test_a_record_that_the_core_heard_and_cannot_take_in_is_given_up_by_folder_too(tenant: Tenant) -> None:
    core, box, stick = tenant
    strange = base64.b64encode(public_half(bytes([7]) * 32)).decode()
    box.house.events.report(box.house.time.at(box.clock), "word", "one of many")
    visits = 0
    while not box.house.outbox.quarantined():
        box.house.assignment = msgspec.structs.replace(box.house.assignment, reports_key=strange)
        box.visit(stick)
        box.tick(3601.0)
        core.now += 3601.0
        core.trip(stick)
        visits += 1
        assert visits <= 2 * TRIES
    assert visits > TRIES
