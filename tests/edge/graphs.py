"""Small real graphs for the tests of the predict path, good ones and really bad ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.states import Slot
from sync.chunks import digest
from sync.features import TensorSpec, WindowSpec
from sync.golden import Arrays
from sync.manifest import Binding, Blob, Lineage, Manifest, Profile, Variant
from sync.names import Digest, ModelName, TenantId
from sync.reports import Release

CLASSES = ("rest", "walk", "run")
CHANNELS = ("x", "y")
SIZE = 4
TENANT = TenantId("default")
MODEL = ModelName("motion")
WINDOW = WindowSpec(SIZE, 2, 1.0, CHANNELS, 2.0)


def finish(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: list[onnx.TensorProto] | None = None,
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


def value(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def classifier(bias: float = 0.0) -> bytes:
    """Mean over time, a linear layer, softmax: `window` (n, SIZE, 2) to `probabilities` (n, 3)."""
    weights = np.array([[1.0, 0.5, -1.0], [-0.5, 0.25, 2.0]], np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["window", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([bias, 0, 0], np.float32), "bias"),
    ]
    return finish(nodes, [value("window", ["n", SIZE, 2])], [value("probabilities", ["n", 3])], constants)


def log_of_input() -> bytes:
    """`y` = log `x`: NaN below nought, although the input is finite."""
    return finish([helper.make_node("Log", ["x"], ["y"])], [value("x", ["n", 2])], [value("y", ["n", 2])])


def echo(kind: int) -> bytes:
    return finish([helper.make_node("Identity", ["x"], ["y"])], [value("x", ["n"], kind)], [value("y", ["n"], kind)])


def breaks_on_run() -> bytes:
    """Loads; a Gather with an index from the input breaks out of bounds."""
    table = numpy_helper.from_array(np.arange(3, dtype=np.float32), "table")
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    return finish([node], [value("i", ["n"], TensorProto.INT64)], [value("y", ["n"])], [table])


def memory_bomb() -> bytes:
    """A few bytes that ask for 64 GiB when run."""
    nodes = [
        helper.make_node("Mul", ["x", "huge"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    huge = numpy_helper.from_array(np.array([1 << 34], np.int64), "huge")
    return finish(nodes, [value("x", [1], TensorProto.INT64)], [value("y", ["n"])], [huge])


def endless_loop() -> bytes:
    """A Loop whose condition stays true and whose count is the largest there is."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["sum", "sum"], ["next"]),
        ],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("sum", [1])],
        [value("on", [], TensorProto.BOOL), value("next", [1])],
    )
    constants = [
        numpy_helper.from_array(np.array(2**62, np.int64), "count"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    node = helper.make_node("Loop", ["count", "yes", "x"], ["y"], body=body)
    return finish([node], [value("x", [1])], [value("y", [1])], constants)


def external_data(location: str) -> bytes:
    """A graph whose weights lie in another file."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    weights.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", "8")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, text
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return finish([node], [value("x", ["n", 2])], [value("y", ["n", 2])], [weights])


def windows(count: int, seed: int = 1) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"window": rng.normal(size=(count, SIZE, 2)).astype(np.float32)}


def manifest(
    number: int = 1,
    bindings: tuple[Binding, ...] = (),
    classes: tuple[str, ...] = CLASSES,
    window: WindowSpec | None = WINDOW,
    model: ModelName = MODEL,
) -> Manifest:
    blob = Blob(Digest("a" * 64), Digest("b" * 64), 1, 1, (Digest("c" * 64),))
    lineage = Lineage("s", "v", "cnn1d", 7, {}, "because")
    return Manifest(
        TENANT, model, number, 0.0, (Variant("fp32", (), blob),), blob,
        (TensorSpec("window", "FP32", (-1, SIZE, 2)),), (TensorSpec("probabilities", "FP32", (-1, 3)),),
        classes, window, bindings, Profile(), lineage,
    )  # fmt: skip


def slot(number: int = 1, model: bytes = b"", of: Manifest | None = None) -> Slot:
    release = Release(number, Digest("d" * 64), digest(model))
    return Slot(release, of or manifest(number), {})
