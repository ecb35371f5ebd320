"""What the steward holds, and what it may ask for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Protocol

from core.catalog import Catalog
from core.fleet.enrolment import LEAF_LIFE, Pair
from core.fleet.floods import Floods
from core.fleet.guesses import Guesses
from core.handoffs import JobSpec
from core.ingest.spool import Spool
from core.orders import OnlineRole
from core.release import publish
from core.release.registry import ArtifactStore, BlobStore
from sync import codec, topics
from sync.chunks import split
from sync.link import Publish, packet_size
from sync.messages import TrustIndex
from sync.names import DeviceId, Digest, Kind, TenantId, TrustFile
from sync.sealing import public_half

RETAINED_BYTES = 1 << 30  # of sealed blobs on the broker, which keeps them in memory
SPOOL_BYTES = 1 << 30  # what may wait in the spool of samples, all devices of the tenant together
AGAIN = 30.0  # seconds before a chunk that was missed is published once more
MISSED = 128  # chunks in that time for one device: an honest one waits for 16 of a blob at once


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this on the tenant's broker."""

    message: Publish


@dataclass(frozen=True, slots=True)
class StartJob:
    """Run this job in a process of its own; its result comes back as an order."""

    spec: JobSpec


@dataclass(frozen=True, slots=True)
class PersistBroker:
    """Have the broker write its store now: a release must survive its kill."""


