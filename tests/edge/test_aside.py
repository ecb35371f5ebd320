"""Rows of the journal that cannot be read: each is put aside by itself, kept, told once, and nothing else is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.aside import FOLLOWS, sweep
from edge.journal import Journal
from edge.states import Deployment, HeldPiece, Phase
from edge.trust import Record
from edge.untold import Saying
from edge.verdicts import FOR_GOOD, Quarantined
from sync import codec
from sync.chunks import digest
from sync.errors import Malformed
from sync.messages import DeviceEvent
from sync.names import ModelName
from sync.reports import ANY
from tests.faults.small_disk import SmallDisk

A, B = ModelName("motion"), ModelName("other")
RECORD = Record(b"root", b"targets", b"role", b"manifest")
WHOLE = ("deployment", "piece", "accepted", "quarantine", "untold")
HALF = b'{"model":"mo'
SAID = Saying(9.0, DeviceEvent("journal-row-unreadable", "told"))

# What becomes unreadable, and the table whose row it is.
SPOILT = {
    "half a deployment": ("deployment", "UPDATE deployment SET document = ? WHERE model = 'motion'", HALF),
    "a deployment of a phase to come": (
        "deployment", "UPDATE deployment SET document = ? WHERE model = 'motion'", b'{"model":"motion","phase":"a"}',
    ),
    "a deployment under another name": (
        "deployment", "UPDATE deployment SET document = ? WHERE model = 'motion'", b'{"model":"another"}',
    ),
    "a name that is none": ("deployment", "UPDATE deployment SET model = ? WHERE model = 'motion'", "mot\x00ion"),
    "text that is none": (
        "deployment", "UPDATE deployment SET model = CAST(? AS TEXT) WHERE model = 'motion'", b"\xff\xfe",
    ),
    "a number for a document": ("deployment", "UPDATE deployment SET document = ? WHERE model = 'motion'", 7),
    "half a table": ("piece", "UPDATE piece SET document = ? WHERE name = 'motion'", HALF),
    "half a record": ("accepted", "UPDATE accepted SET record = ? WHERE model = 'motion'", b"\xc1"),
    "half a word": ("untold", "UPDATE untold SET document = ? WHERE id = 1", HALF),
    "a word of no kind": ("untold", "UPDATE untold SET kind = ? WHERE id = 1", "?"),
}  # fmt: skip


def verdict_on(model: ModelName) -> Quarantined:
    return Quarantined(digest(b"artifact"), digest(model.encode()), 2, "it was bad")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with a row of each kind for each of two models."""
    place = tmp_path / "journal.db"
    fill(place)
    return place


def fill(path: Path) -> None:
    with closing(Journal.open(path)) as journal:
        for model in (A, B):
            journal.put_piece(str(model), HeldPiece())
            says = Saying(5.0, DeviceEvent("returned", str(model)))
            journal.write(Deployment(model, Phase.NO_MODEL, reason="so far"), verdict_on(model), says=says)
            journal.accept(model, 1, RECORD, {"targets": 4})


