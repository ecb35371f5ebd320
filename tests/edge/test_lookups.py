"""Graph inputs that a table fills: through bindings and HTTP, with every stated behaviour, alike for every release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge.answers import conclude
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request, Response
from edge.lookups import Lookups, NoLookup
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.trials import Trials
from sync import codec
from sync.link import Publish
from sync.lookups import Config
from sync.manifest import Lookup, LookupColumn
from sync.messages import Gates, Prediction
from sync.windows import cut
from tests.edge import graphs, synced
from tests.edge.synced import ACCEPTED, HOUR, MACHINES, machines
from tests.edge.world import DEVICE, MODEL, NOW, TENANT, WINDOW

TABLE = machines(w1=(3.0, 1.0))


class Box:
    """A device on which a release with a table serves; its word is what it published."""

    def __init__(self, path: Path, accepted: Lookup = ACCEPTED) -> None:
        self.now, self.said, self.remembered = NOW, list[tuple[str, dict[str, Any]]](), list[Prediction]()
        self.lookups, self.serving = Lookups(lambda: self.now), Serving()
        self.bindings = Bindings(
            TENANT, DEVICE, self.serving, Buffers(path, TENANT, bytes(32)), self._publish, lambda: self.now,
            remember=lambda said, *_: self.remembered.append(said), lookups=self.lookups,
        )  # fmt: skip
        self.pages = Pages(self.serving, Metrics(), dict, "0", predict=self.bindings.predict)
        self.go_live(1, accepted)

    def go_live(self, number: int, accepted: Lookup) -> Loaded:
        made, data = synced.manifest(number, accepted), synced.adding(len(accepted.columns))
        loaded = Loaded(load(data), graphs.slot(number, data, made))
        self.bindings.bind(made)
        self.serving.put(MODEL, loaded)
        return loaded

    def _publish(self, message: Publish) -> None:
        self.said.append((message.topic, json.loads(message.payload)))

    def feel(self, number: float, entity: str = "w1", line: str = "a") -> None:
        self.now += 1
        row = json.dumps({"ts": self.now, "i": number}).encode()
        self.bindings.handle(f"plant/{line}/{entity}/vib", row, 0, lambda: None)

    def ask(self, entity: str, body: bytes = b"", method: str = "POST") -> Response:
        return self.pages.handle(Request(method, f"/v1/entities/{entity}/predict", {}, body))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path / "b.db")
    made.lookups.put(TABLE, NOW)
    return made


def test_a_window_and_the_row_of_its_entity_are_asked_together(box: Box) -> None:
    box.feel(2.0)
    ((topic, said),) = box.said
    assert (topic, said["quality"], said["value"], said["release"]) == ("out/a/w1", "ok", 6.0, 1)
    assert box.remembered[0].value == 6.0


def test_an_entity_without_a_row_is_told_and_the_model_is_not_to_blame(box: Box) -> None:
    box.feel(2.0, "w9")
    (_, error), (_, said) = box.said
    assert (error["code"], said["quality"], said["value"]) == ("no-lookup", "abstain", None)
    assert "'w9'" in error["text"] and not box.remembered and box.serving.health(MODEL).errors == 0
    box.go_live(2, replace(ACCEPTED, default=(1.0, 1.0)))
    box.feel(2.0, "w9")
    assert box.said[-1][1]["value"] == 4.0


@pytest.mark.parametrize(("stale", "quality", "value"), [("answer", "stale", 6.0), ("abstain", "abstain", None)])
def test_a_table_past_its_time_does_as_the_release_states(tmp_path: Path, stale: Any, quality: str, value: Any) -> None:
    box = Box(tmp_path / "b.db", replace(ACCEPTED, stale=stale))
    box.lookups.put(TABLE, NOW)
    box.now = NOW + HOUR - 1
    box.feel(2.0)
    assert box.said[-1][1]["quality"] == "ok", "to the last second of its time"
    box.feel(2.0)
    assert (box.said[-1][1]["quality"], box.said[-1][1]["value"]) == (quality, value)
    box.lookups.confirm(MACHINES, box.now)
    box.feel(2.0)
    assert box.said[-1][1]["quality"] == "ok"


def test_before_the_first_table_and_with_one_it_does_not_accept_the_release_abstains(tmp_path: Path) -> None:
    box = Box(tmp_path / "b.db")
    box.feel(2.0)
    box.lookups.put(machines(w1=(3.0,)), NOW)
    box.feel(2.0)
    told = [said["text"] for topic, said in box.said if topic.endswith("/error")]
    assert len(told) == 2 and "has not come" in told[0] and "takes age, power" in told[1]
    assert [said["quality"] for topic, said in box.said if not topic.endswith("/error")] == ["abstain"] * 2


def test_a_clock_that_was_never_set_calls_nothing_stale(box: Box) -> None:
    box.now = 1000.0
    box.feel(2.0)
    assert box.said[-1][1]["quality"] == "ok"


def test_a_swap_under_way_gives_old_values_or_new_ones_never_a_mixture(box: Box) -> None:
    for age in range(1, 40):
        inputs, *_ = box.lookups.fill((ACCEPTED,), "w1")
        box.lookups.put(machines(w1=(float(age), float(age) / 10)), NOW)
        held = inputs[MACHINES][0]
        assert age == 1 or held[0] == pytest.approx(10 * held[1])


def test_config_fills_the_topics_that_are_heard_and_answered_on(box: Box) -> None:
    assert box.bindings.subscriptions() == ("plant/a/+/vib",)
    box.lookups.config = Config({"line": "seven"})
    box.bindings.bind(synced.manifest())
    assert box.bindings.subscriptions() == ("plant/seven/+/vib",)
    box.feel(2.0, line="seven")
    assert box.said[-1][0] == "out/seven/w1"


def test_both_releases_of_a_trial_are_given_the_values_they_accept(box: Box) -> None:
    """The candidate takes another table; each side of a pair is asked with its own."""
    one = replace(ACCEPTED, columns=(LookupColumn("age"),), default=None)
    old = box.serving.loaded(MODEL)
    data = synced.adding(1)
    classes = ("a", "b")
    candidate = Loaded(load(data), graphs.slot(2, data, replace(synced.manifest(2, one), classes=())))
    box.lookups.put(machines(w1=(9.0,)), NOW, (TABLE, NOW))
    trials = Trials(lookups=box.lookups)
    trials.open(MODEL, candidate, old, Gates(evidence="agreement"), 0)
    box.feel(2.0)
    said = box.remembered[-1]
    assert said.value == 6.0 and len(classes) == 2
    trials.see(said, np.full((1, 1), 2.0, np.float32))
    assert trials.health(MODEL).answers == 1, "the candidate answered too"
    inputs, *_ = box.lookups.question(
        candidate.session, candidate.slot.manifest, "w1", np.full((1, 1), 2.0, np.float32)
    )
    assert conclude(candidate.session.run(inputs), ())[0] == 11.0


def test_what_is_served_is_what_training_would_see(box: Box) -> None:
    """The same window kernel and the same row of the same table, so the vectors are equal bit by bit."""
    box.feel(0.1)
    window = cut(WINDOW, np.array([box.now]), np.array([[0.1]], np.float32))[-1]
    inputs, *_ = box.lookups.question(box.serving.loaded(MODEL).session, synced.manifest(), "w1", window.values)
    trained = {"window": window.values[None], MACHINES: TABLE.rows()[:1]}
    assert {name: array.tobytes() for name, array in inputs.items()} == {n: a.tobytes() for n, a in trained.items()}


# --- POST /v1/entities/{id}/predict -----------------------------------------------------------------------------


def test_the_newest_rows_of_an_entity_are_asked_over_http(box: Box) -> None:
    box.feel(2.0)
    for body in (b"", b"{}", b'{"model":"motion"}'):
        answer = box.ask("w1", body)
        assert answer.status == 200
        assert codec.decode(Prediction, answer.body) == box.remembered[0], "the same window, so the same prediction"


@pytest.mark.parametrize(
    ("entity", "body", "status", "says"),
    [
        ("w7", b"", 404, "has heard nothing of 'w7'"),
        ("a%2Fb", b"", 404, "has heard nothing of 'a/b'"),
        ("w1", b'{"model":"other"}', 404, "no binding of 'other'"),
        ("w1", b'{"model":7}', 400, "model"),
        ("w1", b"\xff", 400, ""),
    ],
)
def test_what_cannot_be_asked_is_said(box: Box, entity: str, body: bytes, status: int, says: str) -> None:
    box.feel(2.0)
    answer = box.ask(entity, body)
    assert answer.status == status and says in json.loads(answer.body)["error"]


def test_without_a_word_the_document_says_why(box: Box) -> None:
    box.feel(2.0, "w9")
    assert json.loads(box.ask("w9").body)["quality"] == "abstain"
    box.serving.take_away(MODEL)
    box.feel(2.0)
    assert json.loads(box.ask("w1").body)["quality"] == "no_model"
    assert box.ask("w1", method="GET").status == 405
    assert (
        Pages(box.serving, Metrics(), dict, "0").handle(Request("POST", "/v1/entities/x/predict", {}, b"")).status
        == 404
    )


def test_an_unknown_table_name_is_no_lookup(box: Box) -> None:
    with pytest.raises(NoLookup):
        Lookups().fill((ACCEPTED,), "w1")


def test_a_graph_of_flat_rows_is_given_its_window_laid_out_flat() -> None:
    window = np.arange(6, dtype=np.float32).reshape(3, 2)
    for shape, wanted in ((("n", 6), [[0, 1, 2, 3, 4, 5]]), (("n", 3, 2), [[[0, 1], [2, 3], [4, 5]]])):
        x, y = (graphs.value(name, list(shape)) for name in ("x", "y"))
        session = load(graphs.finish([graphs.helper.make_node("Identity", ["x"], ["y"])], [x], [y]))
        inputs, *_ = Lookups().question(session, graphs.manifest(), "w1", window)
        assert inputs["x"].tolist() == wanted
        assert session.run(inputs)["y"].tolist() == wanted
