"""The ground on which attacks are tried: a real broker as a core configures it, certificates as a core issues
them, and sessions that remember all they hear. Skipped, visibly, where there is no mosquitto."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance import broker as brokers
from appliance.broker import Broker, BrokerFiles, NoBroker, end_session, uplink_acl, uplink_config, write_access
from appliance.broker_words import Denied
from appliance.demo.fleet import free_ports
from appliance.keys import new_device_keys
from core.fleet import enrolment
from core.fleet.enrolment import Pair
from core.orders import BrokerDenied
from core.steward import Access, Action, Cut, House, Send, SendBlob
from sync import topics
from sync.durable import write_private
from sync.enrolment import Token
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DeviceId, Digest
from tests.core.newcomers import certified
from tests.core.world import TENANT, World, request
from tests.waiting import PATIENCE, eventually

VICTIM, ATTACKER = DeviceId("watch-1"), DeviceId("watch-2")
DAY = 86_400.0


def certify(name: DeviceId, authority: Pair, now: float) -> tuple[bytes, bytes]:
    """(certificate, private key) of a device, by the only way a device gets one."""
    keys = new_device_keys(name)
    token = Token("https://core.test", TENANT, name, "secret", Digest("a" * 64), Digest("b" * 64), now + 60)
    return certified(authority, request(token, keys), enrolment.hash_secret("secret"), now)[1], keys.signing


@dataclass
class Session:
    """One session on the broker and all it heard, refusals and changes of the link included."""

    link: MqttLink
    heard: list[Message] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    changes: list[bool] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def changed(self, up: bool, reason: str) -> None:
        self.changes.append(up)
        self.reasons.append(reason)

    def topics(self) -> list[str]:
        return [m.topic for m in self.heard]

    def listen(self, *patterns: str, confirmed: bool = True) -> None:
        """Subscribes; `confirmed`: and waits until the broker has taken it."""
        self.link.subscribe(*patterns)
        if confirmed:
            eventually(lambda: self.link.listening >= set(patterns), f"the subscription {patterns}")

    def say(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self.link.publish(Publish(topic, payload, qos=1, retain=retain))


@dataclass
class Ground:
    """A tenant's broker and its certificate authority."""

    folder: Path
    authority: Pair
    broker: Broker
    now: float
    sessions: list[Session] = field(default_factory=list)

    @property
    def log(self) -> str:
        return (self.broker.folder / "mosquitto.log").read_text(errors="replace")

    def tls(self, certificate: bytes, key: bytes, ca: bytes | None = None) -> Tls:
        """Writes the files of a client; `ca` is whom it believes, this tenant's authority if not given."""
        place = self.folder / f"client-{len(list(self.folder.glob('client-*')))}"
        for name, content in (("ca", ca or self.authority.certificate), ("cert", certificate), ("key", key)):
            write_private(place / name, content)
        return Tls(place / "ca", place / "cert", place / "key")

    def device_tls(self, name: DeviceId) -> Tls:
        return self.tls(*certify(name, self.authority, self.now))

    def session(self, tls: Tls, client_id: str, *, up: bool = True, keep: bool = False) -> Session:
        """A session that starts at once; `keep`: the broker keeps it while its client is away."""
        at = At("127.0.0.1", self.broker.port, client_id, tls, clean_start=not keep, session_expiry=600 * keep)
        refused: list[str] = []
        made = Session(MqttLink(at, refused=refused.append), refused=refused)
        made.link.start(made.heard.append, made.changed)
        self.sessions.append(made)
        assert not up or made.link.wait_until_up(PATIENCE), f"no session for {client_id}"
        return made

    def device(self, name: DeviceId, *, client_id: str = "", keep: bool = False) -> Session:
        return self.session(self.device_tls(name), client_id or name, keep=keep)

    def core(self) -> Session:
        """A session as the core; one at a time, for a second one would take the first over."""
        pair = enrolment.issue_core(self.authority, self.now)
        return self.session(self.tls(pair.certificate, pair.key), topics.CORE_NAME)

    def old_session(self, name: DeviceId) -> OldSession:
        return OldSession(self, name)

    def last_words(self, tls: Tls, topic: str, payload: bytes = b"x") -> None:
        """A session that is lost, and leaves a retained will on `topic`."""
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="any", protocol=paho.MQTTv5)
        client.tls_set_context(tls.context())
        client.will_set(topic, payload, 1, retain=True)
        answered = threading.Event()
        client.on_connect = lambda *_: answered.set()
        client.connect("127.0.0.1", self.broker.port)
        while not answered.is_set():
            client.loop(1.0)
        lost = client.socket()
        assert isinstance(lost, ssl.SSLSocket)
        lost.shutdown(socket.SHUT_RDWR)
        client.loop(1.0)

    def turned_down(self) -> Denied:
        """Whom the broker turned down since the last time."""
        found = Denied()
        self.broker.denials(found.add)
        return found

    def close_sessions(self) -> None:
        while self.sessions:
            self.sessions.pop().link.stop()


