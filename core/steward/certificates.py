"""Devices' certificates as the catalog has them: kept with their numbers, and made anew by the next authority."""

from __future__ import annotations

from datetime import timedelta

from core.catalog.fleet import DeviceRow
from core.fleet import enrolment, renewal
from core.fleet.renewal import Life
from core.steward.house import House

LONGER = timedelta(minutes=1)  # a device takes no certificate that ends before its own


def keep(house: House, device: DeviceRow, certificate: bytes) -> Life:
    """The device's next certificate (PEM) in the place of the one before, which holds to its end. In a transaction."""
    before, given = renewal.life(house.catalog.fleet.certificate(device.device)), renewal.life(certificate)
    for life in (before, given):
        house.catalog.identities.add_certificate(life.serial, device.device, device.epoch, life.ends)
    house.catalog.fleet.put_certificate(device.device, certificate)
    return given


def newest(house: House, device: DeviceRow, now: float) -> bytes:
    """The device's certificate (PEM) by the authority that issues now; where it has none, one for the key it enrolled
    with is made without being asked for, and holds no shorter than the one before. In a transaction."""
    certificate = house.catalog.fleet.certificate(device.device)
    if renewal.issued_by(certificate, house.issuing.certificate):
        return certificate
    life = max(house.longevity, timedelta(seconds=renewal.life(certificate).ends - now) + LONGER)
    certificate = enrolment.certify(house.issuing, house.tenant, device.device, device.signing_key, now, life)
    keep(house, device, certificate)
    return certificate
