"""What travels in a folder instead of over a line: the same topics and payloads, a file each.

Theory. A folder is a carrier as hostile as a broker, and it has no session: nobody's certificate says who wrote a
file. Assignments, trust files, chunks and reports prove themselves. What does not, because on the line the session
vouches for it (records and status up, acknowledgements down), travels in a *bundle*: a signed document of the device,
or of the director. A bundle replayed says what was said before: records are numbered, reports too, acknowledgements
never fall. So a folder can delay, and no more.

Names in the folder are topics below the tenant; `d/{device}/up/{part}` and `d/{device}/down` are the two bundles,
`enrol/{fingerprint}/request` and `.../answer` a box that joins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from sync import codec, roles, topics
from sync.errors import Malformed, Untrusted
from sync.messages import PROTOCOL
from sync.names import BadName, DeviceId, Kind, TenantId

CARRIED_TYPE = "application/vnd.falaj.carried+json"
PART = 512 * 1024  # bytes of documents in one bundle, about
LIMIT = 2 * 1024 * 1024  # bytes of a bundle in its envelope
PARTS = 1000  # bundles of one device at once, at most
CHUNK_LIMIT = 1024 * 1024
TRUST_LIMIT = 512 * 1024

_FINGERPRINT = r"[0-9a-f]{24}"
_BUNDLE = re.compile(rf"d/([^/]+)/(down|up/(?:0|[1-9][0-9]{{0,2}}))|enrol/{_FINGERPRINT}/(?:request|answer)")
_DOWN = ("ack", "labels", "cmd")
_UP = ("reported", "status", "up")


class Word(msgspec.Struct, frozen=True):
    """One message of a bundle: its topic below the device (`up/event`, `ack/why`, `reported`) and its payload."""

    topic: str
    payload: msgspec.Raw


class Bundle(msgspec.Struct, frozen=True):
    """What one side says to the other by folder; travels signed under CARRIED_TYPE. `stuck`, on the way down: the kinds
    of which the core heard the next record lately and could not take it in. Without that word an acknowledgement does
    not say that the record behind it was heard, for who carries a folder need not bring all that was said."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    ts: float
    words: tuple[Word, ...]
    stuck: tuple[Kind, ...] = ()
    v: int = PROTOCOL


def bundles(
    tenant: TenantId, device: DeviceId, epoch: int, ts: float, words: Iterable[Word], key: bytes,
    stuck: tuple[Kind, ...] = (),
) -> list[bytes]:  # fmt: skip
    """The words in order, in as many signed envelopes as it takes, at least one; `key` is an Ed25519 key (PEM)."""
    parts: list[list[Word]] = [[]]
    filled = 0
    for word in words:
        if filled and filled + len(word.payload) > PART:
            parts.append([])
            filled = 0
        parts[-1].append(word)
        filled += len(word.payload)
    return [roles.sign(Bundle(tenant, device, epoch, ts, tuple(part), stuck), CARRIED_TYPE, key) for part in parts]


def opened(payload: bytes, tenant: TenantId, device: DeviceId, keys: roles.Keys, way: Literal["up", "down"]) -> Bundle:
    """The bundle in an envelope of one of `keys`; raises Untrusted if it is somebody else's, or says what may not be
    said this way, and Malformed if it is none."""
    bundle = roles.verify(payload, CARRIED_TYPE, Bundle, keys, LIMIT)
    if (bundle.tenant, bundle.device) != (tenant, device):
        raise Untrusted(f"a bundle of {bundle.tenant}/{bundle.device} in the place of {tenant}/{device}")
    for word in bundle.words:
        try:
            address = topics.parse(topic_of(bundle, word))
        except BadName as error:
            raise Malformed(f"bundle of {device}: {error}") from error
        if address.area not in (_UP if way == "up" else _DOWN):
            raise Untrusted(f"a bundle {way} of {device} speaks on {word.topic}")
    return bundle


def topic_of(bundle: Bundle, word: Word) -> str:
    """The topic on which this would have come over a line."""
    return f"{topics.tenant_root(bundle.tenant)}/d/{bundle.device}/{word.topic}"


def limit_of(name: str) -> int | None:
    """The most bytes a file of this name in a tenant's folder may have; None for a name that is none of ours."""
    found = _BUNDLE.fullmatch(name)
    if found is not None:
        return LIMIT if found[2] and _is_device(found[1]) else None if found[2] else codec.LIMIT
    try:
        address = topics.parse(f"{topics.ROOT}/t/{name}")
    except BadName:
        return None
    if address.file in (".", ".."):
        return None
    return {"desired": codec.LIMIT, "trust": TRUST_LIMIT, "blob": CHUNK_LIMIT}.get(address.area)


def _is_device(text: str) -> bool:
    try:
        DeviceId(text)
    except BadName:
        return False
    return True
