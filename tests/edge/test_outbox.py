"""Store and forward: numbers without a gap, gone when committed, and a full box tells new things late."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.gaps import is_gap
from edge.outbox import Outbox
from edge.overflow import CAPACITY, ROOM, Held, victim
from sync import codec, topics
from sync.messages import ALARM, CSR, EVENT, METRICS, SAMPLE, DeviceEvent, Record
from sync.names import Kind


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


def event(code: str) -> DeviceEvent:
    return DeviceEvent(code, "it happened")


def numbers(box: Outbox, kind: Kind = EVENT) -> list[int]:
    return [n for k, n, _ in box.pending(CAPACITY) if k == kind]


def gap(box: Outbox) -> tuple[int, object, object]:
    """(number, first, last) of the oldest record, which is a gap."""
    _, n, document = box.pending(1)[0]
    record = codec.decode(Record, document)
    said = codec.decode(DeviceEvent, bytes(record.body))
    assert (said.code, record.n) == (topics.GAP, n)
    return n, said.facts["first"], said.facts["last"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["event", "metrics", "restart", "ack"]), max_size=30))
def test_numbers_rise_without_a_gap_within_their_kind(
    tmp_path_factory: pytest.TempPathFactory, luck: list[str]
) -> None:
    path = tmp_path_factory.mktemp("box") / "outbox.db"
    box = Outbox(path, 1, "b")
    given_out = {EVENT: 0, METRICS: 0}
    acked = 0
    for what in luck:
        if what == "restart":
            box.close()
            box = Outbox(path, 1, "b")
        elif what == "ack":
            acked = given_out[EVENT]
            box.acknowledged(EVENT, 1, acked)
        else:
            box.add(Kind(what), event(what), 1.0)
            given_out[Kind(what)] += 1
        assert numbers(box) == list(range(acked + 1, given_out[EVENT] + 1))
        assert numbers(box, METRICS) == list(range(1, given_out[METRICS] + 1))
    box.close()


def test_a_record_carries_its_place_and_its_body(path: Path) -> None:
    box = Outbox(path, 3, "boot-1")
    box.add(EVENT, event("lamp-on"), 12.5)
    ((kind, n, document),) = box.pending()
    record = codec.decode(Record, document)
    assert (kind, n, record.epoch, record.n, record.ts, record.boot) == (EVENT, 1, 3, 1, 12.5, "boot-1")
    assert codec.decode(DeviceEvent, bytes(record.body)) == event("lamp-on")
    box.close()


def test_an_acknowledgement_is_for_its_kind_and_epoch_alone(path: Path) -> None:
    box = Outbox(path, 2, "b")
    for _ in range(4):
        box.add(EVENT, event("a"), 1.0)
        box.add(METRICS, event("m"), 1.0)
    box.acknowledged(EVENT, 1, 4)
    box.acknowledged(EVENT, 2, 2)
    box.acknowledged(EVENT, 2, 1)
    assert (numbers(box), numbers(box, METRICS)) == ([3, 4], [1, 2, 3, 4])
    assert not box.acknowledged(EVENT, 2, 4)
    assert numbers(box) == []
    box.close()


def test_another_epoch_counts_from_one(path: Path) -> None:
    first = Outbox(path, 1, "b")
    first.add(EVENT, event("a"), 1.0)
    first.close()
    second = Outbox(path, 2, "b")
    second.add(EVENT, event("b"), 1.0)
    assert numbers(second) == [1]
    second.close()


def test_a_full_box_drops_the_oldest_and_counts_them(path: Path) -> None:
    box = Outbox(path, 1, "b")
    box.close()
    db = sqlite3.connect(path)
    with db:
        db.executemany("INSERT INTO record VALUES (1, 'event', ?, x'7b7d')", [(n,) for n in range(1, CAPACITY + 1)])
        db.execute("INSERT INTO numbered VALUES (1, 'event', ?)", (CAPACITY,))
    db.close()
    box = Outbox(path, 1, "b")
    assert box.dropped() == 0
    for _ in range(3):
        box.add(EVENT, event("new"), 1.0)
    assert box.dropped() == 4
    kept = numbers(box)
    assert (kept[0], kept[-1], len(kept)) == (4, CAPACITY + 3, CAPACITY)
    assert gap(box) == (4, 1, 4), "one record stands for all that were dropped, so that the core need not wait"
    box.close()


def fill(path: Path, *rows: tuple[str, int, int], size: int = 2) -> None:
    """Writes records of a kind with the numbers from one to another, each of `size` bytes."""
    Outbox(path, 1, "b").close()
    db = sqlite3.connect(path)
    with db:
        for kind, first, last in rows:
            numbered = [(kind, n, size) for n in range(first, last + 1)]
            db.executemany("INSERT INTO record VALUES (1, ?, ?, zeroblob(?))", numbered)
            db.execute("INSERT INTO numbered VALUES (1, ?, ?)", (kind, last))
    db.close()


def test_alarms_leave_first_and_are_dropped_when_nothing_else_is_left(path: Path) -> None:
    fill(path, (ALARM, 1, CAPACITY - 4), (EVENT, 1, 3), (METRICS, 1, 1))
    box = Outbox(path, 1, "b")
    box.alarms_apart = True
    assert [kind for kind, _, _ in box.pending(CAPACITY - 4)] == [ALARM] * (CAPACITY - 4)
    for _ in range(2):
        box.add(ALARM, event("fire"), 1.0)
        box.add(ALARM, event("fire"), 1.0)
        assert numbers(box) == [3] and gap_of(box, EVENT) == (1, 3)
    assert len(numbers(box, ALARM)) == CAPACITY - 2 and numbers(box, METRICS) == [1]
    assert box.dropped() == 3 + 3 and numbers(box, ALARM)[0] == 3, "the three events, then the oldest alarms"
    assert box.add(EVENT, event("late"), 1.0) and numbers(box) == [4] and gap_of(box, EVENT) == (1, 4)
    box.close()


def gap_of(box: Outbox, kind: Kind) -> tuple[object, object]:
    (document,) = box.after(kind, 0)
    facts = codec.decode(DeviceEvent, bytes(codec.decode(Record, document).body)).facts
    return facts["first"], facts["last"]


def test_a_box_is_full_by_its_bytes_as_well(path: Path) -> None:
    """64 KiB each, it would hold hundreds of MiB before it has ten thousand."""
    size = 64 * 1024
    most = ROOM // size
    fill(path, (SAMPLE, 1, most), size=size)
    box = Outbox(path, 1, "b")
    box.alarms_apart = True
    box.add(ALARM, event("fire"), 1.0)
    box.add(EVENT, event("a"), 1.0)
    assert box.size() <= ROOM and box.dropped() == 2 and box.waiting(SAMPLE) == most - 1
    for n in range(50):
        box.add(EVENT, DeviceEvent("a", "x" * 30_000), float(n))
    assert ROOM - size < box.size() <= ROOM, "no more is dropped than has to be"
    assert box.waiting(ALARM) == 1 and box.waiting(EVENT) == 51, "the kind that takes most of the room makes it"
    box.close()


@pytest.mark.parametrize("counts", [False, True], ids=["of before", "miscounted"])
def test_a_file_that_did_not_count_is_counted(path: Path, counts: bool) -> None:
    fill(path, (EVENT, 1, CAPACITY))
    db = sqlite3.connect(path)
    with db:
        if not counts:
            for trigger in ("record_came", "record_changed", "record_went"):
                db.execute(f"DROP TRIGGER {trigger}")
            db.execute("DROP TABLE held")
        else:
            db.execute("UPDATE held SET records = 1000000, kind = 'metrics'")
    db.close()
    box = Outbox(path, 1, "b")
    box.add(EVENT, event("a"), 1.0)
    assert box.waiting() == CAPACITY and box.dropped() == 2
    box.close()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ALARM, EVENT, SAMPLE]), st.integers(0, 3), st.integers(0, 900)), max_size=8))
def test_the_table_counts_itself(tmp_path_factory: pytest.TempPathFactory, luck: list[tuple[Kind, int, int]]) -> None:
    box = Outbox(tmp_path_factory.mktemp("box") / "outbox.db", 1, "b")
    box.alarms_apart = True
    for kind, what, number in luck:
        if what == 0:
            box.acknowledged(kind, 1, number % 5)
        elif what == 1:
            box.quarantine(kind, number % 5, "nobody reads it", 1.0)
        else:
            box.add(kind, DeviceEvent("a", "x" * number), 1.0)
        found = box._db.execute("SELECT kind, count(*), sum(length(document)) FROM record GROUP BY kind").fetchall()
        counted = box._db.execute("SELECT * FROM held WHERE records OR bytes").fetchall()
        assert sorted(found) == sorted(counted)
    box.close()


def test_whose_records_go() -> None:
    notices, samples = Held(EVENT, 5, 50), Held(SAMPLE, 3, 900)
    assert victim([notices, samples], 8, 950) is None
    assert victim([notices, samples], 7, 950) == EVENT, "too many: of those there are most of"
    assert victim([notices, samples], 8, 949) == SAMPLE, "too large: of those that take most"
    alarms = Held(ALARM, 100, 9_000)
    assert victim([alarms, notices, samples], 50, 1_000) == EVENT
    assert victim([alarms, Held(EVENT, 1, 50), Held(SAMPLE, 1, 900)], 50, 1_000) == ALARM
    assert victim([Held(ALARM, 1, 9_000), Held(EVENT, 1, 50)], 50, 1_000) is None, "nothing to make one of"


def test_alarms_are_events_for_a_core_that_does_not_know_them(path: Path) -> None:
    """It would take in the record and keep nothing of it but its size."""
    box = Outbox(path, 1, "b")
    box.add(EVENT, event("notice"), 1.0)
    box.add(ALARM, event("fire"), 1.0)
    assert (numbers(box), numbers(box, ALARM)) == ([1, 2], [])
    box.alarms_apart = True
    box.add(ALARM, event("more fire"), 1.0)
    assert [(kind, n) for kind, n, _ in box.pending()] == [(ALARM, 1), (EVENT, 1), (EVENT, 2)]
    assert box.quarantine(EVENT, 1, "nobody reads it", 1.0) and numbers(box, ALARM) == [1, 2], "which is an alarm"
    box.close()


def test_records_of_an_epoch_that_is_over_make_room_before_any_that_count(path: Path) -> None:
    box = Outbox(path, 1, "b")
    box.close()
    db = sqlite3.connect(path)
    with db:
        db.executemany("INSERT INTO record VALUES (1, 'event', ?, x'7b7d')", [(n,) for n in range(1, CAPACITY)])
    db.close()
    box = Outbox(path, 2, "b")
    for _ in range(3):
        box.add(EVENT, event("new"), 1.0)
    assert numbers(box) == [1, 2, 3] and box.dropped() == 0
    box.close()


def test_a_core_restored_from_a_backup_is_led_over_what_it_once_acknowledged(path: Path) -> None:
    box = Outbox(path, 1, "b")
    for _ in range(9):
        box.add(EVENT, event("a"), 1.0)
    box.acknowledged(EVENT, 1, 8)
    box.acknowledged(EVENT, 1, 3)
    assert numbers(box) == [9], "an old acknowledgement that comes late is no news"
    box.acknowledged(EVENT, 1, 3)
    assert (numbers(box), gap(box)) == ([8, 9], (8, 4, 8))
    for _ in range(2):
        box.acknowledged(EVENT, 1, 1)
    assert (numbers(box), gap(box)) == ([8, 9], (8, 2, 8))
    box.acknowledged(EVENT, 1, 9)
    assert numbers(box) == []
    box.close()


@pytest.mark.parametrize("n", [2**63, 2**70, -1])
def test_an_acknowledgement_of_nonsense_changes_nothing(path: Path, n: int) -> None:
    """It is unsigned: whoever owns the broker could end the agent with it otherwise."""
    box = Outbox(path, 1, "b")
    box.add(EVENT, event("a"), 1.0)
    box.acknowledged(EVENT, 1, n)
    box.acknowledged(EVENT, 2**70, 1)
    assert numbers(box) == [1]
    box.close()


def test_a_full_disk_costs_records_never_the_agent(path: Path) -> None:
    box = Outbox(path, 1, "b")
    box.add(EVENT, event("before"), 1.0)
    (pages,) = box._db.execute("PRAGMA page_count").fetchone()
    box._db.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(3):
        box.add(EVENT, DeviceEvent("big", "x" * 9000), 1.0)
    assert (numbers(box), box.dropped()) == ([1], 3)
    box._db.execute("PRAGMA max_page_count = 1000000")
    box.add(EVENT, event("after"), 1.0)
    assert numbers(box) == [1, 2], "what was refused took no number"
    box.close()


def test_pending_gives_the_oldest_first_and_no_more_than_asked(path: Path) -> None:
    box = Outbox(path, 1, "b")
    for _ in range(5):
        box.add(EVENT, event("a"), 1.0)
    assert [n for _, n, _ in box.pending(3)] == [1, 2, 3]
    box.close()


def test_no_row_of_alarms_keeps_the_certificate_waiting(path: Path) -> None:
    box = Outbox(path, 1, "b")
    box.alarms_apart = True
    for kind in (EVENT, *[ALARM] * 3, CSR):
        box.add(kind, event("a"), 1.0)
    assert [kind for kind, _, _ in box.pending(4)] == [ALARM, ALARM, ALARM, CSR]
    box.close()


@pytest.mark.parametrize(
    "spoilt", ["kind = 'Event'", "kind = x'ff'", "kind = NULL", "n = 'three'", "document = 'text'"]
)
def test_a_record_that_a_rotten_page_changed_is_let_go_and_the_core_is_led_over_the_hole(
    path: Path, spoilt: str
) -> None:
    box = Outbox(path, 1, "b")
    for _ in range(5):
        box.add(EVENT, event("a"), 1.0)
    box.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE record SET {spoilt} WHERE n = 3")
    box = Outbox(path, 1, "b")
    assert box.put_aside is None and box.waiting() == 4 and box.add(EVENT, event("b"), 2.0)
    assert [n for _, n, _ in box.pending()] == [1, 2, 4, 5, 6]
    box.acknowledged(EVENT, 1, 2)
    box.acknowledged(EVENT, 1, 2)
    (_, first, gap), *rest = box.pending()
    assert (first, is_gap(gap), [n for _, n, _ in rest]) == (3, True, [4, 5, 6])
    box.close()


def test_no_more_bytes_are_read_at_once_than_a_box_has_room_for_and_samples_come_last(path: Path) -> None:
    box = Outbox(path, 1, "b")
    for _ in range(4):
        box.add(SAMPLE, event("s" * 10_000), 0.0)
    box.add(EVENT, event("alarm"), 0.0)
    box.add(METRICS, event("m"), 0.0)
    assert [kind for kind, _, _ in box.pending(100, 25_000)] == [EVENT, METRICS, SAMPLE, SAMPLE]
    assert len(box.pending(100, 0)) == 1, "what is larger than all the room goes alone"
    assert 40_000 < box.size() < 45_000
    box.acknowledged(SAMPLE, 1, 4)
    assert box.size() < 2_000
    box.close()


@pytest.mark.parametrize("whole", [True, False], ids=["garbage", "torn"])
def test_an_unreadable_box_is_put_aside_and_a_new_one_works(path: Path, whole: bool) -> None:
    box = Outbox(path, 1, "b")
    for _ in range(200):
        box.add(EVENT, DeviceEvent("a", "x" * 200), 1.0)
    assert box.put_aside is None
    box.close()
    data = bytearray(path.read_bytes())
    data[0 if whole else 4096 : len(data) // 2] = b"\xa5" * (len(data) // 2 - (0 if whole else 4096))
    path.write_bytes(data)
    box = Outbox(path, 1, "b")
    assert box.put_aside is not None and box.put_aside.read_bytes() == bytes(data)
    box.add(EVENT, event("new"), 1.0)
    upto = int(box.put_aside.stat().st_mtime * 1000)
    assert (numbers(box), gap(box)) == ([upto, upto + 1], (upto, 1, upto)), "the core may know 200 of these numbers"
    box.close()


def test_an_obstacle_on_the_host_is_raised(path: Path) -> None:
    path.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        Outbox(path, 1, "b")


def test_what_waits_is_counted_by_kind_until_it_is_acknowledged(path: Path) -> None:
    box = Outbox(path, 1, "b")
    assert all(box.add(EVENT, event(code), 1.0) for code in "abc") and box.add(METRICS, event("m"), 1.0)
    assert (box.waiting(EVENT), box.waiting(METRICS), box.waiting(Kind("sample"))) == (3, 1, 0)
    box.acknowledged(EVENT, 1, 2)
    assert box.waiting(EVENT) == 1
    box._db.execute("PRAGMA query_only = ON")
    assert not box.add(EVENT, event("d"), 1.0) and box.dropped() == 1
    box.close()
