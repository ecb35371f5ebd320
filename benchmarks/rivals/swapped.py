"""The agent's HTTP door and bindings with two releases that take turns: `python -m benchmarks.rivals.swapped FOLDER
HTTP_PORT MQTT_PORT SECONDS`. Says `ready`, and at SIGTERM when a switch was decided, how long the switch itself took
(what the journal needs before is of the decision), and who answers since.
"""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from appliance import clock
from appliance.pump import Pump
from benchmarks.rivals import ours
from edge.bindings import Bindings
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.journal import Journal
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Deployment, Phase
from sync.link import Message
from sync.manifest import Binding
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import DEFAULT_TENANT, DeviceId, ModelName

MODELS = (ModelName("mlp"), ModelName("cnn"))  # the first is asked over HTTP, the second over MQTT


def bound(folder: Path, port: int, serving: Serving, live: Loaded, pump: Pump) -> MqttLink:
    """The CNN's bindings, joined to the local broker as the agent joins them."""
    password = (folder / "broker" / "falaj.password").read_text().strip()
    link = MqttLink(
        At("127.0.0.1", port, "agent", user="falaj", password=password), manual_ack=True, queue_when_down=True,
        confirmed=lambda: pump.submit(bindings.settle),
    )  # fmt: skip
    buffers = Buffers(folder / "buffers.db", DEFAULT_TENANT, bytes(32))
    device = DeviceId("bench")
    bindings = Bindings(DEFAULT_TENANT, device, serving, buffers, link.publish, settled=lambda: not link.unconfirmed)
    binding = Binding("felt/{entity}", "said/{entity}")
    bindings.bind(msgspec.structs.replace(live.slot.manifest, bindings=(binding,)))

    def received(message: Message) -> None:
        receipt, qos = message.receipt, message.qos
        bindings.handle(message.topic, message.payload, qos, lambda: link.acknowledge(receipt, qos))

    link.subscribe(*bindings.subscriptions())
    link.start(received, lambda up, why: None)
    while not link.listening:
        time.sleep(0.02)
    return link


def another(folder: Path, first: Loaded, number: int) -> Loaded:
    """The same graph once more, in a session of its own, as release `number`."""
    name = first.slot.manifest.model
    graph = (folder / f"{name}.onnx").read_bytes()
    session = load(graph)
    return replace(first, session=session, slot=ours.slot(name, graph, number, session.inputs[0], session.outputs[0]))


def main() -> None:
    folder, every = Path(sys.argv[1]), float(sys.argv[4])
    with tempfile.TemporaryDirectory() as home:
        metrics, (beside, pumps) = Metrics(), ours.rooms(Path(home))
        serving = Serving(observe=metrics.observe)
        ours.serve(folder, serving, beside)
        first = {model: serving.loaded(model) for model in MODELS}
        link = bound(folder, int(sys.argv[3]), serving, first[MODELS[1]], pumps[1])
        pages = Pages(serving, metrics, dict, "benchmark", record=beside.recorder.record)
        server = HttpServer(pages.handle, together=pages.handle_all, port=int(sys.argv[2]))
        for pump in pumps:
            pump.start()
        server.start()
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        print("ready", flush=True)
        swaps, journal = [], Journal.open(Path(home) / "journal.db")
        while not ended.wait(every):
            number = 2 - len(swaps) % 2
            chosen = {model: another(folder, loaded, number) for model, loaded in first.items()}
            decided = clock.ticks()
            for model, loaded in chosen.items():  # as the walker does: journal first, act second
                journal.write(Deployment(model, Phase.REVERTING, clock.now(), serving=loaded.slot))
            written = clock.ticks()
            for model, loaded in chosen.items():
                serving.put(model, loaded)
            swaps.append((decided, clock.ticks() - written, number))
        print(json.dumps(swaps), flush=True)
        journal.close()
        link.stop()
        server.stop()
        for pump in pumps:
            pump.stop()
        beside.close()


if __name__ == "__main__":
    main()
