"""What the outside clients meet: the agent's HTTP door over a real socket, with models of every datatype served."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.buffers import Unheard
from edge.http.capacity import Limits
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.predictions import Refusal
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync.messages import Prediction
from sync.names import ModelName
from tests.edge import graphs

ENTITY = "watch-1"
IMAGE, AWAY = ModelName("image"), ModelName("away")
ECHOES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "INT8": TensorProto.INT8, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip
STATUS = {"tenant": "acme", "device": "box-1", "agent": "0.1.0", "uplink": "down", "models": {}, "why": []}


def image() -> bytes:
    """Pictures `pixels` (n, 8, 8, 3) of bytes to `means` (n, 3) and `peak` (n, 3), by colour."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("ReduceMax", ["pixels", "axes"], ["peak"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    outputs = [graphs.value("means", ["n", 3]), graphs.value("peak", ["n", 3], TensorProto.UINT8)]
    return graphs.finish(nodes, [graphs.value("pixels", ["n", 8, 8, 3], TensorProto.UINT8)], outputs, [axes])


def serving(metrics: Metrics) -> Serving:
    found = Serving(observe=metrics.observe)
    models = {graphs.MODEL: graphs.classifier(), IMAGE: image(), AWAY: graphs.classifier()}
    models |= {ModelName(f"echo-{name.lower()}"): graphs.echo(kind) for name, kind in ECHOES.items()}
    for name, model in models.items():
        found.put(name, Loaded(load(model), graphs.slot(7, model)))
    found.take_away(AWAY)
    return found


def label(prediction_id: str, text: str) -> Refusal | None:
    """No prediction is kept; a label "typo" is none of the classes."""
    return Refusal.UNKNOWN_LABEL if text == "typo" else Refusal.UNKNOWN_ID


def predict(model: str | None, entity: str) -> Prediction:
    """One sensor is heard, by one model."""
    if entity != ENTITY or model not in (None, graphs.MODEL):
        raise Unheard(f"nothing was heard of {entity!r}")
    return Prediction("9f2c", graphs.MODEL, 1.5, "ok", "walk", (0.1, 0.8, 0.1), graphs.CLASSES, entity, 7)


@contextmanager
def door(limits: Limits | None = None) -> Iterator[HttpServer]:
    """The door, open until left."""
    metrics = Metrics()
    pages = Pages(serving(metrics), metrics, lambda: STATUS, "0.1.0", label=label, predict=predict)
    server = HttpServer(pages.handle, limits=limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def client(module: str, extra: str = "outside") -> ModuleType:
    """A library of others; skips the tests of the module that asks where it is not installed, and says so."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.skip(f"{module} is not installed: pip install -e '.[{extra}]'", allow_module_level=True)
