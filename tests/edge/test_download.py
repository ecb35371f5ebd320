"""The window over one blob: never more under way than it allows, never a wrong chunk, never stuck in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.download import LONGEST, STALL, START, TOP, Download
from sync import chunks
from sync.chunks import digest

PIECES = [bytes([i]) * 10 for i in range(50)]
BLOB = chunks.describe(b"".join(PIECES), digest(b"plain"), 10)
ALL = len(PIECES)


def new() -> Download:
    return Download(BLOB, set())


def test_the_window_starts_small_and_rises_to_its_top() -> None:
    download = new()
    widths = []
    waiting = list(download.ask(0.0, ALL))
    while waiting:
        widths.append(len(waiting))
        index = waiting.pop(0)
        assert download.arrived(index, PIECES[index], 1.0)
        waiting += download.ask(1.0, ALL)
    assert download.done
    assert widths[0] == START and max(widths) == TOP


def test_nothing_is_asked_for_twice() -> None:
    download = new()
    assert download.ask(0.0, ALL) == (0, 1, 2, 3)
    assert download.ask(0.0, ALL) == ()


def test_what_is_here_already_is_not_asked_for() -> None:
    assert Download(BLOB, {0, 2, 3}).ask(0.0, ALL) == (1, 4, 5, 6)
    assert Download(BLOB, set(range(50))).done


@pytest.mark.parametrize(
    ("index", "payload"),
    [(0, PIECES[1]), (0, b"\1" * 10), (0, b"\0" * 9), (0, b""), (50, PIECES[0]), (10**9, b"x")],
)
def test_a_wrong_chunk_changes_nothing(index: int, payload: bytes) -> None:
    download = new()
    download.ask(0.0, ALL)
    assert not download.arrived(index, payload, 1.0)
    assert (download.have, download.asked, download.window) == (set(), {0, 1, 2, 3}, START)


def test_a_repeated_chunk_counts_once() -> None:
    download = new()
    download.ask(0.0, ALL)
    assert download.arrived(0, PIECES[0], 1.0)
    assert not download.arrived(0, PIECES[0], 1.0)
    assert (download.have, download.window) == ({0}, START + 1)


def test_a_right_chunk_that_was_not_asked_for_is_welcome() -> None:
    download = new()
    assert download.arrived(30, PIECES[30], 1.0)
    assert download.have == {30}


def test_a_stall_halves_the_window_and_asks_for_one_chunk_more() -> None:
    """A line that is slow or frozen still brings what was asked for: it must not have to carry it twice."""
    download = new()
    download.ask(0.0, ALL)
    assert download.missing == ()
    assert download.stalled(STALL - 0.1, ALL) == ()
    assert download.stalled(STALL, ALL) == (4,)
    assert (download.window, download.missing) == (START // 2, ())
    assert download.stalled(STALL + 2 * STALL - 0.1, ALL) == (), "patience doubles"
    for index in range(5):
        download.arrived(index, PIECES[index], 9.0)
    assert (download.stalls, download.asked) == (0, set())


def test_where_nothing_comes_after_two_stalls_all_is_missing() -> None:
    download = new()
    download.ask(0.0, ALL)
    download.stalled(STALL, ALL)
    assert download.stalled(3 * STALL, ALL) == (4,), "one is enough to find out"
    assert (download.window, download.missing) == (1, (0, 1, 2, 3, 4))
    download.arrived(0, PIECES[0], 20.0)
    assert download.missing == () and download.stalls == 0


def test_a_chunk_that_a_later_one_overtook_is_missing_and_asked_for_again() -> None:
    download = new()
    download.ask(0.0, ALL)
    download.arrived(2, PIECES[2], 1.0)
    assert download.stalled(1.0 + STALL, ALL) == (0, 1)
    assert download.missing == (0, 1)
    download.arrived(3, PIECES[3], 7.0)
    assert download.stalled(7.0 + 2 * 6.0, ALL) == (4,), "asked for anew, they are behind the fourth"


def test_what_finds_a_loss_out_is_followed_by_all_that_was_lost() -> None:
    download = new()
    download.ask(0.0, ALL)
    assert download.stalled(STALL, ALL) == (4,)
    download.arrived(4, PIECES[4], 5.1)
    assert download.stalled(5.1 + 2 * 5.1, ALL) == (0, 1, 2, 3)


def test_a_slow_line_is_given_the_time_it_takes() -> None:
    """12 s a chunk: one stall at the beginning, then none, and nothing is asked for twice."""
    download, now, asks = new(), 0.0, 0
    line = list(download.ask(now, ALL))
    while not download.done:
        now += 1.0
        if now % 12.0 == 0:
            download.arrived(line[0], PIECES[line[0]], now)
            line.pop(0)
        line += [*download.stalled(now, ALL), *download.ask(now, ALL)]
        asks += bool(download.stalls)
    assert now == 12.0 * len(PIECES) and asks < 12


def test_patience_has_an_end() -> None:
    download, now = new(), 0.0
    download.ask(now, ALL)
    for _ in range(60):
        now += LONGEST
        assert download.stalled(now, ALL)
    assert download.window == 1


def test_nothing_under_way_is_no_stall() -> None:
    assert new().stalled(1e9, ALL) == ()


def test_a_chunk_the_disk_refused_comes_again_after_a_stall() -> None:
    download = new()
    download.ask(0.0, ALL)
    download.arrived(0, PIECES[0], 1.0)
    download.refused(0)
    assert not download.done and 0 not in download.ask(1.0, ALL)
    assert 0 in download.stalled(1.0 + STALL, ALL)
    assert download.arrived(0, PIECES[0], 9.0)


@given(st.lists(st.tuples(st.integers(0, 49), st.booleans(), st.integers(0, 9)), max_size=150))
def test_under_any_luck_the_window_holds_and_only_right_chunks_are_had(luck: list[tuple[int, bool, int]]) -> None:
    download, now = new(), 0.0
    for index, right, wait in luck:
        before = len(download.asked)
        download.ask(now, ALL)
        assert len(download.asked) <= max(before, download.window) and 1 <= download.window <= TOP
        had = set(download.have)
        fits = download.arrived(index, PIECES[index] if right else b"wrong", now)
        assert fits == (right and index not in had)
        assert download.have == (had | {index} if fits else had)
        now += wait
        download.stalled(now, ALL)
        assert not download.have & download.asked
    while not download.done:
        download.ask(now, ALL)
        for index in sorted(download.asked):
            download.arrived(index, PIECES[index], now)


def test_a_clock_that_is_set_back_does_not_hide_a_stall() -> None:
    download = Download(BLOB, set())
    asked = download.ask(2_000_000_000.0, ALL)
    assert download.stalled(1_700_000_000.0, ALL) == ()
    assert download.stalled(1_700_000_000.0 + STALL, ALL) == (len(asked),)


def test_no_more_is_asked_for_than_the_line_has_room_for() -> None:
    download = new()
    assert download.ask(0.0, 0) == ()
    assert download.ask(0.0, 2) == (0, 1)
    assert download.stalled(STALL, 0) == (), "a stall on a line that has no room is none"
    assert download.stalled(STALL, 1) == (2,)
    assert download.stalled(4 * STALL, 1) == (2,), "the last one to find out"
