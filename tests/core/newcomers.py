"""Boxes of a site as the tests of the core need them: a token for many, and what a box says that asks by it."""

from __future__ import annotations

import base64
from typing import Any

from appliance.keys import DeviceKeys, new_device_keys
from core import orders
from core.answers import Answer
from core.fleet import enrolment
from core.fleet.enrolment import Applicant, Pair
from core.handoffs import Box
from sync import codec
from sync.enrolment import Token
from sync.names import DeviceId, Serial, SiteId, TenantId
from tests.core.world import TENANT, Device, World, request

SITE = SiteId("north")


def certified(
    authority: Pair, envelope: bytes, secret_hash: str, now: float, tenant: TenantId = TENANT
) -> tuple[Applicant, bytes]:
    """Who asks by a device's own token, checked as the steward does, and the certificate (PEM)."""
    found = enrolment.check(envelope, tenant, secret_hash)
    assert found.request.device is not None
    life = enrolment.LEAF_LIFE
    return found, enrolment.certify(authority, tenant, found.request.device, found.signing_key, now, life)


def boxes(count: int, site: SiteId = SITE) -> tuple[Box, ...]:
    return tuple(Box(Serial(f"SN-{n:03}"), DeviceId(f"box-{n:03}"), site, ("line=a",)) for n in range(count))


def site_token(world: World, uses: int, *, approve: bool = False, site: SiteId = SITE) -> Token:
    return token_in(world.must(orders.IssueSiteToken(site=site, uses=uses, approve=approve)))


def token_in(result: dict[str, Any]) -> Token:
    text = result["token"]
    return codec.decode(Token, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def ask(world: World, token: Token, serial: str | None, keys: DeviceKeys, **lies: Any) -> Answer:
    """What a box with these keys is told."""
    said: dict[str, Any] = {"site": token.site, "serial": Serial(serial) if serial else None} | lies
    return world.order(orders.Enrol(envelope=request(token, keys, **said).decode(), source="192.0.2.9"))


def join(world: World, token: Token, serial: str) -> Device:
    keys = new_device_keys(serial)
    answer = ask(world, token, serial, keys)
    assert answer.ok, answer
    return Device(
        DeviceId(answer.result["device"]), answer.result["epoch"], keys, answer.result["certificate"].encode()
    )
