"""The protocol as NVIDIA's own client speaks it: `tritonclient[http]`, unchanged, JSON and binary."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edge.runtime import load
from tests.edge import graphs
from tests.outside import served

triton: Any = served.client("tritonclient.http")
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False], "UINT8": [0, 255], "INT8": [-128, 127], "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1], "FP32": [0.1, -3e38], "FP64": [0.1, 1e300], "BYTES": ["فلج".encode(), b""],
}  # fmt: skip
DTYPES = {"BOOL": np.bool_, "UINT8": np.uint8, "INT8": np.int8, "INT32": np.int32, "INT64": np.int64,
          "FP32": np.float32, "FP64": np.float64, "BYTES": np.object_}  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with served.door() as door:
        asker = triton.InferenceServerClient(f"127.0.0.1:{door.port}")
        yield asker
        asker.close()


def given(name: str, array: Any, datatype: str, binary: bool) -> Any:
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def test_health_metadata_and_index(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(graphs.MODEL) and client.is_model_ready(graphs.MODEL, "7")
    assert not client.is_model_ready(graphs.MODEL, "6") and not client.is_model_ready(served.AWAY)
    assert client.get_server_metadata()["name"] == "falaj"
    (tensor,) = client.get_model_metadata(graphs.MODEL, "7")["inputs"]
    assert tensor == {"name": "window", "datatype": "FP32", "shape": [-1, graphs.SIZE, 2]}
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index[served.IMAGE] == {"name": "image", "version": "7", "state": "READY", "reason": ""}
    assert index[served.AWAY]["state"] == "UNAVAILABLE" and index[served.AWAY]["reason"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_a_batch_both_ways(client: Any, binary_in: bool, binary_out: bool) -> None:
    windows = graphs.windows(3)["window"]
    wish = triton.InferRequestedOutput("probabilities", binary_data=binary_out)
    ask = [given("window", windows, "FP32", binary_in)]
    result = client.infer(graphs.MODEL, ask, outputs=[wish], request_id="a-1", model_version="7")
    expected = load(graphs.classifier()).run({"window": windows})["probabilities"]
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a-1", graphs.MODEL, "7")
    assert answer["parameters"]["release"] == 7


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", list(VALUES))
def test_every_datatype_comes_back_as_it_went(client: Any, datatype: str, binary: bool) -> None:
    array = np.array(VALUES[datatype], DTYPES[datatype])
    wish = triton.InferRequestedOutput("y", binary_data=binary)
    result = client.infer(f"echo-{datatype.lower()}", [given("x", array, datatype, binary)], outputs=[wish])
    back = result.as_numpy("y")
    if datatype == "BYTES" and not binary:
        back = np.array([text.encode() for text in back], np.object_)  # JSON has no bytes
    np.testing.assert_array_equal(back, array)


def test_a_picture_of_bytes_and_one_output_of_two(client: Any) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    ask = [given("pixels", pixels, "UINT8", True)]
    both = client.infer(served.IMAGE, ask)
    np.testing.assert_array_equal(both.as_numpy("peak"), pixels.max((1, 2)))
    np.testing.assert_allclose(both.as_numpy("means"), pixels.mean((1, 2)), rtol=1e-5)
    one = client.infer(served.IMAGE, ask, outputs=[triton.InferRequestedOutput("peak")])
    assert one.as_numpy("means") is None and one.as_numpy("peak").dtype == np.uint8


def test_parameters_of_others_are_no_offence(client: Any) -> None:
    ask = [given("window", graphs.windows(1)["window"], "FP32", True)]
    client.infer(graphs.MODEL, ask, sequence_id=5, sequence_start=True, priority=2, timeout=9, parameters={"own": "x"})


def test_its_errors_are_told_in_its_own_words(client: Any) -> None:
    short = given("window", np.zeros((1, 2, 2), np.float32), "FP32", True)
    half = given("window", graphs.windows(1)["window"].astype(np.float16), "FP16", True)
    right = given("window", graphs.windows(1)["window"], "FP32", True)
    asked = [(400, graphs.MODEL, short), (400, graphs.MODEL, half), (404, "nobody", right), (503, served.AWAY, right)]
    for code, model, tensor in asked:
        with pytest.raises(triton.InferenceServerException) as refused:
            client.infer(model, [tensor])
        assert refused.value.status() == str(code) and refused.value.message()
    for control in (client.load_model, client.unload_model):
        with pytest.raises(triton.InferenceServerException, match="signed"):
            control(graphs.MODEL)


def test_many_at_once() -> None:
    with served.door() as door:
        many = triton.InferenceServerClient(f"127.0.0.1:{door.port}", concurrency=8)
        windows = [graphs.windows(1, seed)["window"] for seed in range(64)]
        waiting = [many.async_infer(graphs.MODEL, [given("window", w, "FP32", True)]) for w in windows]
        truth = load(graphs.classifier())
        for window, asked in zip(windows, waiting, strict=True):
            expected = truth.run({"window": window})["probabilities"]
            np.testing.assert_array_equal(asked.get_result().as_numpy("probabilities"), expected)
        many.close()
