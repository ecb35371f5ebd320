"""The documents that cross the border, typed and frozen. `sync.codec` turns them into bytes and back.

Every document carries `v` (schema), `epoch` and `seq` (order: epoch is issued at enrolment, seq is journalled
per document), `ts` (seconds since 1970, UTC, by the sender's clock) and, from devices, `boot`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import msgspec

from sync.link import LineReport
from sync.names import Count, DeviceId, Digest, Kind, LookupName, ModelName, TenantId
from sync.pieces import Piece, PieceReport
from sync.reports import Evidence, ModelReport

PROTOCOL = 1
SHARES = 10_000  # a split counts in basis points

ASSIGNMENT_TYPE = "application/vnd.falaj.assignment+json"
REPORTED_TYPE = "application/vnd.falaj.reported+json"

Quality = Literal["ok", "warming", "stale", "abstain", "no_model"]
Severity = Literal["info", "notice", "alarm"]
Mode = Literal["live", "shadow", "split", "off"]


# --- core to device ---------------------------------------------------------------------------------------------


class Gates(msgspec.Struct, frozen=True):
    """What a release must survive on a device before it is committed."""

    evidence: Evidence = "guardrails"
    margin: float = 0.02  # net share of blocks by which the candidate may be the worse one (`sync.evidence`)
    block: int = 50  # input windows of one entity that make a block; fixed before the trial opens
    soak_answers: int = 20  # answered requests or windows in PROBATION
    max_errors: int = 0  # failed answers tolerated in PROBATION
    crashes: int = 3  # starts of the agent in PROBATION before the release is given up
    shadow_share: float = 0.25  # of one core, that asking a candidate in shadow may take; 1: every window is asked
    per_key: int = 1  # outcomes of one entity or key that make its word on an arm of a split


class Arm(msgspec.Struct, frozen=True):
    """One more release that answers in a split: the keys whose place (`edge.routing`, 0 to 9,999) is one of the `share`
    places from `first` on. These stay where they are, whatever becomes of the other arms."""

    manifest: Digest
    number: Count
    keys: dict[Digest, str]
    first: int
    share: int
    retry: Count = 0

    def __post_init__(self) -> None:
        if not (0 <= self.first < SHARES and 0 < self.share <= SHARES - self.first):
            raise ValueError(f"an arm has from 1 to all of the {SHARES} places: {self.share} from {self.first} on")


class ModelOrder(msgspec.Struct, frozen=True):
    """What one device shall do with one model. `keys` opens the blobs: sealed digest -> wrapped key (base64). `shadow`:
    prove it, then run it beside the incumbent, on the same inputs, until a newer order says `live`. `split`: it is the
    incumbent, and `arms` answer in its place for the entities and keys that `seed` puts there; no asker may know it."""

    manifest: Digest
    number: Count
    keys: dict[Digest, str]
    floor: Count = 1
    mode: Mode = "live"
    gates: Gates = Gates()
    retry: Count = 0  # a higher generation lifts the quarantine of this release on this device
    arms: tuple[Arm, ...] = ()
    seed: str = ""

    def __post_init__(self) -> None:
        if len({self.manifest, *(arm.manifest for arm in self.arms)}) <= len(self.arms):
            raise ValueError("a release stands twice in a split")
        placed = sorted((arm.first, arm.first + arm.share) for arm in self.arms)
        if any(end > first for (_, end), (first, _) in pairwise(placed)):
            raise ValueError("two arms of a split have places in common")

    def all_keys(self) -> dict[Digest, str]:
        """What opens the blobs of every release of this order."""
        return self.keys | {digest: key for arm in self.arms for digest, key in arm.keys.items()}


class Assignment(msgspec.Struct, frozen=True):
    """The whole desired state of one device; travels signed by the director, retained in `desired`."""

    tenant: TenantId
    device: DeviceId
    epoch: Count
    seq: Count
    ts: float
    expires: float
    models: dict[ModelName, ModelOrder]
    tenant_key: str = ""  # X25519 public key of the tenant (base64): what samples are sealed to
    certificate: str = ""  # the device's newest certificate (PEM), for the key it has
    authorities: tuple[str, ...] = ()  # whom to believe to be the broker (PEM); none: those of before
    reports_key: str = ""  # X25519 public key (base64): what the bodies of records are sealed to
    lookups: dict[LookupName, Piece] = {}
    config: Piece | None = None
    alarms: bool = False  # whether the core takes in `up/alarm`
    v: int = PROTOCOL


class Labels(msgspec.Struct, frozen=True):
    """What predictions really were: prediction id -> label. Whoever gave those that are lost sends them again."""

    labels: dict[str, str]
    v: int = PROTOCOL


class Ack(msgspec.Struct, frozen=True):
    """All records of this kind up to number `n` are committed at the core. `boot` is of the start that wrote that one,
    so that a device whose outbox lost its end knows that another has its number; empty: not told."""

    epoch: Count
    n: Count
    boot: str = ""
    v: int = PROTOCOL


class TrustIndex(msgspec.Struct, frozen=True):
    """An unsigned hint: which trust files exist now. Lying with it can delay, never deceive."""

    files: tuple[str, ...]
    v: int = PROTOCOL


class CoreStatus(msgspec.Struct, frozen=True):
    state: Literal["online", "stopped", "offline"]
    ts: float
    v: int = PROTOCOL


# --- device to core ---------------------------------------------------------------------------------------------


class Reported(msgspec.Struct, frozen=True):
    """The whole reported state; travels signed by the device's certificate key, retained in `reported`."""

    tenant: TenantId
    device: DeviceId
    epoch: Count
    seq: Count
    ts: float
    boot: str
    seen: Count  # seq of the newest assignment taken in
    models: dict[ModelName, ModelReport]
    have: tuple[Digest, ...] = ()
    missing: dict[Digest, tuple[int, ...]] = {}
    agent: str = ""
    protocol: tuple[int, int] = (PROTOCOL, PROTOCOL)
    key_protection: str = "none"
    clock: Literal["set", "unset"] = "set"
    trust: dict[str, int] = {}
    lookups: dict[LookupName, PieceReport] = {}
    config: PieceReport | None = None
    line: LineReport | None = None  # None: it has no limits
    certificate: str = ""  # SHA-256 of the one it uses (DER), hex
    v: int = PROTOCOL


