"""Who labels is patient: a device that is away for a moment gets its labels afterwards, each window's once or again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from appliance.demo.counting import Count, Expected
from appliance.demo.field import Away, Watch
from appliance.demo.fleet import Device, StoryFailed, free_ports
from appliance.demo.people import Wearer
from appliance.demo.recordings import Recording, passes
from appliance.edge.state import EdgeFolder
from sync.messages import Prediction
from sync.names import ModelName
from tests.hosting import hosting
from tests.waiting import eventually

MODEL = ModelName("exercise")
WINDOW = Expected(100.0, "PEN")


def answered(windows: list[Expected]) -> dict[float, list[Prediction]]:
    """Every window answered, under the id of its event time."""
    return {w.end: [Prediction(f"id-{w.end}", MODEL, w.end, "ok", "PEN", (1.0,), ("PEN",))] for w in windows}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device that is away: nobody listens on its ports."""
    folder = EdgeFolder(tmp_path / "watch-1")
    folder.broker.mkdir(parents=True)
    (folder.broker / "app.password").write_text("secret")
    return Device("watch-1", folder, *free_ports(2))


@contextmanager
def back(device: Device, unknown: tuple[str, ...] = ()) -> Iterator[list[dict[str, str]]]:
    """The device answers again; what it was told."""
    told: list[dict[str, str]] = []

    class Labels(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["labels"])
            body = json.dumps({"unknown": list(unknown)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with HTTPServer(("127.0.0.1", device.http_port), Labels) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@contextmanager
def away(device: Device) -> Iterator[list[object]]:
    """Whoever asks the device is hung up on; who tried."""
    tries: list[object] = []

    def hang_up(asker: socket.socket) -> None:
        asker.close()
        tries.append(asker)

    with hosting(hang_up, device.http_port):
        yield tries


def test_away_is_told_apart_from_a_device_that_forgot(device: Device) -> None:
    watch = Watch(device, MODEL, ())
    count = Count(expected=[WINDOW], mqtt=answered([WINDOW]))
    with pytest.raises(Away):
        watch.tell_labels(count, count.expected)
    with back(device, unknown=("id-100.0",)), pytest.raises(StoryFailed) as forgot:
        watch.tell_labels(count, count.expected)
    assert not isinstance(forgot.value, Away)
    with back(device) as told:
        assert watch.tell_labels(count, count.expected) == 1
    watch.close()
    assert told == [{"id": "id-100.0", "label": "PEN"}]


def test_labels_wait_until_the_device_is_back(device: Device) -> None:
    recording = Recording("r", 1, "right", "PEN", np.zeros((400, 6)))
    wearer = Wearer(device, MODEL, (recording,), 1000.0, (1,))
    with away(device) as tries:
        wearer.begin(50.0, samples=100, labels=True)
        count = wearer.count
        eventually(lambda: bool(count.expected), "a window")
        count.mqtt.update(answered(count.expected))
        eventually(lambda: bool(tries), "a delivery in vain")
    with back(device) as told:
        eventually(lambda: bool(told), "the labels")
        wearer.finish()
    wearer.close()
    assert [t["id"] for t in told] == [f"id-{w.end}" for w in count.expected]
    assert wearer.windows == wearer.labels == len(count.expected) == 1


def test_rounds_are_every_stretch_so_often_and_no_other(device: Device) -> None:
    own = tuple(Recording(f"r{i}", 1, "right", "PEN", np.full((400, 6), float(i))) for i in range(3))
    drawn = [s.samples[0, 0] for s in passes(2, own, "last", np.random.default_rng(3))]
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [0.0, 1.0, 2.0]
    wearer = Wearer(device, MODEL, own, 1000.0, (1,))
    wearer.begin(50.0, rounds=2)
    expected = wearer.count.expected
    eventually(lambda: len(expected) == 6, "each recording's one window, twice")
    wearer.count.mqtt.update(answered(expected))
    wearer.finish()
    wearer.close()
    assert wearer.windows == 6
