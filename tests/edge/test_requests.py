"""Prediction requests over MQTT from message to answer, with a real graph: forms, places, refusals, and any bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bindings import Requests
from edge.runtime import load
from edge.serving import Answer, Loaded, Serving
from sync.golden import Arrays
from sync.link import Message, Publish
from sync.names import DeviceId, ModelName
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL, SIZE

TOPIC, PLACE = f"falaj/local/box-1/infer/{MODEL}", "falaj/local/box-1/reply/panel/7"
ERRORS = "falaj/local/box-1/error"
ROW = np.arange(SIZE * 2, dtype=np.float32).reshape(SIZE, 2) / 4
OIP = {"inputs": [{"name": "window", "datatype": "FP32", "shape": [1, SIZE, 2], "data": ROW.ravel().tolist()}]}
SHORT = {"data": ROW.tolist()}


@dataclass
class Desk:
    """A device that answers questions; what happened in order, and what was recorded."""

    listens: tuple[str, ...] = ("site/+/accel",)
    live: bool = True
    log: list[Publish | str] = field(default_factory=list)
    recorded: list[Arrays] = field(default_factory=list)

    def __post_init__(self) -> None:
        serving = Serving()
        if self.live:
            data = graphs.classifier()
            serving.put(MODEL, Loaded(load(data), graphs.slot(4, data)))
        self.serving = serving
        self.requests = Requests(
            DeviceId("box-1"), serving, self.log.append, lambda: 99.0, self._record, lambda: self.listens
        )

    def _record(self, inputs: Arrays, answer: Answer) -> str:
        self.recorded.append(inputs)
        return f"prediction-{len(self.recorded)}"

    def ask(self, payload: bytes | dict[str, Any], topic: str = TOPIC, to: str | None = None, qos: int = 1) -> Publish:
        """The one message that a question leads to; acknowledged after it, once."""
        self.log.clear()
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        correlation = b"\0knot\xff" if to else None
        message = Message(topic, body, qos, response_topic=to, correlation=correlation)
        self.requests.handle(message, lambda: self.log.append("ack"))
        said, acknowledged = self.log
        assert isinstance(said, Publish) and acknowledged == "ack" and not said.retain
        return said


@pytest.fixture
def desk() -> Desk:
    return Desk()


def truth() -> list[float]:
    numbers: list[float] = load(graphs.classifier()).run({"window": ROW[np.newaxis]})["probabilities"][0].tolist()
    return numbers


def test_the_protocols_body_is_answered_as_over_http_with_response_topic_and_correlation(desk: Desk) -> None:
    said = desk.ask({"id": "mine", **OIP}, to=PLACE)
    assert (said.topic, said.correlation, said.qos, said.expiry) == (PLACE, b"\0knot\xff", 1, 60)
    document = json.loads(said.payload)
    assert document["id"] == "mine" and document["model_version"] == "4"
    assert document["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [1, 3], "data": truth()}]
    assert document["parameters"]["prediction"] == "prediction-1" and len(desk.recorded) == 1


@pytest.mark.parametrize("data", [ROW.tolist(), ROW.ravel().tolist(), {"window": ROW.tolist()}])
@pytest.mark.parametrize("number", ["mine", 17, None])
def test_the_short_form_is_answered_with_the_prediction_document(desk: Desk, data: object, number: object) -> None:
    said = desk.ask({"id": number, "reply_to": PLACE, "data": data}, qos=0)
    assert (said.topic, said.correlation, said.qos, said.expiry) == (PLACE, None, 0, None)
    document = json.loads(said.payload)
    prediction = document["prediction"]
    assert document["id"] == number and prediction["probabilities"] == truth()
    assert (prediction["quality"], prediction["release"], prediction["ts"]) == ("ok", 4, 99.0)
    assert prediction["value"] == CLASSES[int(np.argmax(truth()))] and prediction["id"] == "prediction-1"
    np.testing.assert_array_equal(desk.recorded[0]["window"], ROW[np.newaxis])


def test_the_response_topic_goes_before_the_payloads_word(desk: Desk) -> None:
    said = desk.ask({"reply_to": "falaj/local/box-1/reply/other", **SHORT}, to=PLACE)
    assert said.topic == PLACE


@pytest.mark.parametrize("model", ["other", MODEL, "No Name", "x" * 400, ""])
def test_without_a_model_the_answer_is_declared(model: str) -> None:
    said = Desk(live=False).ask({"id": "q", **SHORT}, f"falaj/local/box-1/infer/{model}", to=PLACE)
    document = json.loads(said.payload)
    assert (said.topic, said.correlation) == (PLACE, b"\0knot\xff")
    assert (document["quality"], document["code"], document["id"]) == ("no_model", "no-model", "q")
    assert document["error"] and len(said.payload) < 400


BAD: list[tuple[bytes | dict[str, Any], str]] = [
    (b"", "as the protocol says"),
    (b"junk", "as the protocol says"),
    (b"\xff\xfe", "as the protocol says"),
    (b"[" * 5000, "as the protocol says"),
    (b'{"id": 99999999999999999999, "data": []}', "as the protocol says"),
    (b" " * (1024 * 1024 + 1), "over HTTP"),
    ({}, "either"),
    ({**OIP, **SHORT}, "either"),
    ({**OIP, "parameters": {"binary_data_output": True}}, "over HTTP"),
    ({**OIP, "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}, "over HTTP"),
    ({**OIP, "outputs": [{"name": "nothing"}]}, "no output"),
    ({"inputs": []}, "window"),
    ({"data": [1, 2, 3]}, "3 elements"),
    ({"data": ["a"] * 8}, "datatype"),
    ({"data": [[1, 2], [3]]}, "one block"),
    ({"data": [1e39] * 8}, "beyond"),
    ({"data": {"door": [1]}}, "inputs are window"),
]


@pytest.mark.parametrize(("payload", "why"), BAD)
def test_what_cannot_be_answered_is_told_in_the_protocols_shape(
    desk: Desk, payload: bytes | dict[str, Any], why: str
) -> None:
    said = desk.ask(payload, to=PLACE)
    document = json.loads(said.payload)
    assert (said.topic, document["quality"], document["code"]) == (PLACE, "abstain", "bad-input")
    assert why in document["error"] and not desk.recorded


def test_a_question_that_is_not_understood_is_still_answered_where_it_says(desk: Desk) -> None:
    said = desk.ask({"id": "q", "reply_to": PLACE, "inputs": "all"})
    assert said.topic == PLACE and json.loads(said.payload)["id"] == "q"


def test_a_model_that_answers_with_another_number_of_classes_abstains(desk: Desk) -> None:
    data = graphs.classifier()
    desk.serving.put(MODEL, Loaded(load(data), graphs.slot(5, data, graphs.manifest(5, classes=("a", "b")))))
    document = json.loads(desk.ask(SHORT, to=PLACE).payload)
    assert (document["code"], document["quality"]) == ("bad-output", "abstain") and not desk.recorded


@pytest.mark.parametrize(
    "place",
    [
        None, "", "site/w1/accel", "$SYS/broker", "falaj/1/default/d/box-1/reported", TOPIC, ERRORS,
        "falaj/local/box-1/reply", "falaj/local/box-1/reply/", "falaj/local/box-2/reply/me",
        "falaj/local/box-1/reply/+", "falaj/local/box-1/reply/#", "falaj/local/box-1/reply//me",
        "falaj/local/box-1/reply/a\0b", "falaj/local/box-1/reply/me\n", "falaj/local/box-1/reply/ä",
        "falaj/local/box-1/reply/" + "x" * 65, "falaj/local/box-1/reply/" + "/".join("x" * 9),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["property", "payload"])
def test_no_answer_goes_where_answers_have_no_business(desk: Desk, place: str | None, way: str) -> None:
    document = {"id": "q", **SHORT, **({"reply_to": place} if way == "payload" else {})}
    said = desk.ask(document, to=place if way == "property" else None)
    told = json.loads(said.payload)
    assert (said.topic, said.correlation, told["code"], told["topic"]) == (ERRORS, None, "bad-reply-topic", TOPIC)
    assert not desk.recorded, "the model was not asked"


def test_nor_where_a_binding_listens() -> None:
    said = Desk(listens=("falaj/local/box-1/reply/+/7",)).ask(SHORT, to=PLACE)
    assert said.topic == ERRORS and "binding" in json.loads(said.payload)["error"]


def test_no_answer_is_a_question(desk: Desk) -> None:
    """A loop needs an answer that is heard as a question: neither the place nor the error topic is one."""
    for said in (desk.ask(SHORT, to=PLACE), desk.ask(b"junk")):
        assert not desk.requests.hears(said.topic)
    assert desk.requests.hears(TOPIC) and desk.requests.subscriptions() == ("falaj/local/box-1/infer/+",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values, "reply_to": json_values | st.just(PLACE), "data": json_values | st.just(ROW.tolist()),
        "inputs": json_values | st.just(OIP["inputs"]), "outputs": json_values, "parameters": json_values,
    },
)  # fmt: skip


@given(st.binary(max_size=80) | fields.map(lambda some: json.dumps(some).encode()), st.text(max_size=20))
def test_whatever_comes_leads_to_one_message_and_one_acknowledgement(payload: bytes, model: str) -> None:
    desk = Desk()
    for topic, to in ((TOPIC, PLACE), (TOPIC, None), (f"falaj/local/box-1/infer/{model}", PLACE)):
        said = desk.ask(payload, topic, to)
        assert isinstance(json.loads(said.payload), dict) and said.topic.encode()


# --- questions that came together ---

OTHER = ModelName("other")


def batch(*questions: tuple[str, dict[str, Any]]) -> list[Message]:
    """QoS 1 messages to models by name, each with a place of its own for its answer."""
    return [
        Message(TOPIC.replace(MODEL, model), json.dumps(body).encode(), 1, receipt=n, response_topic=f"{PLACE}/{n}")
        for n, (model, body) in enumerate(questions, 1)
    ]


def together(desk: Desk, messages: list[Message]) -> list[Publish | str]:
    desk.log.clear()
    desk.requests.handle_all([(one, partial(desk.log.append, f"ack {one.receipt}")) for one in messages])
    return desk.log


def with_two(runs: list[tuple[str, int]]) -> Desk:
    """A desk with two models of which 16 rows may go as one; each run is noted with its answers."""
    desk = Desk()
    data, serving = (
        graphs.classifier(),
        Serving(observe=lambda model, number, s, answers: runs.append((model, answers))),
    )
    for name, number in ((MODEL, 4), (OTHER, 5)):
        serving.put(name, Loaded(load(data), graphs.slot(number, data), rows=16))
    desk.requests = Requests(
        DeviceId("box-1"), serving, desk.log.append, lambda: 99.0, desk._record, lambda: desk.listens
    )
    return desk


def test_questions_that_came_together_are_one_run_for_each_model_and_answered_in_order() -> None:
    runs: list[tuple[str, int]] = []
    desk = with_two(runs)
    log = together(desk, batch((MODEL, OIP), (OTHER, SHORT), (MODEL, SHORT), (OTHER, OIP), (MODEL, OIP)))
    said = [one for one in log if isinstance(one, Publish)]
    assert [one.topic for one in said] == [f"{PLACE}/{n}" for n in range(1, 6)]
    assert log[1::2] == [f"ack {n}" for n in range(1, 6)], "each after its own answer"
    assert runs == [(MODEL, 3), (OTHER, 2)]
    documents = [json.loads(one.payload) for one in said]
    numbers = [d["prediction"]["release"] if "prediction" in d else int(d["model_version"]) for d in documents]
    assert numbers == [4, 5, 4, 5, 4]
    rows = [d["prediction"]["probabilities"] if "prediction" in d else d["outputs"][0]["data"] for d in documents]
    assert rows == [truth()] * 5


def test_one_askers_fault_is_told_to_him_and_costs_nobody_else_an_answer() -> None:
    desk = with_two([])
    bad = {"inputs": [{**OIP["inputs"][0], "data": [1.0]}]}
    messages = batch(
        (MODEL, OIP), (MODEL, bad), ("nobody", OIP), ("NO NAME", SHORT), (MODEL, {"id": 3}), (OTHER, SHORT)
    )
    messages.append(Message(TOPIC, json.dumps(OIP).encode(), 1, receipt=7, response_topic="site/pump/accel"))
    log = together(desk, messages)
    said = [json.loads(one.payload) for one in log if isinstance(one, Publish)]
    assert [d.get("code", "answered") for d in said] == [
        "answered", "bad-input", "no-model", "no-model", "bad-input", "answered", "bad-reply-topic",
    ]  # fmt: skip
    assert log[1::2] == [f"ack {n}" for n in range(1, 8)] and len(desk.recorded) == 2


@given(st.lists(st.tuples(st.sampled_from([MODEL, OTHER, "nobody"]), st.booleans(), st.floats(-9, 9)), max_size=40))
def test_together_as_alone(asked: list[tuple[str, bool, float]]) -> None:
    """To the bit, but for the prediction's id."""
    desk = with_two([])
    messages = batch(*((model, _asking(short, number)) for model, short, number in asked))
    whole = [one for one in together(desk, messages) if isinstance(one, Publish)]
    alone = [one for message in messages for one in together(desk, [message]) if isinstance(one, Publish)]
    assert [_without_id(one) for one in whole] == [_without_id(one) for one in alone] and len(whole) == len(asked)


def _asking(short: bool, number: float) -> dict[str, Any]:
    row = [number] * ROW.size
    return {"data": row} if short else {"inputs": [{**OIP["inputs"][0], "data": row}]}


def _without_id(one: Publish) -> tuple[str, bytes]:
    return one.topic, re.sub(rb"prediction-[0-9]+", b"", one.payload)
