"""The brokers: what their configuration must say and why, and that Mosquitto and the rules' table agree."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from appliance import broker as brokers
from appliance import clock
from appliance.broker import Broker, BrokerFiles, NoBroker, local_config, uplink_acl, uplink_config, write_passwords
from appliance.demo.fleet import free_ports
from appliance.keys import new_device_keys
from appliance.processes import PortTaken, listens
from core.fleet import enrolment
from sync import roles, topics
from sync.durable import write_private
from sync.enrolment import ENROLMENT_TYPE, EnrolRequest
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DeviceId, Digest, Kind, TenantId, TrustFile
from tests.core.newcomers import certified
from tests.waiting import PATIENCE, eventually

TENANT, DEVICE, OTHER = TenantId("acme"), DeviceId("dev-1"), DeviceId("dev-2")
FILES = BrokerFiles(Path("/p/ca"), Path("/p/cert"), Path("/p/key"), Path("/p/crl"))
USERS = ("falaj", "app")


# --- what is written --------------------------------------------------------------------------------------------


def test_the_rules_of_the_uplink_are_the_table_of_topics_and_nothing_else() -> None:
    lines = uplink_acl(TENANT).splitlines()
    assert lines[:2] == ["user core@falaj", "topic readwrite falaj/1/acme/#"]
    rules = {tuple(line.split(" ")) for line in lines[2:] if line}
    assert rules == {
        ("pattern", action, f"falaj/1/acme/{pattern.format(device='%u')}") for action, pattern in topics.DEVICE_RULES
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("tls_version tlsv1.3", "nothing older is spoken"),
        ("require_certificate true", "mutual TLS"),
        ("crlfile /p/crl", "a revoked certificate is refused"),
        ("use_identity_as_username true", "the certificate decides who it is, not what the client says"),
        ("use_username_as_clientid true", "no session is taken over by its client id"),
        ("allow_anonymous false", "nobody without a certificate"),
        ("acl_file /b/acl", "the table holds"),
        ("set_tcp_nodelay true", "a QoS 1 exchange does not wait for delayed acknowledgements"),
        ("persistence true", "retained releases survive a restart"),
        ("max_packet_size 2097152", "nobody fills the memory with one message"),
        ("message_size_limit 1048576", "nor the store with large ones"),
        ("max_queued_bytes 33554432", "nor by not reading what it is sent"),
        ("memory_limit 1610612736", "nor all together: what blobs may take, and half a GiB"),
    ],
)
def test_the_uplink_broker_is_configured_as_security_md_says(line: str, reason: str) -> None:
    assert line in uplink_config(Path("/b"), "127.0.0.1", 8883, FILES).splitlines(), reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("listener 1883 127.0.0.1", "loopback only"),
        ("allow_anonymous false", "applications have a password"),
        ("password_file /b/passwords", "applications have a password"),
        ("max_queued_messages 0", "no reading is dropped while the agent restarts"),
        ("max_queued_bytes 67108864", "but memory has an end"),
        ("set_tcp_nodelay true", "predictions do not wait"),
    ],
)
def test_the_local_broker_is_configured_for_applications(line: str, reason: str) -> None:
    assert line in local_config(Path("/b"), 1883).splitlines(), reason


def test_passwords_are_made_once_private_and_hashed_for_the_broker(tmp_path: Path) -> None:
    write_passwords(tmp_path / "b", USERS)
    first = (tmp_path / "b" / "app.password").read_text()
    write_passwords(tmp_path / "b", USERS)
    assert (tmp_path / "b" / "app.password").read_text() == first
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "b").iterdir()} == {0o600}
    hashed = (tmp_path / "b" / "passwords").read_text()
    assert re.findall(r"^(\w+):\$7\$", hashed, re.MULTILINE) == list(USERS)
    assert first not in hashed


def test_plain_passwords_never_stand_where_the_broker_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill while they are hashed: the agent looks for `passwords`, and would take them for done."""
    failing = tmp_path / "bin" / "mosquitto_passwd"
    failing.parent.mkdir()
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{failing.parent}:/usr/bin:/bin")
    with pytest.raises(NoBroker):
        write_passwords(tmp_path / "b", USERS)
    assert not (tmp_path / "b" / "passwords").exists()


