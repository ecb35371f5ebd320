"""A device as the README's reader meets it: its folder, its HTTP port, its own Mosquitto, one bound model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
from onnx import helper, numpy_helper

from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from edge.bindings import Bindings, Requests
from edge.buffers import Buffers
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from sync.features import TensorSpec, WindowSpec
from sync.link import Message
from sync.manifest import Binding, Manifest
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from sync.names import DeviceId, ModelName
from tests.edge import graphs
from tests.waiting import eventually

MODEL = ModelName("exercise")
CLASSES = ("ABD", "ROW")
WINDOW = WindowSpec(100, 50, 0.02, ("ax", "ay", "az", "wx", "wy", "wz"), 1.0)
SHAPE = (-1, WINDOW.size, len(WINDOW.channels))


def model(seed: int = 1) -> bytes:
    """Windows of the demo's shape to two probabilities."""
    weights = np.random.default_rng(seed).normal(size=(len(WINDOW.channels), len(CLASSES))).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["window", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    constants = [numpy_helper.from_array(np.array([1], np.int64), "axes"), numpy_helper.from_array(weights, "weights")]
    taken, given = graphs.value("window", ["n", *SHAPE[1:]]), graphs.value("probabilities", ["n", len(CLASSES)])
    return graphs.finish(nodes, [taken], [given], constants)


def manifest() -> Manifest:
    bindings = (Binding("watch/{entity}/imu", "watch/{entity}/exercise"),)
    plain = graphs.manifest(3, bindings, CLASSES, WINDOW, MODEL)
    return msgspec.structs.replace(plain, inputs=(TensorSpec("window", "FP32", SHAPE),))


@contextmanager
def device(home: Path, name: str = "watch-1") -> Iterator[int]:
    """Runs the device; its files lie under `home/.falaj-demo/{name}` as the demo leaves them. Yields its HTTP port."""
    folder = home / ".falaj-demo" / name
    folder.mkdir(parents=True)
    http_port, mqtt_port = free_ports(2)
    (folder / "edge.toml").write_text(f"http_port = {http_port}\n\n[local_broker]\nport = {mqtt_port}\n")
    write_passwords(folder / "broker", ("falaj", "app"))
    broker = Broker(folder / "broker", "127.0.0.1", mqtt_port, "port in edge.toml")
    broker.start(local_config(folder / "broker", mqtt_port))
    metrics = Metrics()
    serving = Serving(observe=metrics.observe)
    serving.put(MODEL, Loaded(load(model()), Slot(graphs.slot(3, model()).release, manifest(), {})))
    pages = Pages(serving, metrics, lambda: {"tenant": "default", "device": name, "why": []}, "0.1.0")
    server = HttpServer(pages.handle, together=pages.handle_all, port=http_port)
    server.start()
    try:
        with bound(folder, mqtt_port, serving):
            yield http_port
    finally:
        server.stop()
        broker.stop()


@contextmanager
def bound(folder: Path, port: int, serving: Serving, of: Manifest | None = None) -> Iterator[None]:
    """The model's bindings and the questions of applications, joined to the broker as the agent joins them."""
    password = (folder / "broker" / "falaj.password").read_text().strip()
    at = At("127.0.0.1", port, "falaj-test", user="falaj", password=password, session_expiry=60)
    link = MqttLink(at, manual_ack=True, queue_when_down=True)
    buffers = Buffers(folder / "buffers.sqlite", graphs.TENANT, b"k" * 32)
    bindings = Bindings(graphs.TENANT, DeviceId("watch-1"), serving, buffers, link.publish)
    bindings.bind(of or manifest())
    requests = Requests(
        DeviceId("watch-1"), serving, link.publish, time.time, lambda asked, answer: "9f2c", bindings.subscriptions
    )

    def received(message: Message) -> None:
        def ack() -> None:
            if message.qos:
                link.acknowledge(message.receipt, message.qos)

        if requests.hears(message.topic):
            requests.handle(message, lambda: bindings.follow(ack))
        else:
            bindings.handle(message.topic, message.payload, message.qos, ack)

    wanted = {*requests.subscriptions(), *bindings.subscriptions()}
    link.subscribe(*wanted)
    link.start(received, lambda is_up, why: None)
    try:
        assert link.wait_until_up(20)
        eventually(lambda: link.listening == wanted, "the subscriptions")
        yield
    finally:
        link.stop()
        buffers.close()
