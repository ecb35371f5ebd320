"""How long certificates last, and the next one of a device: for the key it has, signed for by that key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from core.fleet.enrolment import Pair, certify, read_csr
from sync import roles
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.errors import SyncError, Untrusted
from sync.names import DeviceId, TenantId

SHARE = 1 / 3  # of a certificate's life that is left when it is due


class NotRenewed(SyncError):
    """A request for a certificate that is not granted; the message says why."""

    code = "renewal-refused"


@dataclass(frozen=True)
class Life:
    """From when to when a certificate holds (seconds since 1970), and its serial number."""

    serial: int
    begins: float
    ends: float

    def due(self, now: float) -> bool:
        """Whether less than a third of it is left, or it does not hold yet: it was made by a clock that was ahead."""
        return now < self.begins or self.ends - now < (self.ends - self.begins) * SHARE


def life(certificate: bytes) -> Life:
    """Of a PEM certificate, the first if there are several."""
    found = x509.load_pem_x509_certificate(certificate)
    return Life(found.serial_number, found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())


def issued_by(certificate: bytes, authority: bytes) -> bool:
    """Whether a PEM certificate names this authority (PEM) as its issuer. Names alone are compared: for certificates of
    our own, never for one that somebody shows."""
    return x509.load_pem_x509_certificate(certificate).issuer == x509.load_pem_x509_certificate(authority).subject


def hosts(certificate: bytes) -> tuple[str, ...]:
    """The names and addresses a server's PEM certificate was issued for."""
    found = x509.load_pem_x509_certificate(certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(str(name.value) for name in names)


def renewed(
    authority: Pair,
    envelope: bytes,
    who: tuple[TenantId, DeviceId, int],
    signing_key: bytes,
    now: float,
    longevity: timedelta,
) -> bytes:
    """The next certificate (PEM) of the device `who` (tenant, device, epoch), for the key it has (raw).

    Raises Untrusted (not signed by that key, or another device's), NotRenewed (a request for another key or name) or
    Malformed.
    """
    asked = roles.verify(envelope, RENEWAL_TYPE, RenewalRequest, [roles.public_key_from_raw(signing_key)])
    if (asked.tenant, asked.device, asked.epoch) != who:
        raise Untrusted(f"a request of {asked.tenant}/{asked.device}, epoch {asked.epoch}, from {who[1]}")
    public, subject = read_csr(asked.csr)
    if public is None or public.public_bytes_raw() != signing_key:
        raise NotRenewed("it is not for the key that signs it: a box with another key enrols anew")
    if subject != f"CN={who[1]}":
        raise NotRenewed(f"it asks for the name {subject!r}")
    return certify(authority, who[0], who[1], signing_key, now, longevity)
