"""What a switch of releases costs whoever asks: under load over HTTP and MQTT together, there and back.

    .venv/bin/python benchmarks/swap.py [--seconds 20] [--write]

The agent's door runs in a process of its own on core 0, this client and the broker on core 1. The release is switched
and taken back every half second. Every answer is checked: 200, the id that was asked under, once. Figures: requests a
second, the time of a switch (the assignment by which another session answers; golden vectors and load were done),
p99 within 50 ms of a switch against p99 elsewhere, and from the decision, which is journalled (fsync) before it is
acted on, to the first answer of the other release. Needs the development set-up, Mosquitto and 2 cores; takes half a
minute.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from benchmarks.results import options, tell
from benchmarks.rivals import graphs
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink

NEAR_S, EVERY_S, RATE_HZ = 0.05, 0.5, 50.0
STEP = graphs.WINDOW[0] // 2  # readings a message: half a window
TITLE = "## Switching releases under load"


class Asker(threading.Thread):
    """One connection that asks without a pause: (when it asked, seconds, release) of each answer."""

    def __init__(self, port: int, number: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self._peer, self._number, self._ended = HTTPConnection("127.0.0.1", port, timeout=20), number, ended
        self.answers: list[tuple[float, float, int]] = []
        self.wrong = 0

    def run(self) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 32], "data": [0.1] * 32}
        head, tail = '{"id":"', '","inputs":[' + json.dumps(tensor) + "]}"
        while not self._ended.is_set():
            name = f"{self._number}-{len(self.answers)}"
            began = time.monotonic()
            self._peer.request("POST", "/v2/models/mlp/infer", f"{head}{name}{tail}")
            answer = self._peer.getresponse()
            body = json.loads(answer.read())
            took = time.monotonic() - began
            self.wrong += answer.status != 200 or body["id"] != name
            self.answers.append((began, took, body["parameters"]["release"]))


def feel(port: int, folder: Path, ended: threading.Event) -> tuple[int, int, int]:
    """A sensor at `RATE_HZ`: windows sent, predictions that came, and how many of them were not the first or not ok."""
    password = (folder / "app.password").read_text().strip()
    link = MqttLink(At("127.0.0.1", port, "sensor", user="app", password=password, session_expiry=60))
    heard: list[dict[str, Any]] = []

    def received(message: Message) -> None:
        heard.append(json.loads(message.payload))

    link.subscribe("said/a")
    link.start(received, lambda up, why: None)
    while not link.listening:
        time.sleep(0.05)
    sent, began = 0, time.monotonic()
    while not ended.is_set():
        rows = [{"ts": (STEP * sent + i) * 0.01, **dict.fromkeys("abcdef", 0.1)} for i in range(STEP)]
        link.publish(Publish("felt/a", json.dumps(rows).encode()))
        sent += 1
        ended.wait(max(0.0, began + sent / RATE_HZ - time.monotonic()))
    for _ in range(200):
        if len(heard) >= sent - 1:
            break
        time.sleep(0.05)
    link.stop()
    good = {one["id"] for one in heard if one["quality"] == "ok"}
    return sent - 1, len(heard), len(heard) - len(good)  # the first message fills half a window


def figures(args: argparse.Namespace) -> list[str]:
    """Runs it all; the lines of the report."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as home:
        folder, (http_port, mqtt_port) = Path(home), free_ports(2)
        for name, graph in (("mlp", graphs.mlp()), ("cnn", graphs.cnn())):
            (folder / f"{name}.onnx").write_bytes(graph)
        write_passwords(folder / "broker", ("falaj", "app"))
        broker = Broker(folder / "broker", "127.0.0.1", mqtt_port, "a free port")
        broker.start(local_config(folder / "broker", mqtt_port))
        command = [sys.executable, "-m", "benchmarks.rivals.swapped", str(folder), str(http_port), str(mqtt_port)]
        pinned = ["taskset", "-c", "0", *command, str(EVERY_S)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        with subprocess.Popen(pinned, env=env, stdout=subprocess.PIPE, text=True) as agent:
            assert agent.stdout is not None
            try:
                if agent.stdout.readline().strip() != "ready":
                    raise SystemExit("the agent did not start")
                askers = [Asker(http_port, number, ended) for number in range(args.connections)]
                felt: list[tuple[int, int, int]] = []
                sensor = threading.Thread(target=lambda: felt.append(feel(mqtt_port, folder / "broker", ended)))
                for thread in (*askers, sensor):
                    thread.start()
                time.sleep(args.seconds)
                ended.set()
                for thread in (*askers, sensor):
                    thread.join()
                agent.send_signal(signal.SIGTERM)
                swaps = json.loads(agent.stdout.readline())
            finally:
                agent.kill()
                broker.stop()
    return told(args, askers, felt[0], swaps)


def told(
    args: argparse.Namespace, askers: list[Asker], felt: tuple[int, int, int], swaps: list[tuple[float, float, int]]
) -> list[str]:
    """The report; `swaps` are (when decided, seconds the switch took, release that answers then)."""
    answers = sorted(one for asker in askers for one in asker.answers)
    began, took = np.array([one[0] for one in answers]), np.array([one[1] for one in answers])
    decided = np.array([at for at, _, _ in swaps])
    at = np.searchsorted(decided, began + took)  # the last switch before the answer came
    near = (at > 0) & (began - decided[np.maximum(at - 1, 0)] < NEAR_S)
    waits = [
        1000 * min(a + t - when for a, t, by in answers if by == number and a + t >= when)
        for when, _, number in swaps
        if answers[0][0] < when < answers[-1][0] - EVERY_S
    ]
    during, elsewhere = (1000 * float(np.percentile(took[which], 99)) for which in (near, ~near))
    sent, came, doubtful = felt
    if came < sent or doubtful or any(asker.wrong for asker in askers):
        text = f"{sum(asker.wrong for asker in askers)} wrong answers over HTTP, {came} predictions of {sent} windows"
        raise SystemExit(f"nothing to measure: {text}, {doubtful} of them twice or not ok")
    return [
        f"{len(swaps)} switches in {args.seconds:g} s, {args.connections} connections and a sensor at {RATE_HZ:g} Hz.",
        "",
        f"- HTTP: {len(answers) / args.seconds:,.0f} requests/s (target 2,000), {sum(a.wrong for a in askers)} wrong;"
        f" MQTT: {sent} windows, {came} predictions, {doubtful} twice or not ok",
        f"- the switch: median {1000 * statistics.median(s for _, s, _ in swaps):.3f} ms,"
        f" longest {1000 * max(s for _, s, _ in swaps):.2f} ms (target 5)",
        f"- p99 within {1000 * NEAR_S:g} ms of a switch {during:.2f} ms, elsewhere {elsewhere:.2f} ms:"
        f" {during / elsewhere:.2f} times (target 2)",
        f"- from the decision to the first answer of the other release: median {statistics.median(waits):.1f} ms,"
        f" longest {max(waits):.1f} ms (target 100)",
        "",
    ]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="under load")
    parser.add_argument("--connections", type=int, default=8, help="over HTTP")
    parser.add_argument("--quick", action="store_true", help="4 s")
    args = parser.parse_args()
    if args.quick:
        args.seconds = 4.0
    os.sched_setaffinity(0, {1})
    tell(TITLE, "swap.py", figures(args), args)


if __name__ == "__main__":
    main()
