"""Attack 23: one device floods the core, in good words and in bad, and hoards what a broker keeps for it. The quotas
hold: what it says beyond them is not even read, and the words of every other device are all heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from core.catalog.events import KEPT
from core.fleet.floods import COST, KNOWN, RATE, REPORT, ROOM, Floods, Hearing
from sync import topics
from sync.messages import EVENT, DeviceEvent
from sync.names import DeviceId
from tests.attacks.ground import ATTACKER, VICTIM, Ground
from tests.core.world import ONE, TENANT, TWO, Device, World
from tests.waiting import eventually

SMALL = 50 * (COST + 1)  # tokens: 50 words that come to nothing
FLOOD = 200
NONSENSE = b"{" * 50


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A core whose quota is soon used up."""
    made = World(tmp_path / "core").ready()
    made.house.memory.floods = Floods(SMALL)
    yield made
    made.catalog.close()


def floods(world: World, device: Device, count: int, path: str = "up/event") -> None:
    for _ in range(count):
        world.hear(device.message(path, NONSENSE))


@pytest.mark.parametrize("path", ["up/event", "reported", "status", "up/NOT A KIND", "up/event/deeper"])
def test_23_refused_words_beyond_the_quota_are_not_read_and_told_once(alone: World, path: str) -> None:
    noisy, quiet = alone.enrol(ONE), alone.enrol(TWO)
    before = len(alone.catalog.events.newest(10 * KEPT))
    floods(alone, noisy, FLOOD, path)
    events = alone.catalog.events.newest(10 * KEPT)[: -before or None]
    read = int(SMALL // (COST + REPORT)) if path == "reported" else 50
    assert sum(e.source == ONE for e in events) == read, "and each of these in its own room"
    (alarm,) = [e for e in events if e.code == "device-flooding"]
    assert (alarm.severity, alarm.facts["device"]) == ("alarm", ONE) and "falaj device revoke" in alarm.text
    assert {e.source for e in events} == {ONE, "core"} and sum(e.source == "core" for e in events) == 1
    for n in range(1, 21):
        alone.hear(quiet.record(DeviceEvent("well", "all is"), n))
    assert alone.catalog.fleet.received(TWO, quiet.epoch, "event") == 20, "the others are heard as ever"


def test_23_what_is_planted_beyond_the_quota_is_cleared_all_the_same(alone: World) -> None:
    """Else a device that is not read any more could fill the broker's memory, a topic at a time."""
    device = alone.enrol(ONE)
    floods(alone, device, FLOOD)
    for path, retained in (
        ("up/any-kind", True),
        ("up/status", True),
        ("up/NO KIND", True),
        ("up/event", False),
        ("reported", True),
    ):
        message = msgspec.structs.replace(device.message(path, NONSENSE), retained=retained)
        sent = [(one.message.topic, one.message.payload, one.message.retain) for one in alone.hear(message)]
        cleared = retained and path != "reported"
        assert sent == ([(message.topic, b"", True)] if cleared else [])


def test_23_who_was_not_read_loses_nothing_by_it(alone: World) -> None:
    """A record that was not read is not acknowledged, so it comes again; after a while the device is heard again."""
    device = alone.enrol(ONE)
    floods(alone, device, FLOOD)
    record = device.record(DeviceEvent("well", "all is"), 1)
    assert alone.hear(record) == [] and alone.catalog.fleet.received(ONE, device.epoch, "event") == 0
    alone.now += SMALL / RATE
    alone.hear(record)
    assert alone.catalog.fleet.received(ONE, device.epoch, "event") == 1


def test_23_a_long_time_alone_is_no_flood() -> None:
    """As many good words as an outbox holds, at once, and then on and on at the pace of a core."""
    quota, now = Floods(), 0.0
    for n in range(int(ROOM) + 50_000):
        now += 0.0 if n < ROOM - 1 else 1 / (RATE - 1)
        assert quota.hear(ONE, now) is Hearing.READ, n


def test_23_good_reports_without_end_are_read_at_a_pace_that_leaves_time_for_others(alone: World) -> None:
    """Each is verified and committed, and the rollouts are looked at: a core can do some hundreds a second."""
    device, quiet = alone.enrol(ONE), alone.enrol(TWO)
    taken = set()
    for n in range(1000):
        alone.now += 0.003
        alone.hear(device.report(seen=n % 2, at=alone.now))
        taken.add(newest(alone, ONE))
    assert len(taken) <= (SMALL + 3 * RATE) / REPORT + 1
    assert alone.codes().count("device-flooding") == 1
    alone.hear(quiet.report(at=alone.now))
    assert newest(alone, TWO) == 1
    alone.now += 60.0
    alone.hear(device.report(at=alone.now))
    assert newest(alone, ONE) == 1001, "and its newest, when it is calm"


def newest(world: World, name: DeviceId) -> int:
    """The number of the newest report that the core has of a device."""
    found = world.catalog.fleet.device(name)
    return found.report.seq if found is not None and found.report is not None else 0


def test_23_names_and_clocks_do_not_get_round_it() -> None:
    quota = Floods()
    for n in range(3 * KNOWN):
        quota.hear(f"name-{n}", 0.0)
    assert len(quota.of) <= KNOWN
    for _ in range(int(ROOM)):
        quota.vain(ONE, 10.0)
    assert quota.hear(ONE, 10.0) is Hearing.TELL
    assert [quota.hear(ONE, t) for t in (5.0, 0.0, 10.0)] == [Hearing.TELL, Hearing.TELL, Hearing.DROP]


def flood_the_broker(ground: Ground, count: int, session: int) -> paho.Client:
    """As fast as a client can, QoS 1 and 0, in a session that shall be kept for `session` seconds."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=ATTACKER, protocol=paho.MQTTv5)
    client.tls_set_context(ground.device_tls(ATTACKER).context())
    client.max_inflight_messages_set(1000)
    wanted = Properties(PacketTypes.CONNECT)
    wanted.SessionExpiryInterval = session
    client.connect("127.0.0.1", ground.broker.port, properties=wanted)
    client.loop_start()
    for n in range(count):
        client.publish(topics.up(TENANT, ATTACKER, EVENT), b"x" * 100, n % 2)
    return client


@pytest.mark.broker
def test_23_on_the_broker_every_word_of_the_others_arrives(ground: Ground) -> None:
    core, victim = ground.core(), ground.device(VICTIM)
    core.listen(f"{topics.tenant_root(TENANT)}/d/+/up/+")
    flooding = flood_the_broker(ground, 10_000, 0xFFFFFFFF)
    said = [str(n).encode() for n in range(200)]
    for payload in said:
        victim.say(topics.up(TENANT, VICTIM, EVENT), payload)
    eventually(lambda: len(heard(core.heard)) >= len(said), "the victim's words")
    assert heard(core.heard) == said and victim.changes == [True] and core.changes == [True]
    flooding.disconnect()
    flooding.loop_stop()


def heard(messages: list[object]) -> list[bytes]:
    return [m.payload for m in messages if f"/{VICTIM}/" in m.topic]  # type: ignore[attr-defined]


@pytest.mark.broker
def test_23_a_device_has_one_session_whatever_it_calls_itself(ground: Ground) -> None:
    """Hoarding sessions: the certificate's name is the client id, so the second takes the place of the first."""
    first = ground.session(ground.device_tls(ATTACKER), "another-name-1", keep=True)
    ground.session(ground.device_tls(ATTACKER), "another-name-2", keep=True)
    eventually(lambda: False in first.changes, "the end of the first session")
    config = (ground.broker.folder / "mosquitto.conf").read_text()
    for limit in ("max_queued_messages", "max_packet_size", "persistent_client_expiration", "max_keepalive"):
        assert f"\n{limit} " in config, "what it may keep and for how long is bounded"
