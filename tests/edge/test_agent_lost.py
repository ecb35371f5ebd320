"""Rows of the journal that cannot be read, as the walker meets them: one model starts without a past, what was refused
stays out, and the core's order brings the rest back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.agent import trusting
from edge.states import Phase
from sync import roles, topics
from sync.errors import Untrusted
from sync.link import Message
from sync.names import TrustFile
from sync.reports import ANY
from tests.edge.device import Device, committed
from tests.edge.stage import Stage
from tests.edge.test_agent_roots import next_root, publish
from tests.edge.world import DEVICE, MODEL, TENANT, Core

HALF = b'{"model":"mo'
CODE = "journal-row-unreadable"


def spoil(device: Device, query: str, *values: object) -> None:
    """The power is cut, and meanwhile something happens to the file."""
    device.cut_power()
    with closing(sqlite3.connect(device.folder / "journal.db")) as db, db:
        assert db.execute(query, values).rowcount == 1


def ordered(device: Device, envelope: bytes) -> None:
    """An order arrives that is not retained on the broker."""
    message = Message(topics.desired(TENANT, DEVICE), envelope, 1)
    device.carry_out(device.agent.handle(message, device.now))
    device.settle(2, ask=0)


def test_a_model_that_lost_its_past_is_brought_back_by_its_order(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot(link=False)
    spoil(device, "UPDATE deployment SET document = ?", HALF)
    device.boot(link=False)
    assert device.answering is None and device.state.phase is Phase.FETCHING, "its order is known, its past is not"
    (told,) = [event for event in device.events() if event.code == CODE]
    assert (told.severity, told.model, told.facts) == ("alarm", MODEL, {"table": "deployment"})
    assert "deployment motion" in told.text and "Deployment" in told.text
    device.connect()
    device.settle(7, ask=0)
    assert committed(device, 1) and device.house.journal.put_aside is None
    device.cut_power()
    device.boot(link=False)
    assert committed(device, 1) and device.codes().count(CODE) == 1


def test_what_was_refused_stays_out_though_the_models_past_is_lost(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    stage.core.assign(stage.shipped[3], device.identity)
    device.settle(8, ask=0)
    assert committed(device, 1) and "golden-mismatch" in device.codes()
    spoil(device, "UPDATE deployment SET document = ?", HALF)
    device.boot().settle(8)
    assert (device.state.phase, device.answering) == (Phase.NO_MODEL, None)
    stage.core.assign(stage.shipped[1], device.identity)
    device.settle(8, ask=0)
    assert committed(device, 1)


def test_a_verdict_that_cannot_be_read_bars_whatever_it_may_have_barred(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    stage.core.assign(stage.shipped[3], device.identity)
    device.settle(8, ask=0)
    spoil(device, "UPDATE quarantine SET manifest = ?", "zz")
    device.boot().settle(8, ask=0)
    assert committed(device, 1) and device.codes().count(CODE) == 1
    assert device.codes().count("release-offered") == 2, "it is not even fetched"
    stage.core.assign(stage.shipped[2], device.identity)
    device.settle(8, ask=0)
    assert committed(device, 1), "it may be the one that was refused"
    assert device.reported().models[MODEL].quarantined == {ANY: 0}, "a rollout waits no longer than a person does"
    stage.core.assign(stage.shipped[2], device.identity, retry=1)
    device.settle(8, ask=0)
    assert committed(device, 2)


def test_an_older_order_is_a_replay_though_the_models_past_is_lost(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    older = device.house.journal.assignment()
    stage.core.assign(stage.shipped[2], device.identity, floor=2)
    device.settle(8, ask=0)
    assert committed(device, 2) and older is not None
    spoil(device, "UPDATE deployment SET document = ?", HALF)
    device.boot(link=False)
    ordered(device, older)
    assert device.answering is None and device.codes()[-1] == "refused-untrusted"
    device.connect()
    device.settle(8, ask=0)
    assert committed(device, 2) and device.state.previous == ()


def test_a_release_whose_record_is_lost_comes_again_and_was_not_refused(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    stage.core.assign(stage.shipped[2], device.identity)
    device.settle(8, ask=0)
    spoil(device, "UPDATE accepted SET record = ? WHERE number = 2", HALF)
    device.boot(link=False)
    assert committed(device, 1) or device.answering == 1, "who was before it answers meanwhile"
    assert device.house.journal.quarantined(MODEL) == () and {CODE, "record-lost"} <= set(device.codes())
    device.connect()
    device.settle(9, ask=0)
    assert committed(device, 2)


def test_an_order_that_cannot_be_read_any_more_is_brought_back_by_the_brokers_copy(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot(link=False)
    order = device.house.journal.assignment()
    assert order is not None
    spoil(device, "UPDATE assignment SET envelope = ?", HALF)
    device.boot(link=False)
    assert committed(device, 1) and device.house.assignment is None and "refused-malformed" in device.codes()
    device.connect()
    stage.core.desire(order)
    device.settle(2, ask=0)
    assert device.house.assignment is not None and device.house.journal.assignment() == order


def test_a_lost_root_is_found_again_in_what_was_accepted_under_it(core: Core, device: Device) -> None:
    publish(core, next_root(core, director=roles.new_signing_key()))
    device.settle(2, ask=0)
    device.commit(core.ship(2), 9)
    spoil(device, "UPDATE root SET document = ?", HALF)
    device.boot(link=False)
    assert device.house.trust.root == core.files["2.root.json"] and device.house.assignment is not None
    assert committed(device, 2) and device.codes()[-1] == CODE


def test_where_the_newest_root_is_lost_no_older_director_is_heard_before_it_comes_again(
    core: Core, device: Device
) -> None:
    old, second = core.director, core.ship(2)
    device.commit(second, 9)
    publish(core, next_root(core, director=roles.new_signing_key()))
    device.settle(2, ask=0)
    core.assign(second, device.identity)
    device.settle(2, ask=0)
    seq = device.house.journal.counter("desired_seq")
    assert device.house.assignment is not None
    spoil(device, "UPDATE root SET document = ?", HALF)
    device.boot(link=False)
    assert device.house.trust.root == core.root and device.house.assignment is None
    with pytest.raises(Untrusted, match="came again"):
        trusting.directors(device.house)  # of commands as well
    ordered(device, core.assignment(core.order(core.ship(3), device.identity), seq=99, by=old))
    assert device.house.assignment is None and committed(device, 2)
    device.connect()
    device.settle(3, ask=0)
    assert device.house.trust.root == core.files[TrustFile("2.root.json")]
    assert device.house.assignment is not None and device.house.journal.counter("desired_seq") == seq
