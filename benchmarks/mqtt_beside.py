"""Questions over MQTT while a sensor of the same broker is heard too: what each costs the other.

    .venv/bin/python benchmarks/mqtt_beside.py [--readings 1000] [--write]

The agent has core 0 to itself, Mosquitto, the asker and the sensor core 1. In turn 16 questions to the MLP are under
way, alone and with a sensor beside that sends so many readings a second with QoS 1: windows of the 1D-CNN (100 rows of
6 channels, half of them new) are predicted, checkpointed and acknowledged all the while. Every reading must be answered
for: as many predictions must come as windows were sent. `--quick` only looks whether it runs. Needs the development
set-up, Mosquitto and 2 cores; takes half a minute. Ends 1 if an answer is wrong or a prediction is lacking.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parents[1]))
from appliance.demo.fleet import free_ports
from benchmarks import serving
from benchmarks.results import options, tell
from benchmarks.rivals import graphs, ours
from benchmarks.rivals.asker import Asker
from benchmarks.rivals.client import Load

TITLE = "## Questions over MQTT beside a sensor"
UNDER_WAY = 16
TOPIC = "falaj/local/bench/infer/mlp"
PATIENCE_S = 30.0


class Sensor:
    """One sensor, and whoever hears what is said of it; readings bear times of their own, a hundred a second."""

    def __init__(self, port: int, password: Path, a_second: int) -> None:
        self._a_second, self._sent, self.said, self.windows = a_second, 0, set[str](), 0
        self._topic = ours.READINGS.replace("{entity}", f"pump-{port}")
        rows = np.random.default_rng(7).normal(size=(997, len(ours.CHANNELS))).round(3).tolist()
        self._rows = [dict(zip(ours.CHANNELS, row, strict=True)) for row in rows]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "sensor", protocol=paho.MQTTv311)
        self._client.username_pw_set("app", password.read_text())
        self._client.max_queued_messages_set(0)
        self._client.on_message = lambda client, data, message: self.said.add(json.loads(message.payload)["id"])
        listening = threading.Event()
        self._client.on_subscribe = lambda *told: listening.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe(ours.SAID.replace("{entity}", "+"), 1)
        if not listening.wait(PATIENCE_S):
            raise serving.Failed("the sensor's session does not begin")

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Readings go out; on leaving, each window's prediction has come."""
        over = threading.Event()
        thread = threading.Thread(target=self._send, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        until = time.monotonic() + PATIENCE_S
        size, step = graphs.WINDOW[0], graphs.WINDOW[0] // 2
        self.windows = max(0, (self._sent - size) // step + 1)
        while len(self.said) < self.windows and time.monotonic() < until:
            time.sleep(0.01)
        if len(self.said) < self.windows:
            raise serving.Failed(f"{len(self.said)} predictions of {self.windows} windows came")

    def _send(self, over: threading.Event) -> None:
        begun, first = time.perf_counter(), self._sent
        while not over.wait(0.01):
            due = first + int((time.perf_counter() - begun) * self._a_second)
            for number in range(self._sent, due):
                reading = {"ts": number / 100, **self._rows[number % len(self._rows)]}
                self._client.publish(self._topic, json.dumps(reading), 1)
            self._sent = due

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def measure(args: argparse.Namespace, folder: Path) -> list[str]:
    """Two lines, for questions alone and beside a sensor."""
    body = serving.question(serving.OURS, "mlp").partition(b"\r\n\r\n")[2]
    loads: dict[bool, list[Load]] = {False: [], True: []}
    with serving.broker() as place, Asker(int(place[0]), "app", Path(place[2]).with_name("app.password")) as asker:
        command = [sys.executable, "-m", "benchmarks.rivals.ours", str(folder), str(free_ports(1)[0]), *place]
        with serving.running(serving.OURS, command, partial(serving.answers_mqtt, asker, TOPIC, body)):
            asker.drain()
            sensor = Sensor(int(place[0]), Path(place[2]).with_name("app.password"), args.readings)
            for number in range(2 * args.rounds):
                beside = bool(number % 2)
                if beside:
                    with sensor.sending():
                        load = asker.load_test(TOPIC, body, UNDER_WAY, args.seconds)
                else:
                    load = asker.load_test(TOPIC, body, UNDER_WAY, args.seconds)
                if load.wrong or not load.answers:
                    raise serving.Failed(f"{load.wrong} wrong answers")
                loads[beside].append(load)
            sensor.close()
    alone, beside_it = (statistics.median(one.rate for one in loads[b]) for b in (False, True))
    p99 = [1000 * statistics.median(one.p99 for one in loads[b]) for b in (False, True)]
    return [
        f"- alone: {alone:,.0f} questions/s (p99 {p99[0]:.2f} ms)",
        f"- beside a sensor with {args.readings:,} readings/s: {beside_it:,.0f} questions/s (p99 {p99[1]:.2f} ms), "
        f"ratio {beside_it / alone:.2f}; {sensor.windows} windows, each with its prediction",
    ]


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--readings", type=int, default=1000, help="of the sensor a second")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over so many")
    parser.add_argument("--quick", action="store_true", help="one short round")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 0.5
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "mlp.onnx").write_bytes(graphs.mlp())
        (folder / "cnn.onnx").write_bytes(graphs.cnn())
        try:
            lines = measure(args, folder)
        except serving.Failed as error:
            print(error, file=sys.stderr)
            return 1
    what = f"MLP, {UNDER_WAY} under way, QoS 0; the sensor's readings QoS 1. Medians of {args.rounds} rounds."
    tell(TITLE, "mqtt_beside.py", [what, "", *lines], args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
