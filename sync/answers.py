"""What a device tells when it is asked, as a file: signed by the device, sealed to the tenant.

The file is a JSON document that names tenant and device, with a key wrapped to the tenant's X25519 key (RFC 9180) and
a sealed object (`sync.sealing`); inside is a DSSE envelope of the device's certificate key. So whoever carries it, the
broker or the core's own steward included, can neither read nor change it, and no other box can have written it.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sync import codec, roles
from sync.commands import Ask, AskPredictions
from sync.errors import Damaged, Malformed, Untrusted
from sync.names import DeviceId, ModelName, TenantId
from sync.remembered import Remembered
from sync.sealing import seal as seal_object
from sync.sealing import unseal as unseal_object
from sync.sealing import unwrap, wrap

PREDICTIONS_TYPE = "application/vnd.falaj.predictions+json"
SUPPORT_TYPE = "application/vnd.falaj.support+json"
LIMIT = 16 * 1024 * 1024  # bytes of a file, and of what is inside


class SealedFile(msgspec.Struct, frozen=True):
    """A file as it is carried: what it is (`kind`, a media type), whose, and what nobody but the tenant can open."""

    kind: str
    tenant: TenantId
    device: DeviceId
    key: bytes
    sealed: bytes
    v: int = 1


class Predictions(msgspec.Struct, frozen=True):
    """What was predicted from `since` to `until`. `cpu` is the class of CPU that computed it; `oldest` and `newest` are
    the event times that the device remembers; `more`: there were more than fit; `withheld` models have no inputs here,
    as their signed policy lets none out, or no more of them today. `made` is by the device's clock, `seq` the number of
    the command that asked (0: a person beside the box did)."""

    tenant: TenantId
    device: DeviceId
    made: float
    agent: str
    cpu: str
    since: float
    until: float
    oldest: float | None
    newest: float | None
    predictions: tuple[Remembered, ...]
    more: bool = False
    withheld: tuple[ModelName, ...] = ()
    seq: int = 0
    v: int = 1


class Support(msgspec.Struct, frozen=True):
    """A support bundle: a .tar.gz. `made` and `seq` as in `Predictions`."""

    tenant: TenantId
    device: DeviceId
    made: float
    archive: bytes
    seq: int = 0
    v: int = 1


_T = TypeVar("_T", Predictions, Support)
_KINDS: dict[type[Predictions] | type[Support], str] = {Predictions: PREDICTIONS_TYPE, Support: SUPPORT_TYPE}


def seal(document: Predictions | Support, signing_key: bytes, tenant_key: bytes, key: bytes) -> bytes:
    """The file. `signing_key` is the device's (PEM), `tenant_key` the tenant's X25519 public key, `key` 32 fresh random
    bytes."""
    kind = _KINDS[type(document)]
    inside = roles.sign(document, kind, signing_key)
    context = _context(kind, document.tenant, document.device)
    sealed = seal_object(inside, key, document.tenant, context, pack=True)
    found = SealedFile(kind, document.tenant, document.device, wrap(key, tenant_key, context), sealed)
    return codec.encode(found)


def read(file: bytes) -> SealedFile:
    """What a file says of itself, without any check; raises Malformed if it is none."""
    return codec.decode(SealedFile, file, 2 * LIMIT)


def unseal(found: SealedFile, wanted: type[_T], private_key: bytes, keys: roles.Keys) -> _T:
    """What is inside; raises Malformed for a file of another kind, Damaged unless it opens with the tenant's key as it
    was sealed, Untrusted unless one of `keys`, the device's, has signed it."""
    kind = _KINDS[wanted]
    if found.kind != kind:
        raise Malformed(f"the file is {found.kind!r}, not {kind!r}")
    context = _context(kind, found.tenant, found.device)
    try:
        inside = unseal_object(found.sealed, unwrap(found.key, private_key, context), found.tenant, context, LIMIT)
    except Damaged as error:
        raise Damaged(f"the file of {found.device} does not open with this tenant's key: {error}") from error
    document = roles.verify(inside, kind, wanted, keys, LIMIT)
    if (document.tenant, document.device) != (found.tenant, found.device):
        raise Untrusted(f"inside is the word of {document.tenant}/{document.device}, outside stands {found.device}")
    return document


def check(document: Predictions | Support, device: str, seq: int, ask: Ask | None = None) -> None:
    """Raises Untrusted unless this device made it for command `seq`, and of what `ask` wants, if that is known: what a
    device signed once stays signed, and whoever keeps the files could hand out an older one."""
    if document.device != device:
        raise Untrusted(f"{document.device} answers here, {device} was asked")
    if document.seq != seq:
        what = f"question {document.seq}" if document.seq else "a person beside the box, or it is of an older agent"
        raise Untrusted(f"question {seq} was asked, and this answers {what}")
    if not isinstance(document, Predictions) or not isinstance(ask, AskPredictions):
        return
    if (document.since, document.until) != (ask.since, ask.until):
        raise Untrusted(f"it is about {document.since} to {document.until}, asked was {ask.since} to {ask.until}")


def _context(kind: str, tenant: TenantId, device: DeviceId) -> str:
    return f"falaj/1 answer {kind} {tenant} {device}"