def test_a_missing_program_is_one_message_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoBroker, match=r"mosquitto is not installed: run `sudo apt-get install mosquitto`") as refused:
        brokers.find(more=())
    assert refused.value.exit_code == 3


# --- what a real one does ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("local")
    (port,) = free_ports(1)
    write_passwords(folder, USERS)
    broker = Broker(folder, "127.0.0.1", port, "local_broker.port in edge.toml")
    broker.start(local_config(folder, port))
    yield broker
    broker.stop()


@pytest.mark.broker
@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["3.1.1", "5"])
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_the_local_broker_knows_its_users_by_password(local: Broker, version: int, right: bool) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="some-device", protocol=version)  # type: ignore[arg-type]
    client.username_pw_set("app", (local.folder / "app.password").read_text() if right else "wrong")
    told: list[bool] = []
    client.on_connect = lambda _c, _d, _f, reason, _p: told.append(reason.is_failure)
    client.connect("127.0.0.1", local.port)
    client.loop_start()
    eventually(lambda: bool(told), "the broker's answer")
    client.disconnect()
    client.loop_stop()
    assert told[0] is not right


@pytest.mark.broker
def test_a_taken_port_names_the_setting(local: Broker, tmp_path: Path) -> None:
    second = Broker(tmp_path, "127.0.0.1", local.port, "local_broker.port in edge.toml")
    with pytest.raises(PortTaken, match=r"stop what listens there, or set local_broker.port in edge.toml"):
        second.start(local_config(tmp_path, local.port))
    assert second.pid is None