class Status(msgspec.Struct, frozen=True):
    state: Literal["online", "stopped", "offline"]
    ts: float
    boot: str
    session: Count
    v: int = PROTOCOL


class Record(msgspec.Struct, frozen=True):
    """One numbered record of the outbox on `up/{kind}`; numbers have no gaps within (epoch, kind)."""

    epoch: Count
    n: Count
    ts: float
    boot: str
    body: msgspec.Raw
    v: int = PROTOCOL


class DeviceEvent(msgspec.Struct, frozen=True):
    """The body of `up/event` and `up/alarm`: something happened, under a stable code."""

    code: str
    text: str
    model: ModelName | None = None
    severity: Severity = "info"
    facts: dict[str, str | int | float] = {}


class SampleBatch(msgspec.Struct, frozen=True):
    """The body of `up/sample`: rows for retraining, sealed to the tenant's key (`sync.samples`), base64."""

    model: ModelName
    data_class: str
    region: str
    sealed: str


EVENT = Kind("event")
ALARM = Kind("alarm")  # an event of that severity
METRICS = Kind("metrics")
SAMPLE = Kind("sample")
CSR = Kind("csr")
WHY = Kind("why")


# --- on the device's local broker and HTTP ----------------------------------------------------------------------


class Prediction(msgspec.Struct, frozen=True):
    """The one prediction document. `probabilities` follow `classes`; both are empty where there is no model. `holds`
    says whether the condition of a binding's `when` holds, None without one."""

    id: str
    model: ModelName
    ts: float  # event time of the last row of the window, or arrival time
    quality: Quality
    value: str | float | None = None
    probabilities: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    entity: str = ""
    release: int | None = None
    holds: bool | None = None
    v: int = PROTOCOL
