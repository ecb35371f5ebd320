"""The local side of a device without its agent: real bindings, real buffers, a real graph, and what they said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync import codec
from sync.link import Publish
from sync.manifest import Binding, Manifest
from sync.messages import Prediction
from sync.names import DeviceId
from tests.edge import graphs
from tests.edge.graphs import TENANT

DEVICE = DeviceId("box-1")
BINDING = Binding("site/{entity}/accel", "site/{entity}/motion")


class Box:
    """A device with bindings, whose world is a list of publications and acknowledgements in order."""

    def __init__(self, path: Path, now: float | None = None) -> None:
        self.path = path
        self.log: list[tuple[str, Any]] = []
        self.serving = Serving()
        self.now = now
        self.start()

    def start(self) -> None:
        self.buffers = Buffers(self.path, TENANT, bytes(32))
        clock = None if self.now is None else lambda: float(self.now or 0)
        self.bindings = Bindings(TENANT, DEVICE, self.serving, self.buffers, self._publish, clock)

    def _publish(self, message: Publish) -> None:
        assert message.qos == 1 and not message.retain
        self.log.append((message.topic, message.payload))

    def go_live(self, of: Manifest, model: bytes | None = None) -> None:
        data = graphs.classifier() if model is None else model
        self.bindings.bind(of)
        self.serving.put(of.model, Loaded(load(data), graphs.slot(of.number, data, of)))

    def send(self, ts: float, entity: str = "w1", payload: bytes | None = None, qos: int = 1) -> None:
        if payload is None:
            payload = json.dumps({"ts": ts, "x": np.sin(ts), "y": np.cos(ts), "spare": "yes"}).encode()
        self.bindings.handle(f"site/{entity}/accel", payload, qos, lambda: self.log.append(("ack", ts)))

    def predictions(self) -> list[Prediction]:
        return [codec.decode(Prediction, p) for topic, p in self.log if topic.endswith("/motion")]

    def errors(self) -> list[dict[str, Any]]:
        return [json.loads(p) for topic, p in self.log if topic.endswith("/error")]