@pytest.mark.broker
def test_a_broker_that_does_not_start_says_why(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    broker = Broker(tmp_path, "127.0.0.1", port, "x")
    with pytest.raises(NoBroker, match=r"(?s)does not start:\n.*nonsense"):
        broker.start(f"listener {port} 127.0.0.1\nnonsense true\n")
    assert not broker.alive()


@pytest.mark.broker
def test_a_running_broker_is_taken_over_unless_its_configuration_changed(local: Broker, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    write_passwords(tmp_path, USERS)
    first, second = (Broker(tmp_path, "127.0.0.1", port, "x") for _ in range(2))
    first.start(local_config(tmp_path, port))
    before = first.pid
    second.start(local_config(tmp_path, port))
    assert second.pid == before
    second.start(local_config(tmp_path, port) + "# newer\n")
    assert second.pid not in (None, before)
    assert second.alive()
    second.stop()
    assert not second.alive()
    first.stop()  # of one that ended is no harm


@pytest.mark.broker
def test_a_broker_that_shall_not_outlive_its_process_ends_when_that_is_killed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    write_passwords(tmp_path, USERS)
    program = (
        "import sys; from pathlib import Path; from appliance.broker import Broker, local_config\n"
        f"folder = Path({str(tmp_path)!r})\n"
        f"Broker(folder, '127.0.0.1', {port}, 'x', outlive=False).start(local_config(folder, {port}))\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        assert listens("127.0.0.1", port)
        child.kill()
    eventually(lambda: not listens("127.0.0.1", port), "the broker's end")


@dataclass
class Party:
    """One session and what came to it."""

    link: MqttLink
    refused: list[str]
    came: list[str] = field(default_factory=list)

    def open(self, *patterns: str) -> None:
        self.link.subscribe(*patterns)
        self.link.start(self._received, lambda up, reason: None)
        eventually(lambda: set(patterns) <= self.link.listening, "the session")

    def _received(self, message: Message) -> None:
        self.came.append(message.topic)


@dataclass(frozen=True)
class Uplink:
    """A tenant's broker with the core and one device on it."""

    core: Party
    device: Party


@pytest.fixture(scope="module")
def uplink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uplink]:
    folder = tmp_path_factory.mktemp("uplink")
    (port,) = free_ports(1)
    now = clock.now()
    authority = enrolment.create_authority(TENANT, now)
    server, own = enrolment.issue_server(authority, ("127.0.0.1",), now), enrolment.issue_core(authority, now)
    keys = new_device_keys(DEVICE)
    request = EnrolRequest(TENANT, DEVICE, "s", keys.csr.decode(), "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=")
    envelope = roles.sign(request, ENROLMENT_TYPE, keys.signing)
    _, certificate = certified(authority, envelope, enrolment.hash_secret("s"), now, TENANT)
    for name, content in {
        "ca.pem": authority.certificate, "broker.pem": server.certificate, "broker.key": server.key,
        "core.pem": own.certificate, "core.key": own.key, "dev.pem": certificate, "dev.key": keys.signing,
        "crl.pem": enrolment.empty_revocations(authority, now), "acl": uplink_acl(TENANT).encode(),
    }.items():  # fmt: skip
        write_private(folder / name, content)
    files = BrokerFiles(folder / "ca.pem", folder / "broker.pem", folder / "broker.key", folder / "crl.pem")
    broker = Broker(folder, "127.0.0.1", port, "ports.uplink in core.toml")
    broker.start(uplink_config(folder, "127.0.0.1", port, files))

    def party(name: str, client_id: str) -> Party:
        refused: list[str] = []
        tls = Tls(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        return Party(MqttLink(At("127.0.0.1", port, client_id, tls=tls), refused=refused.append), refused)

    made = Uplink(party("core", topics.CORE_NAME), party("dev", DEVICE))
    made.core.open("falaj/#")
    made.device.open("#")
    yield made
    made.core.link.stop()
    made.device.link.stop()
    broker.stop()


def _every_topic() -> list[str]:
    kind, digest = Kind("event"), Digest("a" * 64)
    for_one = [
        t(TENANT, d)
        for d in (DEVICE, OTHER)
        for t in (topics.desired, topics.reported, topics.status)
    ]  # fmt: skip
    for_one += [t(TENANT, d, kind) for d in (DEVICE, OTHER) for t in (topics.up, topics.ack)]
    for_one += [f"falaj/1/{TENANT}/d/{d}/{rest}" for d in (DEVICE, OTHER) for rest in ("labels", "cmd/x", "up", "new")]
    for_all = [topics.trust(TENANT, TrustFile("index")), topics.blob(TENANT, digest, 3), topics.core_status(TENANT)]
    return [*for_one, *for_all, "falaj/1/other/core/status", "falaj/1/other/d/dev-1/up/event", "elsewhere"]


@pytest.mark.broker
@pytest.mark.parametrize("topic", _every_topic())
def test_the_broker_delivers_to_a_device_what_the_table_lets_it_read(uplink: Uplink, topic: str) -> None:
    fence = f"falaj/1/{TENANT}/trust/fence-{len(uplink.device.came)}"
    before = uplink.device.came.count(topic)
    uplink.core.link.publish(Publish(topic, b"x"))
    uplink.core.link.publish(Publish(fence, b"x"))
    eventually(lambda: fence in uplink.device.came, "the fence behind it")
    came = uplink.device.came.count(topic) > before
    assert came == topics.device_may("read", TENANT, DEVICE, topic)


@pytest.mark.broker
@pytest.mark.parametrize("topic", _every_topic())
def test_the_broker_takes_from_a_device_what_the_table_lets_it_write(uplink: Uplink, topic: str) -> None:
    fence = topics.up(TENANT, DEVICE, Kind(f"fence-{len(uplink.core.came)}"))
    refused, before = len(uplink.device.refused), uplink.core.came.count(topic)
    uplink.device.link.publish(Publish(topic, b"x"))
    uplink.device.link.publish(Publish(fence, b"x"))
    eventually(lambda: fence in uplink.core.came, "the fence behind it")
    allowed = topics.device_may("write", TENANT, DEVICE, topic)
    assert (uplink.core.came.count(topic) > before) == allowed
    if not allowed:  # on the device's own session, which the fence on the core's says nothing of
        eventually(lambda: len(uplink.device.refused) > refused, "the word that it was refused")
    assert (len(uplink.device.refused) > refused) != allowed, "a refused publish is told"


@pytest.mark.broker
def test_small_messages_do_not_wait_on_the_uplink(uplink: Uplink) -> None:
    sock = uplink.device.link._client.socket()
    assert sock is not None
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.broker
def test_no_certificate_no_session(uplink: Uplink) -> None:
    port = uplink.device.link._broker.port
    told, up = threading.Event(), []

    def watch(is_up: bool, reason: str) -> None:
        up.append(is_up)
        told.set()

    stranger = MqttLink(At("127.0.0.1", port, "core@falaj"))  # not even TLS
    stranger.start(lambda message: None, watch)
    assert told.wait(PATIENCE)
    stranger.stop()
    assert up[0] is False