@dataclass(frozen=True, slots=True)
class Access:
    """Have the broker take in who may not speak: the revocation list (PEM), and the names that are denied."""

    revocations: bytes
    denied: tuple[DeviceId, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """End the session of this name, by taking it over with this pair; whatever waited in it goes."""

    device: DeviceId
    pair: Pair


Action = Send | StartJob | PersistBroker | Access | Cut


@dataclass(frozen=True)
class Keys:
    """The online keys, PEM, and the key of reports. No release key is ever among them."""

    director: bytes = field(repr=False)
    snapshot: bytes = field(repr=False)
    timestamp: bytes = field(repr=False)
    reports: bytes = field(repr=False)  # X25519, private (32 raw bytes): opens what devices say


class OnlineKeys(Protocol):
    """Where the private online keys lie. Of each role two at most: which one counts, the root in force says."""

    def held(self, role: OnlineRole) -> tuple[bytes, ...]:
        """The keys of a role, PEM."""

    def bring(self, role: OnlineRole, pem: bytes, keep: bytes) -> None:
        """Keeps a further key, durably, beside `keep`; whatever else there was of the role goes."""


class AuthorityFiles(Protocol):
    """Where the tenant's certificate authorities lie: the one in force, and at most one that shall follow it."""

    def bring(self, pair: Pair) -> None:
        """Keeps the next one, durably, beside the one in force."""

    def settle(self) -> None:
        """The next one takes the place of the one in force, in one durable step."""


@dataclass
class House:
    """Everything of one tenant's steward."""

    tenant: TenantId
    catalog: Catalog
    keys: Keys
    online: OnlineKeys
    authority: Pair  # whose certificates the servers show
    authorities: AuthorityFiles
    artifacts: ArtifactStore
    blobs: BlobStore
    spool: Spool
    random: Callable[[int], bytes]
    enrol_url: str
    uplink: tuple[str, int]  # host and port devices shall connect to
    tenant_key: str = ""  # X25519 public key (base64) that devices seal samples to
    spool_bytes: int = SPOOL_BYTES
    retained_bytes: int = RETAINED_BYTES
    crowded: bool = False  # that there was no room on the broker was told
    dropping: set[DeviceId] = field(default_factory=set)  # whose samples are being dropped, and that was said
    longevity: timedelta = LEAF_LIFE  # of devices' certificates
    successor: Pair | None = None  # the next authority: while there is one, it issues devices' certificates
    guesses: Guesses = field(default_factory=Guesses)  # at tokens
    stuck: set[tuple[DeviceId, Kind]] = field(default_factory=set)  # whose next record was heard, and nobody can read
    floods: Floods = field(default_factory=Floods)  # what devices say
    link_up: bool = False
    limit: int = 0  # bytes of the largest packet the broker takes; 0: any
    actions: list[Action] = field(default_factory=list)
    damaged: set[Digest] = field(default_factory=set)  # blobs that this disk did not keep, and that was said
    resent: dict[tuple[Digest, int], tuple[float, DeviceId]] = field(default_factory=dict)  # lately missed, by whom

    @property
    def issuing(self) -> Pair:
        """The authority of the devices' next certificates."""
        return self.successor or self.authority

    @property
    def trusted(self) -> tuple[str, ...]:
        """Whom devices shall believe to be the broker (PEM), the one in force first: a token names that one."""
        return tuple(pair.certificate.decode() for pair in (self.authority, self.successor) if pair is not None)

    @property
    def reports_key(self) -> str:
        """The public half (base64) of the key that opens what devices say: what they seal it to."""
        return base64.b64encode(public_half(self.keys.reports)).decode()

    def send(self, topic: str, payload: bytes, *, retain: bool = False, expiry: int | None = None) -> None:
        self.actions.append(Send(Publish(topic, payload, qos=1, retain=retain, expiry=expiry)))

    def event(self, now: float, code: str, text: str, **more: str | None) -> None:
        """Something the core did or saw, in the catalog, under a stable code."""
        self.catalog.events.add(
            now, more.pop("source", None) or "core", code, text,
            severity=more.pop("severity", None) or "info", model=more.pop("model", None), facts=dict(more),
        )  # fmt: skip

    def publish_trust(self, files: dict[str, bytes]) -> None:
        """The trust files a device may need, the timestamp after what it points at, the index last.

        The index names no manifests: a device asks for its own by digest, and a list of all of them would outgrow
        what a document may have after some hundreds of releases.
        """
        names = publish.current(files)
        for name in names:
            self.send(topics.trust(self.tenant, TrustFile(name)), files[name], retain=True)
        index = TrustIndex(tuple(name for name in names if not name.endswith(".manifest")))
        self.send(topics.trust(self.tenant, TrustFile("index")), codec.encode(index), retain=True)

    def publish_blob(self, digest: Digest, only: Container[int] | None = None) -> None:
        """All chunks of a blob, or only those that were missed, retained on the broker."""
        size = self.catalog.releases.blob_size(digest)
        if size is None or not self.takes(digest):
            return
        sealed = self.blobs.get(digest)
        self.catalog.retained.put(digest)
        for index, chunk in enumerate(split(sealed, size.chunk)):
            if only is None or index in only:
                self.send(topics.blob(self.tenant, digest, index), chunk, retain=True)

    def takes(self, digest: Digest) -> bool:
        """Whether the broker takes chunks of this blob: one packet beyond its limit ends the session, and the next."""
        size = self.catalog.releases.blob_size(digest)
        topic = topics.blob(self.tenant, digest, 10**topics.INDEX_DIGITS - 1)
        return not self.limit or size is None or packet_size(topic, size.chunk) <= self.limit

    def publish_missing(self, device: DeviceId, digest: Digest, indices: Iterable[int], now: float) -> None:
        """What a device misses: each chunk at most once in AGAIN seconds, and no more than MISSED of them for one
        device: asking must not cost us more than it costs whoever asks."""
        size = self.catalog.releases.blob_size(digest)
        if size is None:
            return
        self.resent = {chunk: sent for chunk, sent in self.resent.items() if 0 <= now - sent[0] < AGAIN}
        room = max(0, MISSED - sum(by == device for _, by in self.resent.values()))
        lacking = (i for i in dict.fromkeys(indices) if 0 <= i < size.chunks and (digest, i) not in self.resent)
        if due := set(islice(lacking, room)):
            self.resent |= {(digest, i): (now, device) for i in due}
            self.publish_blob(digest, due)
