"""The durable memory of the agent: every write survives a reopening, nothing unreadable stops the device."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.journal import CARDS, SCHEMA, Counter, Journal
from edge.states import Deployment, Lane, Phase
from edge.trust import Record
from edge.verdicts import Quarantined
from sync import codec
from sync.chunks import digest
from sync.errors import Malformed
from sync.messages import WHY
from sync.names import ModelName
from sync.reports import Side, WhyCard
from tests.edge import graphs

MODEL = ModelName("motion")
RECORD = Record(b"root", b"targets", b"role", b"manifest")
VERDICT = Quarantined(digest(b"artifact"), digest(b"manifest"), 2, "golden outputs differ")


class Reopened:
    """A journal that is closed and opened again before every access."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: Journal | None = None

    @property
    def journal(self) -> Journal:
        self.close()
        self._open = Journal.open(self.path)
        assert self._open.put_aside is None
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


@pytest.fixture
def again(path: Path) -> Iterator[Reopened]:
    reopened = Reopened(path)
    yield reopened
    reopened.close()


def test_what_is_written_is_there_after_reopening(again: Reopened) -> None:
    deployment = Deployment(MODEL, Phase.STEADY, 5.0, serving=graphs.slot(3), previous=(graphs.slot(2),))
    again.journal.write(deployment)
    assert again.journal.deployments() == {MODEL: deployment}
    again.journal.write(Deployment(MODEL, Phase.REVERTING), VERDICT)
    assert again.journal.deployments() == {MODEL: Deployment(MODEL, Phase.REVERTING)}
    assert again.journal.quarantined(MODEL) == (VERDICT,)
    assert again.journal.quarantined(ModelName("other")) == ()
    again.journal.accept(MODEL, 3, RECORD, {"targets": 4})
    assert again.journal.record(MODEL, 3) == RECORD
    again.journal.take_assignment(b"signed", 1, 7)
    journal = again.journal
    assert (journal.assignment(), journal.counter("epoch"), journal.counter("desired_seq")) == (b"signed", 1, 7)
    again.journal.take_assignment(b"newer", 1, 8)
    assert again.journal.assignment() == b"newer"


def test_the_record_of_a_release_that_is_held_no_more_goes_with_the_state(again: Reopened) -> None:
    other = ModelName("other")
    for number in range(1, 6):
        again.journal.accept(MODEL, number, RECORD, {})
    again.journal.accept(other, 1, RECORD, {})
    held = Deployment(
        MODEL, Phase.PROBATION, serving=graphs.slot(5), previous=(graphs.slot(4),), lanes=(Lane(graphs.slot(2)),)
    )
    again.journal.write(held)
    for number in (2, 4, 5):
        assert again.journal.record(MODEL, number) == RECORD
    for number in (1, 3):
        with pytest.raises(Malformed):
            again.journal.record(MODEL, number)
    assert again.journal.record(other, 1) == RECORD, "another model's"


def test_an_empty_journal_knows_nothing(again: Reopened) -> None:
    journal = again.journal
    assert (journal.assignment(), journal.deployments(), journal.high_water()) == (None, {}, {})
    with pytest.raises(Malformed, match="no accepted-release record of motion 1"):
        journal.record(MODEL, 1)


def test_a_later_verdict_on_the_same_release_replaces_the_first(again: Reopened) -> None:
    again.journal.write(Deployment(MODEL), VERDICT)
    later = Quarantined(VERDICT.artifact, VERDICT.manifest, 3, "again")
    again.journal.write(Deployment(MODEL), later)
    assert again.journal.quarantined(MODEL) == (later,)


@pytest.mark.parametrize("name", ["reported_seq", "session"])
def test_counters_never_repeat_over_restarts(again: Reopened, name: Counter) -> None:
    assert [again.journal.next(name) for _ in range(5)] == [1, 2, 3, 4, 5]
    again.journal.set_counter(name, 40)
    assert again.journal.next(name) == 41


@settings(max_examples=20, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["timestamp", "snapshot", "root"]), st.integers(1, 99)), max_size=6))
def test_the_high_water_mark_only_rises(tmp_path_factory: pytest.TempPathFactory, seen: list[dict[str, int]]) -> None:
    journal = Journal.open(tmp_path_factory.mktemp("mark") / "journal.db")
    highest: dict[str, int] = {}
    for versions in seen:
        journal.accept(MODEL, 1, RECORD, versions)
        highest = {k: max(highest.get(k, 0), versions.get(k, 0)) for k in {*highest, *versions}}
        assert journal.high_water() == highest
    journal.close()


def test_a_write_that_fails_leaves_the_old_state(again: Reopened) -> None:
    journal = again.journal
    old = Deployment(MODEL, Phase.PROBATION, 1.0)
    journal.write(old)
    broken = Quarantined(digest(b"a"), digest(b"m"), 0, object())  # type: ignore[arg-type]
    with pytest.raises(sqlite3.Error):
        journal.write(Deployment(MODEL, Phase.REVERTING, 2.0), broken)
    assert journal.deployments() == {MODEL: old}
    with pytest.raises(sqlite3.Error):
        journal.accept(MODEL, 1, RECORD, {"snapshot": 5, "targets": object()})  # type: ignore[dict-item]
    journal = again.journal
    assert (journal.deployments(), journal.quarantined(MODEL), journal.high_water()) == ({MODEL: old}, (), {})


