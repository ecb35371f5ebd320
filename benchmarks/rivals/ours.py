"""The agent's doors as the agent composes them: HTTP, and MQTT where there is a broker.

    python -m benchmarks.rivals.ours FOLDER PORT [BROKER_PORT USER PASSWORD_FILE]

Metrics, drift telemetry, the sealed ring of predictions, and a candidate in shadow whose pairs are counted are all on.
"""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import numpy as np

from appliance import clock
from appliance.edge.local_session import LocalSession
from appliance.edge.node import TICK, UNACKED
from appliance.edge.rooms import CHECKPOINT, Rooms, open_rooms
from appliance.edge.state import EdgeFolder
from appliance.keys import tenant_keys
from appliance.pump import Pump, breathe, settled
from appliance.settings import LocalBroker
from edge.agent import Identity
from edge.batching import height
from edge.bindings import Bindings, Requests
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.kept import Kept
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from edge.telemetry import Telemetry
from sync.bindings import Binding
from sync.chunks import digest
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Blob, Drift, Lineage, Manifest, Profile, Variant
from sync.messages import Gates
from sync.names import DEFAULT_TENANT, DeviceId, Digest, ModelName
from sync.reports import Release

READINGS, SAID = "bench/{entity}/accel", "bench/{entity}/motion"  # of the windowed model's sensors
CHANNELS = tuple("abcdef")


def slot(name: ModelName, model: bytes, number: int, x: TensorSpec, y: TensorSpec) -> Slot:
    """A release of the model that nobody signed, watched for drift."""
    blob = Blob(digest(model), Digest("b" * 64), 1, 1, (Digest("c" * 64),))
    variants, lineage = (Variant("fp32", (), blob),), Lineage("s", "v", "r", 1, {}, "measured")
    classes = tuple(f"class-{i}" for i in range(y.shape[-1]))
    window = None if len(x.shape) == 2 else WindowSpec(x.shape[1], x.shape[1] // 2, 0.01, CHANNELS)
    bound = (Binding(READINGS, SAID),) if window is not None else ()
    manifest = Manifest(
        DEFAULT_TENANT, name, number, 0.0, variants, blob, (x,), (y,), classes, window, bound, Profile(), lineage,
        Drift(),
    )  # fmt: skip
    return Slot(Release(number, Digest(f"{number:064x}"), digest(model)), manifest, {})


WATCHED, BASELINE = ModelName("watched"), Drift().window * Drift().baseline


def watched(folder: Path, width: int) -> Telemetry:
    """Detectors that watch the columns of one input of a model without windows; `BASELINE` rows come first."""
    nothing = Kept(folder, DEFAULT_TENANT, bytes(32), "drift", secrets.token_bytes, lambda code, text: None)
    found = Telemetry(nothing, lambda model, report: None)
    of = slot(WATCHED, b"", 1, TensorSpec("x", "FP32", (-1, width)), TensorSpec("y", "FP32", (-1, 2)))
    found.watch(of.manifest)
    return found


def rooms(folder: Path) -> tuple[Rooms, list[Pump]]:
    """What remembers and watches beside the door, and the threads that it needs; they end with the process."""
    own = Identity(DEFAULT_TENANT, DeviceId("bench"), 1, b"", b"", b"")

    written = 0.0

    def tick() -> None:
        nonlocal written
        found.write_down(found.rest)
        if clock.ticks() - written >= CHECKPOINT:
            written = clock.ticks()
            found.telemetry.write_down()

    pairs = Pump("trials", lambda: None, 60.0, rest=breathe)
    keys = tenant_keys(folder / "kek", folder / "key", own.tenant)
    found = open_rooms(
        EdgeFolder(folder), own, keys, clock.now, lambda *_: None,
        lambda code, text: print(code, text, file=sys.stderr), pairs.submit, rest=breathe,
    )  # fmt: skip
    return found, [pairs, Pump("agent", tick, TICK)]


def serve(folder: Path, serving: Serving, beside: Rooms) -> None:
    """Puts every graph of the folder into service, with the same one once more in shadow."""
    for file in sorted(folder.glob("*.onnx")):
        name, model = ModelName(file.stem), file.read_bytes()
        session = load(model)
        rows = {"x": np.random.default_rng(4).normal(size=(4, *session.inputs[0].shape[1:])).astype(np.float32)}
        live, shadow = (
            Loaded(session, slot(name, model, number, session.inputs[0], session.outputs[0]), height(session, rows))
            for number in (1, 2)
        )
        serving.put(name, live)
        beside.telemetry.watch(live.slot.manifest)
        beside.trials.open(name, shadow, live, Gates("agreement"), 0)


def answer(serving: Serving, beside: Rooms, folder: Path, port: int, user: str, password: str) -> None:
    """Answers questions over MQTT as the agent does, and readings of the windowed models' sensors; until the process
    ends. Checkpoints and what the broker confirmed are looked after beside the session, as in the agent."""
    device, report = DeviceId("bench"), partial(print, file=sys.stderr)
    settling = Pump("bindings", lambda: bindings.settle(), TICK)
    session = LocalSession(
        LocalBroker(managed=False, port=port, user=user), password, device,
        lambda: settling.submit(bindings.settle) if bindings.waits else None, report,
    )  # fmt: skip
    buffers = Buffers(folder / "buffers", DEFAULT_TENANT, bytes(32), max_unacked=UNACKED, ticks=clock.ticks)
    bindings = Bindings(
        DEFAULT_TENANT, device, serving, buffers, session.publish, clock.now, beside.telemetry.observe,
        beside.remember, lambda: session.settled, beside.lookups,
    )  # fmt: skip
    for loaded in serving.models().values():
        if loaded is not None and loaded.slot.manifest.window is not None:
            bindings.bind(loaded.slot.manifest)
    record, heard = beside.recorder.record, bindings.subscriptions
    requests = Requests(device, serving, session.publish, clock.now, record, heard)
    session.listen(bindings, requests)
    settling.start()
    session.start(bindings, requests)


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        metrics, (beside, pumps) = Metrics(), rooms(Path(home))
        serving = Serving(observe=metrics.observe)
        serve(Path(sys.argv[1]), serving, beside)
        pages = Pages(serving, metrics, dict, "benchmark", label=beside.label, record=beside.recorder.record)
        server = HttpServer(pages.handle, together=pages.handle_all, port=int(sys.argv[2]))
        for pump in pumps:
            pump.start()
        server.start()
        if len(sys.argv) > 3:
            answer(serving, beside, Path(home), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]).read_text())
        settled()
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        ended.wait()
        server.stop()
        for pump in pumps:
            pump.stop()
        beside.close()


if __name__ == "__main__":
    main()
