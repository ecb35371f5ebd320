"""Records on their way up: what they say is sealed to the tenant's reports key, so that a broker reads no word of it.

A body is one HPKE message (RFC 9180) bound to tenant, device, kind, epoch and number: it opens in its own place only.
It is sealed anew each time it is sent, to the newest key, so a record that does not open is simply sent again. Samples
are no concern of this room: they are sealed when they are made, to another key (`sync.samples`).
"""

from __future__ import annotations

import base64

import msgspec
from msgspec.structs import replace

from sync import codec
from sync.errors import Damaged, Malformed
from sync.messages import Record
from sync.names import DeviceId, Kind, TenantId
from sync.sealing import unwrap, wrap


class SealedBody(msgspec.Struct, frozen=True):
    """The body of every record but a sample, as it travels: sealed to the tenant's reports key, base64."""

    sealed: str


def seal(record: Record, tenant: TenantId, device: DeviceId, kind: Kind, reports_key: str) -> Record:
    """The record as it travels; `reports_key` is an X25519 public key, base64. Raises Malformed if it is none."""
    try:
        key = base64.b64decode(reports_key, validate=True)
        sealed = wrap(bytes(record.body), key, _context(record, tenant, device, kind))
    except ValueError as error:
        raise Malformed(f"the tenant's reports key is none: {error}") from error
    body = SealedBody(base64.b64encode(sealed).decode())
    return replace(record, body=msgspec.Raw(codec.encode(body)))


def unseal(record: Record, tenant: TenantId, device: DeviceId, kind: Kind, private_key: bytes) -> Record:
    """The record as it was written; raises Damaged if its body does not open here, Malformed if it is not sealed."""
    try:
        sealed = base64.b64decode(codec.decode(SealedBody, bytes(record.body)).sealed, validate=True)
    except ValueError as error:  # also what is no base64 because it is no ASCII
        raise Malformed(f"record of {device}: its body is not base64: {error}") from error
    try:
        body = unwrap(sealed, private_key, _context(record, tenant, device, kind))
    except Damaged as error:
        raise Damaged(f"record {record.n} of {device} ({kind}) does not open with the tenant's reports key") from error
    return replace(record, body=msgspec.Raw(body))


def _context(record: Record, tenant: TenantId, device: DeviceId, kind: Kind) -> str:
    return f"falaj/1 record {tenant} {device} {kind} {record.epoch} {record.n}"
