"""The MQTT link against a real Mosquitto: what a walker may rely on."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance import clock
from appliance.broker import Broker, local_config, write_passwords
from appliance.demo.fleet import free_ports
from core.fleet.enrolment import create_authority
from sync.link import LinkDown, Message, Publish
from sync.mqtt import IN_FLIGHT, MqttLink, Tls
from sync.mqtt import Broker as At
from sync.names import DEFAULT_TENANT
from tests.waiting import eventually

pytestmark = pytest.mark.broker


@dataclass
class Place:
    """A broker whose user may write everywhere but below `forbidden/`."""

    broker: Broker
    config: str
    parties: list[Party] = field(default_factory=list)

    def at(self, client_id: str, *, clean: bool = True) -> At:
        password = (self.broker.folder / "app.password").read_text()
        expiry = 0 if clean else 3600
        return At("127.0.0.1", self.broker.port, client_id, None, "app", password, clean, expiry)

    def join(self, client_id: str, *patterns: str, manual_ack: bool = False, clean: bool = True) -> Party:
        party = Party(self.at(client_id, clean=clean), manual_ack)
        self.parties.append(party)
        party.link.subscribe(*patterns)
        party.link.start(party.came.append, lambda up, reason: party.states.append(up))
        eventually(lambda: party.link.listening == set(patterns) and any(party.states), "the session")
        return party


class Party:
    """One session: what came, what the broker refused, when it was up."""

    def __init__(self, at: At, manual_ack: bool) -> None:
        self.came: list[Message] = []
        self.refused: list[str] = []
        self.states: list[bool] = []
        self.link = MqttLink(at, manual_ack=manual_ack, refused=self.refused.append)

    def got(self, payload: bytes) -> bool:
        return any(m.payload == payload for m in self.came)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    (port,) = free_ports(1)
    write_passwords(tmp_path, ("app",))
    (tmp_path / "acl").write_text("user app\ntopic readwrite here/#\ntopic read forbidden/#\n")
    config = local_config(tmp_path, port) + f"acl_file {tmp_path}/acl\n"
    broker = Broker(tmp_path, "127.0.0.1", port, "x")
    broker.start(config)
    made = Place(broker, config)
    yield made
    for party in made.parties:
        party.link.stop()
    broker.stop()


CLIENT = """
    import sys
    from sync.link import Publish
    from sync.mqtt import Broker, MqttLink
    port, password = int(sys.argv[1]), sys.stdin.readline().strip()
    link = MqttLink(Broker("127.0.0.1", port, "crashing", user="app", password=password),
                    Publish("here/will", b"gone", retain=True), manual_ack=True)
    def received(message):
        print(message.payload.decode(), flush=True)  # and never acknowledges
    link.subscribe("here/work")
    link.start(received, lambda up, reason: None)
    while not link.listening:
        pass
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_client_leaves_its_will_and_gets_again_what_it_did_not_acknowledge(place: Place) -> None:
    watcher = place.join("watcher", "here/will")
    at = place.at("crashing", clean=False)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLIENT), str(at.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(f"{at.password}\n")
        client.stdin.flush()
        assert client.stdout.readline() == "ready\n"
        watcher.link.publish(Publish("here/work", b"reading"))
        assert client.stdout.readline() == "reading\n"
        client.kill()
    eventually(lambda: watcher.got(b"gone"), "the will")
    again = place.join("crashing", "here/work", manual_ack=True, clean=False)
    eventually(lambda: again.got(b"reading"), "the reading that was never acknowledged")
    message = again.came[0]
    again.link.acknowledge(message.receipt, message.qos)
    again.link.stop()
    third = place.join("crashing", "here/work", manual_ack=True, clean=False)
    third.link.publish(Publish("here/work", b"fence"))
    eventually(lambda: third.got(b"fence"), "the fence")
    assert [m.payload for m in third.came] == [b"fence"], "what was acknowledged does not come again"


def test_what_is_asked_for_again_is_sent_again_as_the_broker_keeps_it(place: Place) -> None:
    """Whoever may have lost a word in a storm reads what is retained once more."""
    reader = place.join("reader", "here/+")
    place.join("writer", "here/doc").link.publish(Publish("here/doc", b"1", retain=True))
    eventually(lambda: reader.got(b"1"), "the live one")
    reader.link.subscribe("here/+")
    eventually(lambda: [m.payload for m in reader.came] == [b"1", b"1"], "the retained one")
    assert [m.retained for m in reader.came] == [False, True]


def test_a_retained_message_is_told_from_a_live_one(place: Place) -> None:
    writer = place.join("writer", "here/+")
    writer.link.publish(Publish("here/doc", b"1", retain=True))
    eventually(lambda: writer.got(b"1"), "the live one")
    late = place.join("late", "here/doc")
    eventually(lambda: late.got(b"1"), "the retained one")
    assert [m.retained for m in (*writer.came, *late.came)] == [False, True]


def test_a_reconnect_renews_the_subscriptions(place: Place) -> None:
    party = place.join("party", "here/a", "here/b")
    party.link.unsubscribe("here/b")
    place.broker.stop()
    eventually(lambda: party.states[-1] is False and not party.link.listening, "the loss")
    party.link.publish(Publish("here/a", b"dropped"))
    place.broker.start(place.config)
    eventually(lambda: party.link.listening == {"here/a"}, "the renewed subscription")
    party.link.publish(Publish("here/b", b"unwanted"))
    party.link.publish(Publish("here/a", b"after"))
    eventually(lambda: party.got(b"after"), "a message after the reconnect")
    assert [m.payload for m in party.came] == [b"after"]


def test_listening_is_what_the_broker_confirmed(place: Place) -> None:
    party = place.join("party", "here/a")
    party.link.subscribe("here/b", "here/c")
    eventually(lambda: party.link.listening == {"here/a", "here/b", "here/c"}, "the confirmations")
    many = tuple(f"here/many/{i}" for i in range(200))
    party.link.subscribe(*many)
    eventually(lambda: set(many) <= party.link.listening, "confirmations of several packets")
    party.link.unsubscribe("here/b")
    assert "here/b" not in party.link.listening


def test_a_refused_publish_is_told(place: Place) -> None:
    party = place.join("party", "forbidden/x", "here/x")
    party.link.publish(Publish("forbidden/x", b"no"))
    party.link.publish(Publish("here/x", b"yes"))
    eventually(lambda: party.got(b"yes"), "the allowed one")
    assert party.refused == ["the broker refused a publish: Not authorized"]


def test_small_messages_do_not_wait(place: Place) -> None:
    party = place.join("party")
    sock = party.link._client.socket()
    assert sock is not None
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_link_that_keeps_publishes_sends_them_when_the_broker_is_there(place: Place) -> None:
    watcher = place.join("watcher", "here/kept")
    early = MqttLink(place.at("early"), queue_when_down=True)
    early.publish(Publish("here/kept", b"kept"))
    early.start(lambda message: None, lambda up, reason: None)
    eventually(lambda: watcher.got(b"kept"), "what was said before there was a session")
    early.stop()


def test_a_wrong_password_is_told_as_a_reason(place: Place) -> None:
    told: list[tuple[bool, str]] = []
    watch: Callable[[bool, str], None] = lambda up, reason: told.append((up, reason))  # noqa: E731
    link = MqttLink(At("127.0.0.1", place.broker.port, "x", user="app", password="wrong"))
    link.start(lambda message: None, watch)
    eventually(lambda: bool(told), "the refusal")
    link.stop()
    assert told[0] == (False, "broker refused the session: Not authorized")
    assert not link.wait_until_up(0)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(create_authority(DEFAULT_TENANT, clock.now()).certificate)
    (tmp_path / "dev.pem").write_text("nonsense")
    tls = Tls(tmp_path / "ca.pem", tmp_path / "dev.pem", tmp_path / "dev.key")
    with pytest.raises(LinkDown, match=r"certificate .*dev\.pem"):
        tls.context()


def test_a_link_that_asks_for_it_sees_that_a_live_message_is_being_kept(place: Place) -> None:
    """Without, a message that somebody plants looks like any other until the next session."""
    plain = place.join("plain", "here/planted")
    came: list[Message] = []
    wary = MqttLink(place.at("wary"), retain_as_published=True)
    wary.subscribe("here/planted")
    wary.start(came.append, lambda up, reason: None)
    eventually(lambda: wary.listening == {"here/planted"}, "the session")
    plain.link.publish(Publish("here/planted", b"x", retain=True))
    plain.link.publish(Publish("here/planted", b"y"))
    eventually(lambda: len(came) == 2 and len(plain.came) == 2, "both messages")
    wary.stop()
    assert [m.retained for m in came] == [True, False]
    assert [m.retained for m in plain.came] == [False, False]


def test_a_link_is_settled_when_the_broker_has_confirmed_what_was_said(place: Place) -> None:
    """Whoever has the broker write its store must know that what was published is there to be written."""
    link = place.join("speaker", "here/#").link
    assert not link.unconfirmed
    for _ in range(300):
        link.publish(Publish("here/much", bytes(50_000)))
    assert link.unconfirmed > IN_FLIGHT, "more than may be under way at once"
    eventually(lambda: not link.unconfirmed, "the last confirmation")
    link.publish(Publish("here/little", b"", qos=0))
    assert not link.unconfirmed


NO_FILTERS = ("", "wat+ch/x", "plant/#/x", "a\x01", "a/" * 200 + "x")
NO_TOPICS = ("", "said/+/x", "here/#", "here/x\x01", "a/" * 200 + "x")


@pytest.mark.parametrize("bad", NO_FILTERS)
def test_a_filter_that_is_none_costs_nobody_the_session(place: Place, bad: str) -> None:
    """Asked for in a session and carried into the next: paho would raise, or the broker hang up, each time."""
    party = place.join("one", "here/work")
    party.link.subscribe(bad, "here/more")
    eventually(lambda: party.link.listening == {"here/work", "here/more"}, "the good one")
    assert len(party.refused) == 1 and "was not asked for" in party.refused[0]
    party.link.publish(Publish("here/more", b"heard"))
    eventually(lambda: party.got(b"heard"), "what was said after it")
    party.link.unsubscribe(bad)
    assert party.states == [True]


@pytest.mark.parametrize("bad", NO_TOPICS)
def test_a_topic_that_is_none_costs_nobody_the_session(place: Place, bad: str) -> None:
    party = place.join("one", "here/work")
    party.link.publish(Publish(bad, b"lost"))
    party.link.publish(Publish("here/work", b"heard"))
    eventually(lambda: party.got(b"heard"), "what was said after it")
    assert len(party.refused) == 1 and "its topic is none" in party.refused[0]
    assert party.states == [True] and [m.payload for m in party.came] == [b"heard"]
