"""Attack 1: somebody listens on the wire. There is no plain uplink to listen to, by no setting, and of what passes on
the one there is nothing can be read: neither what is said, nor where, nor by whom.

Whoever only listens changes nothing, and nobody can see it; who speaks plainly is told of.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from appliance.broker import BrokerFiles, uplink_config
from appliance.broker_words import Denied
from appliance.settings import BadSettings, CoreSettings, EdgeSettings, convert
from sync import topics
from sync.link import Publish
from sync.messages import EVENT
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.attacks.ground import VICTIM, Ground
from tests.core.world import TENANT
from tests.waiting import PATIENCE, eventually

CANARY = b"canary-7f3a-on-the-wire"
CONNECT = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"


class Ear:
    """Stands on the wire in front of a port, passes all on and remembers every byte, in both directions."""

    def __init__(self, to: int) -> None:
        self.heard = b""
        self._to, self._lines = to, list[socket.socket]()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        for line in (self._door, *self._lines):
            with suppress(OSError):  # it ended by itself
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _listen(self) -> None:
        with suppress(OSError):  # closed
            while True:
                comer, _ = self._door.accept()
                on = socket.create_connection(("127.0.0.1", self._to), PATIENCE)
                self._lines += [comer, on]
                for pair in ((comer, on), (on, comer)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either side is gone
            while data := source.recv(65536):
                self.heard += data
                sink.sendall(data)


@pytest.fixture
def ear(ground: Ground) -> Iterator[Ear]:
    found = Ear(ground.broker.port)
    yield found
    found.close()


@pytest.mark.broker
def test_01_nothing_that_passes_can_be_read(ground: Ground, ear: Ear) -> None:
    """A device's words up and the core's words down, as a listener on its line has them."""
    core = ground.core()
    core.listen(topics.up(TENANT, VICTIM, EVENT))
    said: list[bytes] = []
    link = MqttLink(At("127.0.0.1", ear.port, VICTIM, ground.device_tls(VICTIM)))
    link.subscribe(topics.desired(TENANT, VICTIM))
    link.start(lambda message: said.append(message.payload), lambda up, why: None)
    eventually(lambda: bool(link.listening), "the device's session, past the listener")
    core.say(topics.desired(TENANT, VICTIM), CANARY)
    eventually(lambda: CANARY in said, "the core's word")
    link.publish(Publish(topics.up(TENANT, VICTIM, EVENT), CANARY))
    eventually(lambda: bool(core.heard), "the device's word")
    link.stop()
    assert core.heard[0].payload == CANARY and len(ear.heard) > 2000, "all of it passed the listener"
    for needle in (CANARY, b"falaj", VICTIM.encode(), TENANT.encode(), b"desired", b"MQTT"):
        assert needle not in ear.heard, needle


def test_01_the_same_ear_hears_what_is_not_sealed() -> None:
    """The control of the test above."""
    with closing(socket.create_server(("127.0.0.1", 0))) as door:
        ear = Ear(int(door.getsockname()[1]))
        with closing(socket.create_connection(("127.0.0.1", ear.port), PATIENCE)) as line:
            line.sendall(CONNECT + CANARY)
            eventually(lambda: CANARY in ear.heard and b"MQTT" in ear.heard, "the canary to be heard")
        ear.close()


@pytest.mark.broker
def test_01_who_speaks_plainly_is_hung_up_on(ground: Ground) -> None:
    device = ground.device(VICTIM)
    ground.turned_down()
    with closing(socket.create_connection(("127.0.0.1", ground.broker.port), PATIENCE)) as plain:
        plain.sendall(CONNECT)
        answer = b""
        with suppress(ConnectionError):  # a timeout is none of these: it fails the test
            while data := plain.recv(256):
                answer += data
    assert b"\x20" not in answer[:1], "no CONNACK"
    found = Denied()

    def told() -> bool:
        found.add(ground.turned_down())
        return bool(found)

    eventually(told, "the core to be told of it")
    assert found == Denied(handshakes={"wrong version number": 1})
    assert device.changes == [True], "who is there stays"


def test_01_the_uplink_has_one_listener_and_it_is_never_plain(tmp_path: Path) -> None:
    """The broker's configuration is written by one function, which has no way to say otherwise."""
    files = BrokerFiles(*(tmp_path / name for name in ("ca", "cert", "key", "crl")))
    lines = uplink_config(tmp_path, "0.0.0.0", 8883, files).splitlines()
    assert [line for line in lines if re.match(r"(listener|port|bind_\w+|socket_domain)\b", line)] == [
        "listener 8883 0.0.0.0"
    ]
    wanted = {"certfile", "keyfile", "cafile", "crlfile", "tls_version tlsv1.3", "require_certificate true",
              "allow_anonymous false"}  # fmt: skip
    assert all(any(line.startswith(one) for line in lines) for one in wanted)


@pytest.mark.parametrize("switch", ["tls", "plain", "insecure", "development", "allow_plain", "plaintext"])
def test_01_no_setting_opens_a_plain_one(switch: str) -> None:
    """Not for development either: an uplink without certificates is a setting that does not exist."""
    for place in ({switch: True}, {"broker": {switch: True}}, {"ports": {switch: 1883}}):
        with pytest.raises(BadSettings):
            convert(CoreSettings, place, "core.toml")
    for place in ({switch: True}, {"uplink": {switch: True}}):
        with pytest.raises(BadSettings):
            convert(EdgeSettings, place, "edge.toml")
