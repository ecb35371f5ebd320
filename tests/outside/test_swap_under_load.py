"""Releases are swapped and taken back while HTTP and MQTT ask: every question has one answer, of one release."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from edge.batching import height
from edge.http.metrics import Metrics
from edge.http.pages import Pages
from edge.http.server import HttpServer
from edge.runtime import load
from edge.serving import Loaded, Serving
from edge.states import Slot
from sync import codec
from sync.link import Message, Publish
from sync.messages import Prediction
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.edge import graphs
from tests.outside.field import MODEL, SHAPE, WINDOW, bound, manifest, model
from tests.waiting import eventually

pytestmark = pytest.mark.broker

ASKERS, EACH, WINDOWS = 6, 60, 60
RELEASES = (3, 4)


def window(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(1, *SHAPE[1:])).astype(np.float32)


def release(number: int) -> Loaded:
    """One of two releases that give different answers."""
    data = model(number)
    session = load(data)
    rows = {"window": np.concatenate([window(i) for i in range(4)])}
    return Loaded(session, Slot(graphs.slot(number, data).release, manifest(), {}), height(session, rows))


@dataclass
class Swapper:
    """Puts one release after the other, as a switch and a way back do, until it is told to end."""

    serving: Serving
    swaps: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        loaded = [release(number) for number in RELEASES]
        while not self.ended.wait(0.002):
            self.swaps += 1
            self.serving.put(MODEL, loaded[self.swaps % 2])


@contextmanager
def swapping(serving: Serving) -> Iterator[Swapper]:
    swapper = Swapper(serving)
    thread = threading.Thread(target=swapper.run)
    thread.start()
    try:
        yield swapper
    finally:
        swapper.ended.set()
        thread.join()


@pytest.fixture
def serving() -> Serving:
    found = Serving()
    found.put(MODEL, release(RELEASES[0]))
    return found


@pytest.fixture
def http_port(serving: Serving) -> Iterator[int]:
    pages = Pages(serving, Metrics(), dict, "0.1.0")
    server = HttpServer(pages.handle, together=pages.handle_all)
    server.start()
    yield server.port
    server.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    write_passwords(tmp_path / "broker", ("falaj", "app"))
    found = Broker(tmp_path / "broker", "127.0.0.1", port, "a free port")
    found.start(local_config(tmp_path / "broker", port))
    yield port
    found.stop()


def ask(port: int, asker: int) -> list[tuple[str, int, list[float]]]:
    """One client's questions in turn: the id that came back, the release that answered, and what it said."""
    peer, told = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
    for i in range(EACH):
        number = asker * EACH + i
        tensor = {
            "name": "window",
            "datatype": "FP32",
            "shape": [1, *SHAPE[1:]],
            "data": window(number).ravel().tolist(),
        }
        peer.request("POST", f"/v2/models/{MODEL}/infer", json.dumps({"id": str(number), "inputs": [tensor]}))
        answer = peer.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        told.append((body["id"], body["parameters"]["release"], body["outputs"][0]["data"]))
    peer.close()
    return told


def feel(port: int, password: str) -> list[Prediction]:
    """A sensor that sends a window's worth of readings at a time; the predictions that came of them."""
    heard: list[Prediction] = []
    link = MqttLink(At("127.0.0.1", port, "sensor", user="app", password=password, session_expiry=60))

    def received(message: Message) -> None:
        heard.append(codec.decode(Prediction, message.payload))

    link.subscribe("watch/w1/exercise")
    link.start(received, lambda up, why: None)
    assert link.wait_until_up(20)
    eventually(lambda: bool(link.listening), "the subscriptions")
    rows = np.random.default_rng(9).normal(size=(WINDOWS, WINDOW.step, len(WINDOW.channels)))
    for number, part in enumerate(rows):
        times = (number * WINDOW.step + np.arange(WINDOW.step)) * WINDOW.period
        readings = [
            {"ts": float(t), **dict(zip(WINDOW.channels, row.tolist(), strict=True))}
            for t, row in zip(times, part, strict=True)
        ]
        link.publish(Publish("watch/w1/imu", json.dumps(readings).encode(), qos=1))
    eventually(lambda: len(heard) >= WINDOWS - 1, "an answer to each window", 60)
    threading.Event().wait(0.2)  # a second answer to a window would come now
    link.stop()
    return heard


def test_no_answer_fails_and_none_comes_twice_while_releases_are_swapped(
    serving: Serving, http_port: int, broker: int, tmp_path: Path
) -> None:
    password = (tmp_path / "broker" / "app.password").read_text().strip()
    with bound(tmp_path, broker, serving), swapping(serving) as swapper, ThreadPoolExecutor(ASKERS + 1) as pool:
        asked = [pool.submit(ask, http_port, asker) for asker in range(ASKERS)]
        felt = pool.submit(feel, broker, password)
        told, heard = [one for asker in asked for one in asker.result()], felt.result()
    assert swapper.swaps >= 20

    assert Counter(number for number, _, _ in told) == Counter(str(i) for i in range(ASKERS * EACH))
    assert {number for _, number, _ in told} == set(RELEASES)
    truth = {number: release(number).session for number in RELEASES}
    for number, by, said in told:
        assert said == truth[by].run({"window": window(int(number))})["probabilities"][0].tolist(), (
            "of that very release"
        )

    assert len(heard) == len({one.id for one in heard}) == WINDOWS - 1, "the first message fills half a window"
    assert {one.quality for one in heard} == {"ok"} and {one.release for one in heard} == set(RELEASES)
    counted = serving.health(MODEL)
    assert (counted.errors, counted.not_finite) == (0, 0)