def overwrite(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def future(path: Path) -> None:
    Journal.open(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()


def torn_pages(path: Path) -> None:
    journal = Journal.open(path)
    for number in range(200):
        journal.accept(MODEL, number, Record(b"r" * 500, b"", b"", b""), {})
    journal.close()
    whole = bytearray(path.read_bytes())
    whole[4096 : len(whole) // 2] = b"\xa5" * (len(whole) // 2 - 4096)
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: overwrite(path, b"this is no database" * 100),
        lambda path: overwrite(path, b"SQLite format 3\0" + bytes(84) + b"\xff" * 4000),
        future,
        torn_pages,
    ],
    ids=["garbage", "header-then-garbage", "schema-from-the-future", "torn-pages"],
)
def test_an_unreadable_journal_is_put_aside_whole_and_the_device_starts(path: Path, spoil: object) -> None:
    spoil(path)  # type: ignore[operator]
    bytes_before = path.read_bytes()
    journal = Journal.open(path)
    assert journal.put_aside == path.with_suffix(".unreadable")
    assert journal.put_aside.read_bytes() == bytes_before
    assert journal.deployments() == {}
    journal.write(Deployment(MODEL))
    journal.close()
    again = Journal.open(path)
    assert again.put_aside is None and set(again.deployments()) == {MODEL}
    again.close()


def test_a_second_unreadable_journal_does_not_cover_the_first(path: Path) -> None:
    for content in (b"first " * 99, b"second " * 99):
        overwrite(path, content)
        Journal.open(path).close()
    assert path.with_suffix(".unreadable").read_bytes() == b"first " * 99
    assert path.with_suffix(".unreadable-2").read_bytes() == b"second " * 99


def test_an_obstacle_on_the_host_is_no_reason_to_put_a_sound_journal_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.mkdir()  # sqlite cannot open it: the same refusal as for a folder without permission
    with pytest.raises(sqlite3.OperationalError):
        Journal.open(path)
    assert path.is_dir() and [p.name for p in tmp_path.iterdir()] == ["journal.db"]


def test_a_record_that_cannot_be_read_is_malformed(again: Reopened, path: Path) -> None:
    again.journal.accept(MODEL, 1, RECORD, {})
    again.close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE accepted SET record = x'c1'")
    db.close()
    with pytest.raises(Malformed, match="accepted-release record of motion 1"):
        again.journal.record(MODEL, 1)


def test_nobody_else_may_read_it(path: Path) -> None:
    Journal.open(path).close()
    assert path.stat().st_mode & 0o077 == 0


def test_after_a_loss_reports_go_on_above_any_number_ever_given(path: Path) -> None:
    """The core takes only what is newer: counted from 1 again, the device would not be heard for a long time."""
    journal = Journal.open(path)
    for _ in range(50):
        last = journal.next("reported_seq")
    journal.close()
    path.write_bytes(b"garbage" * 1000)
    journal = Journal.open(path)
    assert journal.put_aside is not None
    assert last < journal.next("reported_seq") < 2**62
    journal.close()


# --- why ---


def card(number: int, model: ModelName = MODEL) -> WhyCard:
    return WhyCard(model, float(number), "shadow", "guardrail", "it broke", Side(number, digest(b"%d" % number)), None)


def test_a_card_is_written_with_its_verdict_and_told_once(again: Reopened) -> None:
    again.journal.write(Deployment(MODEL, Phase.REVERTING), VERDICT, card(2))
    (untold,) = again.journal.untold()
    assert (untold.kind, codec.decode(WhyCard, bytes(untold.body))) == (WHY, card(2))
    assert again.journal.why() == [card(2)] and again.journal.quarantined(MODEL) == (VERDICT,)
    again.journal.told(untold.id)
    assert again.journal.untold() == [] and again.journal.why() == [card(2)]


def test_the_newest_cards_are_kept_newest_first_and_by_model(again: Reopened) -> None:
    other = ModelName("other")
    for number in range(1, CARDS + 4):
        again.journal.write(Deployment(MODEL), None, card(number, other if number == 10 else MODEL))
    kept = again.journal.why()
    assert [c.new.number for c in kept] == list(range(CARDS + 3, 3, -1))
    assert again.journal.why(other) == [card(10, other)] and len(again.journal.why(MODEL)) == CARDS - 1


def test_a_card_that_cannot_be_read_is_left_out_and_nothing_else(again: Reopened) -> None:
    again.journal.write(Deployment(MODEL, Phase.STEADY), None, card(1))
    again.journal.write(Deployment(MODEL, Phase.STEADY), None, card(2))
    again.close()
    db = sqlite3.connect(again.path)
    with db:
        db.execute("UPDATE why SET document = ? WHERE id = 1", (b"{}",))
    db.close()
    assert again.journal.why() == [card(2)]
    assert again.journal.deployments() == {MODEL: Deployment(MODEL, Phase.STEADY)}


def test_a_journal_from_before_the_cards_gets_a_place_for_them(again: Reopened) -> None:
    again.journal.write(Deployment(MODEL, Phase.STEADY))
    again.close()
    db = sqlite3.connect(again.path)
    with db:
        db.execute("DROP TABLE why")
    db.close()
    assert again.journal.why() == [] and MODEL in again.journal.deployments()
