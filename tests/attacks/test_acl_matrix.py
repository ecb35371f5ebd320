"""What the broker lets pass, by delivery and not by what it answers: {own, same tenant, other tenant, `$SYS`, wildcard,
shared subscription} x {publish, subscribe, retained, will} x {MQTT 5, MQTT 3.1.1}, on a real Mosquitto as a core
configures it. A certificate of another tenant's authority opens no session, whatever name it bears.

A message that is allowed closes each round. A broker delivers in order: when it is there, all before it was delivered
or never will be. What is allowed is written down here by hand (`MAY`), not taken from the table that the rules are made
from: a rule that is too wide fails.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from core.fleet import enrolment
from sync import topics
from sync.durable import write_private
from sync.messages import EVENT
from sync.mqtt import Tls
from sync.names import Digest, Kind, TenantId, TrustFile
from tests.attacks.ground import ATTACKER, VICTIM, Ground, certify, open_ground
from tests.core.world import TENANT
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.broker
ROOT, OTHER = topics.tenant_root(TENANT), topics.tenant_root(TenantId("other"))
ROUNDS = 3  # of every case: a fixed run
LAST = topics.up(TENANT, ATTACKER, Kind("last"))  # what a device may say ...
END = topics.ack(TENANT, ATTACKER, Kind("end"))  # ... and may hear
VERSIONS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}


def words(root: str, device: str) -> tuple[str, ...]:
    """Every topic of one device below a tenant."""
    own = f"{root}/d/{device}"
    kinds = (f"{own}/{area}/{EVENT}" for area in ("up", "ack", "cmd"))
    return (*(f"{own}/{area}" for area in ("desired", "reported", "status", "labels")), *kinds)


# Where a device is, by the columns of the matrix. Below its own name it may read some and write others.
PLACES: dict[str, tuple[str, ...]] = {
    "own": words(ROOT, ATTACKER),
    "same tenant": (
        *words(ROOT, VICTIM), topics.trust(TENANT, TrustFile("index")), topics.blob(TENANT, Digest("a" * 64), 0),
        topics.core_status(TENANT), f"{ROOT}/core/orders",
    ),
    "other tenant": (
        *words(OTHER, ATTACKER), *words(OTHER, VICTIM), f"{OTHER}/trust/index", f"{OTHER}/blob/{'a' * 64}/0",
        f"{OTHER}/core/status",
    ),
    "$SYS": ("$SYS/broker/uptime", "$SYS/broker/clients/connected", "$SYS/planted"),
}  # fmt: skip
SPOKEN = tuple(itertools.chain.from_iterable(PLACES.values()))
FILTERS: dict[str, tuple[str, ...]] = PLACES | {
    "wildcard": (
        "#", "+/#", "+/+/+/#", "falaj/#", f"{ROOT}/#", f"{ROOT}/d/#", f"{ROOT}/d/+/desired", f"{ROOT}/+/+/+/+",
        f"{ROOT}/d/{VICTIM}/#", f"{ROOT}/d/{ATTACKER}/#", f"{OTHER}/#", "falaj/1/+/d/+/up/+", "$SYS/#", "$SYS/broker/+",
    ),
    "shared": tuple(
        f"$share/g/{pattern}"
        for pattern in (
            "#", "falaj/#", f"{ROOT}/#", f"{ROOT}/d/+/desired", f"{ROOT}/d/{VICTIM}/#", f"{ROOT}/d/{ATTACKER}/#",
            f"{OTHER}/#", "$SYS/#",
        )
    ),
}  # fmt: skip
SAID = PLACES | {"shared": (f"$share/g/{ROOT}/d/{VICTIM}/desired", f"$share/g/{ROOT}/d/{ATTACKER}/status")}
UNSPEAKABLE = (f"{ROOT}/d/+/desired", f"{ROOT}/d/{VICTIM}/#", f"{ROOT}/#", "#", "+/+", f"{ROOT}/d/{ATTACKER}/up/+")


# All that the attacker, an honest device but for this, may hear and say: by hand, and complete.
MAY: dict[str, frozenset[str]] = {
    "read": frozenset({
        f"{ROOT}/d/watch-2/desired", f"{ROOT}/d/watch-2/ack/event", f"{ROOT}/d/watch-2/ack/end",
        f"{ROOT}/d/watch-2/labels", f"{ROOT}/d/watch-2/cmd/event",
        f"{ROOT}/trust/index", f"{ROOT}/blob/{'a' * 64}/0", f"{ROOT}/core/status",
    }),
    "write": frozenset({
        f"{ROOT}/d/watch-2/reported", f"{ROOT}/d/watch-2/status",
        f"{ROOT}/d/watch-2/up/event", f"{ROOT}/d/watch-2/up/last",
    }),
}  # fmt: skip


def may(action: str, topic: str) -> bool:
    return topic in MAY[action]


def test_the_in_memory_twin_allows_the_same() -> None:
    """And the names of the table above are those of the topics that are spoken here."""
    spoken = {*SPOKEN, LAST, END}
    assert MAY["read"] | MAY["write"] <= spoken
    for action, allowed in MAY.items():
        assert {t for t in spoken if topics.device_may(action, TENANT, ATTACKER, t)} == allowed  # type: ignore[arg-type]


class Intruder:
    """A session in either version of the protocol that asks for what it likes and counts what it is given."""

    def __init__(self, tls: Tls, port: int, version: MQTTProtocolVersion, will: str | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._up, self._answers = threading.Event(), 0
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=ATTACKER, protocol=version, reconnect_on_failure=False
        )
        client.tls_set_context(tls.context())
        client.on_connect = lambda *_: self._up.set()
        client.on_message = lambda _c, _d, m: self.heard.append((m.topic, m.payload))
        client.on_subscribe = client.on_unsubscribe = self._answered
        if will is not None:
            client.will_set(will, b"a will", 1, retain=True)
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client
        assert self._up.wait(PATIENCE)

    def ask(self, *patterns: str) -> None:
        """Subscribes, one packet each, and waits for the broker's answers, whatever they are."""
        wanted = self._answers + len(patterns)
        for pattern in patterns:
            self._client.subscribe(pattern, 1)
        eventually(lambda: self._answers >= wanted or not self._client.is_connected(), "an answer to each")
        assert self._client.is_connected(), f"the broker hung up on {patterns}"

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, 1, retain)

    def vanish(self) -> None:
        """The connection is lost, so the will is spoken."""
        lost = self._client.socket()
        assert isinstance(lost, ssl.SSLSocket)
        lost.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _answered(self, *_: object) -> None:
        self._answers += 1


