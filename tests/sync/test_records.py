"""Records on their way up: sealed in their own place, for whoever holds the tenant's reports key."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sync import codec, records
from sync.errors import Damaged, Malformed
from sync.messages import EVENT, WHY, DeviceEvent, Record
from sync.names import DeviceId, TenantId
from sync.sealing import public_half

ACME, PRESS = TenantId("acme"), DeviceId("press-1")
PRIVATE = bytes(range(32))
PUBLIC = base64.b64encode(public_half(PRIVATE)).decode()
BODY = codec.encode(DeviceEvent("lamp-on", "the red lamp of hall seven"))
RECORD = Record(3, 7, 12.5, "boot-1", msgspec.Raw(BODY))


def test_what_was_sealed_opens_again_and_says_nothing_on_its_way() -> None:
    sealed = records.seal(RECORD, ACME, PRESS, EVENT, PUBLIC)
    assert b"lamp" not in codec.encode(sealed)
    travelled = codec.decode(Record, codec.encode(sealed))
    assert codec.encode(records.unseal(travelled, ACME, PRESS, EVENT, PRIVATE)) == codec.encode(RECORD)


@pytest.mark.parametrize(
    "place",
    [
        {"tenant": TenantId("other")},
        {"device": DeviceId("press-2")},
        {"kind": WHY},
        {"private_key": bytes(range(1, 33))},
    ],
)
def test_it_opens_in_its_own_place_only(place: dict[str, Any]) -> None:
    sealed = records.seal(RECORD, ACME, PRESS, EVENT, PUBLIC)
    asked: dict[str, Any] = {"tenant": ACME, "device": PRESS, "kind": EVENT, "private_key": PRIVATE} | place
    with pytest.raises(Damaged):
        records.unseal(sealed, **asked)


@pytest.mark.parametrize("other", [{"n": 8}, {"epoch": 4}])
def test_nor_under_another_number_or_epoch(other: dict[str, int]) -> None:
    moved = replace(records.seal(RECORD, ACME, PRESS, EVENT, PUBLIC), **other)
    with pytest.raises(Damaged):
        records.unseal(moved, ACME, PRESS, EVENT, PRIVATE)


NO_KEYS = ["", "no base64", *(base64.b64encode(raw).decode() for raw in (b"short", bytes(32)))]


@pytest.mark.parametrize("key", NO_KEYS)
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        records.seal(RECORD, ACME, PRESS, EVENT, key)


@pytest.mark.parametrize("body", [BODY, b'{"sealed":"%"}', b"7"])
def test_a_body_that_is_not_sealed_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        records.unseal(replace(RECORD, body=msgspec.Raw(body)), ACME, PRESS, EVENT, PRIVATE)
