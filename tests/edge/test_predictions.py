"""The ring of predictions: what is kept, what labels make of it, and that nothing of it is readable on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.predictions import RECENT, Predictions
from sync.errors import Damaged
from sync.messages import LabelReport, Prediction
from sync.names import ModelName, TenantId

MODEL = ModelName("motion")


TOLD: list[str] = []


def told(code: str, text: str) -> None:
    TOLD.append(code)


def ring(path: Path, capacity: int = 10_000) -> Predictions:
    TOLD.clear()
    made = iter(range(1_000_000))
    return Predictions(path, TenantId("default"), bytes(32), lambda n: next(made).to_bytes(n, "big"), told, capacity)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Predictions]:
    found = ring(tmp_path / "predictions.db")
    yield found
    found.close()


def prediction(number: int, value: str = "walk", release: int = 1) -> Prediction:
    return Prediction(f"{number:032x}", MODEL, float(number), "ok", value, (0.9, 0.1), ("walk", "run"), "w1", release)


WINDOW = np.arange(8, dtype=np.float32).reshape(4, 2)


def test_a_prediction_comes_back_with_its_window(kept: Predictions) -> None:
    kept.remember(prediction(1), WINDOW)
    found = kept.find(prediction(1).id)
    assert found is not None and found.prediction == prediction(1) and found.label is None
    assert (np.frombuffer(found.window, "<f4").reshape(found.shape) == WINDOW).all()
    assert kept.find("f" * 32) is None


def test_labels_count_once_and_the_newest_word_holds(kept: Predictions) -> None:
    assert kept.report(MODEL, 1) is None
    for number in range(4):
        kept.remember(prediction(number), WINDOW)
    assert kept.label(prediction(0).id, "walk") and kept.label(prediction(1).id, "run")
    assert kept.report(MODEL, 1) == LabelReport(2, 1)
    assert kept.label(prediction(1).id, "walk") and kept.label(prediction(1).id, "walk")
    assert kept.report(MODEL, 1) == LabelReport(2, 2)
    assert kept.report(MODEL, 2) is None, "another release starts from nought"
    assert not kept.label("f" * 32, "walk")


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
    first.remember(prediction(1, "a-very-private-word"), WINDOW)
    first.label(prediction(1).id, "another-private-word")
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
    with pytest.raises(Damaged):
        kept.find(prediction(1).id)
    assert not kept.label(prediction(1).id, "walk"), "told, never raised: a request must not end the server"
    assert TOLD == ["predictions-not-kept"]


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