@dataclass
class Stage:
    """The ground with the core, the victim and the owner of all eyes listening, and the attacker not yet there."""

    ground: Ground
    tls: Tls
    version: MQTTProtocolVersion

    def intrude(self, will: str | None = None) -> Intruder:
        return Intruder(self.tls, self.ground.broker.port, self.version, will)


@pytest.fixture(scope="module")
def attackers_tls(standing: Ground) -> Tls:
    return standing.device_tls(ATTACKER)


@pytest.fixture(params=list(VERSIONS))
def stage(ground: Ground, attackers_tls: Tls, request: pytest.FixtureRequest) -> Stage:
    return Stage(ground, attackers_tls, VERSIONS[request.param])


def clear(ground: Ground) -> None:
    """Takes away all that was retained, as the core, and sees that it is gone."""
    core = ground.sessions[0]
    for topic in (*SPOKEN, LAST, END):
        if topic.startswith(ROOT):
            core.say(topic, b"", retain=True)
    before = len(core.heard)
    core.say(f"{ROOT}/core/orders", b"cleared")
    eventually(lambda: any(m.payload == b"cleared" for m in core.heard[before:]), "the broker to be empty again")


@pytest.mark.parametrize("place", list(FILTERS))
@pytest.mark.parametrize("retained", [False, True], ids=["live", "retained"])
def test_a_device_hears_its_own_and_nothing_else(stage: Stage, place: str, retained: bool) -> None:
    """Below another tenant nobody may speak here, the core neither: for that row the control is
    `test_words_below_another_tenant_reach_no_device`, where somebody may."""
    core = stage.ground.core()
    core.listen(f"{ROOT}/#")
    if retained:
        speak(core.say, retain=True)
        core.say(END, b"kept", retain=True)
        eventually(lambda: any(m.topic == END for m in core.heard), "the broker to have it")
    attacker = stage.intrude()
    attacker.ask(*FILTERS[place])
    attacker.ask(END)
    for _ in range(ROUNDS):
        speak(core.say)
    core.say(END, b"the end")
    eventually(lambda: (END, b"the end") in attacker.heard, "the end")
    attacker.close()
    clear(stage.ground)
    leaked = [topic for topic, _ in attacker.heard if not may("read", topic)]
    assert leaked == [], f"{len(leaked)} messages of others"
    patterns = [p.removeprefix("$share/g/") for p in FILTERS[place]]
    asked = {t for t in SPOKEN if may("read", t) and any(topics.matches(p, t) for p in patterns)}
    assert {topic for topic, _ in attacker.heard} == asked | {END}, "what is for it came"


