"""Fault 23: inputs that are no numbers, not there, too many, of the wrong kind or absurd. Each is refused with a word
that says which, by HTTP and by MQTT; none is held against the release, and NaN is never an answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request
from edge.runtime import BadInput, load
from edge.serving import Loaded, NotFinite, Serving
from edge.states import Health
from tests.edge import graphs
from tests.edge.bound import Box
from tests.edge.graphs import MODEL

LOG = graphs.log_of_input()  # answers NaN below nought
GOOD: dict[str, Any] = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}


@pytest.fixture
def serving() -> Serving:
    made = Serving()
    made.put(MODEL, Loaded(load(LOG), graphs.slot(1, LOG)))
    return made


HTTP: dict[str, Any] = {
    "missing": [],
    "extra": [GOOD, GOOD | {"name": "z"}],
    "wrong name": [GOOD | {"name": "temperature"}],
    "wrong dtype": [GOOD | {"datatype": "INT64", "data": [1, 2]}],
    "wrong shape": [GOOD | {"shape": [2, 1]}],
    "too few numbers": [GOOD | {"data": [1.0]}],
    "a text": [GOOD | {"data": ["warm", 2.0]}],
    "null": [GOOD | {"data": [None, 2.0]}],
    "beyond a float": [GOOD | {"data": [1e300, 2.0]}],
    "empty": [GOOD | {"shape": [0, 2], "data": []}],
}


@pytest.mark.parametrize("name", HTTP)
def test_http_refuses_with_a_reason_and_holds_it_against_nobody(serving: Serving, name: str) -> None:
    pages = Pages(serving, Metrics(), dict, "0")
    said = pages.handle(Request("POST", f"/v2/models/{MODEL}/infer", {}, json.dumps({"inputs": HTTP[name]}).encode()))
    assert said.status == 400 and len(json.loads(said.body)["error"]) > 10
    assert serving.health(MODEL) == Health()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_the_askers_fault(serving: Serving, number: float) -> None:
    with pytest.raises(BadInput, match="NaN"):
        serving.predict(MODEL, {"x": np.array([[number, -1.0]], np.float32)})
    assert serving.health(MODEL) == Health()


def test_a_model_that_answers_nan_to_a_good_input_is_at_fault_and_its_answer_is_none(serving: Serving) -> None:
    with pytest.raises(NotFinite):
        serving.predict(MODEL, {"x": np.array([[-1.0, 1.0]], np.float32)})
    assert serving.health(MODEL) == Health(0, 1, 1)


MQTT: dict[str, bytes] = {
    "missing": b'{"ts": 1, "x": 1}',
    "null": b'{"ts": 1, "x": 1, "y": null}',
    "a text": b'{"ts": 1, "x": 1, "y": "warm"}',
    "a truth": b'{"ts": 1, "x": 1, "y": true}',
    "NaN": b'{"ts": 1, "x": 1, "y": NaN}',
    "beyond a float": b'{"ts": 1, "x": 1, "y": 1e300}',
    "no time": b'{"x": 1, "y": 1}',
    "no JSON": b"\xff\x00",
    "nothing": b"",
    "an endless list": b"[" * 100_000,
}


@pytest.mark.parametrize("name", MQTT)
def test_mqtt_complains_on_the_error_topic_acknowledges_and_goes_on(local: Box, name: str) -> None:
    for ts in range(3):
        local.send(float(ts))
    local.send(9.0, payload=MQTT[name])
    assert len(local.errors()) == 1 and local.errors()[0]["code"] == "bad-reading"
    local.bindings.settle(everything=True)  # in order: those before it wait for their checkpoint
    assert [ts for kind, ts in local.log if kind == "ack"] == [0.0, 1.0, 2.0, 9.0], "it is not sent again for ever"
    local.send(3.0)
    assert [p.quality for p in local.predictions()] == ["ok"], "the window is whole without it"
    assert local.serving.health(MODEL) == Health(1, 0, 0)


def test_more_fields_than_the_model_takes_are_no_matter(local: Box) -> None:
    for ts in range(4):
        local.send(float(ts), payload=json.dumps({"ts": ts, "x": 1.0, "y": 2.0, "z": "new"}).encode())
    assert [p.quality for p in local.predictions()] == ["ok"] and not local.errors()
