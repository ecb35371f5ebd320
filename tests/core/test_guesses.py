"""Guesses are counted by their source: the noise ends, and nobody is locked out."""

from __future__ import annotations

from core.fleet.guesses import OF_ALL, Guesses, Word


def test_five_are_told_then_a_flood_then_nothing_until_the_hour_is_over() -> None:
    guesses = Guesses()
    words = [guesses.wrong("a", 1000.0) for _ in range(8)]
    assert words == [Word.TELL] * 5 + [Word.FLOOD] + [Word.SILENT] * 2
    assert guesses.wrong("b", 1000.0) is Word.TELL
    assert guesses.wrong("a", 4599.0) is Word.SILENT
    assert guesses.wrong("a", 4600.0) is Word.TELL


def test_a_clock_that_was_set_back_begins_anew() -> None:
    guesses = Guesses()
    guesses.wrong("a", 9000.0)
    assert guesses.wrong("a", 10.0) is Word.TELL and guesses.begun == 10.0


def test_addresses_cost_nothing_so_all_together_are_limited() -> None:
    guesses = Guesses()
    words = [guesses.wrong(f"2001:db8::{n:x}", 0.0) for n in range(3 * OF_ALL)]
    assert words.count(Word.TELL) == OF_ALL and words.count(Word.FLOOD) == 1
    assert len(guesses.of) <= OF_ALL + 1, "what is remembered is limited too"
