"""The hot swap and its counters: no question lost, no NaN served, nothing held against a release that is not its."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge.live import Live
from edge.runtime import BadInput, RunFailed, load
from edge.serving import Loaded, NoModel, NotFinite, Serving
from edge.states import Health
from sync.names import ModelName
from tests.edge import graphs

MODEL = graphs.MODEL


def loaded(number: int = 1, model: bytes | None = None) -> Loaded:
    data = graphs.classifier() if model is None else model
    return Loaded(load(data), graphs.slot(number, data))


def test_an_answer_names_the_release_that_gave_it() -> None:
    serving = Serving()
    serving.put(MODEL, loaded(3))
    answer = serving.predict(MODEL, graphs.windows(2))
    assert answer.release.number == 3
    assert answer.outputs["probabilities"].shape == (2, 3)
    assert serving.health(MODEL) == Health(1, 0, 0)


def test_a_swap_starts_the_counters_anew() -> None:
    serving = Serving()
    serving.put(MODEL, loaded(1))
    serving.predict(MODEL, graphs.windows(1))
    serving.put(MODEL, loaded(2))
    assert serving.health(MODEL) == Health()
    assert serving.predict(MODEL, graphs.windows(1)).release.number == 2


def test_without_a_model_the_refusal_says_whether_to_wait() -> None:
    serving = Serving()
    with pytest.raises(NoModel) as unknown:
        serving.predict(MODEL, {})
    serving.put(MODEL, loaded())
    serving.take_away(MODEL)
    with pytest.raises(NoModel) as away:
        serving.predict(MODEL, {})
    assert (unknown.value.known, away.value.known) == (False, True)
    assert serving.models() == {MODEL: None}
    serving.forget(MODEL)
    assert serving.models() == {}
    assert serving.health(MODEL) == Health()


def test_a_number_that_is_not_finite_is_never_served_and_counts_against_the_release() -> None:
    serving = Serving()
    serving.put(MODEL, loaded(1, graphs.log_of_input()))
    with pytest.raises(NotFinite):
        serving.predict(MODEL, {"x": np.array([[-1, 1]], np.float32)})
    assert serving.health(MODEL) == Health(0, 1, 1)


def test_what_the_asker_did_wrong_is_not_held_against_the_release() -> None:
    heard: list[tuple[object, ...]] = []
    serving = Serving(lambda *facts: heard.append(facts))
    serving.put(MODEL, loaded(1, graphs.log_of_input()))
    absurd = {"x": np.array([[-3e38, 1]], np.float32)}
    for bad in ({"x": np.array([[np.nan, 1]], np.float32)}, absurd, {"x": np.zeros((1, 3), np.float32)}, {}):
        with pytest.raises(BadInput):
            serving.predict(MODEL, bad)
    assert serving.health(MODEL) == Health()
    assert heard == []


def test_a_graph_that_breaks_counts_as_an_error() -> None:
    serving = Serving()
    serving.put(MODEL, loaded(1, graphs.breaks_on_run()))
    with pytest.raises(RunFailed):
        serving.predict(MODEL, {"i": np.array([99], np.int64)})
    assert serving.health(MODEL) == Health(0, 1, 0)


def test_listeners_hear_of_every_answer_and_how_long_it_took() -> None:
    seen: list[tuple[ModelName, int, float, int]] = []
    ticks = iter([1.0, 1.5, 2.0, 2.25])
    serving = Serving(lambda *facts: seen.append(facts), lambda: next(ticks))
    serving.put(MODEL, loaded(7, graphs.log_of_input()))
    serving.predict(MODEL, {"x": np.ones((1, 2), np.float32)})
    with pytest.raises(NotFinite):
        serving.predict(MODEL, {"x": np.zeros((1, 2), np.float32)})
    assert seen == [(MODEL, 7, 0.5, 1), (MODEL, 7, 0.25, 0)]


def test_another_release_than_asked_for_does_not_answer() -> None:
    serving = Serving()
    serving.put(MODEL, loaded(2))
    with pytest.raises(NoModel):
        serving.predict(MODEL, graphs.windows(1), release=1)
    assert serving.predict(MODEL, graphs.windows(1), release=2).release.number == 2


def test_no_question_is_lost_while_releases_change_under_load() -> None:
    serving = Serving()
    releases = [loaded(1), loaded(2)]
    serving.put(MODEL, releases[0])
    answered: list[int] = []
    expected = {r.slot.release.number for r in releases}
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answered.append(serving.predict(MODEL, graphs.windows(1)).release.number)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for turn in range(200):
        serving.put(MODEL, releases[turn % 2])
        while len(answered) < turn:
            pass
    stop.set()
    for asker in askers:
        asker.join()
    assert len(answered) >= 199
    assert set(answered) <= expected


def test_counting_is_exact_from_many_threads() -> None:
    serving = Serving()
    serving.put(MODEL, loaded())
    askers = [
        threading.Thread(target=lambda: [serving.predict(MODEL, graphs.windows(1)) for _ in range(100)])
        for _ in range(4)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert serving.health(MODEL).answers == 400


def test_only_a_question_of_one_row_is_kept_to_be_put_to_another() -> None:
    """One of many rows may take longer, and would hold its memory for as long as the release serves."""
    live, one, many = Live(loaded()), graphs.windows(1), graphs.windows(5)
    live.took_long(many)
    assert live.sample() is None
    live.took_long(one)
    live.took_long(many)
    assert live.sample() is one
