"""An enrolled device that sends whatever it likes on its own topics: the steward stays up, small and fair."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from msgspec.structs import replace
from sqlcipher3 import dbapi2 as sqlcipher

from core import orders
from core.catalog import is_hosts
from core.console.facts import gather
from core.console.learning import cards, drifted
from core.console.pages import compose
from core.console.why_card import whys
from core.fleet.floods import COST, ROOM
from core.handoffs import RolloutState
from core.ingest.spool import Entry, Spool
from core.steward.ears import CARD_LIMIT, FACTS, KINDS, TEXT, WORD
from core.steward.spooling import SHARE
from sync import codec
from sync.link import Message
from sync.messages import DeviceEvent, SampleBatch
from sync.names import DeviceId, Digest, ModelName
from sync.reports import DriftReport, LabelReport, RoadReport, Side, TrialReport, WhyCard
from tests.core.pairs import paired, shadowing
from tests.core.world import MODEL, ONE, START, TWO, Device, World, serving

OLD, NEW = Side(1, Digest("a" * 64), 0.9), Side(2, Digest("b" * 64), 0.4)
CARD = WhyCard(MODEL, START, "shadow", "worse-than-incumbent", "worse in 9 of 12 blocks", NEW, OLD)


def batch(size: int = 4096, model: ModelName = MODEL) -> SampleBatch:
    return SampleBatch(model, "internal", "", base64.b64encode(b"x" * size).decode())


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 10**30, 0, -1])
def test_a_card_about_a_number_that_no_table_holds_is_malformed(world: World, device: Device, number: int) -> None:
    world.hear(device.record(replace(CARD, new=replace(NEW, number=number)), 1, kind="why"))
    assert world.codes()[-1] == "record-malformed" and world.catalog.fleet.whys() == []
    world.hear(device.record(CARD, 2, kind="why"))
    assert len(world.catalog.fleet.whys()) == 1, "the queue behind it moves on"


def test_a_card_is_no_book(world: World, device: Device) -> None:
    world.hear(device.record(replace(CARD, text="x" * CARD_LIMIT), 1, kind="why"))
    assert world.codes()[-1] == "record-malformed" and world.catalog.fleet.whys() == []


@pytest.mark.parametrize(
    "card",
    [
        replace(CARD, ts=1e300, log_harm=-1e308, harm_at=1e-308, log_safe=1e308, safe_at=-1.0),
        replace(CARD, new=replace(NEW, accuracy=1e308, answers=2**62, errors=-(2**62), p99_ms=1e308)),
        replace(CARD, trial=TrialReport(NEW.manifest, OLD.manifest, 2**62, "labels", -1, 2**62, -5, 2**62)),
        replace(CARD, criterion="<b>\u0000", phase="", text=""),
    ],
    ids=["figures", "sides", "trial", "words"],
)
def test_a_card_of_absurd_figures_is_shown_all_the_same(world: World, device: Device, card: WhyCard) -> None:
    world.hear(device.record(card, 1, kind="why"))
    (shown,) = whys(gather(world.catalog, world.now), world.now)
    assert shown.device == ONE and all(0 <= meter.filled <= 100 for meter in shown.meters)


def test_kinds_of_records_that_a_device_makes_up_fill_neither_catalog_nor_memory(world: World, device: Device) -> None:
    world.hear(device.record(DeviceEvent("code", "text"), 1))
    for i in range(2 * KINDS):
        world.hear(device.record({"of": i}, 1, kind=f"made-up-{i}"))
        world.hear(device.message(f"up/junk-{i}", b"junk"))
    known = world.catalog.fleet.all_received(ONE, device.epoch)
    assert len(known) + len(world.house.memory.stuck) == KINDS and world.codes()[-1] == "refused-untrusted"
    world.hear(device.record(DeviceEvent("code", "text"), 2))
    assert world.catalog.fleet.received(ONE, device.epoch, "event") == 2, "what it always said is heard"


def test_events_are_cut_to_a_size_of_which_many_fit(world: World, device: Device) -> None:
    facts: dict[str, str | int | float] = {f"{i:04}{'k' * 300}": "v" * 300 for i in range(60)}
    world.hear(device.record(DeviceEvent("c" * 500, "t" * 9000, None, "alarm", facts), 1))
    event = world.catalog.events.newest(1)[0]
    assert (len(event.code), len(event.text)) == (WORD, TEXT)
    assert len(event.facts) == FACTS + 2 and all(len(name) <= WORD for name in event.facts)
    assert max(len(str(fact)) for fact in event.facts.values()) == WORD


def test_an_event_keeps_the_number_it_came_under(world: World, device: Device) -> None:
    world.hear(device.record(DeviceEvent("odd", "", None, "info", {"n": 99, "device_ts": -1.0, "big": 10**30}), 1))
    facts = world.catalog.events.newest(1)[0].facts
    assert (facts["n"], facts["device_ts"]) == (1, START)


def test_a_number_of_thousands_of_digits_stops_nobody(world: World, device: Device) -> None:
    digits = b"9" * 20_000
    world.hear(device.record(b'{"code":"a","text":"t","facts":{"n":' + digits + b"}}", 1))
    card = codec.encode(CARD).replace(b'"number":2', b'"number":' + digits[:5000])
    world.hear(device.record(card, 2, kind="why"))
    world.hear(device.report({MODEL: serving(Digest("a" * 64), answers=10**18)}))
    world.tick()
    assert world.catalog.fleet.whys() == []


def test_no_device_takes_the_place_of_the_others_in_the_spool(world: World, device: Device) -> None:
    world.house.spool_bytes = SHARE * 3 * 4096
    other = world.enrol(TWO)
    for n in range(1, 9):
        world.hear(device.record(batch(), n, kind="sample"))
    world.hear(other.record(batch(), 1, kind="sample"))
    waiting = world.house.spool.entries(MODEL)
    assert [entry.device for entry in waiting] == [ONE, ONE, ONE, TWO]
    assert world.catalog.samples.spooled(ONE) == 3 * 4096 and world.catalog.samples.spooled() == 4 * 4096
    events = [e for e in world.catalog.events.newest() if e.code == "samples-dropped"]
    assert [(e.source, e.facts["device"]) for e in events] == [(ONE, ONE)], "once, and in the device's own room"


def test_a_loss_is_said_once_whatever_others_send_between(world: World, device: Device) -> None:
    world.house.spool_bytes = SHARE * 3 * 4096
    other = world.enrol(TWO)
    for n in range(1, 4):
        world.hear(device.record(batch(), n, kind="sample"))
    for n in range(1, 4):
        world.hear(device.record(batch(), 3 + n, kind="sample"))
        world.hear(other.record(batch(10), n, kind="sample"))
    assert world.codes().count("samples-dropped") == 1


def test_names_that_a_device_makes_up_get_no_folder(world: World, device: Device) -> None:
    for n in range(1, 6):
        world.hear(device.record(batch(10, ModelName(f"made-up-{n}")), n, kind="sample"))
    assert list((world.folder / "samples").iterdir()) == [] and world.catalog.samples.spooled() == 0
    assert world.codes().count("samples-dropped") == 1
    assert world.catalog.fleet.received(ONE, 1, "sample") == 5, "acknowledged: the device must not wait for ever"


def test_what_has_landed_leaves_a_count_and_no_row(world: World, device: Device) -> None:
    for n in range(1, 6):
        world.hear(device.record(batch(10), n, kind="sample"))
    with world.catalog.transaction():
        world.catalog.samples.mark_landed(MODEL, ONE, 1, 4)
        world.catalog.samples.mark_landed(MODEL, ONE, 1, 4)
        world.catalog.samples.mark_landed(MODEL, DeviceId("nobody"), 1, 9)
    totals, waiting = world.catalog.samples.totals(MODEL), world.catalog.samples.waiting(MODEL)
    assert (totals.batches, totals.landed, waiting.batches, waiting.bytes) == (5, 4, 1, 10)
    (rows,) = world.catalog._db.execute("SELECT count(*) FROM sample_batch").fetchone()
    assert rows == 1


HUGE = 10**400  # what a document may hold, and no float


@pytest.mark.parametrize(
    "lie",
    [
        {"answers": HUGE},
        {"labelled": LabelReport(HUGE, -HUGE)},
        {"road": RoadReport("labelled", 1, HUGE, 1)},
        {"trial": TrialReport(NEW.manifest, OLD.manifest, 0, "labels", 10, HUGE)},
        {"quarantined": {NEW.manifest: HUGE}},
        {"reason": "x" * 100_000},
        {"drift": DriftReport("alarm", 1, 0.0, ("x" * 100_000,), 5.0)},
    ],
    ids=lambda lie: next(iter(lie)),
)
def test_a_report_that_no_page_could_show_is_refused(world: World, device: Device, lie: dict[str, Any]) -> None:
    world.hear(device.report({MODEL: serving(Digest("a" * 64), **lie)}))
    row = world.catalog.fleet.device(ONE)
    assert world.codes()[-1] == "refused-malformed" and row is not None and row.report is None


ABSURD: list[dict[str, Any]] = [
    {"answers": -(2**62), "errors": 2**62, "since": -1e308},
    {"labelled": LabelReport(-1, 2**62), "road": RoadReport("steal", -1, -(2**62), 2**62, -5)},
    {"trial": TrialReport(NEW.manifest, OLD.manifest, 0, "labels", 10, 2**62, -(2**62), 2**62, -7, 2**62)},
    {"drift": DriftReport("?", -5, 1e308, ("<i>",) * 50, 1e308)},
    {"drift": DriftReport("alarm", 2**62, -1e308, (), -1e308)},
    {"quarantined": {NEW.manifest: 2**62}, "wanted": NEW.manifest, "phase": "<script>"},
]


@pytest.mark.parametrize("lie", ABSURD, ids=lambda lie: next(iter(lie)))
def test_absurd_figures_in_range_move_no_rollout_and_break_no_page(world: World, lie: dict[str, Any]) -> None:
    world.must(orders.ApplyProject(project=paired(), folder=str(world.folder)))
    device = world.enrol(ONE)
    old = world.release(b"old")
    world.hear(device.report({MODEL: serving(old[1], old[0])}))
    new = world.release(b"new")
    said = replace(shadowing(new, old), **lie)
    if said.trial is not None:
        said = replace(said, trial=replace(said.trial, manifest=new[1], against=old[1]))
    world.hear(device.report({MODEL: said}))
    world.tick()
    assert world.catalog.fleet.rollouts()[0][1].state is RolloutState.SHADOW
    assert compose(gather(world.catalog, world.now), world.now)


def test_models_that_a_device_makes_up_get_no_place_on_the_pages(world: World, device: Device) -> None:
    drift = DriftReport("alarm", 9, 5.0, ("x",), START)
    models = {ModelName(f"made-up-{i}"): serving(Digest("a" * 64), drift=drift) for i in range(300)}
    world.hear(device.report(models))
    facts = gather(world.catalog, world.now)
    assert [card.model for card in cards(facts, world.now)] == [MODEL] and drifted(facts) == {}


class _Broken(Spool):
    """A spool with a mistake in it."""

    def put(self, model: ModelName, entry: Entry, sealed: bytes) -> None:
        raise ArithmeticError("a secret of the payload")


def test_a_message_that_breaks_our_own_code_is_told_once_and_stops_nobody(world: World, device: Device) -> None:
    world.house.spool = _Broken(world.folder / "samples")
    before = world.house.memory.floods.of[ONE].tokens if ONE in world.house.memory.floods.of else ROOM
    for _ in range(2):
        assert world.hear(device.record(batch(), 1, "sample")) == [], "it is not acknowledged"
    (event,) = [e for e in world.catalog.events.newest() if e.code == "message-failed"]
    assert event.severity == "alarm" and "ArithmeticError in test_hostile_device.py" in event.text
    assert "secret" not in event.text and world.house.memory.floods.of[ONE].tokens < before - 2 * COST
    world.hear(device.report())
    found = world.catalog.fleet.device(ONE)
    assert found is not None and found.report is not None, "what it says besides is heard"


class _Starved(Spool):
    """A spool in a process that gets no more memory."""

    def put(self, model: ModelName, entry: Entry, sealed: bytes) -> None:
        raise MemoryError


def test_memory_that_is_used_up_is_no_fault_of_the_message(world: World, device: Device) -> None:
    world.house.spool = _Starved(world.folder / "samples")
    with pytest.raises(MemoryError):
        world.hear(device.record(batch(), 1, "sample"))
    assert not world.house.actions and "message-failed" not in world.codes()


def test_nor_is_a_catalog_that_cannot_be_written(world: World, device: Device) -> None:
    world.catalog._db.execute("PRAGMA query_only = 1")
    with pytest.raises(sqlcipher.OperationalError, match="readonly"):
        world.hear(device.report())
    world.catalog._db.execute("PRAGMA query_only = 0")
    assert "message-failed" not in world.codes()


def test_what_sqlite_says_of_a_question_is_no_fault_of_the_host(world: World) -> None:
    for question in ("SELECT nothing", "INSERT INTO project (id) VALUES ('x')", "SELECT 1, ?"):
        with pytest.raises(sqlcipher.Error) as refused:
            world.catalog._db.execute(question)
        assert not is_hosts(refused.value), question
    assert is_hosts(MemoryError()) and not is_hosts(OverflowError())


def statements(world: World, message: Message) -> int:
    """How many the catalog is asked while this is heard."""
    asked: list[str] = []
    world.catalog._db.set_trace_callback(asked.append)
    world.hear(message)
    world.catalog._db.set_trace_callback(None)
    return len(asked)


def test_asking_for_hundreds_of_blobs_that_nobody_knows_costs_what_one_costs(world: World, device: Device) -> None:
    world.hear(device.report())
    one, many = ({Digest(f"{n:064x}"): (0,) for n in range(count)} for count in (1, 300))
    alone = statements(world, device.report(missing=one))
    assert 0 < statements(world, device.report(missing=many)) <= alone
