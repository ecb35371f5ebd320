"""Which bindings can be, and what a link does with a topic that cannot."""

from __future__ import annotations

import pytest

from sync.bindings import Binding, complaint
from sync.link import Publish
from sync.lookups import Config, filled
from sync.manifest import Variable
from sync.mqtt import Broker, MqttLink
from sync.topics import overlap


@pytest.mark.parametrize(
    ("topic", "output"),
    [
        ("wat+ch/{entity}", "x"), ("plant/#/{entity}", "x"), ("plant", "x"), ("$SYS/{entity}", "x"),
        ("falaj/local/w/infer/{entity}", "x"), ("{entity}/#", "x"), ("p/{entity}/\x00", "x"), ("p/{entity}", ""),
        ("p/{entity}", "said/+/{entity}"), ("p/{entity}", "said/#"), ("p/{entity}", "$x"), ("p/{entity}", "x\x01"),
        ("p/{entity}", "{entity}/local/w/status"), ("p/{entity}", "homeassistant/sensor/x/y/config"),
        ("p/{entity}", "x" * 1001), ("p/{entity}", "/" * 200), ("p/{entity}", "\ud800"),
    ],
)  # fmt: skip
def test_a_binding_that_no_broker_takes_is_told(topic: str, output: str) -> None:
    assert complaint(Binding(topic, output))


@pytest.mark.parametrize("topic", ["plant/{entity}/vib", "plant/+/{entity}", "plant/{entity}/#", "+/{entity}/state"])
def test_one_that_a_broker_takes_is_not(topic: str) -> None:
    assert not complaint(Binding(topic, "said/{entity}"))


def test_a_number_that_is_written_with_a_plus_is_no_level() -> None:
    binding, line = Binding("plant/{line}/{entity}", "said/{entity}"), (Variable("line", 1.0),)
    assert not complaint(filled(binding, line, Config({"line": 7.0})))
    assert complaint(filled(binding, line, Config({"line": 1e6})))


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [("a/+", "+/b", True), ("a/#", "a", True), ("a", "a/#", True), ("a/b", "a", False), ("a/+", "b/#", False)],
)
def test_filters_that_meet(one: str, other: str, meet: bool) -> None:
    assert overlap(one, other) == overlap(other, one) == meet


def test_a_link_refuses_a_bad_filter_or_topic_alone_and_tells() -> None:
    told: list[str] = []
    link = MqttLink(Broker("127.0.0.1", 1, "link"), queue_when_down=True, refused=told.append)
    link.subscribe("wat+ch/x", "good/x")
    link.unsubscribe("wat+ch/x", "")
    link.publish(Publish("said/+", b""))
    link.publish(Publish("", b""))
    assert len(told) == 3 and link.unconfirmed == 0
    link.publish(Publish("said/x", b""))
    assert len(told) == 3
