"""The in-memory broker behaves as a real one: retained messages, rules, wills, faults on request."""

from __future__ import annotations

from random import Random

import pytest

from sync import topics
from sync.link import Message, Publish
from sync.loopback import Faults, Hub, LoopbackLink
from sync.names import DeviceId, TenantId

TENANT = TenantId("acme")


class Ear:
    """Collects what a link hears."""

    def __init__(self, hub: Hub, client: str, *patterns: str, will: Publish | None = None) -> None:
        self.heard: list[Message] = []
        self.states: list[bool] = []
        self.link: LoopbackLink = hub.connect(client, will)
        self.link.start(self.heard.append, lambda up, reason: self.states.append(up))
        self.link.subscribe(*patterns)

    def payloads(self) -> list[bytes]:
        return [m.payload for m in self.heard]


def device_rules(client: str, action: str, topic: str) -> bool:
    if client == "core":
        return True
    assert action in ("read", "write")
    return topics.device_may("read" if action == "read" else "write", TENANT, DeviceId(client), topic)


def test_a_live_message_reaches_each_matching_link_once() -> None:
    hub = Hub()
    both, none = Ear(hub, "a", "t/+", "t/x"), Ear(hub, "b", "other")
    hub.connect("c").publish(Publish("t/x", b"lost: this link never started"))
    Ear(hub, "d").link.publish(Publish("t/x", b"1"))
    assert hub.run() == 1
    assert both.payloads() == [b"1"]
    assert both.heard[0].retained is False
    assert none.heard == []


def test_a_retained_message_waits_for_those_who_come_later_and_can_be_cleared() -> None:
    hub = Hub()
    core = Ear(hub, "core")
    core.link.publish(Publish("t/x", b"kept", retain=True))
    late = Ear(hub, "late", "t/#")
    hub.run()
    assert [(m.payload, m.retained) for m in late.heard] == [(b"kept", True)]
    core.link.publish(Publish("t/x", b"", retain=True))
    later = Ear(hub, "later", "t/#")
    hub.run()
    assert later.heard == []


def test_rules_hold_for_reading_and_writing() -> None:
    hub = Hub(access=device_rules)
    core = Ear(hub, "core", *topics.core_subscriptions(TENANT))
    mine, other = DeviceId("pump-7"), DeviceId("pump-8")
    pump = Ear(hub, "pump-7", "falaj/1/acme/#")
    core.link.publish(Publish(topics.desired(TENANT, other), b"not yours", retain=True))
    core.link.publish(Publish(topics.desired(TENANT, mine), b"yours", retain=True))
    pump.link.publish(Publish(topics.reported(TENANT, other), b"forged"))
    pump.link.publish(Publish(topics.reported(TENANT, mine), b"true"))
    hub.run()
    assert pump.payloads() == [b"yours"]
    assert core.payloads() == [b"true"]


def test_a_cut_sends_the_will_a_clean_stop_does_not() -> None:
    hub = Hub()
    watcher = Ear(hub, "watcher", "status")
    will = Publish("status", b"offline", retain=True)
    cut, stopped = Ear(hub, "cut", will=will), Ear(hub, "stopped", will=will)
    stopped.link.stop()
    hub.run()
    assert watcher.heard == []
    cut.link.cut()
    hub.run()
    assert watcher.payloads() == [b"offline"]
    assert cut.states == [True, False]


def test_a_second_session_takes_the_first_over() -> None:
    hub = Hub()
    first, second = Ear(hub, "twin", "t"), Ear(hub, "twin", "t")
    Ear(hub, "core").link.publish(Publish("t", b"1"))
    hub.run()
    assert (first.payloads(), second.payloads()) == ([], [b"1"])


def test_what_was_unsubscribed_is_no_longer_heard() -> None:
    hub = Hub()
    ear = Ear(hub, "a", "t/1", "t/2")
    ear.link.unsubscribe("t/1")
    core = Ear(hub, "core")
    core.link.publish(Publish("t/1", b"1"))
    core.link.publish(Publish("t/2", b"2"))
    hub.run()
    assert ear.payloads() == [b"2"]


@pytest.mark.parametrize("seed", range(5))
def test_faults_delay_repeat_and_reorder_but_never_lose_qos_1(seed: int) -> None:
    hub = Hub(rng=Random(seed), faults=Faults(lose=0.3, repeat=0.3, reorder=0.5))
    ear, core = Ear(hub, "a", "t"), Ear(hub, "core")
    sent = [str(i).encode() for i in range(50)]
    for payload in sent:
        core.link.publish(Publish("t", payload))
    hub.run()
    assert set(ear.payloads()) == set(sent)
    assert ear.payloads() != sent


def test_the_same_seed_gives_the_same_run() -> None:
    def run() -> list[bytes]:
        hub = Hub(rng=Random(3), faults=Faults(lose=0.2, repeat=0.2, reorder=0.2))
        ear, core = Ear(hub, "a", "t"), Ear(hub, "core")
        for i in range(30):
            core.link.publish(Publish("t", str(i).encode()))
        hub.run()
        return ear.payloads()

    assert run() == run()


def test_two_that_answer_each_other_for_ever_are_stopped() -> None:
    hub = Hub()
    link = hub.connect("echo")
    link.start(lambda message: link.publish(Publish("t", b"again")), lambda up, reason: None)
    link.subscribe("t")
    link.publish(Publish("t", b"start"))
    with pytest.raises(RuntimeError, match="a loop"):
        hub.run(limit=100)