class OldSession:
    """A session in MQTT 3.1.1, in which a broker cannot say no: it must be silent instead."""

    def __init__(self, ground: Ground, name: DeviceId) -> None:
        self.heard: list[str] = []
        self._answered = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv311)
        client.tls_set_context(ground.device_tls(name).context())
        client.on_message = lambda _c, _d, message: self.heard.append(message.topic)
        client.on_connect = lambda *_: self._answered.set()
        client.on_subscribe = lambda *_: self._answered.set()
        client.on_publish = lambda *_: self._answered.set()
        client.connect("127.0.0.1", ground.broker.port)
        client.loop_start()
        assert self._answered.wait(PATIENCE)
        self._client = client

    def _wait(self, ask: Callable[[], object]) -> None:
        self._answered.clear()
        ask()
        assert self._answered.wait(PATIENCE)

    def listen(self, *patterns: str) -> None:
        for pattern in patterns:
            self._wait(lambda pattern=pattern: self._client.subscribe(pattern, 1))  # type: ignore[misc]

    def say(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        self._wait(lambda: self._client.publish(topic, payload, 1, retain))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def start(folder: Path, authority: Pair, server: Pair, now: float) -> Ground:
    """A broker in `folder` with this server certificate, believing `authority`."""
    try:
        brokers.find()
    except NoBroker as missing:
        pytest.skip(f"needs a broker: {missing}")
    files = BrokerFiles(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "revoked.pem")
    write_private(files.ca, authority.certificate)
    write_private(files.certificate, server.certificate)
    write_private(files.key, server.key)
    write_private(files.revocations, enrolment.empty_revocations(authority, now))
    place = folder / "broker"
    write_private(place / "acl", uplink_acl(TENANT).encode())
    broker = Broker(place, "127.0.0.1", free_ports(1)[0], "a port of the test", tenant=TENANT)
    broker.start(uplink_config(place, "127.0.0.1", broker.port, files))
    return Ground(folder, authority, broker, now)


def open_ground(folder: Path) -> Ground:
    """A tenant's broker as it should be."""
    now = time.time()  # TLS libraries read the machine's clock
    authority = enrolment.create_authority(TENANT, now)
    return start(folder, authority, enrolment.issue_server(authority, ("127.0.0.1",), now), now)


def supervise(ground: Ground, world: World) -> Denied:
    """Has the core of `world` hear whom the broker turned down, as its supervisor does; who it was."""
    found = ground.turned_down()
    world.must(BrokerDenied(words=dict(found.words), filters=dict(found.filters), handshakes=found.handshakes))
    return found


def greet(port: int, context: ssl.SSLContext) -> int | None:
    """The reason code of the broker's answer to a CONNECT under MQTT 5; None if it hung up instead."""
    connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x"
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                secure.sendall(connect)
                answer = secure.recv(64)
        except (ssl.SSLError, ConnectionError):
            return None
    return answer[3] if len(answer) > 3 and answer[0] == 0x20 else None


def obey(ground: Ground, core: Session | None, actions: list[Action], house: House | None = None) -> None:
    """Carries out what a steward wants done to the broker, as its process does; blobs are read from its `house`."""
    for action in actions:
        match action:
            case Send(message) if core is not None:
                core.link.publish(message)
            case SendBlob() if core is not None:
                assert house is not None, "a blob is wanted sent, and there is no house to read it from"
                for chunk in house.chunks(action):
                    core.link.publish(chunk)
            case Access(revocations, denied):
                write_private(ground.folder / "revoked.pem", revocations)
                write_access(ground.broker.folder, TENANT, denied)
                ground.broker.reload()
            case Cut(device, pair):
                at = At("127.0.0.1", ground.broker.port, device)
                assert end_session(at, ground.folder / "ca.pem", pair.certificate, pair.key, ground.folder)
