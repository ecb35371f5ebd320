"""What Home Assistant is told, without a broker: bounded, of this device alone, and whatever stands there already."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bindings.discovery import MOST, Discovery
from sync.bindings import Binding, When
from sync.link import Publish
from sync.names import DeviceId, ModelName, TenantId
from tests.edge.graphs import CLASSES, MODEL

BINDING = Binding("site/{entity}/accel", "site/{entity}/motion", home_assistant=True)
OURS = "homeassistant/sensor/falaj_acme_box-1/motion_0/config"
ENTITIES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/+#\0"), min_size=1, max_size=128)


@dataclass
class Known:
    """A device's documents, and what it published of them."""

    declared: list[tuple[ModelName, str]] = field(default_factory=lambda: [(MODEL, BINDING.output)])
    sent: list[Publish] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.discovery = self.of("acme", "box-1")

    def of(self, tenant: str, device: str) -> Discovery:
        return Discovery(TenantId(tenant), DeviceId(device), self.sent.append, lambda: self.declared)

    def echo(self) -> None:
        """The broker hands back what was published: the session hears its own documents."""
        for one in list(self.sent):
            self.discovery.heard(one.topic, one.payload)


@given(ENTITIES)
def test_any_sensor_is_described_once_and_its_own_document_stands(entity: str) -> None:
    known = Known()
    for _ in range(3):
        known.discovery.announce(MODEL, CLASSES, BINDING, entity)
    (one,) = known.sent
    assert one.retain and known.discovery.hears(one.topic) and one.topic.isascii()
    assert json.loads(one.payload)["state_topic"] == f"site/{entity}/motion"
    known.echo()
    known.discovery.settle()
    assert known.sent == [one], "nothing of it is taken away"
    known.declared.clear()
    known.discovery.settle()
    assert known.sent[1:] == [Publish(one.topic, b"", retain=True)]


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(str).map(str.encode))
def test_whatever_stands_among_its_documents_and_is_none_is_taken_away(payload: bytes) -> None:
    known = Known()
    known.discovery.settle()
    known.discovery.heard(OURS, payload)
    assert known.sent == ([Publish(OURS, b"", retain=True)] if payload else [])


def test_whoever_invents_sensors_does_not_fill_home_assistant() -> None:
    known = Known()
    for i in range(3 * MOST):
        known.discovery.announce(MODEL, CLASSES, BINDING, f"w{i}")
        known.discovery.heard(OURS.replace("_0", f"_x{i}"), json.dumps({"state_topic": f"site/x{i}/motion"}).encode())
    assert len(known.discovery._known) == MOST
    known.sent.clear()
    known.discovery.renew()
    assert len(known.sent) == MOST and all(one.payload for one in known.sent)


def test_no_two_devices_share_a_document() -> None:
    known = Known()
    for tenant, device in (("a-b", "c"), ("a", "b-c"), ("a", "b")):
        known.of(tenant, device).announce(MODEL, CLASSES, BINDING, "w1")
    assert len({one.topic for one in known.sent}) == 3
    assert sum(known.of("a", "b").hears(one.topic) for one in known.sent) == 1


def test_another_models_document_does_not_stand_in_for_it() -> None:
    known = Known(declared=[(ModelName("other"), BINDING.output)])
    known.discovery.announce(MODEL, CLASSES, BINDING, "w1")
    known.discovery.settle()
    assert known.sent[-1].payload == b""


@pytest.mark.parametrize(
    ("binding", "classes", "says"),
    [
        (BINDING, (), {"state_class": "measurement", "value_template": "{{ value_json.value }}"}),
        (BINDING, CLASSES, {"device_class": "enum", "options": list(CLASSES)}),
        (Binding("s/{entity}", "o", no_model="gone"), CLASSES, {"options": [*CLASSES, "gone"], "name": "motion"}),
        (
            Binding("s/{entity}", "o/{entity}", emit="when", when=When(0.5, "run")), CLASSES,
            {"value_template": "{{ 'ON' if value_json.holds else 'OFF' }}", "name": "motion w1"},
        ),
    ],
)  # fmt: skip
def test_the_document_says_what_kind_of_answer_it_is(
    binding: Binding, classes: tuple[str, ...], says: dict[str, object]
) -> None:
    known = Known()
    known.discovery.announce(MODEL, classes, binding, "w1")
    document = json.loads(known.sent[0].payload)
    assert document | says == document


def options(payload: bytes) -> list[str]:
    return list(json.loads(payload)["options"])


@pytest.mark.parametrize("restarted", [False, True])
def test_other_classes_are_described_anew_once(restarted: bool) -> None:
    known = Known()
    known.discovery.announce(MODEL, ("rest", "walk"), BINDING, "w1")
    before = known.sent[0]
    if restarted:
        known.discovery = known.of("acme", "box-1")
        known.discovery.heard(before.topic, before.payload)
    known.discovery.settle()
    for _ in range(3):
        known.discovery.announce(MODEL, CLASSES, BINDING, "w1")
    known.discovery.heard(before.topic, before.payload)  # an echo that was late
    known.discovery.settle()
    known.discovery.announce(MODEL, CLASSES, BINDING, "w1")
    assert [(one.topic, options(one.payload)) for one in known.sent] == [
        (before.topic, ["rest", "walk"]),
        (before.topic, list(CLASSES)),
    ]


def test_two_bindings_that_say_it_differently_on_one_topic_do_not_describe_it_in_turns() -> None:
    known = Known()
    known.discovery.settle()
    for _ in range(3):
        for no_model in ("gone", "away"):
            binding = Binding("s/{entity}", BINDING.output, no_model=no_model, home_assistant=True)
            known.discovery.announce(MODEL, CLASSES, binding, "w1")
    assert len(known.sent) == 1


def test_the_document_of_many_classes_stands() -> None:
    known = Known()
    known.discovery.settle()
    known.discovery.announce(MODEL, tuple(f"class-{n}" for n in range(5_000)), BINDING, "w1")
    known.echo()
    known.discovery.settle()
    assert [len(one.payload) > 16 * 1024 for one in known.sent] == [True]


def test_before_bindings_are_known_nothing_is_taken_away() -> None:
    known = Known()
    known.discovery.announce(MODEL, CLASSES, BINDING, "w1")
    declared, known.declared = known.declared, []
    known.discovery = known.of("acme", "box-1")
    known.echo()
    known.discovery.heard(OURS, b"not ours")
    assert len(known.sent) == 1
    known.declared = declared
    known.discovery.settle()
    assert known.sent[1:] == [Publish(OURS, b"", retain=True)]
