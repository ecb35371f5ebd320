"""What a verdict is against, and until when."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from edge.verdicts import FOR_GOOD, OF_MODEL, TABLE, Quarantined, keep, rows
from sync.chunks import digest
from sync.names import LAST, ModelName
from sync.reports import ANY

ARTIFACT, OLD, NEW = digest(b"artifact"), digest(b"old"), digest(b"new")


def test_it_is_against_one_release_until_a_higher_attempt() -> None:
    verdict = Quarantined(ARTIFACT, OLD, 2, "it was bad")
    assert [verdict.bars(OLD, retry) for retry in (1, 2, 3)] == [True, True, False] and not verdict.bars(NEW, 0)


def test_one_that_cannot_be_read_is_against_any_until_a_higher_attempt() -> None:
    verdict = Quarantined(ARTIFACT, ANY, 2, "nobody knows")
    assert [verdict.bars(NEW, retry) for retry in (2, 3)] == [True, False]


def test_one_for_good_is_lifted_by_none() -> None:
    assert Quarantined(ARTIFACT, OLD, FOR_GOOD, "revoked").bars(OLD, LAST)


def test_a_later_one_lifts_nothing_of_one_that_stands() -> None:
    model = ModelName("motion")
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLE)
        for retry in (2, 1):
            keep(db, model, Quarantined(ARTIFACT, OLD, retry, f"attempt {retry}"))
        assert rows(db.execute(OF_MODEL, (model, "")).fetchall()) == (Quarantined(ARTIFACT, OLD, 2, "attempt 1"),)
