"""The ring of predictions: what is kept, what labels make of it, and that nothing of it is readable on disk."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.database import FILE_AGAIN
from edge.predictions import AGE, RECENT, Choice, Predictions, Refusal, draw
from edge.ring import LOT
from edge.states import CLOCK_FLOOR
from edge.steady import Run
from sync import codec
from sync.errors import Damaged
from sync.messages import Prediction
from sync.names import ModelName, TenantId
from sync.remembered import NO_BASIS, Basis, Looked, Remembered, of_window, pack
from sync.reports import LabelReport
from sync.sealing import NONCE_BYTES, seal_small

MODEL = ModelName("motion")
NOW = 1_790_000_000.0
RUN = Run(CLOCK_FLOOR, NOW)  # of a clock that was believed at the start of the process, which was at NOW
EVERY = Choice(MODEL, (1,), labelled=False)
LABELLED = Choice(MODEL, (1,), labelled=True)

TOLD: list[str] = []


def told(code: str, text: str) -> None:
    TOLD.append(code)


def ring(path: Path, capacity: int = 10_000) -> Predictions:
    TOLD.clear()
    made = iter(range(1_000_000))
    return Predictions(
        path, TenantId("default"), bytes(32), lambda n: next(made).to_bytes(n, "big"), lambda: NOW, told, capacity
    )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Predictions]:
    found = ring(tmp_path / "predictions.db")
    yield found
    found.close()


def prediction(number: int, value: str = "walk", release: int = 1) -> Prediction:
    return Prediction(f"{number:032x}", MODEL, float(number), "ok", value, (0.9, 0.1), ("walk", "run"), "w1", release)


BASIS = Basis("d" * 64, 2, {"machines": Looked(7, b"\x00" * 8)})
WINDOW = np.arange(8, dtype=np.float32).reshape(4, 2)


def test_a_prediction_comes_back_with_its_window(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    found = kept.find(prediction(1).id)
    assert found is not None and found.prediction == prediction(1) and found.label is None
    assert (found.arrived, found.labelled) == (NOW, None)
    assert (np.frombuffer(found.window, "<f4").reshape(found.shape) == WINDOW).all()
    assert kept.find("f" * 32) is None


def test_labels_count_once_and_the_newest_word_holds(kept: Predictions) -> None:
    assert kept.report(MODEL, 1) is None
    for number in range(4):
        kept.remember(prediction(number), WINDOW)
    assert kept.label(prediction(0).id, "walk") is None and kept.label(prediction(1).id, "run") is None
    assert kept.report(MODEL, 1) == LabelReport(2, 1)
    assert kept.label(prediction(1).id, "walk") is None and kept.label(prediction(1).id, "walk") is None
    assert kept.report(MODEL, 1) == LabelReport(2, 2)
    assert kept.report(MODEL, 2) is None, "another release starts from nought"
    assert kept.label("f" * 32, "walk") is Refusal.UNKNOWN_ID


def test_a_label_that_is_no_class_is_refused_and_counts_for_nothing(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    assert kept.label(prediction(1).id, "wlak") is Refusal.UNKNOWN_LABEL
    assert kept.report(MODEL, 1) is None
    free = msgspec.structs.replace(prediction(2, "3.5"), classes=(), probabilities=())
    kept.remember(free, WINDOW)
    assert kept.label(free.id, "3.5") is None, "a model without classes takes any"


def test_a_redelivered_window_keeps_its_label(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    kept.label(prediction(1).id, "run")
    kept.remember(prediction(1), WINDOW)
    found = kept.find(prediction(1).id)
    assert found is not None and found.label == "run"


def test_only_the_newest_labelled_predictions_count(kept: Predictions) -> None:
    for number in range(RECENT + 50):
        kept.remember(prediction(number), WINDOW)
        kept.label(prediction(number).id, "run" if number < 50 else "walk")
    assert kept.report(MODEL, 1) == LabelReport(RECENT, RECENT)


def test_the_ring_is_bounded(tmp_path: Path) -> None:
    small = ring(tmp_path / "small.db", capacity=100)
    for number in range(1024):
        small.remember(prediction(number), WINDOW)
    assert small.find(prediction(1023).id) is not None and small.find(prediction(500).id) is None
    small.close()


def test_it_survives_a_restart_and_nothing_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    first = ring(path)
    private = ("a-very-private-word", "another-private-word")
    first.remember(msgspec.structs.replace(prediction(1, private[0]), classes=private), WINDOW)
    assert first.label(prediction(1).id, private[1]) is None
    first.close()
    content = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert b"private-word" not in content and WINDOW.tobytes() not in content
    again = ring(path)
    assert again.report(MODEL, 1) == LabelReport(1, 0)
    again.close()


def test_a_changed_record_is_noticed(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    (sealed,) = kept._db.execute("SELECT sealed FROM prediction").fetchone()
    kept._db.execute("UPDATE prediction SET sealed = ?", (sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:],))
    kept._db.commit()
    with pytest.raises(Damaged):
        kept.find(prediction(1).id)
    told_so = "told, never raised: a request must not end the server"
    assert kept.label(prediction(1).id, "walk") is Refusal.NOT_KEPT, told_so
    assert TOLD == ["predictions-not-kept"]
    kept.remember(prediction(2), WINDOW)
    assert ids(kept, EVERY) == [2] and kept.count(EVERY) == 1, "it is left out, and not read again"


def test_a_disk_that_refuses_costs_predictions_and_nothing_else(kept: Predictions) -> None:
    kept._db.execute("PRAGMA query_only = ON")
    kept.remember(prediction(1), WINDOW)
    kept.remember(prediction(2), WINDOW)
    assert TOLD == ["predictions-not-kept"], "once, not with every answer"
    kept._db.execute("PRAGMA query_only = OFF")
    kept.remember(prediction(3), WINDOW)
    assert kept.find(prediction(3).id) is not None and kept.find(prediction(1).id) is None


@pytest.mark.parametrize("spoil", ["garbage", "folder"])
def test_a_file_that_cannot_be_used_never_stops_the_agent(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "predictions.db"
    if spoil == "garbage":
        path.write_bytes(b"this is no database" * 100)
    else:
        path.mkdir()
    found = ring(path)
    found.remember(prediction(1), WINDOW)
    assert found.find(prediction(1).id) is not None and "predictions-not-kept" in TOLD
    found.close()


# --- for the road ---


def ids(kept: Predictions, choice: Choice, limit: int = 100) -> list[int]:
    return [int(one.content.prediction.id, 16) for one in kept.unsent(choice, limit)]


def test_what_may_go_is_chosen_by_release_label_share_and_event_time(kept: Predictions) -> None:
    for number in range(8):
        kept.remember(prediction(number, release=2 if number == 3 else 1), WINDOW)
        if number % 2:
            kept.label(prediction(number).id, "run")
    assert ids(kept, EVERY) == [0, 1, 2, 4, 5, 6, 7] and ids(kept, EVERY, 2) == [0, 1]
    assert ids(kept, LABELLED) == [1, 5, 7] and kept.count(LABELLED) == 3
    assert ids(kept, msgspec.structs.replace(LABELLED, releases=(1, 2), since=3.0)) == [3, 5, 7]
    half = msgspec.structs.replace(EVERY, share=0.5)
    assert ids(kept, half) == [n for n in (0, 1, 2, 4, 5, 6, 7) if draw(prediction(n).id) < 0.5]
    assert ids(kept, Choice(ModelName("other"), (1, 2), labelled=False)) == []


def test_what_is_marked_stays_marked_until_its_label_changes(tmp_path: Path) -> None:
    first = ring(tmp_path / "predictions.db")
    for number in (1, 2, 3):
        first.remember(prediction(number), WINDOW)
        first.label(prediction(number).id, "run")
    one, two, three = first.unsent(LABELLED, 10)
    first.label(prediction(2).id, "walk")  # after it was read: the mark must not hide the new word
    first.sent([one, two])
    first.sent([three], never=True)
    first.close()
    again = ring(tmp_path / "predictions.db")
    assert ids(again, LABELLED) == [2]
    again.label(prediction(1).id, "run")
    assert ids(again, LABELLED) == [2], "the same word is no news"
    again.label(prediction(1).id, "walk")
    assert ids(again, LABELLED) == [1, 2]
    again.close()


class _Before(msgspec.Struct, frozen=True):
    """A record as the first version kept it."""

    prediction: Prediction
    shape: tuple[int, ...]
    window: bytes
    label: str | None = None


def test_a_file_of_the_first_version_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.db"
    old = ring(path)
    old._db.executescript("DROP TABLE prediction")
    old._db.execute("CREATE TABLE prediction (id TEXT UNIQUE NOT NULL, model TEXT NOT NULL, release INTEGER NOT NULL,"
                    " sealed BLOB NOT NULL, agreed INTEGER)")  # fmt: skip
    for number, label in ((1, None), (2, "run"), (3, "walk")):
        content: Any = _Before(prediction(number), WINDOW.shape, WINDOW.tobytes(), label)
        sealed = old._sealer.seal(content) if number < 3 else b"changed on disk" * 8
        agreed = None if label is None else int(label == "walk")
        row = (prediction(number).id, MODEL, 1, sealed, agreed)
        old._db.execute("INSERT INTO prediction VALUES (?, ?, ?, ?, ?)", row)
    old._db.commit()
    old.close()
    new = ring(path)
    assert ids(new, EVERY) == [1, 2] and ids(new, LABELLED) == [2]
    assert ids(new, msgspec.structs.replace(EVERY, since=2.0)) == [2]
    assert new.report(MODEL, 1) == LabelReport(2, 1) and TOLD == []
    assert codec.encode(new.find(prediction(2).id)) == codec.encode(new.unsent(LABELLED, 1)[0].content)
    assert new.label(prediction(1).id, "run") is None and new.count(LABELLED) == 2
    assert [one.basis for one in new.between(0, 9, None, 9).predictions] == [NO_BASIS, NO_BASIS], (
        "nobody kept what they rest on"
    )
    new.remember(prediction(4), WINDOW, BASIS)
    assert [one.basis for one in new.between(3, 9, MODEL, 9).predictions] == [BASIS]
    new.close()


def test_a_file_of_the_version_before_named_inputs_is_read_and_filled_on(tmp_path: Path) -> None:
    """Its records have no named inputs and no row, its table no time of arrival."""
    path = tmp_path / "predictions.db"
    old = ring(path)
    old.remember(prediction(1), WINDOW, BASIS)
    content = codec.builtins(old.find(prediction(1).id))
    del content["inputs"], content["outputs"], content["basis"]["row"], content["basis"]["rows"]
    aad = f"falaj/1 prediction default {prediction(1).id}".encode()
    sealed = seal_small(codec.encode(content), bytes(32), aad, bytes(NONCE_BYTES))
    old._db.execute("DROP INDEX prediction_came")
    old._db.execute("ALTER TABLE prediction DROP COLUMN arrived")
    old._db.execute("UPDATE prediction SET sealed = ?", (sealed,))
    old._db.commit()
    old.close()
    new = ring(path)
    assert new.find(prediction(1).id) == of_window(prediction(1), WINDOW, NOW, BASIS)
    new.forget(NOW + AGE, RUN)
    assert new.find(prediction(1).id) is not None, "when it came is not known: it counts from the first look on"
    new.remember_all([ASKED])
    new.forget(NOW + 2 * AGE + 1, RUN)
    assert new.find(prediction(1).id) is None and TOLD == []
    new.close()


# --- what programs asked with inputs of their own ---

GIVEN = pack({"a": np.ones((1, 2)), "b": np.array(["a-word-of-the-asker"], np.object_)})
ASKED = Remembered(prediction(7), (), b"", arrived=NOW, inputs=GIVEN)
SPOKEN = Remembered(
    Prediction("s" * 32, MODEL, 8.0, "ok", release=1), (), b"", arrived=NOW, inputs=GIVEN, outputs=GIVEN
)


def test_what_was_asked_by_name_comes_back_is_labelled_and_never_goes_as_a_sample(tmp_path: Path) -> None:
    kept = ring(tmp_path / "predictions.db")
    kept.remember_all([ASKED, SPOKEN])
    kept.remember(prediction(1), WINDOW)
    assert [kept.find(one.prediction.id) for one in (ASKED, SPOKEN)] == [ASKED, SPOKEN]
    assert kept.label(prediction(7).id, "run") is None and kept.report(MODEL, 1) == LabelReport(1, 0)
    assert kept.label("s" * 32, "run") is Refusal.UNKNOWN_LABEL, "it was no class that could be right or wrong"
    assert ids(kept, EVERY) == [1] and kept.count(EVERY) == 1 and ids(kept, LABELLED) == []
    kept.close()
    assert b"a-word-of-the-asker" not in b"".join(f.read_bytes() for f in tmp_path.iterdir())


# --- how long ---


def came(number: int, arrived: float) -> Remembered:
    return of_window(prediction(number), WINDOW, arrived)


def left(kept: Predictions) -> list[int]:
    return [int(one.prediction.id, 16) for one in kept.between(0, 1e12, None, 10_000).predictions]


def test_what_is_a_day_old_is_forgotten_unless_it_has_a_label(kept: Predictions) -> None:
    kept.remember_all([came(1, NOW - AGE - 1), came(2, NOW - AGE - 1), came(3, NOW - AGE + 1), came(4, NOW)])
    assert kept.label(prediction(2).id, "run") is None
    kept.forget(NOW, RUN)
    assert left(kept) == [2, 3, 4] and kept.report(MODEL, 1) == LabelReport(1, 0)
    kept.forget(NOW + 2, RUN)
    assert left(kept) == [2, 4]
    kept.forget(NOW + 10 * AGE, RUN)
    assert left(kept) == [2] and TOLD == []


def test_a_time_that_cannot_be_right_counts_from_the_first_look_on(kept: Predictions) -> None:
    """What came before the clock was set, and while it was ahead; it has the day that everything has."""
    kept.remember_all([came(1, 3.0), came(2, NOW + 50 * AGE), came(3, 0.0)])
    kept.forget(NOW, RUN)
    kept.forget(NOW + AGE, RUN)
    assert left(kept) == [1, 2, 3]
    found = kept.find(prediction(1).id)
    assert found is not None and found.arrived == 3.0, "what was written is not changed"
    kept.forget(NOW + AGE + 1, RUN)
    assert left(kept) == []


def test_what_an_earlier_version_wrote_is_not_written_anew_and_goes_behind_what_came_later(kept: Predictions) -> None:
    """Also on a box that never runs for a day: what came after it tells its age."""
    kept.remember_all([came(number, NOW) for number in (1, 2, 3)])
    kept._db.execute("UPDATE prediction SET arrived = NULL")
    kept.remember_all([came(4, NOW + 100)])
    kept._db.commit()
    assert not kept.forget(NOW + 200, RUN)
    assert kept._db.execute("SELECT count(*) FROM prediction WHERE arrived IS NULL").fetchone() == (3,)
    later = Run(CLOCK_FLOOR, NOW + AGE + 50)  # the next start
    kept.forget(NOW + AGE + 99, later)
    assert left(kept) == [1, 2, 3, 4]
    kept.forget(NOW + AGE + 101, later)
    assert left(kept) == []


def test_a_full_ring_is_forgotten_in_lots(kept: Predictions) -> None:
    """What came before the clock was set first, for what came after it tells its age."""
    kept.remember_all([came(number, 3.0 if number % 2 else NOW) for number in range(2 * LOT + 20)])
    sizes, more = list[int](), True
    while more:
        more = kept.forget(NOW + 2 * AGE, RUN)
        sizes.append(len(left(kept)))
    assert sizes == [LOT + 20, 10, 0]


def test_a_clock_that_was_just_set_tells_no_age_of_what_was_before(kept: Predictions) -> None:
    """It jumped two years ahead: what is there has a day from then."""
    ahead = NOW + 700 * AGE
    kept.remember_all([came(1, NOW), came(2, ahead)])
    run = Run(ahead, ahead)
    kept.forget(ahead + AGE, run)
    assert left(kept) == [1, 2]
    kept.forget(ahead + AGE + 1, run)
    assert left(kept) == []


def test_what_came_a_little_ahead_is_no_older_for_it(kept: Predictions) -> None:
    """A time server set the clock back by some seconds, long after the process began."""
    kept.remember_all([came(1, NOW + 30)])
    kept.forget(NOW, Run(CLOCK_FLOOR, NOW - 9 * AGE))
    assert left(kept) == [1]


def test_a_disk_that_refuses_forgets_later_and_says_so(kept: Predictions) -> None:
    kept.remember_all([came(1, NOW - AGE - 1)])
    kept._db.execute("PRAGMA query_only = ON")
    kept.forget(NOW, RUN)
    assert TOLD == ["predictions-not-kept"] and left(kept) == [1]
    kept._db.execute("PRAGMA query_only = OFF")
    kept.forget(NOW, RUN)
    assert left(kept) == []


def test_of_many_threads_with_one_label_one_has_the_first_word(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    together = Barrier(8)

    def tell(_: int) -> Remembered | Refusal | None:
        together.wait(60)
        return kept.hear(prediction(1).id, "run")

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(tell, range(8)))
    assert sum(one is not None for one in told) == 1 and kept.report(MODEL, 1) == LabelReport(1, 0)
    assert kept.hear(prediction(1).id, "walk") is None, "another word is not the first"


def test_a_disk_that_fails_gives_the_road_nothing_and_raises_nothing(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    (one,) = kept.unsent(EVERY, 1)
    kept._db.execute("PRAGMA query_only = ON")
    kept.sent([one])
    assert TOLD == ["predictions-not-kept"] and ids(kept, EVERY) == [1]
    kept._db.execute("PRAGMA query_only = OFF")
    kept._db.execute("ALTER TABLE prediction RENAME TO gone")
    assert kept.unsent(EVERY, 1) == [] and kept.count(EVERY) == 0
    assert kept.report(MODEL, 1) is None, "asked for with every report of the device"


def test_what_was_said_is_found_by_its_time_with_all_it_rests_on(kept: Predictions) -> None:
    assert kept.between(0, 9, None, 9).predictions == [] and kept.span() == (None, None) and kept.said() == []
    for number in (3, 1, 2, 5):
        kept.remember(prediction(number), WINDOW, BASIS)
    kept.remember(msgspec.structs.replace(prediction(4), model=ModelName("other")), WINDOW)
    assert [one.prediction.ts for one in kept.between(2, 5, None, 9).predictions] == [2, 3, 4, 5]
    assert [one.prediction.ts for one in kept.between(2, 5, MODEL, 9).predictions] == [2, 3, 5]
    assert [one.prediction.ts for one in kept.between(0, 9, None, 2).predictions] == [4, 5], "the newest"
    assert [one.prediction.ts for one in kept.between(0, 9, None, 9, room=1).predictions] == [5], "never none"
    assert (kept.between(0, 9, None, 9, room=1).more, kept.between(0, 9, None, 2).more) == (True, True)
    assert not kept.between(0, 9, None, 5).more
    assert kept.between(2, 2, None, 9).predictions[0].basis == BASIS and kept.span() == (1, 5)
    assert [one.prediction.ts for one in kept.said()] == [1, 2, 3, 4, 5]
    assert kept.said(prediction(3).id)[0].prediction.ts == 3 and kept.said("f" * 32) == []


def test_a_record_that_was_changed_is_left_out_and_told(kept: Predictions) -> None:
    for number in (1, 2):
        kept.remember(prediction(number), WINDOW, BASIS)
    with kept._db:
        kept._db.execute("UPDATE prediction SET sealed = x'00' WHERE ts = 1")
    assert [one.prediction.ts for one in kept.between(0, 9, None, 9).predictions] == [2]
    assert kept.said(prediction(1).id) == [] and "predictions-not-kept" in TOLD
    kept._db.execute("ALTER TABLE prediction RENAME TO gone")
    assert kept.between(0, 9, None, 9).predictions == [] and kept.span() == (None, None) and kept.said("x") == []


def test_the_label_of_a_prediction_is_known_and_a_spoilt_record_has_none(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    assert kept.label_of(prediction(1).id) is None and kept.label_of("f" * 32) is None
    assert kept.label(prediction(1).id, "run") is None
    assert kept.label_of(prediction(1).id) == "run"
    with kept._db:
        kept._db.execute("UPDATE prediction SET sealed = x'00'")
    assert kept.label_of(prediction(1).id) is None and "predictions-not-kept" in TOLD


def test_memory_gives_way_to_the_file_as_soon_as_it_can_be_written(tmp_path: Path) -> None:
    found = ring(tmp_path / "none" / "predictions.db")
    assert TOLD == ["predictions-not-kept"]
    found.remember(prediction(0), WINDOW)
    (tmp_path / "none").mkdir()
    for number in range(1, FILE_AGAIN + 1):
        found.remember(prediction(number), WINDOW)
    assert TOLD == ["predictions-not-kept"] * 2
    found.close()
    again = ring(tmp_path / "none" / "predictions.db")
    assert all(again.find(prediction(number).id) is not None for number in range(FILE_AGAIN + 1))
    again.close()


def test_what_was_answered_together_is_kept_together_and_the_oldest_make_room(tmp_path: Path) -> None:
    kept = ring(tmp_path / "predictions.db", capacity=300)
    for first in range(0, 1000, 30):
        kept.remember_all([of_window(prediction(n), WINDOW, NOW) for n in (*range(first, first + 30), first)])
    kept.remember_all([])
    oldest, newest = kept.span()
    assert newest == 1019.0 and oldest is not None and 1020 - 300 - 256 <= oldest <= 1020 - 300
    again = kept.find(prediction(1019).id)
    assert again is not None and again.prediction == prediction(1019) and not TOLD
    kept.close()
