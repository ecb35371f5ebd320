"""A split as applications see it: by `key` or request id over HTTP and MQTT, by entity over bindings; an arm that fails
costs nobody an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from onnx import helper

from edge.bindings import Requests
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request
from edge.outcomes import Outcomes
from edge.recording import Recorder
from edge.routing import LONGEST, Routes, Stretch
from edge.runtime import Session, load
from edge.serving import Loaded, RunFailed, Serving
from sync.chunks import digest
from sync.golden import Arrays
from sync.link import Message, Publish
from sync.manifest import Lookup, LookupColumn, Manifest
from sync.messages import SHARES
from sync.names import DeviceId, LookupName
from tests.edge import graphs
from tests.edge.bound import BINDING, Box
from tests.edge.graphs import MODEL
from tests.edge.test_requests import OIP, PLACE, SHORT, TOPIC

ROUTES = Routes(MODEL, "seed", 4, (Stretch(0, SHARES // 2, 5),))
KEYS = [f"panel-{n}" for n in range(40)]
PATH = f"/v2/models/{MODEL}"


class Failing(Session):
    """A session that breaks on every run."""

    def __init__(self, real: Session) -> None:
        self.inputs, self.outputs = real.inputs, real.outputs

    def run(self, inputs: Arrays) -> Arrays:
        raise RunFailed("it breaks")

    def late(self) -> int:
        return 0


def split(serving: Serving, *, failing: bool = False) -> None:
    """Release 4 answers, and release 5 beside it for half of the keys."""
    data = graphs.classifier()
    session = load(data)
    serving.put(MODEL, Loaded(load(data), graphs.slot(4, data, graphs.manifest(4, (BINDING,))), rows=16))
    arm = Loaded(
        Failing(session) if failing else session, graphs.slot(5, data, graphs.manifest(5, (BINDING,))), rows=16
    )
    serving.split(MODEL, ROUTES, {5: arm})


class Desk:
    """HTTP and MQTT questions to one device, each answered with the number of a release."""

    def __init__(self, *, failing: bool = False) -> None:
        self.serving = Serving()
        split(self.serving, failing=failing)
        self.recorder = Recorder("b" * 20, lambda: 99.0, lambda model, ts, rows: False)
        self.pages = Pages(self.serving, Metrics(), dict, "0", record=self.recorder.record)
        self.said: list[Publish] = []
        self.requests = Requests(DeviceId("box-1"), self.serving, self.said.append, lambda: 99.0, self.recorder.record)

    def http(self, path: str = f"{PATH}/infer", **more: object) -> Any:
        return json.loads(self.pages.handle(_post(path, {**OIP, **more})).body)

    def mqtt(self, **question: object) -> Any:
        self.requests.handle(Message(TOPIC, json.dumps({"reply_to": PLACE, **question}).encode(), 1), lambda: None)
        return json.loads(self.said[-1].payload)

    def by_key(self, key: str) -> int:
        return int(self.http(parameters={"key": key})["model_version"])

    def by_id(self, key: str) -> int:
        return int(self.http(id=key)["model_version"])

    def by_short_form(self, key: str) -> int:
        return int(self.mqtt(id=key, **SHORT)["prediction"]["release"])

    def by_protocol(self, key: str) -> int:
        return int(self.mqtt(parameters={"key": key}, **OIP)["model_version"])


def _post(path: str, body: object) -> Request:
    return Request("POST", path, {}, json.dumps(body).encode())


@pytest.mark.parametrize("road", [Desk.by_key, Desk.by_id, Desk.by_short_form, Desk.by_protocol])
def test_every_road_leads_a_key_to_the_same_release(road: Callable[[Desk, str], int]) -> None:
    desk = Desk()
    found = {key: road(desk, key) for key in KEYS}
    assert found == {key: ROUTES.release(key) for key in KEYS} and set(found.values()) == {4, 5}


def test_without_a_key_the_incumbent_answers() -> None:
    desk = Desk()
    assert desk.http()["model_version"] == "4" and desk.mqtt(**SHORT)["prediction"]["release"] == 4


def test_a_version_that_is_asked_for_answers_and_both_are_shown() -> None:
    desk = Desk()
    assert [desk.http(f"{PATH}/versions/{n}/infer")["model_version"] for n in (4, 5)] == ["4", "5"]
    shown = json.loads(desk.pages.handle(Request("GET", PATH, {}, b"")).body)
    assert shown["versions"] == ["4", "5"]
    assert desk.pages.handle(_post(f"{PATH}/versions/6/infer", OIP)).status == 404


@pytest.mark.parametrize("key", [5, ["a"], "k" * (LONGEST + 1)])
def test_a_key_that_is_none_is_refused(key: object) -> None:
    desk = Desk()
    assert desk.pages.handle(_post(f"{PATH}/infer", {**OIP, "parameters": {"key": key}})).status == 400


def test_questions_that_came_together_are_each_answered_by_their_own_release() -> None:
    desk = Desk()
    asked = [_post(f"{PATH}/infer", {**OIP, "parameters": {"key": key}, "id": key}) for key in KEYS]
    told = [json.loads(response.body) for response in desk.pages.handle_all(asked)]
    assert [(one["id"], int(one["model_version"])) for one in told] == [(key, ROUTES.release(key)) for key in KEYS]


@pytest.mark.parametrize("road", [Desk.by_key, Desk.by_short_form])
def test_an_arm_that_fails_costs_nobody_an_answer(road: Callable[[Desk, str], int]) -> None:
    desk = Desk(failing=True)
    assert {road(desk, key) for key in KEYS} == {4}
    assert desk.serving.health(MODEL, 5).errors == sum(ROUTES.release(key) == 5 for key in KEYS)
    assert desk.serving.health(MODEL).errors == 0


def test_what_is_remembered_says_whose_answer_it_was() -> None:
    desk = Desk()
    desk.by_key("panel-1")
    desk.http(f"{PATH}/versions/5/infer", parameters={"key": "panel-2"})
    kept = [(one.prediction.entity, one.prediction.release) for one in desk.recorder.drain()]
    assert kept == [("panel-1", ROUTES.release("panel-1")), ("", 5)]


@pytest.mark.parametrize("road", [Desk.by_id, Desk.by_short_form])
def test_an_id_leads_to_an_arm_and_is_nobody_who_is_followed(road: Callable[[Desk, str], int]) -> None:
    """Every question has another one: they would take all places of those that come again."""
    desk, books = Desk(), Outcomes()
    books.open(digest(b"split"), ROUTES, 1, 0.0)
    desk.by_key("panel-1")
    assert {road(desk, f"{n}") for n in range(30)} == {4, 5}
    for one in desk.recorder.drain():
        books.see(one.prediction)
    found, full = books.found(MODEL)
    assert sum(one.keys for one in found.values()) == 1 and not full


@pytest.mark.parametrize("failing", [False, True])
def test_bindings_go_by_entity(tmp_path: Path, *, failing: bool) -> None:
    box = Box(tmp_path / "buffers.db")
    box.go_live(graphs.manifest(4, (BINDING,)))
    split(box.serving, failing=failing)
    for ts in range(4):
        for key in KEYS:
            box.send(float(ts), key)
    said = {one.entity: one.release for one in box.predictions()}
    assert said == {key: 4 if failing else ROUTES.release(key) for key in KEYS} and not box.errors()
    box.buffers.close()


UNKNOWN = Lookup(LookupName("machines"), (LookupColumn("age"),), 3600.0)
OTHER_SHAPE = graphs.finish(
    [helper.make_node("Identity", ["window"], ["y"])],
    [graphs.value("window", ["n", 9, 2])], [graphs.value("y", ["n", 9, 2])],
)  # fmt: skip


def arm(box: Box, data: bytes, of: Manifest) -> None:
    """Release 4 serves, this one answers for half of the entities."""
    box.go_live(graphs.manifest(4, (BINDING,)))
    box.serving.split(MODEL, ROUTES, {5: Loaded(load(data), graphs.slot(5, data, of))})
    for ts in range(4):
        for key in KEYS:
            box.send(float(ts), key)


@pytest.mark.parametrize(
    ("data", "of"),
    [
        (OTHER_SHAPE, graphs.manifest(5, (BINDING,))),
        (graphs.classifier(), graphs.manifest(5, (BINDING,), classes=("a", "b"))),
        (graphs.classifier(), replace(graphs.manifest(5, (BINDING,)), lookups=(UNKNOWN,))),
    ],
    ids=["another input", "another output", "a table that is not there"],
)
def test_an_arm_that_cannot_answer_costs_nobody_an_answer_and_falls(tmp_path: Path, data: bytes, of: Manifest) -> None:
    box = Box(tmp_path / "buffers.db")
    arm(box, data, of)
    assert {one.entity: (one.quality, one.release) for one in box.predictions()} == dict.fromkeys(KEYS, ("ok", 4))
    assert box.serving.health(MODEL, 5).errors == sum(ROUTES.release(key) == 5 for key in KEYS) > 0
    assert box.serving.health(MODEL).errors == 0 and not box.errors()
    box.buffers.close()


def test_what_the_incumbent_cannot_answer_either_is_not_held_against_an_arm(tmp_path: Path) -> None:
    box = Box(tmp_path / "buffers.db")
    box.go_live(graphs.manifest(4, (BINDING,)), OTHER_SHAPE)
    box.serving.split(MODEL, ROUTES, {5: Loaded(load(OTHER_SHAPE), graphs.slot(5, OTHER_SHAPE))})
    for ts in range(4):
        for key in KEYS:
            box.send(float(ts), key)
    assert {one.quality for one in box.predictions()} == {"abstain"} and box.errors()
    assert box.serving.health(MODEL, 5).errors == 0
    box.buffers.close()


def test_what_is_no_answer_in_its_own_classes_counts_against_who_serves(tmp_path: Path) -> None:
    """The graph runs, and says something else than its manifest: on trial that is a failed answer like any other."""
    box = Box(tmp_path / "buffers.db")
    box.go_live(graphs.manifest(4, (BINDING,), classes=("a", "b")))
    for ts in range(4):
        box.send(float(ts))
    assert {one.quality for one in box.predictions()} == {"abstain"} and box.errors()[0]["code"] == "bad-output"
    assert box.serving.health(MODEL).errors == len(box.predictions()) > 0
    box.buffers.close()


def test_an_arm_answers_in_its_own_classes(tmp_path: Path) -> None:
    box = Box(tmp_path / "buffers.db")
    turned = ("run", "rest", "walk")
    arm(box, graphs.classifier(), graphs.manifest(5, (BINDING,), classes=turned))
    for one in box.predictions():
        classes = turned if one.release == 5 else graphs.CLASSES
        likeliest = one.probabilities.index(max(one.probabilities))
        assert (one.classes, one.value) == (classes, classes[likeliest])
    assert {one.release for one in box.predictions()} == {4, 5}
    box.buffers.close()


def test_a_release_in_force_before_its_bindings_answers_in_its_own_classes(tmp_path: Path) -> None:
    box = Box(tmp_path / "buffers.db")
    data, turned = graphs.classifier(), ("run", "rest", "walk")
    box.go_live(graphs.manifest(4, (BINDING,)))
    box.serving.put(MODEL, Loaded(load(data), graphs.slot(5, data, graphs.manifest(5, (BINDING,), classes=turned))))
    for ts in range(4):
        box.send(float(ts))
    (one,) = box.predictions()
    assert (one.release, one.classes, one.value) == (5, turned, turned[one.probabilities.index(max(one.probabilities))])
    box.buffers.close()
