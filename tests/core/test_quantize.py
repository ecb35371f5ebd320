"""Quantization candidates: which are made of which graph, and that what must stay float does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from core.release.export import INPUT, OUTPUT, assemble, export_bare, export_legacy
from core.release.quantize import candidates, dynamic_applies
from core.training.networks import build
from core.training.recipes import network_for
from sync.features import WindowSpec

WINDOW = WindowSpec(32, 16, 0.02, ("x", "y"))
CLASSES = ("a", "b", "c")
NORMALISED = np.random.default_rng(0).standard_normal((64, 32, 2)).astype(np.float32)


def bare_of(network: nn.Module) -> bytes:
    return export_bare(network, WINDOW, CLASSES, (export_legacy,))


@pytest.fixture(scope="module")
def convolutional() -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return bare_of(build(network_for("cnn1d", WINDOW, len(CLASSES))))


@pytest.fixture(scope="module")
def dense() -> bytes:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return bare_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)))


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([OUTPUT], {INPUT: x})[0])


def test_convolutions_are_quantized_statically_only(convolutional: bytes) -> None:
    made = candidates(convolutional, NORMALISED).models
    assert list(made) == ["fp32", "int8-static"] and made["fp32"] == convolutional
    assert len(made["int8-static"]) < len(convolutional)
    np.testing.assert_allclose(run(made["int8-static"], NORMALISED), run(convolutional, NORMALISED), atol=0.05)


def test_dense_graphs_are_quantized_dynamically_too(dense: bytes) -> None:
    made = candidates(dense, NORMALISED).models
    assert list(made) == ["fp32", "int8-static", "int8-dynamic"]
    wanted = run(dense, NORMALISED)
    for model in made.values():
        np.testing.assert_allclose(run(model, NORMALISED), wanted, atol=0.05)


def test_softmax_and_normalisation_stay_float(convolutional: bytes) -> None:
    static = candidates(convolutional, NORMALISED).models["int8-static"]
    mean, deviation = np.array([40.0, -3.0], np.float32), np.array([9.0, 0.1], np.float32)
    whole, hot = (assemble(static, mean, deviation, {}, temperature=by) for by in (1.0, 2.0))
    graph = onnx.load_model_from_string(whole).graph
    assert [node.op_type for node in graph.node[:2]] == ["Sub", "Div"]
    assert graph.node[-1].op_type == "Softmax" and list(graph.node[-1].output) == [OUTPUT]
    tempered = onnx.load_model_from_string(hot).graph.node[-3:]
    assert [node.op_type for node in tempered] == ["DequantizeLinear", "Div", "Softmax"]
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    raw = NORMALISED * deviation + mean
    np.testing.assert_allclose(run(whole, raw), run(static, NORMALISED), atol=0.02)


def test_where_the_weights_lie_decides_on_dynamic(convolutional: bytes, dense: bytes) -> None:
    assert not dynamic_applies(convolutional)
    assert dynamic_applies(dense)


def test_a_graph_the_quantizer_cannot_read_still_ships_as_float_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node = helper.make_node("NoSuchOperator", [INPUT], [OUTPUT])
    shape = ["batch", 32, 2]
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones(1, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    made = candidates(model.SerializeToString(), NORMALISED)
    assert list(made.models) == ["fp32"]
    assert made.refusals[0].startswith("int8-static cannot be made: ")
    assert not list(tmp_path.iterdir()), "no copy of the graph lies in the working folder, in the clear"
