"""The words of enrolment, over HTTPS, before there is a certificate: whom a newcomer believes, and who it is."""

from __future__ import annotations

import msgspec

from sync.messages import PROTOCOL
from sync.names import DeviceId, Digest, TenantId

ENROLMENT_TYPE = "application/vnd.falaj.enrolment+json"


class Token(msgspec.Struct, frozen=True):
    """What `falaj device token` prints (base64url of this document): where to go and whom to believe."""

    url: str
    tenant: TenantId
    device: DeviceId
    secret: str
    ca: Digest  # SHA-256 of the CA certificate (DER)
    root: Digest  # SHA-256 of the first TUF root
    expires: float
    v: int = PROTOCOL


class EnrolRequest(msgspec.Struct, frozen=True):
    """Signed (DSSE) by the key of the CSR, so that the sealing key is bound to the same holder."""

    tenant: TenantId
    device: DeviceId
    secret: str
    csr: str  # PEM
    sealing_key: str  # X25519 public key, base64


class EnrolAnswer(msgspec.Struct, frozen=True):
    tenant: TenantId
    device: DeviceId
    epoch: int
    certificate: str  # PEM
    ca: str  # PEM
    root: str  # TUF root metadata (JSON text), its SHA-256 stands in the token
    uplink_host: str
    uplink_port: int
