"""The orders by which devices are invited: tokens for one or for a site, and the boxes that are expected."""

from __future__ import annotations

import base64
from typing import Any

from core import orders
from core.fleet import boxes, enrolment
from core.release.metadata import newest_root
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import chunks, codec
from sync.enrolment import Token, hash_secret
from sync.names import DeviceId, SiteId


def issue_token(house: House, order: orders.IssueToken, now: float) -> dict[str, Any]:
    """A token for one device."""
    secret = _secret(house)
    expires = now + 60 * order.minutes
    text = _token(house, secret, expires, order.device, None)
    house.catalog.fleet.put_token(order.device, hash_secret(secret), expires)
    house.event(now, "token-issued", f"for {order.device}, {order.minutes} minutes, by {order.actor}")
    return {"token": text, "device": order.device, "expires": expires}


def issue_site_token(house: House, order: orders.IssueSiteToken, now: float) -> dict[str, Any]:
    """A token for so many boxes of a site."""
    if order.uses < 1:
        raise Refusal("no-uses", "a token for no box opens nothing", "give --uses, the number of boxes")
    secret = _secret(house)
    expires = now + 60 * order.minutes
    text = _token(house, secret, expires, None, order.site)
    house.catalog.identities.put_site_token(hash_secret(secret), order.site, expires, order.uses, approve=order.approve)
    house.event(
        now, "token-issued", f"for {order.uses} boxes of {order.site}, {order.minutes} minutes, by {order.actor}"
    )
    return {"token": text, "site": order.site, "uses": order.uses, "expires": expires}


def _secret(house: House) -> str:
    return base64.urlsafe_b64encode(house.random(32)).decode().rstrip("=")


def _token(house: House, secret: str, expires: float, device: DeviceId | None, site: SiteId | None) -> str:
    token = Token(
        url=house.enrol_url, tenant=house.tenant, device=device, secret=secret,
        ca=enrolment.fingerprint(house.authority.certificate), root=chunks.digest(root(house)), expires=expires,
        site=site,
    )  # fmt: skip
    return base64.urlsafe_b64encode(codec.encode(token)).decode().rstrip("=")


def root(house: House) -> bytes:
    """The root in force: a newcomer need not believe keys that were taken away before it came."""
    found = newest_root(house.catalog.releases.trust())
    if found is None:
        raise Refusal("no-trust", "a device must know whom to trust", "run `falaj trust init` first")
    return found


def import_boxes(house: House, order: orders.ImportBoxes, now: float) -> dict[str, Any]:
    """All boxes of the list, or none: a name or a serial number that is another's already, or that stands in the list
    twice, refuses it whole."""
    shelf = house.catalog.identities
    names = {row.name: row.serial for row in shelf.boxes()}
    for box in order.boxes:
        known, owner = shelf.box(box.serial), names.get(box.name)
        if owner is not None and owner != box.serial:
            text = f"{box.name} is the name of the box {owner} already, and cannot be that of {box.serial}"
            raise Refusal("box-taken", text, "give the box another name; `falaj device replace` hands a name on")
        if known is not None and known.name != box.name and house.catalog.fleet.device(known.name) is not None:
            text = f"the box {box.serial} is enrolled as {known.name} and cannot become {box.name}"
            raise Refusal("box-taken", text, "correct the line; an enrolled device keeps its name")
    if (twice := boxes.twice(order.boxes)) is not None:
        raise Refusal("box-twice", f"{twice} stands in the list twice", "take one of the lines out")
    for box in order.boxes:
        shelf.put_box(box.serial, box.name, box.site, box.labels, now)
    house.event(now, "boxes-imported", f"{len(order.boxes)} boxes are expected, by {order.actor}")
    return {"boxes": len(order.boxes), "sites": sorted({box.site for box in order.boxes})}
