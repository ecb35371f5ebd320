"""Attacks 18 and 19: an assignment that was signed once, for somebody, for some time, is played again.

The attacker owns the broker: it has every envelope the core ever sent, and may send what it likes.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sync import codec, roles
from sync.messages import ASSIGNMENT_TYPE, REPORTED_TYPE, Assignment
from sync.names import DeviceId, TenantId
from tests.attacks.field import Field, refused
from tests.edge.device import committed
from tests.edge.world import DAY, NOW


def test_18_a_replayed_assignment_is_refused(field: Field) -> None:
    refused(field, field.first)


def test_18_also_after_a_power_cut(field: Field) -> None:
    """The device remembers by its journal, not by its memory; a replay as the first thing it hears is one still."""
    field.device.cut_power()
    field.core.desire(field.first)
    field.device.boot().settle(3, ask=0)
    assert committed(field.device, 2) and field.device.codes() == ["refused-untrusted"]


@pytest.mark.parametrize("lie", [{"device": DeviceId("press-2")}, {"tenant": TenantId("rival")}], ids=str)
def test_18_an_assignment_for_somebody_else_is_refused(field: Field, lie: dict[str, Any]) -> None:
    refused(field, field.core.assignment(field.order, **lie))


def test_18_an_assignment_that_has_expired_is_refused(field: Field) -> None:
    refused(field, field.core.assignment(field.order, ts=NOW - 8 * DAY, expires=NOW - DAY))


def test_18_an_unsigned_assignment_is_refused(field: Field) -> None:
    envelope = msgspec.json.decode(field.core.assignment(field.order))
    envelope["signatures"] = []
    refused(field, msgspec.json.encode(envelope))


def test_18_a_bare_document_is_refused(field: Field) -> None:
    content = roles.peek(field.core.assignment(field.order))
    refused(field, content, "refused-malformed")


def test_18_every_key_but_the_directors_is_refused(field: Field) -> None:
    for key in (field.core.owner, field.device.identity.signing_key, roles.new_signing_key()):
        refused(field, field.core.assignment(field.order, by=key))
        field.device.acknowledge(999)


def test_18_a_signature_over_other_words_is_refused(field: Field) -> None:
    """The newest number written into an old envelope: the signature covers it."""
    envelope = msgspec.json.decode(field.first)
    old = codec.decode(Assignment, roles.peek(field.first))
    forged = msgspec.structs.replace(old, seq=99)
    made = msgspec.json.decode(roles.sign(forged, ASSIGNMENT_TYPE, roles.new_signing_key()))
    refused(field, msgspec.json.encode({**made, "signatures": envelope["signatures"]}))


def test_18_a_document_of_another_type_is_refused(field: Field) -> None:
    content = codec.decode(Assignment, roles.peek(field.core.assignment(field.order)))
    refused(field, roles.sign(content, REPORTED_TYPE, field.core.director))


def test_19_a_replayed_withdrawal_is_refused(field: Field) -> None:
    """A genuine "off" of an earlier day, played again after the model was wanted once more."""
    device, core = field.device, field.core
    off = core.assignment(msgspec.structs.replace(field.newer, mode="off"))
    core.desire(off)
    device.settle(4)
    assert device.answering is None
    core.desire(core.assignment(field.newer))
    device.settle(8, ask=0)
    assert committed(device, 2)
    device.acknowledge(999)
    refused(field, off)


def test_19_a_genuine_way_back_is_a_newer_assignment(field: Field) -> None:
    """And the replay of what was true before it is refused as any other."""
    field.core.desire(field.core.assignment(field.order))
    field.device.settle(8, ask=0)
    assert committed(field.device, 1)
    field.device.acknowledge(999)
    field.core.desire(field.second)
    field.device.settle(4, ask=0)
    assert committed(field.device, 1) and field.device.codes() == ["refused-untrusted"]


def test_19_below_the_floor_there_is_no_way_back(field: Field) -> None:
    """Not even for the director, while it says itself how low a device may go. Told once: neither each second nor when
    the order is renewed, nor after a power cut; told again of another release."""
    device, core = field.device, field.core
    low = msgspec.structs.replace(field.order, floor=2)
    for _ in range(2):
        before = device.state
        core.desire(core.assignment(low))
        device.settle(30, ask=0)
        assert committed(device, 2) and device.state == before
        assert device.codes() == ["below-floor"] and device.events()[0].severity == "alarm"
        device.cut_power()
        device.boot().settle(3, ask=0)
    assert device.answering == 2 and device.codes() == ["below-floor"]
    other = core.order(core.ship(3), device.identity, floor=4)
    core.desire(core.assignment(other))
    device.settle(30, ask=0)
    assert device.answering == 2 and device.codes().count("below-floor") == 2


def test_19_what_answers_already_is_not_refused_by_a_floor_that_rises(field: Field) -> None:
    """It says how far back a device may go; the order asks for nothing that is not done."""
    device, core = field.device, field.core
    core.desire(core.assignment(msgspec.structs.replace(field.newer, floor=3)))
    device.settle(5, ask=0)
    assert committed(device, 2) and "below-floor" not in device.codes()