def run(path: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(query, values).fetchall()


def seen(journal: Journal) -> dict[str, set[str]]:
    """Of which models something is there, by table."""
    accepted = set()
    for model in (A, B):
        with suppress(Malformed):
            accepted |= {str(model)} if journal.record(model, 1) else set()
    return {
        "deployment": {str(m) for m in journal.deployments()},
        "piece": set(journal.pieces()),
        "accepted": accepted,
        "quarantine": {str(m) for m in (A, B) if journal.quarantined(m)},
        "untold": {codec.decode(DeviceEvent, bytes(one.body)).text for one in journal.untold()},
    }


@pytest.mark.parametrize("name", SPOILT)
def test_one_row_is_put_aside_and_all_others_stay(path: Path, name: str) -> None:
    table, query, value = SPOILT[name]
    run(path, query, value)
    for _ in range(2):  # and once: the second start finds nothing more
        with closing(Journal.open(path)) as journal:
            assert journal.put_aside is None and journal.high_water() == {"targets": 4}
            assert seen(journal) == {place: {"motion", "other"} for place in WHOLE} | {table: {"other"}}
            (lost,) = journal.aside()
            assert lost.place == table and lost.reason and table in FOLLOWS
    ((kept,),) = run(path, "SELECT document FROM aside")
    assert kept == value or str(value) in str(kept) or table == "deployment"


def test_it_is_told_once_in_the_same_transaction_as_the_word_that_tells_it(path: Path) -> None:
    run(path, *SPOILT["half a deployment"][1:])
    with closing(Journal.open(path)) as journal:
        (lost,) = journal.aside()
        assert (lost.model, lost.name) == (A, "motion") and "Deployment" in lost.reason
        journal.tell_aside(lost.id, SAID)
        assert journal.aside() == [] and "told" in seen(journal)["untold"]
    with closing(Journal.open(path)) as journal:
        assert journal.aside() == []
    assert run(path, "SELECT document FROM aside") == [(HALF,)], "it stays for a person"


def test_where_all_can_be_read_nothing_is_written(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        sweep(db)
        assert db.total_changes == 0


def test_a_model_that_lost_its_past_begins_anew(path: Path) -> None:
    run(path, *SPOILT["half a deployment"][1:])
    with closing(Journal.open(path)) as journal:
        journal.write(Deployment(A, Phase.NO_MODEL))
        assert set(journal.deployments()) == {A, B} and journal.quarantined(A) == (verdict_on(A),)


WORST = {
    "manifest": (Quarantined(digest(b"artifact"), ANY, 2, ""), {A}),
    "artifact": (Quarantined(ANY, digest(A.encode()), 2, ""), {A}),
    "retry": (Quarantined(digest(b"artifact"), digest(A.encode()), FOR_GOOD, ""), {A}),
    "model": (Quarantined(digest(b"artifact"), digest(A.encode()), 2, ""), {A, B}),
}


@pytest.mark.parametrize("column", WORST)
def test_a_verdict_that_cannot_be_read_whole_holds_for_all_that_it_may_have_said(path: Path, column: str) -> None:
    worst, models = WORST[column]
    run(path, f"UPDATE quarantine SET {column} = 'Ro?t' WHERE model = 'motion'")
    for _ in range(2):
        with closing(Journal.open(path)) as journal:
            (lost,) = journal.aside()
            assert lost.place == "quarantine" and lost.model == (None if column == "model" else A)
            for model in (A, B):
                found = [one for one in journal.quarantined(model) if one != verdict_on(B)]
                assert [replace(one, reason="") for one in found] == ([worst] if model in models else [])
            assert any(one.bars(digest(A.encode()), 2) for one in journal.quarantined(A)), "what was refused stays so"


def test_a_root_that_is_none_is_put_aside_by_whoever_believes_it(path: Path) -> None:
    with closing(Journal.open(path)) as journal:
        journal.adopt(b"no root", {"root": 3}, orders_void=False)
        journal.lose_root("no root")
        (lost,) = journal.aside()
        assert (lost.place, lost.model, lost.reason) == ("root", None, "no root") and journal.root() is None
        assert journal.high_water() == {"root": 3} and journal.accepted_roots() == [b"root", b"root"]
    assert run(path, "SELECT document FROM aside") == [(b"no root",)]


def test_text_in_the_place_of_bytes_is_believed_by_nobody(path: Path) -> None:
    """One bit of a row's header makes the one of the other, and every check of SQLite's says that all is well."""
    with closing(Journal.open(path)) as journal:
        journal.take_assignment(b"signed", 1, 1)
        journal.adopt(b"root", {"root": 3}, orders_void=False)
    for table, column in (("assignment", "envelope"), ("root", "document"), ("why", "document")):
        run(path, f"UPDATE {table} SET {column} = CAST({column} AS TEXT)")
    with closing(Journal.open(path)) as journal:
        assert (journal.assignment(), journal.root(), journal.why()) == (b"", b"", [])


@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full"])
def test_on_a_disk_that_refuses_the_others_are_read_and_it_is_put_aside_when_it_can_be(
    disk: SmallDisk, *, full: bool
) -> None:
    path = disk.folder / "journal.db"
    fill(path)
    run(path, *SPOILT["half a deployment"][1:])
    disk.fill() if full else disk.read_only(True)
    with closing(Journal.open(path)) as journal:
        assert set(journal.deployments()) == {B} and [one.name for one in journal.aside()] == ["motion"]
        disk.free() if full else disk.read_only(False)
        journal.tell_aside(journal.aside()[0].id, SAID)
        assert journal.aside() == [] and set(journal.deployments()) == {B}
    assert run(path, "SELECT document, told FROM aside") == [(HALF, 1)]
