"""What the steward holds, and what it may ask for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator
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
from core.release import publish
from core.release.registry import ArtifactStore, BlobStore
from sync import codec, topics
from sync.link import Publish, packet_size
from sync.messages import TrustIndex
from sync.names import DeviceId, Digest, Kind, ModelName, TenantId, TrustFile
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
class SendBlob:
    """Publish these chunks of a sealed blob, in their turn: each is read when it goes out (`House.chunks`), for all
    that a broker lacks may be more than this machine's memory."""

    digest: Digest
    chunk: int  # bytes of one
    indices: Collection[int]


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


Action = Send | SendBlob | StartJob | PersistBroker | Access | Cut


@dataclass(frozen=True)
class Keys:
    """The online keys, PEM, and the key of reports. No release key of people is ever among them."""

    director: bytes = field(repr=False)
    snapshot: bytes = field(repr=False)
    timestamp: bytes = field(repr=False)
    reports: bytes = field(repr=False)  # X25519, private (32 raw bytes): opens what devices say


class OnlineKeys(Protocol):
    """Where the private online keys lie, those of models that the core may release by itself among them. Of each role
    two at most: which one counts, the root in force says, and of such a model its role."""

    def held(self, role: str) -> tuple[bytes, ...]:
        """The keys of a role, PEM."""

    def bring(self, role: str, pem: bytes, keep: bytes) -> None:
        """Keeps a further key, durably, beside `keep` (empty: there is none); whatever else there was of the role
        goes."""


class AuthorityFiles(Protocol):
    """Where the tenant's certificate authorities lie: the one in force, and at most one that shall follow it."""

    def bring(self, pair: Pair) -> None:
        """Keeps the next one, durably, beside the one in force."""

    def settle(self) -> None:
        """The next one takes the place of the one in force, in one durable step."""


@dataclass
class Memory:
    """What a restart forgets: what was heard of late, and what was said once and need not be said again."""

    guesses: Guesses = field(default_factory=Guesses)  # at tokens
    floods: Floods = field(default_factory=Floods)  # what devices say
    stuck: set[tuple[DeviceId, Kind]] = field(default_factory=set)  # whose next record was heard, and nobody can read
    resent: dict[tuple[Digest, int], tuple[float, DeviceId]] = field(default_factory=dict)  # lately missed, by whom
    crowded: bool = False  # there was no room on the broker
    dropping: set[DeviceId] = field(default_factory=set)  # whose samples are being dropped
    denied: dict[tuple[str, DeviceId], tuple[float, int]] = field(default_factory=dict)  # told when, since; by kind
    strangers: tuple[float, dict[str, int]] = (float("-inf"), {})  # told when; since, by reason
    damaged: set[Digest] = field(default_factory=set)  # blobs that this disk did not keep
    keyless: set[ModelName] = field(default_factory=set)  # that the core may release, and whose key is not here
    broken: set[str] = field(default_factory=set)  # where our code broke on a message
    overfull: set[DeviceId] = field(default_factory=set)  # to which more would have to be said than it takes
    refused: dict[ModelName, float] = field(default_factory=dict)  # models that cannot learn by themselves, told when


@dataclass
class House:
    """Everything of one tenant's steward: what it holds, how it was set, and what it only remembers."""

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
    longevity: timedelta = LEAF_LIFE  # of devices' certificates
    successor: Pair | None = None  # the next authority: while there is one, it issues devices' certificates
    link_up: bool = False
    limit: int = 0  # bytes of the largest packet the broker takes; 0: any
    actions: list[Action] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

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

    def event(
        self, now: float, code: str, text: str, *, severity: str = "info", source: str | None = None,
        model: ModelName | None = None, **facts: str,
    ) -> None:  # fmt: skip
        """Something that `source` (the core, if none is named) did or saw, in the catalog, under a stable code."""
        self.catalog.events.add(now, source or "core", code, text, severity=severity, model=model, facts=facts)

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

    def publish_blob(self, digest: Digest) -> None:
        """All chunks of a blob, retained on the broker; raises Damaged, and then there is none."""
        size = self.catalog.releases.blob_size(digest)
        if size is None or not self.takes(digest):
            return
        self.blobs.check(digest)
        self.catalog.retained.put(digest)
        self.actions.append(SendBlob(digest, size.chunk, range(size.chunks)))

    def chunks(self, action: SendBlob) -> Iterator[Publish]:
        """What the action says, each chunk read when it is asked for; raises Damaged where one cannot be read."""
        for index in action.indices:
            piece = self.blobs.piece(action.digest, index * action.chunk, action.chunk)
            yield Publish(topics.blob(self.tenant, action.digest, index), piece, qos=1, retain=True)

    def takes(self, digest: Digest) -> bool:
        """Whether the broker takes chunks of this blob: one packet beyond its limit ends the session, and the next."""
        size = self.catalog.releases.blob_size(digest)
        topic = topics.blob(self.tenant, digest, 10**topics.INDEX_DIGITS - 1)
        return not self.limit or size is None or packet_size(topic, size.chunk) <= self.limit

    def forget_resent(self, now: float) -> None:
        """What was missed longer ago than AGAIN may be published once more."""
        self.memory.resent = {chunk: sent for chunk, sent in self.memory.resent.items() if 0 <= now - sent[0] < AGAIN}

    def publish_missing(self, device: DeviceId, digest: Digest, indices: Iterable[int], now: float) -> None:
        """What a device misses: each chunk at most once in AGAIN seconds, and no more than MISSED of them for one
        device: asking must not cost us more than it costs whoever asks. So these chunks alone are read and held against
        what was signed; raises Damaged where one of them is not that, and then none goes out."""
        blob = self.catalog.releases.described(digest) or self.catalog.pieces.described(digest)
        if blob is None or not self.takes(digest):
            return
        room = max(0, MISSED - sum(by == device for _, by in self.memory.resent.values()))
        chunks = range(len(blob.hashes))
        lacking = (i for i in dict.fromkeys(indices) if i in chunks and (digest, i) not in self.memory.resent)
        if due := sorted(islice(lacking, room)):
            self.memory.resent |= {(digest, i): (now, device) for i in due}
            for index in due:
                self.blobs.check_chunk(blob, index)
            self.catalog.retained.put(digest)
            self.actions.append(SendBlob(digest, blob.chunk, due))
