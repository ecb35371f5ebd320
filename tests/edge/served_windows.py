"""A model that says what it was asked: its probabilities are the numbers of the window it was served, so each published
document carries the vector that reached the graph."""

from __future__ import annotations

import json

import msgspec
import numpy as np
from onnx import helper, numpy_helper

from edge.runtime import load
from edge.serving import Loaded
from edge.states import Slot
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Binding, Manifest
from sync.messages import Prediction
from tests.edge import graphs
from tests.sync.oracle import Event, Expected

BINDING = Binding("site/{entity}/accel", "site/{entity}/motion")


def mirror(spec: WindowSpec) -> bytes:
    """`window` (n, size, 2) to `probabilities` (n, size x 2)."""
    node = helper.make_node("Reshape", ["window", "shape"], ["probabilities"])
    shape = numpy_helper.from_array(np.array([-1, spec.size * 2], np.int64), "shape")
    taken, given = graphs.value("window", ["n", spec.size, 2]), graphs.value("probabilities", ["n", spec.size * 2])
    return graphs.finish([node], [taken], [given], [shape])


def manifest(spec: WindowSpec) -> Manifest:
    classes = tuple(f"value-{i}" for i in range(spec.size * 2))
    plain = graphs.manifest(3, (BINDING,), classes, spec)
    return msgspec.structs.replace(plain, inputs=(TensorSpec("window", "FP32", (-1, spec.size, 2)),))


def loaded(spec: WindowSpec) -> Loaded:
    data = mirror(spec)
    return Loaded(load(data), Slot(graphs.slot(3, data).release, manifest(spec), {}))


def readings(events: list[Event]) -> bytes:
    """One message with these events, as a sensor sends them."""
    return json.dumps([{"ts": t, "x": x, "y": y} for t, x, y in events]).encode()


def served(predictions: list[Prediction], spec: WindowSpec) -> list[Expected]:
    """What reached the graph; windows with holes have no values, for no model was asked."""
    nothing = np.full((spec.size, 2), np.nan, np.float32)
    told = [np.array(one.probabilities, np.float32).reshape(-1, 2) for one in predictions]
    return [
        Expected(one.ts, one.quality == "ok", values if len(values) else nothing)
        for one, values in zip(predictions, told, strict=True)
    ]


def without_holes(windows: list[Expected], spec: WindowSpec) -> list[Expected]:
    """Of windows that were never served only that they left."""
    nothing = np.full((spec.size, 2), np.nan, np.float32)
    return [one if one.complete else Expected(one.end, False, nothing) for one in windows]
