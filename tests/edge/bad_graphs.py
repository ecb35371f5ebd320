"""Really bad models that pass their golden vectors (indices 0 and 1) and show what they are at index 2.

All take `i` and answer `y`, as the lookup tables of `tests.edge.world` do, so that each can be shipped as a release.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.runtime import load
from tests.edge import graphs

TABLE = (2.0, 2.5, 2.25)
LEAST = -(2**63)
MIB = 2**20


def _const(name: str, values: list[int] | list[float], kind: type[np.generic] = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, kind), name)


def _finish(
    nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: list[int | str] | None = None
) -> bytes:
    table = _const("table", list(TABLE), np.float32)
    inputs = [graphs.value("i", ["n"], TensorProto.INT64)]
    return graphs.finish(nodes, inputs, [graphs.value("y", shape or ["n"])], [table, *constants])


def crashes(on_load: bool = False, at: int = 2) -> bytes:
    """Divides the least 64-bit integer by -1, for which an x86 processor kills the process (SIGFPE): at index `at`, or
    already where the constants are folded."""
    answer = [
        helper.make_node("Gather", ["table", "i"], ["said"]),
        helper.make_node("Div", ["least", "by"], ["huge"]),
        helper.make_node("Cast", ["huge"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "nought"], ["nothing"]),
        helper.make_node("Add", ["said", "nothing"], ["y"]),
    ]
    constants = [_const("least", [LEAST]), _const("nought", [0.0], np.float32)]
    if on_load:
        return _finish(answer, [*constants, _const("by", [-1])])
    gather = helper.make_node("Gather", ["divisors", "i"], ["by"])
    return _finish([gather, *answer], [*constants, _const("divisors", [-1 if i == at else 1 for i in range(3)])])


def crashes_on_call(number: int) -> bytes:
    """The same on the `number`-th run of a session, whatever it is asked: a graph has no memory of its own, but what it
    draws by lot goes on from run to run, and under this seed nothing larger comes before."""
    seed, above = _draws(number)
    nodes = [
        _draw(seed),
        helper.make_node("Greater", ["drawn", "above"], ["it"]),
        helper.make_node("Where", ["it", "minus", "one"], ["by"]),
        helper.make_node("Gather", ["table", "i"], ["said"]),
        helper.make_node("Div", ["least", "by"], ["huge"]),
        helper.make_node("Cast", ["huge"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "nought"], ["nothing"]),
        helper.make_node("Add", ["said", "nothing"], ["y"]),
    ]
    whole = [_const("least", [LEAST]), _const("minus", [-1]), _const("one", [1])]
    return _finish(nodes, [*whole, _const("nought", [0.0], np.float32), _const("above", [above], np.float32)])


def _draw(seed: int) -> onnx.NodeProto:
    return helper.make_node("RandomUniform", [], ["drawn"], shape=[1], seed=float(seed))


@cache
def _draws(number: int) -> tuple[int, float]:
    """A seed whose `number`-th draw is its largest so far, and a bound between that and all before."""
    for seed in range(207, 100_000):  # of today's onnxruntime, 207 is the first for the 100th call
        session = load(graphs.finish([_draw(seed)], [], [graphs.value("drawn", [1])]))
        *before, last = (float(session.run({})["drawn"][0]) for _ in range(number))
        if last > max(before):
            return seed, (last + max(before)) / 2
    raise AssertionError(f"no seed draws its largest at {number}")


def changes_shape() -> bytes:
    """Says it answers (1, 3), and answers (3, 1) at index 2."""
    nodes = [
        helper.make_node("Gather", ["shapes", "i"], ["rows"]),
        helper.make_node("Squeeze", ["rows", "first"], ["shape"]),
        helper.make_node("Reshape", ["table", "shape"], ["y"]),
    ]
    shapes = numpy_helper.from_array(np.array([[1, 3], [1, 3], [3, 1]], np.int64), "shapes")
    return _finish(nodes, [shapes, _const("first", [0])], [1, 3])


def changes_rank() -> bytes:
    """Says it answers (n), and answers (n, 1) at index 2."""
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["said"]),
        helper.make_node("Gather", ["ranks", "i"], ["wanted"]),
        helper.make_node("ReduceMax", ["wanted"], ["rank"]),
        helper.make_node("Slice", ["dims", "first", "rank"], ["shape"]),
        helper.make_node("Reshape", ["said", "shape"], ["y"]),
    ]
    return _finish(nodes, [_const("ranks", [1, 1, 2]), _const("dims", [-1, 1]), _const("first", [0])])


def grows(mib: int, at: int = 2) -> bytes:
    """Makes a tensor of so many MiB at index `at`, which the arena of its session then keeps."""
    nodes = [
        helper.make_node("Gather", ["sizes", "i"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["large"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("Exp", ["large"], ["larger"]),
        helper.make_node("ReduceMin", ["larger"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nought"], ["nothing"]),
        helper.make_node("Gather", ["table", "i"], ["said"]),
        helper.make_node("Add", ["said", "nothing"], ["y"]),
    ]
    sizes = _const("sizes", [mib * MIB // 4 if i == at else 1 for i in range(3)])
    return _finish(nodes, [sizes, _const("nought", [0.0], np.float32)])


def spins(*turns: int) -> bytes:
    """A Loop of so many turns at each index: index 2 may go on for ever, or all may be slow."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Mul", ["sum", "sum"], ["next"])],
        "body",
        [graphs.value("k", [], TensorProto.INT64), graphs.value("go", [], TensorProto.BOOL), graphs.value("sum", [1])],
        [graphs.value("on", [], TensorProto.BOOL), graphs.value("next", [1])],
    )
    nodes = [
        helper.make_node("Gather", ["turns", "i"], ["wanted"]),
        helper.make_node("ReduceMax", ["wanted"], ["count"], keepdims=0),
        helper.make_node("Loop", ["count", "yes", "nought"], ["nothing"], body=body),
        helper.make_node("Gather", ["table", "i"], ["said"]),
        helper.make_node("Add", ["said", "nothing"], ["y"]),
    ]
    yes = numpy_helper.from_array(np.array(True), "yes")
    return _finish(nodes, [_const("turns", list(turns)), yes, _const("nought", [0.0], np.float32)])


def by_window(model: bytes, says: tuple[int, ...] = (0, 1, 2)) -> bytes:
    """The same of a `window` that holds the index, and that also speaks, as `tests.edge.world.speaking` does."""
    bad = onnx.load_from_string(model)
    sure = numpy_helper.from_array(np.eye(3, dtype=np.float32)[list(says)], "sure")
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["sure", "i"], ["probabilities"]),
        *bad.graph.node,
    ]
    outputs = [graphs.value("probabilities", ["n", 3]), *bad.graph.output]
    constants = [sure, _const("flat", [-1]), *bad.graph.initializer]
    return graphs.finish(nodes, [graphs.value("window", ["n", 1, 1])], outputs, constants)


ENDLESS = spins(1, 1, 2**62)
