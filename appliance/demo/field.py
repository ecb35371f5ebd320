"""The world outside the box: a watch that sends its samples at a fixed rate, whatever comes back (open loop), an
application that listens to predictions, and one that asks the same over HTTP. All of it is counted."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from appliance.demo.counting import Count, Expected
from appliance.demo.fleet import Device, StoryFailed
from appliance.demo.recordings import CHANNELS, PAUSE, PERIOD, Recording, Stretch
from sync import codec
from sync.errors import Malformed
from sync.link import Message, Publish
from sync.messages import Prediction
from sync.mqtt import Broker, MqttLink
from sync.names import ModelName

BATCH = 250  # readings of one message of a stream
BREAK = 5.0  # seconds of event time between two stretches
SIZE, STEP = 100, 50  # the window of the demo's project, as the sender must know it to count


class Away(StoryFailed):
    """The device does not answer over HTTP now: what was not taken may be given again."""


class Watch:
    """One watch on one device's local broker, as user `app`."""

    def __init__(self, device: Device, model: ModelName, recordings: tuple[Recording, ...]) -> None:
        self.device, self.model, self.recordings = device, model, recordings
        self.count = Count()
        self._asks: queue.SimpleQueue[tuple[Expected, npt.NDArray[np.float64]] | None] = queue.SimpleQueue()
        broker = Broker(
            "127.0.0.1", device.mqtt_port, f"app-{device.name}", user="app", password=device.app_password(),
            clean_start=True,
        )  # fmt: skip
        self._link = MqttLink(broker, queue_when_down=True)

    def connect(self) -> None:
        """Opens the session and listens for predictions; raises StoryFailed if the broker does not answer."""
        topic = f"watch/{self.device.name}/exercise"
        self._link.subscribe(topic, f"{topic}/error")
        self._link.start(self._received, lambda up, reason: None)
        end = time.monotonic() + 10
        while topic not in self._link.listening:
            if time.monotonic() > end:
                raise StoryFailed(f"{self.device.name}: no session with its local broker")
            time.sleep(0.02)

    def replay(self, start: float, speed: float) -> None:
        """Sends what training never saw, sample by sample, `speed` times as fast as it was recorded."""
        asker = threading.Thread(target=self._ask_all, name=f"ask-{self.device.name}", daemon=True)
        asker.start()
        ts, began, number = start, time.monotonic(), 0
        for recording in self.recordings:
            rows = recording.samples[recording.split :]
            for i, row in enumerate(rows):
                ahead = began + number * PERIOD / speed - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
                moment = round(ts + i * PERIOD, 3)
                self._send(moment, row)
                number += 1
                if i >= SIZE - 1 and (i - SIZE + 1) % STEP == 0:
                    expected = Expected(moment, recording.exercise)
                    self.count.expected.append(expected)
                    self._asks.put((expected, rows[i - SIZE + 1 : i + 1]))
            ts += len(rows) * PERIOD + PAUSE
        self._asks.put(None)
        asker.join()

    def stream(
        self, start: float, stretches: Iterable[Stretch], rate: float, stop: threading.Event | None = None
    ) -> float:
        """Sends stretches in batches of `BATCH` readings, `rate` batches a second, whatever comes back, until there
        are no more or `stop` is set. Returns the event time behind the last reading."""
        ts, began, number = start, time.monotonic(), 0
        for stretch in stretches:
            moments = [round(ts + i * PERIOD, 3) for i in range(len(stretch.samples))]
            for i in range(0, len(moments), BATCH):
                ahead = began + number / rate - time.monotonic()
                if ahead > 0:
                    time.sleep(ahead)
                # Noted before it is sent: whatever the agent completes with these rows, it must answer.
                sent = range(i, min(i + BATCH, len(moments)))
                ends = (k for k in sent if k >= SIZE - 1 and (k - SIZE + 1) % STEP == 0)
                self.count.expected += [Expected(moments[k], stretch.exercise) for k in ends]
                self._send_batch(moments[i : i + BATCH], stretch.samples[i : i + BATCH])
                number += 1
                if stop is not None and stop.is_set():
                    return moments[sent[-1]] + BREAK
            ts = moments[-1] + BREAK
        return ts

    def tell_labels(self, count: Count, windows: Iterable[Expected]) -> int:
        """Sends what answered windows of `count` really were, by prediction id, as people do later; returns how
        many. Raises Away if the device does not answer: telling the same again later does no harm."""
        answered = ((e, count.mqtt[e.end][0]) for e in windows if e.end in count.mqtt)
        told = [{"id": prediction.id, "label": e.label} for e, prediction in answered]
        if not told:
            return 0
        connection = http.client.HTTPConnection("127.0.0.1", self.device.http_port, timeout=30)
        try:
            connection.request("POST", "/v1/labels", json.dumps({"labels": told}), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise Away(f"{self.device.name} did not take the labels: {error}") from error
        finally:
            connection.close()
        if answer.get("unknown") != []:
            raise StoryFailed(f"{self.device.name} does not know predictions it made: {answer}")
        return len(told)

    def settle(self, patience: float) -> None:
        """Waits for answers that are still on their way."""
        end = time.monotonic() + patience
        while self.count.lost() and time.monotonic() < end:
            time.sleep(0.05)

    def close(self) -> None:
        self._link.stop()

    def _send(self, ts: float, row: npt.NDArray[np.float64]) -> None:
        reading = {"ts": ts, **{name: float(v) for name, v in zip(CHANNELS, row, strict=True)}}
        self._link.publish(Publish(f"watch/{self.device.name}/imu", json.dumps(reading).encode(), qos=1))
        self.count.sent += 1

    def _send_batch(self, moments: list[float], rows: npt.NDArray[np.float64]) -> None:
        readings = [
            {"ts": ts, **dict(zip(CHANNELS, row, strict=True))} for ts, row in zip(moments, rows.tolist(), strict=True)
        ]
        self._link.publish(Publish(f"watch/{self.device.name}/imu", json.dumps(readings).encode(), qos=1))
        self.count.sent += len(readings)

    def _received(self, message: Message) -> None:
        if message.topic.endswith("/error"):
            self.count.other.append(message.payload.decode(errors="replace"))
            return
        try:
            prediction = codec.decode(Prediction, message.payload)
        except Malformed as error:
            self.count.other.append(str(error))
            return
        known = self.count.mqtt.get(prediction.ts, [])
        self.count.mqtt[prediction.ts] = [*known, prediction]  # whoever labels meanwhile never sees an empty list

    def _ask_all(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.device.http_port, timeout=5)
        while (item := self._asks.get()) is not None:
            expected, rows = item
            try:
                self.count.http[expected.end] = self._ask(connection, rows)
            except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
                self.count.http_errors.append(f"{type(error).__name__}: {error}")
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, rows: npt.NDArray[np.float64]) -> tuple[float, ...]:
        window = {"name": "window", "datatype": "FP32", "shape": [1, *rows.shape], "data": rows.ravel().tolist()}
        body = json.dumps({"inputs": [window]})
        connection.request("POST", f"/v2/models/{self.model}/infer", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        document = json.loads(response.read())
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {document.get('error')}")
        return tuple(document["outputs"][0]["data"])
