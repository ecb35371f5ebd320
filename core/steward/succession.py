"""One certificate authority follows another: both are trusted side by side until every device has a certificate of the
next one, and then the servers show theirs. Nothing here is decided by time: a device that is away holds the end up."""

from __future__ import annotations

from typing import Any

from core import orders
from core.catalog.fleet import DeviceRow
from core.fleet import enrolment, renewal
from core.steward import assigning, devices
from core.steward.house import House
from core.steward.refusals import Refusal
from sync.names import DeviceId


def authority(house: House, order: orders.Authority, now: float) -> dict[str, Any]:
    """Begins, finishes or tells. What devices are told stands in their assignments; if the core is killed before that
    is committed, they are told at the next start."""
    if order.step == "begin":
        _begin(house, order.actor, now)
    elif order.step == "finish":
        _finish(house, order, now)
    behind = _behind(house)
    return {
        "authority": enrolment.fingerprint(house.authority.certificate),
        "next": enrolment.fingerprint(house.successor.certificate) if house.successor else None,
        "ends": renewal.life(house.authority.certificate).ends,
        "devices": sum(row.active for row in house.catalog.fleet.devices()),
        "unheard": [row.device for row in behind if not _heard(house, row)],
        "unrenewed": [row.device for row in behind if _heard(house, row)],
    }


def _begin(house: House, actor: str, now: float) -> None:
    if house.successor is not None:
        raise Refusal("rotation-under-way", "a next authority is here already", "`falaj trust authority` tells how far")
    pair = enrolment.create_authority(house.tenant, now)
    house.authorities.bring(pair)  # before anything is signed with it
    house.successor = pair
    _tell_devices(house, now)
    told = enrolment.fingerprint(pair.certificate)[:16]
    house.event(now, "authority-begun", f"{told} shall follow, by {actor}; devices learn it by themselves",
                severity="notice")  # fmt: skip


def _finish(house: House, order: orders.Authority, now: float) -> None:
    if house.successor is None:
        raise Refusal("no-rotation", "there is no next authority", "`falaj trust authority --rotate` makes one")
    behind = [row.device for row in _behind(house)]
    left = [name for name in behind if name not in order.strand]
    if left:
        text = f"{_listed(left)}: not known to have a certificate of the next authority, and would be cut off"
        raise Refusal("devices-behind", text, "wait until they were connected, or name each with --strand")
    house.authorities.settle()
    house.authority, house.successor = house.successor, None
    _tell_devices(house, now)
    told = enrolment.fingerprint(house.authority.certificate)[:16]
    lost = f"; behind, to be replaced or visited with a folder: {_listed(behind)}" if behind else ""
    house.event(now, "authority-changed", f"{told} is in force, by {order.actor}; the one before is dead{lost}",
                severity="notice")  # fmt: skip


def _tell_devices(house: House, now: float) -> None:
    """And the broker: whose certificates are revoked is said by each authority for itself."""
    devices.access(house, now)
    for device in house.catalog.fleet.devices():
        if device.active:
            assigning.assign(house, device, now, news=False)


def _behind(house: House) -> list[DeviceRow]:
    """Devices of the fleet that have not said that they use their certificate of the next authority."""
    if house.successor is None:
        return []
    return [row for row in house.catalog.fleet.devices() if row.active and not _renewed(house, row)]


def _renewed(house: House, device: DeviceRow) -> bool:
    certificate = house.catalog.fleet.certificate(device.device)
    report = device.report
    return (
        renewal.issued_by(certificate, house.issuing.certificate)
        and report is not None
        and report.epoch == device.epoch
        and report.certificate == enrolment.fingerprint(certificate)
    )


def _heard(house: House, device: DeviceRow) -> bool:
    """Whether it took in what it was told last."""
    told = house.catalog.fleet.assignment(device.device)
    return told is not None and device.report is not None and (device.report.epoch, device.report.seen) >= told[:2]


def _listed(names: list[DeviceId]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more
