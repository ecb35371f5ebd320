"""The finer points of the Open Inference Protocol, without a socket: nulls, flags, whole bodies, unserved datatypes."""

from __future__ import annotations

import json
import struct
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.wire import Request, Response
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync.arrays import DTYPES
from sync.features import Datatype
from sync.names import ModelName
from tests.edge import graphs
from tests.edge.graphs import MODEL

LENGTH = "inference-header-content-length"


def pair() -> bytes:
    """Two inputs, one output."""
    node = helper.make_node("Add", ["a", "b"], ["y"])
    return graphs.finish([node], [graphs.value("a", ["n"]), graphs.value("b", ["n"])], [graphs.value("y", ["n"])])


def free() -> bytes:
    """An input with two free dimensions."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return graphs.finish([node], [graphs.value("x", ["n", "m"])], [graphs.value("y", ["n", "m"])])


@pytest.fixture(scope="module")
def pages() -> Pages:
    serving, metrics = Serving(), Metrics()
    models = {MODEL: graphs.classifier(), "texts": graphs.echo(TensorProto.STRING), "pair": pair(), "free": free()}
    for name, model in models.items():
        serving.put(ModelName(name), Loaded(load(model), graphs.slot(7, model)))
    return Pages(serving, metrics, dict, "0.1.0")


def post(pages: Pages, path: str, body: object, **headers: str) -> tuple[Response, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = pages.handle(Request("POST", path, {name.replace("_", "-"): text for name, text in headers.items()}, data))
    cut = int(dict(answer.headers).get("Inference-Header-Content-Length", len(answer.body)))
    return answer, json.loads(answer.body[:cut])


def infer(pages: Pages, body: object, model: str = MODEL, **headers: str) -> tuple[Response, Any]:
    return post(pages, f"/v2/models/{model}/infer", body, **headers)


def window(rows: int = 1) -> np.ndarray:
    return graphs.windows(rows)["window"]


def tensor(**more: object) -> dict[str, Any]:
    plain = {"name": "window", "datatype": "FP32", "shape": window().shape, "data": window().ravel().tolist()}
    return {**plain, **more}


def test_null_is_the_same_as_left_out(pages: Pages) -> None:
    plain = infer(pages, {"inputs": [tensor()]})[1]
    nulls = {"id": None, "parameters": None, "inputs": [tensor(parameters=None)], "outputs": None}
    assert infer(pages, nulls)[1] == plain and "id" not in plain
    wish = [{"name": "probabilities", "parameters": None}]
    assert infer(pages, {"inputs": [tensor(parameters={"binary_data_size": None})], "outputs": wish})[1] == plain


@pytest.mark.parametrize("flag", [1, "true", [], {}])
def test_a_flag_is_true_or_false(pages: Pages, flag: object) -> None:
    for wrong in (
        {"parameters": {"binary_data_output": flag}},
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": flag}}]},
    ):
        answer, document = infer(pages, {"inputs": [tensor()], **wrong})
        assert answer.status == 400 and "true or false" in document["error"]


def test_what_one_output_wants_is_stronger_than_what_all_want(pages: Pages) -> None:
    wish = [{"name": "probabilities", "parameters": {"binary_data": False}}]
    asked = {"inputs": [tensor()], "outputs": wish, "parameters": {"binary_data_output": True}}
    answer, document = infer(pages, asked)
    assert answer.content_type == "application/json" and len(document["outputs"][0]["data"]) == 3


def whole(pages: Pages, body: bytes, model: str = MODEL) -> tuple[Response, Any]:
    return infer(pages, body, model, inference_header_content_length="0")


@pytest.mark.parametrize("rows", [1, 3])
def test_a_whole_body_is_the_one_input(pages: Pages, rows: int) -> None:
    answer, document = whole(pages, window(rows).tobytes())
    expected = load(graphs.classifier()).run(graphs.windows(rows))["probabilities"]
    assert answer.status == 200 and document["outputs"][0]["shape"] == [rows, 3]
    assert answer.body.endswith(expected.tobytes()) and answer.content_type == "application/octet-stream"


def test_a_whole_body_can_be_one_string(pages: Pages) -> None:
    text = "فلج".encode()
    answer, document = whole(pages, text, "texts")
    assert answer.body.endswith(struct.pack("<I", len(text)) + text) and document["outputs"][0]["shape"] == [1]


@pytest.mark.parametrize(("model", "body"), [
    (MODEL, b"x" * 31), (MODEL, b"x"), ("pair", b"\0" * 4), ("free", b"\0" * 4), ("texts", b"\xff"), (MODEL, b""),
])  # fmt: skip
def test_a_whole_body_that_tells_no_one_shape_is_refused(pages: Pages, model: str, body: bytes) -> None:
    answer, document = whole(pages, body, model)
    assert answer.status == 400 and document["error"]


@pytest.mark.parametrize(("datatype", "kind", "numbers"), [
    ("BOOL", TensorProto.BOOL, [True, False]), ("UINT8", TensorProto.UINT8, [0, 2**8 - 1]),
    ("UINT16", TensorProto.UINT16, [0, 2**16 - 1]), ("UINT32", TensorProto.UINT32, [0, 2**32 - 1]),
    ("UINT64", TensorProto.UINT64, [0, 2**64 - 1]), ("INT8", TensorProto.INT8, [-(2**7), 2**7 - 1]),
    ("INT16", TensorProto.INT16, [-(2**15), 2**15 - 1]), ("INT32", TensorProto.INT32, [-(2**31), 2**31 - 1]),
    ("INT64", TensorProto.INT64, [-(2**63), 2**63 - 1]), ("FP16", TensorProto.FLOAT16, [-1.5, 65504.0]),
    ("FP32", TensorProto.FLOAT, [-1.5, 2.0**100]), ("FP64", TensorProto.DOUBLE, [-1.5, 1e300]),
])  # fmt: skip
def test_every_datatype_goes_in_and_comes_out_the_same_as_json_and_as_bytes(
    datatype: str, kind: int, numbers: list[float]
) -> None:
    serving = Serving()
    serving.put(MODEL, Loaded(load(graphs.echo(kind)), graphs.slot(7)))
    pages = Pages(serving, Metrics(), dict, "0.1.0")
    asked = {"name": "x", "datatype": datatype, "shape": [2]}
    answer, document = infer(pages, {"inputs": [{**asked, "data": numbers}]})
    assert answer.status == 200, document
    assert document["outputs"] == [{"name": "y", "datatype": datatype, "shape": [2], "data": numbers}]
    raw = np.array(numbers, DTYPES[cast(Datatype, datatype)]).tobytes()
    wish = {**asked, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [wish], "parameters": {"binary_data_output": True}}).encode()
    answer, _ = infer(pages, head + raw, inference_header_content_length=str(len(head)))
    assert answer.status == 200 and answer.body.endswith(raw)
    if datatype[0] in "UI":  # an integer: one more does not fit
        assert infer(pages, {"inputs": [{**asked, "data": [0, int(numbers[1]) + 1]}]})[0].status == 400


@pytest.mark.parametrize("datatype", ["BF16"])
def test_a_datatype_of_the_protocol_that_is_not_served_is_told_apart_from_none(pages: Pages, datatype: str) -> None:
    answer, document = infer(pages, {"inputs": [tensor(datatype=datatype)]})
    assert answer.status == 400 and "not served" in document["error"] and "FP32" in document["error"]
    assert "not served:" not in infer(pages, {"inputs": [tensor(datatype="FP31")]})[1]["error"]


@pytest.mark.parametrize("number", [1e39, -1e39])
def test_a_number_beyond_the_datatype_is_refused(pages: Pages, number: float) -> None:
    answer, document = infer(pages, {"inputs": [tensor(data=[number] * 8)]})
    assert answer.status == 400 and "beyond" in document["error"]


def test_the_index_has_a_reason_for_all_and_takes_only_true_or_false(pages: Pages) -> None:
    _, index = post(pages, "/v2/repository/index", {"ready": True})
    assert {entry["reason"] for entry in index} == {""} and {entry["version"] for entry in index} == {"7"}
    assert post(pages, "/v2/repository/index", {"ready": "yes"})[0].status == 400


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_models_neither_come_nor_go_over_http(pages: Pages, verb: str) -> None:
    answer, document = post(pages, f"/v2/repository/models/{MODEL}/{verb}", b"")
    assert answer.status == 403 and "signed" in document["error"]
    assert pages.handle(Request("GET", f"/v2/repository/models/{MODEL}/{verb}")).status == 405
    assert pages.handle(Request("GET", f"/v2/models/{MODEL}/ready")).status == 200


def test_a_name_that_can_be_none_says_so(pages: Pages) -> None:
    unknown, bad = (pages.handle(Request("GET", f"/v2/models/{name}")) for name in ("nobody", "Not%20A%20Name"))
    assert unknown.status == bad.status == 404 and unknown.body != bad.body


def test_histograms_count_what_was_observed() -> None:
    metrics = Metrics()
    for seconds, ok in ((0.0001, True), (0.0002, True), (5.0, False)):
        metrics.observe(MODEL, 7, seconds, ok)
    page = metrics.page().body.decode()
    at = f'model="{MODEL}",version="7"'
    for name, count in (("answers_total", 2), ("errors_total", 1), ("answer_seconds_count", 3)):
        assert f"falaj_{name}{{{at}}} {count}.0" in page
    for bound, count in (("0.0001", 1), ("1.0", 2), ("+Inf", 3)):
        assert f'falaj_answer_seconds_bucket{{le="{bound}",{at}}} {count}.0' in page
