"""The books of a split: one word a key, by the release that was meant for it, kept over a restart."""

from __future__ import annotations

from pathlib import Path
from secrets import token_bytes

import pytest

from edge.kept import Kept
from edge.outcomes import KEYS, Found, Outcomes
from edge.routing import Routes, Stretch
from sync.messages import SHARES, Prediction
from sync.names import Digest, ModelName, TenantId

MODEL = ModelName("motion")
SPLIT, OTHER = Digest("a" * 64), Digest("b" * 64)
ROUTES = Routes(MODEL, "seed", 1, (Stretch(0, SHARES // 2, 2),))
NONE = Found()


class Desk:
    """Books that are kept in a folder; what was complained of."""

    def __init__(self, folder: Path) -> None:
        self.complaints: list[str] = []
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        kept = Kept(self.folder, TenantId("acme"), bytes(32), "split", token_bytes, self._complain)
        self.books = Outcomes(kept)

    def _complain(self, code: str, text: str) -> None:
        self.complaints.append(code)

    def open(self, split: Digest = SPLIT, per_key: int = 1, now: float = 100.0) -> None:
        self.books.open(split, ROUTES, per_key, now)

    def live(self, key: str, *, good: bool | None = None, release: int | None = None, arrived: float = 200.0) -> None:
        """One answered prediction, and what became of it."""
        number = ROUTES.release(key) if release is None else release
        said = Prediction(f"{key}-{arrived}", MODEL, arrived, "ok", "rest", entity=key, release=number)
        self.books.see(said)
        if good is not None:
            self.books.learn(said, arrived, good=good)

    def of(self, release: int) -> Found:
        return self.books.found(MODEL)[0].get(release, NONE)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "splits")
    desk.open()
    return desk


def keys_of(release: int, count: int) -> list[str]:
    found = (f"k{n}" for n in range(100 * count) if ROUTES.release(f"k{n}") == release)
    return [next(found) for _ in range(count)]


def test_keys_are_counted_once_where_the_split_put_them(desk: Desk) -> None:
    for key in (*keys_of(1, 3), *keys_of(2, 5), *keys_of(2, 5)):
        desk.live(key)
    assert (desk.of(1), desk.of(2)) == (Found(3, 0, 0, (0, 0)), Found(5, 0, 0, (0, 0)))


def test_a_key_has_one_word_however_often_it_is_answered(desk: Desk) -> None:
    (key,) = keys_of(2, 1)
    for good in (False, True, True):
        desk.live(key, good=good)
    assert desk.of(2) == Found(1, 3, 2, (0, 1)), "all are told to people, the first one counts"


def test_a_word_may_be_of_several_outcomes(desk: Desk) -> None:
    desk.open(OTHER, per_key=3)
    first, second, third = keys_of(2, 3)
    for key, outcomes in ((first, (True, False, True)), (second, (False, False, False, True)), (third, (True, True))):
        for good in outcomes:
            desk.live(key, good=good)
    assert desk.of(2) == Found(3, 9, 5, (0, 1, 0, 1)), "the third has not said enough yet"


def test_what_the_split_did_not_mean_says_nothing(desk: Desk) -> None:
    (key,), (other,) = keys_of(2, 1), keys_of(1, 1)
    desk.live(key, good=True, release=1)  # the arm has fallen, or that version was asked for
    desk.live("", good=True, release=1)
    desk.live(other, good=True, arrived=99.0)  # answered before the split began, labelled since
    assert (desk.of(1), desk.of(2)) == (Found(1, 0, 0, (0, 0)), NONE)


def test_books_outlive_the_process(desk: Desk) -> None:
    for key in keys_of(2, 7):
        desk.live(key, good=True)
    before = desk.of(2)
    desk.books.checkpoint()
    desk.begin()
    desk.open(now=500.0)
    assert desk.of(2) == before == Found(7, 7, 7, (7, 0))
    desk.live(keys_of(2, 1)[0], good=False)
    assert desk.of(2) == Found(7, 8, 7, (7, 0)), "it has had its word"


def test_another_split_begins_anew(desk: Desk) -> None:
    desk.live(keys_of(2, 1)[0], good=True)
    desk.open(OTHER)
    assert desk.of(2) == NONE
    desk.books.close(MODEL)
    assert desk.books.found(MODEL) == ({}, False) and not list(desk.folder.iterdir())


def test_books_that_cannot_be_read_begin_anew_and_are_told(desk: Desk) -> None:
    desk.live(keys_of(2, 1)[0], good=True)
    desk.books.checkpoint()
    (desk.folder / MODEL).write_bytes(b"rot")
    desk.begin()
    desk.open()
    assert desk.of(2) == NONE and desk.complaints == ["split-state-lost"]


def test_a_flood_of_keys_costs_bounded_memory_and_is_told(desk: Desk) -> None:
    for n in range(KEYS + 50):
        desk.live(f"k{n}")
    found, full = desk.books.found(MODEL)
    assert full and sum(one.keys for one in found.values()) == KEYS


def test_what_was_found_is_true_after_every_change_and_counted_once_for_each(desk: Desk) -> None:
    for n, key in enumerate(keys_of(2, 4), start=1):
        desk.live(key)
        assert desk.of(2).keys == n and desk.books.found(MODEL) is desk.books.found(MODEL)
        desk.live(key, good=False)
        assert desk.of(2) == Found(n, n, 0, (0, n))