@pytest.mark.parametrize("retained", [False, True], ids=["live", "retained"])
@pytest.mark.parametrize("version", list(VERSIONS))
def test_words_below_another_tenant_reach_no_device(own_ground: Ground, version: str, retained: bool) -> None:
    """On a broker that lets its core speak below every tenant, as no core's does: what keeps them from a device is its
    own rules then."""
    rules = own_ground.broker.folder / "acl"
    write_private(rules, rules.read_text().replace(f"topic readwrite {ROOT}/#", "topic readwrite falaj/#").encode())
    own_ground.broker.reload()
    core, attacker = (
        own_ground.core(),
        Intruder(own_ground.device_tls(ATTACKER), own_ground.broker.port, VERSIONS[version]),
    )
    core.listen(f"{OTHER}/#")

    def spoken() -> bool:
        """The reload takes the broker a moment that nobody is told of."""
        for topic in PLACES["other tenant"]:
            core.say(topic, b"a word", retain=retained)
        return {*PLACES["other tenant"]} <= {*core.topics()}

    eventually(spoken, "the words to be spoken, and heard by whoever may")
    attacker.ask(*FILTERS["other tenant"], *FILTERS["wildcard"], *FILTERS["shared"], END)
    assert spoken()
    core.say(END, b"the end")
    eventually(lambda: (END, b"the end") in attacker.heard, "the end")
    attacker.close()
    assert {topic for topic, _ in attacker.heard} == {END}


@pytest.mark.parametrize("place", list(SAID))
@pytest.mark.parametrize("retained", [False, True], ids=["live", "retained"])
def test_a_device_is_heard_on_its_own_and_nowhere_else(stage: Stage, place: str, retained: bool) -> None:
    ground = stage.ground
    core, victim = ground.core(), ground.device(VICTIM)
    core.listen(f"{ROOT}/#")
    victim.listen(*topics.device_subscriptions(TENANT, VICTIM), f"{ROOT}/blob/+/+", f"{ROOT}/trust/+")
    attacker = stage.intrude()
    for _ in range(ROUNDS):
        for topic in SAID[place]:
            attacker.say(topic, b"forged", retain=retained)
    attacker.say(LAST, b"the last")
    eventually(lambda: LAST in core.topics(), "the last word, which is allowed")
    attacker.close()
    heard = [m.topic for m in (*core.heard, *victim.heard) if m.payload == b"forged"]
    leaked = [topic for topic in heard if not may("write", topic)]
    own = [topic for topic in SAID[place] if may("write", topic)]
    assert leaked == [] and sorted(heard) == sorted(own * ROUNDS)
    victim.link.stop()
    late = ground.device(VICTIM)
    late.listen(*topics.device_subscriptions(TENANT, VICTIM), f"{ROOT}/blob/+/+", f"{ROOT}/trust/+")
    core.say(topics.desired(TENANT, VICTIM), b"the end")
    eventually(lambda: any(m.payload == b"the end" for m in late.heard), "the end")
    assert [m.topic for m in late.heard if m.payload == b"forged"] == [], "nothing stayed on the broker either"
    clear(ground)


@pytest.mark.parametrize("retained", [False, True], ids=["live", "retained"])
def test_a_wildcard_cannot_be_published(stage: Stage, retained: bool) -> None:
    """As bytes on the wire, for no client would: the broker hangs up, and nobody hears of it."""
    core = stage.ground.core()
    core.listen(f"{ROOT}/#")
    for topic in UNSPEAKABLE * ROUNDS:
        hangs_up(stage, topic, b"forged", retained)
    attacker = stage.intrude()
    attacker.say(LAST, b"the last")
    eventually(lambda: LAST in core.topics(), "the last word, which is allowed")
    attacker.close()
    assert core.topics() == [LAST]


def hangs_up(stage: Stage, topic: str, payload: bytes, retained: bool) -> None:
    """Asserts that the broker ends the connection of whoever publishes on `topic`."""
    five = stage.version == MQTTProtocolVersion.MQTTv5
    connect = b"\0\4MQTT" + bytes([stage.version, 2]) + b"\0\x3c" + (b"\0" if five else b"") + b"\0\1x"
    publish = len(topic).to_bytes(2, "big") + topic.encode() + (b"\0" if five else b"") + payload
    port = stage.ground.broker.port
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with plain, stage.tls.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        secure.sendall(bytes([0x10, len(connect)]) + connect)
        assert secure.recv(256)[0] == 0x20, "a session"
        secure.sendall(bytes([0x30 | retained, len(publish)]) + publish)
        # A timeout is an OSError too, and none of these: it fails the test.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            while secure.recv(256):
                pass  # what it says before it hangs up


@pytest.mark.parametrize("place", list(SAID))
def test_a_will_is_spoken_on_its_own_and_nowhere_else(stage: Stage, place: str) -> None:
    ground = stage.ground
    core = ground.core()
    core.listen(f"{ROOT}/#", "$SYS/planted")
    for topic in SAID[place]:
        if topic.startswith("$share"):
            leaves_a_will(stage, topic)  # no client would: as bytes on the wire
        else:
            stage.intrude(will=topic).vanish()
    stage.intrude(will=LAST).vanish()
    eventually(lambda: LAST in core.topics(), "the will that is allowed")
    spoken = [m.topic for m in core.heard if m.payload == b"a will" and m.topic != LAST]
    assert sorted(spoken) == sorted(topic for topic in SAID[place] if may("write", topic))
    clear(ground)


