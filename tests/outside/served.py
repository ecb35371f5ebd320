"""What the outside clients meet: the agent's HTTP door over a real socket, with models of every datatype served."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import ModuleType

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.edge.rooms import open_rooms
from appliance.edge.state import EdgeFolder
from appliance.keys import TenantKeys
from edge.agent import Identity
from edge.buffers import Unheard
from edge.http.capacity import Limits
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.http.wire import Request, Response
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync.messages import Prediction
from sync.names import DeviceId, ModelName
from tests.edge import graphs
from tests.outside import lived
from tests.waiting import meanwhile

ROOT = Path(__file__).resolve().parents[2]
ENTITY = "watch-1"
KNOWN = "9f2c"  # the id of a prediction that is remembered
OWN = Identity(graphs.TENANT, DeviceId("box-1"), 1, b"", b"", b"")
KEYS = TenantKeys(graphs.TENANT, bytes(32))
TICK = 0.25  # seconds
IMAGE, AWAY = ModelName("image"), ModelName("away")
ECHOES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "INT8": TensorProto.INT8, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip


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


def predict(model: str | None, entity: str) -> Prediction:
    """One sensor is heard, by one model."""
    if entity != ENTITY or model not in (None, graphs.MODEL):
        raise Unheard(f"nothing was heard of {entity!r}")
    return Prediction(KNOWN, graphs.MODEL, 1.5, "ok", "walk", (0.1, 0.8, 0.1), graphs.CLASSES, entity, 7)


@dataclass
class Door:
    """The door of this process, and how many requests it has answered at once at most."""

    port: int = 0
    together: int = 0


@contextmanager
def door(limits: Limits | None = None) -> Iterator[Door]:
    """The door, open until left. What is asked is remembered, and told of, as an agent does."""
    metrics, found, now = Metrics(), Door(), time.time
    with TemporaryDirectory() as folder:
        rooms = open_rooms(EdgeFolder(Path(folder)), OWN, KEYS, now, lambda *_: None, lambda *_: None)
        rooms.remember(predict(None, ENTITY), graphs.windows(1)["window"][0])
        pages = Pages(
            serving(metrics), metrics, lived.status, "0.1.0", label=rooms.label, record=rooms.recorder.record,
            predict=predict, said=rooms.predictions.said,
        )  # fmt: skip

        def together(requests: Sequence[Request]) -> list[Response]:
            found.together = max(found.together, len(requests))
            return pages.handle_all(requests)

        server = HttpServer(pages.handle, together=together, limits=limits)
        server.start()
        found.port = server.port
        try:
            with meanwhile(rooms.write_down, TICK):
                yield found
        finally:
            server.stop()
            rooms.close()


@dataclass
class Alone:
    """The same door in a process of its own: what it takes of the machine is nobody else's."""

    port: int
    process: subprocess.Popen[str]

    def memory(self, field: str) -> int:
        """Bytes of a field of its status: `VmRSS`, or `VmHWM` for the most there ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))


@contextmanager
def alone(limit: int) -> Iterator[Alone]:
    """Such a process, whose bodies have at most `limit` bytes; it must say nothing, and end as it is told."""
    command = [sys.executable, "-P", "-m", "tests.outside.served", str(limit)]
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Alone(int(process.stdout.readline()), process)
        finally:
            process.stdin.close()
            process.wait(30)
            errors.seek(0)
            said = errors.read()
        assert not said and process.returncode == 0, said


def client(module: str, extra: str = "outside") -> ModuleType:
    """A library of others; skips the tests of the module that asks where it is not installed, and says so."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        pytest.skip(f"{module} is not installed: pip install -e '.[{extra}]'", allow_module_level=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    with door(Limits(body=int(sys.argv[1]))) as opened:
        print(opened.port, flush=True)
        sys.stdin.read()
