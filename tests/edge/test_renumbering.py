"""An outbox that knows less than the core: what it wrote since its start is told under numbers of its own."""

from __future__ import annotations

from pathlib import Path

from edge.outbox import Outbox
from edge.renumbering import FURTHEST
from sync import codec
from sync.messages import EVENT, DeviceEvent, Record


def say(box: Outbox, *words: str) -> None:
    for word in words:
        assert box.add(EVENT, DeviceEvent("said", word), 1.0)


def waiting(box: Outbox) -> list[tuple[int, str]]:
    found = [(n, codec.decode(Record, document)) for kind, n, document in box.pending() if kind == EVENT]
    assert all(record.n == n for n, record in found)
    return [(n, codec.decode(DeviceEvent, bytes(record.body)).text) for n, record in found]


def test_what_this_start_wrote_follows_what_the_core_has(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "a.db", 1, "before")
    say(box, "one", "two", "three")
    box.close()
    box = Outbox(tmp_path / "a.db", 1, "now")
    say(box, "four", "five")
    assert not box.acknowledged(EVENT, 1, 2)
    assert box.acknowledged(EVENT, 1, 9)
    assert waiting(box) == [(10, "four"), (11, "five")], "the core has what an earlier start wrote"
    say(box, "six")
    assert not box.acknowledged(EVENT, 1, 9) and not box.acknowledged(EVENT, 1, 10)
    assert waiting(box) == [(11, "five"), (12, "six")] and box.last(EVENT) == 12
    box.close()


def test_no_word_of_a_broker_uses_the_numbers_up(tmp_path: Path) -> None:
    """Acknowledgements are not signed. One beyond what any box counts to takes what waits, as any too high did."""
    box = Outbox(tmp_path / "a.db", 1, "now")
    say(box, "one")
    assert not box.acknowledged(EVENT, 1, FURTHEST + 1)
    say(box, "two")
    assert box.acknowledged(EVENT, 1, FURTHEST)
    assert waiting(box) == [(FURTHEST + 1, "two")]
    say(box, "three")
    assert box.last(EVENT) == FURTHEST + 2
    box.close()


def test_a_number_that_another_start_wrote_at_the_core_is_anothers_however_many_were_written_since(
    tmp_path: Path,
) -> None:
    """The file lost numbers 3 to 5, and two starts wrote 3 to 8 again before they were heard."""
    box = Outbox(tmp_path / "a.db", 1, "before")
    say(box, "one", "two")
    box.close()
    for boot, words in (("first", ("three", "four", "five", "six")), ("second", ("seven", "eight"))):
        box = Outbox(tmp_path / "a.db", 1, boot)
        say(box, *words)
        box.close()
    box = Outbox(tmp_path / "a.db", 1, "second")
    assert box.acknowledged(EVENT, 1, 5, "lost")
    kept = [(6, "six"), (7, "seven"), (8, "eight")]
    assert waiting(box) == [*kept, (9, "three"), (10, "four"), (11, "five")], "what may be on its way keeps its number"
    assert not box.acknowledged(EVENT, 1, 5, "lost") and not box.acknowledged(EVENT, 1, 7, "second")
    assert waiting(box)[0] == (8, "eight")
    say(box, "nine")
    assert not box.acknowledged(EVENT, 1, 11, "first")
    assert waiting(box) == [(12, "nine")]
    box.close()


def test_a_core_that_does_not_say_who_wrote_it_and_a_gap_tell_nothing(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "a.db", 1, "now")
    say(box, "one", "two", "three")
    assert not box.acknowledged(EVENT, 1, 1)
    box.quarantine(EVENT, 2, "it is poison", 1.0)
    assert not box.acknowledged(EVENT, 1, 2, "before"), "its record went up before the gap took its place, perhaps"
    assert waiting(box)[0] == (3, "three")
    box.close()
