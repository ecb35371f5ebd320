"""Two graphs to measure with, random weights: a small MLP and the network of the recipe `cnn1d`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (32, 64, 64, 6)
WINDOW = (100, 6)
CLASSES = 7


def mlp() -> bytes:
    """`x` (n, 32) through two hidden layers of 64 to `y` (n, 6)."""
    rng = np.random.default_rng(1)
    nodes, constants, last = [], [], "x"
    for layer, (rows, columns) in enumerate(pairwise(WIDTHS)):
        constants += [_random(rng, f"w{layer}", (rows, columns)), _random(rng, f"b{layer}", (columns,))]
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"h{layer}"]))
        last = f"h{layer}"
        if layer < len(WIDTHS) - 2:
            nodes.append(helper.make_node("Relu", [last], [f"r{layer}"]))
            last = f"r{layer}"
    nodes.append(helper.make_node("Softmax", [last], ["y"], axis=-1))
    return _finish(nodes, ["n", WIDTHS[0]], ["n", WIDTHS[-1]], constants)


def cnn() -> bytes:
    """`x` (n, 100, 6), normalised, through two strided convolutions and an average to `y` (n, 7)."""
    rng = np.random.default_rng(2)
    constants = [
        _random(rng, "mean", (WINDOW[1],)), numpy_helper.from_array(np.full(WINDOW[1], 2.0, np.float32), "deviation"),
        _random(rng, "k0", (32, WINDOW[1], 5)), _random(rng, "c0", (32,)),
        _random(rng, "k1", (64, 32, 5)), _random(rng, "c1", (64,)),
        _random(rng, "w", (64, CLASSES)), _random(rng, "b", (CLASSES,)),
    ]  # fmt: skip
    steps = [
        ("Sub", ["x", "mean"], "centred", {}), ("Div", ["centred", "deviation"], "normal", {}),
        ("Transpose", ["normal"], "t", {"perm": [0, 2, 1]}),
        ("Conv", ["t", "k0", "c0"], "v0", {"strides": [2]}), ("Relu", ["v0"], "r0", {}),
        ("Conv", ["r0", "k1", "c1"], "v1", {"strides": [2]}), ("Relu", ["v1"], "r1", {}),
        ("GlobalAveragePool", ["r1"], "p", {}), ("Flatten", ["p"], "f", {}),
        ("Gemm", ["f", "w", "b"], "z", {}), ("Softmax", ["z"], "y", {"axis": -1}),
    ]  # fmt: skip
    nodes = [helper.make_node(kind, inputs, [output], **extra) for kind, inputs, output, extra in steps]
    return _finish(nodes, ["n", *WINDOW], ["n", CLASSES], constants)


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)


def _finish(
    nodes: list[onnx.NodeProto], taken: list[int | str], given: list[int | str], constants: list[onnx.TensorProto]
) -> bytes:
    value = helper.make_tensor_value_info
    inputs, outputs = [value("x", TensorProto.FLOAT, taken)], [value("y", TensorProto.FLOAT, given)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()
