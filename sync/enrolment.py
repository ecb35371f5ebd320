"""The words of enrolment, over HTTPS, before there is a certificate: whom a newcomer believes, and who it is; and how
a device asks for its next certificate."""

from __future__ import annotations

import hashlib

import msgspec

from sync.messages import PROTOCOL
from sync.names import DeviceId, Digest, Serial, SiteId, TenantId

ENROLMENT_TYPE = "application/vnd.falaj.enrolment+json"
RENEWAL_TYPE = "application/vnd.falaj.renewal+json"


class Token(msgspec.Struct, frozen=True):
    """What `falaj device token` prints (base64url of this document): where to go and whom to believe.

    It is for one device, or with `site` for the boxes of a site, which say who they are by their serial number.
    """

    url: str
    tenant: TenantId
    device: DeviceId | None
    secret: str
    ca: Digest  # SHA-256 of the CA certificate (DER)
    root: Digest  # SHA-256 of the first TUF root
    expires: float
    site: SiteId | None = None
    v: int = PROTOCOL


class EnrolRequest(msgspec.Struct, frozen=True):
    """Signed (DSSE) by the key of the CSR, so that the sealing key is bound to the same holder. Either `device` (of
    its token) or `site` and `serial`."""

    tenant: TenantId
    device: DeviceId | None
    secret: str
    csr: str  # PEM
    sealing_key: str  # X25519 public key, base64
    site: SiteId | None = None
    serial: Serial | None = None


class EnrolAnswer(msgspec.Struct, frozen=True):
    tenant: TenantId
    device: DeviceId
    epoch: int
    certificate: str  # PEM
    ca: str  # PEM
    root: str  # TUF root metadata (JSON text), its SHA-256 stands in the token
    uplink_host: str
    uplink_port: int


class EnrolWaiting(msgspec.Struct, frozen=True):
    """The box may join when a person says so; `fingerprint` is what both can compare. It asks again with the same
    keys."""

    waiting: DeviceId
    fingerprint: str


class RenewalRequest(msgspec.Struct, frozen=True):
    """The body of `up/csr`, signed (DSSE) by the key of the present certificate; the answer stands in `desired`."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    csr: str  # PEM, by the same key


def fingerprint(public_key: bytes) -> str:
    """What a person compares on both sides: the beginning of the SHA-256 of a raw Ed25519 public key, in fours."""
    text = hashlib.sha256(public_key).hexdigest()[:24]
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))
