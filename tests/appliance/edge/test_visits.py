"""The agent's door: what a visitor may say, and what becomes of one that goes without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.api import UnixConnection
from appliance.edge.visits import FORGOTTEN, PATH, Reply, Turn, Visits
from edge.http.wire import Request
from edge.outbox import MOST
from edge.states import LinkChanged
from sync import codec
from sync.messages import SAMPLE, SampleBatch
from sync.names import DeviceId
from tests.journey.by_folder import MODEL, FarBox, FarCore, far_tenant
from tests.waiting import at_once

FAR = DeviceId("far-1")


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> tuple[FarCore, FarBox, Path]:
    return far_tenant(tmp_path_factory.mktemp("far"), FAR)


@pytest.fixture
def box(tenant: tuple[FarCore, FarBox, Path]) -> FarBox:
    return tenant[1]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (Request("GET", PATH), 405),
        (Request("POST", "/v1/status"), 404),
        (Request("POST", PATH, body=b"junk"), 400),
        (Request("POST", PATH, body=b'{"brought":[{"name":1}]}'), 400),
    ],
)
def test_what_is_no_turn_is_refused(box: FarBox, request_: Request, status: int) -> None:
    assert box.visits.serve(request_).status == status and not box.visits.open


def test_the_socket_answers_its_owner_alone(box: FarBox, tmp_path: Path) -> None:
    visits = Visits(
        box.house, box._happened, lambda: LinkChanged(False), lambda: box.clock, lambda: box.clock,
        box.agent.overview, at_once,
    )  # fmt: skip
    visits.listen(tmp_path / "agent.sock")
    try:
        assert (tmp_path / "agent.sock").stat().st_mode & 0o777 == 0o600
        connection = UnixConnection(tmp_path / "agent.sock")
        connection.request("GET", PATH)
        assert connection.getresponse().status == 405
        connection.close()
    finally:
        visits.close()
    assert not (tmp_path / "agent.sock").exists()


def test_a_path_too_long_for_a_socket_ends_nothing(box: FarBox, tmp_path: Path) -> None:
    box.visits.listen(tmp_path / ("x" * 120) / "agent.sock")
    box.visits.close()


def test_a_visitor_that_goes_without_a_word_is_forgotten(box: FarBox) -> None:
    box.visits.turn(Turn(begins=True))
    assert box.visits.open and box.house.line.up and box.house.line.keeps
    box.clock += FORGOTTEN
    box.visits.expire()
    assert box.visits.open
    box.clock += 1.0
    box.visits.expire()
    assert not box.visits.open and not box.house.line.up and not box.house.line.keeps


def test_the_uplink_may_come_and_go_meanwhile(box: FarBox) -> None:
    assert box.visits.beside(LinkChanged(False)) == LinkChanged(False)
    box.visits.turn(Turn(begins=True))
    assert box.visits.beside(LinkChanged(False)) == LinkChanged(True, keeps=True)
    reply = box.visits.turn(Turn(ends=True))
    assert reply.take and box.visits.beside(LinkChanged(True, session=3)) == LinkChanged(True, session=3)


def test_a_second_visitor_takes_the_place_of_one_that_broke_off(
    tenant: tuple[FarCore, FarBox, Path], tmp_path: Path
) -> None:
    core, box, stick = tenant
    box.visits.turn(Turn(begins=True))
    box.house.events.report(box._now(), "said-once", "heard once")
    core.now += 7200.0
    core.trip(stick)
    box.visit(stick)
    core.trip(stick)
    assert core.codes(FAR).count("said-once") == 1


def test_all_that_waits_goes_along_in_one_visit(tenant: tuple[FarCore, FarBox, Path]) -> None:
    """On a line a hundred records are under way at once; here there is nobody to answer."""
    core, box, stick = tenant
    for i in range(150):
        box.house.events.report(box._now(), "one-of-many", f"{i}")
    core.now += 3600.0
    box.visit(stick)
    core.trip(stick)
    assert core.codes(FAR).count("one-of-many") == 150
    box.visit(stick)
    assert not box.house.outbox.pending()


def test_years_of_records_go_along_in_parts_that_a_small_box_can_hold(tenant: tuple[FarCore, FarBox, Path]) -> None:
    core, box, stick = tenant
    for _ in range(1 + MOST // 60_000):
        box.house.outbox.add(SAMPLE, SampleBatch(MODEL, "internal", "", "A" * 60_000), box._now())
    box.house.events.report(box._now(), "said-last", "an alarm, which goes first")
    core.now += 3600.0
    done = box.visit(stick)
    assert "32 MiB of records go along in one trip" in done.told[-1]
    core.trip(stick)
    assert core.codes(FAR).count("said-last") == 1
    assert not box.visit(stick).told
    core.now += 60.0
    core.trip(stick)
    box.visit(stick)
    assert box.house.outbox.size() == 0


def test_an_old_acknowledgement_brought_again_gives_no_record_up(
    tenant: tuple[FarCore, FarBox, Path], tmp_path: Path
) -> None:
    """A record that a core stands right before again and again is given up on a line; a folder only repeats itself."""
    core, box, stick = tenant
    core.now += 3600.0
    core.trip(stick)
    box.house.events.report(box._now(), "patient", "waits for its trip")
    for _ in range(12):
        box.visit(stick)
    assert [kind for kind, _, _ in box.house.outbox.pending()] == ["event"]
    core.trip(stick)
    assert core.codes(FAR).count("patient") == 1


def test_a_reply_survives_its_way(box: FarBox) -> None:
    reply = Reply("far-1", ("trust/index",), take=(b"\x00\xff",), state={"models": {}})
    assert codec.decode(Reply, codec.encode(reply)) == reply
