"""Questions over a real Mosquitto, by the commands of the pages and by clients of both versions of MQTT."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.runtime import load
from tests.outside.commands import blocks, first_line, run
from tests.outside.field import CLASSES, SHAPE, device, model
from tests.waiting import eventually

pytestmark = pytest.mark.broker

TOPIC, REPLIES, ERRORS = "falaj/local/watch-1/infer/exercise", "falaj/local/watch-1/reply", "falaj/local/watch-1/error"
EACH = 25


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if missing := [name for name in ("mosquitto_rr", "mosquitto_pub") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}; apt-get install mosquitto-clients")
    folder = tmp_path_factory.mktemp("asker")
    with device(folder):
        yield folder


@dataclass
class Asker:
    """A program beside the agent, on plain paho."""

    home: Path
    name: str
    version: int
    came: list[paho.MQTTMessage] = field(default_factory=list)

    def __enter__(self) -> Asker:
        folder = self.home / ".falaj-demo" / "watch-1"
        found = re.search(r"^port = (\d+)", (folder / "edge.toml").read_text(), re.MULTILINE)
        assert found is not None
        listening = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, self.name, protocol=self.version)
        self.client.username_pw_set("app", (folder / "broker" / "app.password").read_text())
        self.client.on_message = lambda client, data, message: self.came.append(message)
        self.client.on_subscribe = lambda *told: listening.set()
        self.client.connect("127.0.0.1", int(found[1]))
        self.client.loop_start()
        self.client.subscribe([(self.place, 1), (ERRORS, 1)])
        assert listening.wait(20)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    @property
    def place(self) -> str:
        return f"{REPLIES}/{self.name}"

    def ask(self, document: dict[str, Any], to: str = "", knot: bytes = b"", topic: str = TOPIC, qos: int = 1) -> None:
        properties = None
        if to and self.version == paho.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic, properties.CorrelationData = to, knot
        elif to:
            document = {**document, "reply_to": to}
        self.client.publish(topic, json.dumps(document), qos, properties=properties)

    def answers(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        eventually(lambda: len(self.came) >= count, f"{count} answers")
        return [(message.topic, json.loads(message.payload)) for message in self.came]


def row(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=SHAPE[1:]).astype(np.float32)


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_question_of_every_asker_has_its_own_answer(home: Path, version: int, qos: int) -> None:
    session = load(model())
    with Asker(home, "one", version) as one, Asker(home, "two", version) as two:
        for number in range(EACH):
            for asker in (one, two):
                values = row(number if asker is one else -number % 1000 + 500)
                tensor = {"name": "window", "datatype": "FP32", "shape": [1, *values.shape], "data": values.tolist()}
                body = {"data": values.tolist()} if number % 2 else {"inputs": [tensor]}
                asker.ask({"id": str(number), **body}, asker.place, b"%d" % number, qos=qos)
        for asker in (one, two):
            told = asker.answers(EACH)
            assert [document["id"] for _, document in told] == [str(number) for number in range(EACH)]
            for message, (topic, document) in zip(asker.came, told, strict=True):
                number = int(document["id"])
                values = row(number if asker is one else -number % 1000 + 500)
                truth = session.run({"window": values[np.newaxis]})["probabilities"][0].tolist()
                short = document.get("prediction")
                assert topic == asker.place and message.qos == min(qos, 1) and not message.retain
                assert (short["probabilities"] if short else document["outputs"][0]["data"]) == truth
                if version == paho.MQTTv5:
                    assert message.properties.CorrelationData == b"%d" % number


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
def test_unknown_models_are_declared_and_strange_places_refused(home: Path, version: int) -> None:
    with Asker(home, "lost", version) as asker:
        asker.ask({"id": 1, "data": [0.1]}, asker.place, b"k", "falaj/local/watch-1/infer/other")
        asker.ask({"id": 2, "data": [0.1]}, asker.place)
        asker.ask({"id": 3, "data": row(1).tolist()}, "watch/lost/imu")
        (place, none), (_, bad), (error, refused) = asker.answers(3)
        assert (place, none["id"], none["quality"]) == (asker.place, 1, "no_model")
        assert (bad["id"], bad["code"]) == (2, "bad-input")
        assert (error, refused["code"], refused["topic"]) == (ERRORS, "bad-reply-topic", TOPIC)


def test_the_readmes_mosquitto_rr_command(home: Path) -> None:
    (block,) = blocks("README.md", "mosquitto_rr")
    (document,) = run(block, home)
    assert document["id"] == 7 and document["prediction"]["quality"] == "ok"
    assert document["prediction"]["value"] in CLASSES


def test_the_pages_commands_of_both_versions(home: Path) -> None:
    (five,) = blocks("docs/mqtt.md", "mosquitto_rr")
    (document,) = run(five, home)
    assert document["id"] == "mine" and len(document["outputs"][0]["data"]) == len(CLASSES)
    (three,) = blocks("docs/mqtt.md", "mqttv311")
    topic, payload = first_line(three, home)
    assert topic == f"{REPLIES}/me" and json.loads(payload)["id"] == 7
