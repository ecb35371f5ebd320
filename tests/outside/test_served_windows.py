"""Random streams through a real Mosquitto: the vectors that reach the model are the kernel's and SQL's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from edge.serving import Serving
from sync import codec
from sync.features import WindowSpec
from sync.messages import Prediction
from tests.edge import graphs
from tests.edge.served_windows import loaded, manifest, readings, served, without_holes
from tests.outside.field import bound
from tests.sync import oracle
from tests.sync.oracle import Event
from tests.sync.parity import agree, kernel
from tests.sync.streams import specs, streams
from tests.waiting import eventually

pytestmark = pytest.mark.broker

TOGETHER = 3  # readings of one message
ENTITIES = count()  # one for each stream: what a device that ended had not acknowledged comes to the next


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder, (port,) = tmp_path_factory.mktemp("broker") / "broker", free_ports(1)
    write_passwords(folder, ("falaj", "app"))
    found = Broker(folder, "127.0.0.1", port, "a free port")
    found.start(local_config(folder, port))
    yield found
    found.stop()


def replayed(broker: Broker, spec: WindowSpec, events: list[Event], version: int) -> list[Prediction]:
    """What a device publishes of a stream that a sensor sends; its last, unreadable word tells that all was heard."""
    entity, heard = f"w{next(ENTITIES)}", list[Prediction]()
    listening, ended = threading.Event(), threading.Event()

    def hear(client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/error"):
            ended.set()
        else:
            heard.append(codec.decode(Prediction, message.payload))

    sensor = paho.Client(CallbackAPIVersion.VERSION2, "sensor", protocol=version)
    sensor.username_pw_set("app", (broker.folder / "app.password").read_text())
    sensor.on_message, sensor.on_subscribe = hear, lambda *told: listening.set()
    sensor.connect("127.0.0.1", broker.port)
    sensor.loop_start()
    sensor.subscribe(f"site/{entity}/motion/#", 1)
    assert listening.wait(20)
    for start in range(0, len(events), TOGETHER):
        sensor.publish(f"site/{entity}/accel", readings(events[start : start + TOGETHER]), 1)
    sensor.publish(f"site/{entity}/accel", b"the end", 1)
    eventually(ended.is_set, "the last prediction")
    sensor.disconnect()
    sensor.loop_stop()
    return heard


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_what_comes_over_mqtt_is_served_as_the_kernel_and_sql_say(
    broker: Broker, version: int, data: st.DataObject
) -> None:
    spec = data.draw(specs)
    events = data.draw(streams(spec.period))
    serving = Serving()
    serving.put(graphs.MODEL, loaded(spec))
    with TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "broker").symlink_to(broker.folder)
        with bound(folder, broker.port, serving, manifest(spec)):
            found = served(replayed(broker, spec, events, version), spec)
    agree(found, without_holes(kernel(spec, events), spec), spec.period)
    agree(found, without_holes(oracle.windows(spec, events), spec), spec.period)
