"""The agent's HTTP door as the agent composes it, metrics on: `python -m benchmarks.rivals.ours FOLDER PORT`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from sync.chunks import digest
from sync.features import TensorSpec
from sync.manifest import Blob, Lineage, Manifest, Profile, Variant
from sync.messages import Release
from sync.names import DEFAULT_TENANT, Digest, ModelName


def slot(name: ModelName, model: bytes) -> Slot:
    """A release of the model that nobody signed."""
    blob = Blob(digest(model), Digest("b" * 64), 1, 1, (Digest("c" * 64),))
    inputs, outputs = (TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),)
    variants, lineage = (Variant("fp32", (), blob),), Lineage("s", "v", "r", 1, {}, "measured")
    manifest = Manifest(DEFAULT_TENANT, name, 1, 0.0, variants, blob, inputs, outputs, (), None, (), Profile(), lineage)
    return Slot(Release(1, Digest("d" * 64), digest(model)), manifest, {})


def main() -> None:
    metrics = Metrics()
    serving = Serving(observe=metrics.observe)
    for file in Path(sys.argv[1]).glob("*.onnx"):
        name, model = ModelName(file.stem), file.read_bytes()
        serving.put(name, Loaded(load(model), slot(name, model)))
    server = HttpServer(Pages(serving, metrics, dict, "benchmark").handle, port=int(sys.argv[2]))
    server.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop()


if __name__ == "__main__":
    main()