def test_a_will_cannot_be_left_on_a_wildcard(stage: Stage) -> None:
    """The broker opens no session for it, or speaks it nowhere; live or retained, nobody hears of it."""
    core, victim = stage.ground.core(), stage.ground.device(VICTIM)
    core.listen(f"{ROOT}/#")
    victim.listen(*topics.device_subscriptions(TENANT, VICTIM))
    for topic in UNSPEAKABLE * ROUNDS:
        leaves_a_will(stage, topic)
    leaves_a_will(stage, LAST)
    eventually(lambda: LAST in core.topics(), "the will that is allowed")
    assert core.topics() == [LAST] and victim.heard == []
    clear(stage.ground)


def leaves_a_will(stage: Stage, topic: str) -> None:
    """Joins with a retained will on `topic`, as bytes on the wire, and is lost; or is not let in."""
    none = b"\0" if stage.version == MQTTProtocolVersion.MQTTv5 else b""  # no properties
    words = b"".join(len(word).to_bytes(2, "big") + word for word in (topic.encode(), b"a will"))
    rest = b"\0\4MQTT" + bytes([stage.version, 0x2E]) + b"\0\x3c" + none + b"\0\1x" + none + words
    port = stage.ground.broker.port
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    with plain, stage.tls.context().wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        secure.sendall(bytes([0x10, len(rest)]) + rest)
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # a timeout is neither, and fails the test
            secure.recv(256)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Another tenant's broker and authority, in which a device bears the attacker's and the victim's very names."""
    made = open_ground(tmp_path_factory.mktemp("foreign"))
    yield made
    made.close_sessions()
    made.broker.stop()


@pytest.mark.parametrize("name", [VICTIM, ATTACKER, "core"])
@pytest.mark.parametrize("version", list(VERSIONS))
def test_the_same_name_of_another_authority_opens_no_session(
    ground: Ground, foreign: Ground, name: str, version: str
) -> None:
    """And hears nothing: the victim's messages go out while it tries."""
    core, victim = ground.core(), ground.device(VICTIM)
    victim.listen(topics.desired(TENANT, VICTIM))
    if name == "core":
        pair = enrolment.issue_core(foreign.authority, foreign.now)
        certificate, key = pair.certificate, pair.key
    else:
        certificate, key = certify(VICTIM if name == VICTIM else ATTACKER, foreign.authority, foreign.now)
    tls = ground.tls(certificate, key)  # it believes this tenant's broker: only the broker can refuse
    told: list[object] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=VERSIONS[version])
    client.tls_set_context(tls.context())
    client.on_connect = lambda *_: told.append("a session")
    client.on_message = lambda _c, _d, m: told.append(m.topic)
    for _ in range(ROUNDS):
        with contextlib.suppress(OSError):  # refused in the handshake: that is what is hoped for
            client.connect("127.0.0.1", ground.broker.port)
            for _ in range(5):
                core.say(topics.desired(TENANT, VICTIM), b"for the victim")
                client.loop(0.1)
    eventually(lambda: len(victim.heard) >= 1, "the victim's own messages")
    assert told == []


def test_two_tenants_with_the_same_device_names_share_nothing(ground: Ground, foreign: Ground, tmp_path: Path) -> None:
    """Each tenant has a broker of its own: the words of one are not in the other, live or retained."""
    here, there = ground.core(), foreign.core()
    listeners = [place.device(VICTIM) for place in (ground, foreign)]
    for listener in listeners:
        listener.listen(*topics.device_subscriptions(TENANT, VICTIM))
    for _ in range(ROUNDS):
        for topic in (topics.desired(TENANT, VICTIM), topics.core_status(TENANT)):
            here.say(topic, b"of the first", retain=True)
            there.say(topic, b"of the second", retain=True)
    for listener in listeners:
        eventually(lambda listener=listener: len(listener.heard) >= 2 * ROUNDS, "its own words")  # type: ignore[misc]
    assert {m.payload for m in listeners[0].heard} == {b"of the first"}
    assert {m.payload for m in listeners[1].heard} == {b"of the second"}
    here.listen(f"{ROOT}/#")
    clear(ground)


def speak(say: Callable[..., None], *, retain: bool = False) -> None:
    """A word on every topic there is, `$SYS` apart: the broker speaks there itself."""
    for topic in SPOKEN:
        if not topic.startswith("$SYS"):
            say(topic, b"a word", retain=retain)
