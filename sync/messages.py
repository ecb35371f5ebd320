"""The documents that cross the border, typed and frozen. `sync.codec` turns them into bytes and back.

Every document carries `v` (schema), `epoch` and `seq` (order: epoch is issued at enrolment, seq is journalled
per document), `ts` (seconds since 1970, UTC, by the sender's clock) and, from devices, `boot`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sync.link import LineReport
from sync.names import DeviceId, Digest, Kind, LookupName, ModelName, TenantId
from sync.pieces import Piece, PieceReport

PROTOCOL = 1

ASSIGNMENT_TYPE = "application/vnd.falaj.assignment+json"
REPORTED_TYPE = "application/vnd.falaj.reported+json"

Quality = Literal["ok", "warming", "stale", "abstain", "no_model"]
Evidence = Literal["guardrails", "labels", "agreement"]


# --- core to device ---------------------------------------------------------------------------------------------


class Gates(msgspec.Struct, frozen=True):
    """What a release must survive on a device before it is committed."""

    evidence: Evidence = "guardrails"
    margin: float = 0.02  # net share of blocks by which the candidate may be the worse one (`sync.evidence`)
    block: int = 50  # input windows of one entity that make a block; fixed before the trial opens
    soak_answers: int = 20  # answered requests or windows in PROBATION
    max_errors: int = 0  # failed answers tolerated in PROBATION
    crashes: int = 3  # starts of the agent in PROBATION before the release is given up


class ModelOrder(msgspec.Struct, frozen=True):
    """What one device shall do with one model. `keys` opens the blobs: sealed digest -> wrapped key (base64). `shadow`:
    prove it, then run it beside the incumbent, on the same inputs, until a newer order says `live`."""

    manifest: Digest
    number: int
    keys: dict[Digest, str]
    floor: int = 1
    mode: Literal["live", "shadow", "off"] = "live"
    gates: Gates = Gates()
    retry: int = 0  # a higher generation lifts the quarantine of this release on this device


class Assignment(msgspec.Struct, frozen=True):
    """The whole desired state of one device; travels signed by the director, retained in `desired`."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    seq: int
    ts: float
    expires: float
    models: dict[ModelName, ModelOrder]
    tenant_key: str = ""  # X25519 public key of the tenant (base64): what samples are sealed to
    certificate: str = ""  # the device's newest certificate (PEM), for the key it has
    authorities: tuple[str, ...] = ()  # whom to believe to be the broker (PEM); none: those of before
    reports_key: str = ""  # X25519 public key (base64): what the bodies of records are sealed to
    lookups: dict[LookupName, Piece] = {}
    config: Piece | None = None
    v: int = PROTOCOL


class Labels(msgspec.Struct, frozen=True):
    """What predictions really were: prediction id -> label. Whoever gave those that are lost sends them again."""

    labels: dict[str, str]
    v: int = PROTOCOL


class Ack(msgspec.Struct, frozen=True):
    """All records of this kind up to number `n` are committed at the core."""

    epoch: int
    n: int
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


class Release(msgspec.Struct, frozen=True):
    """A release as a device names it: number, manifest, and the plaintext digest of the variant it runs."""

    number: int
    manifest: Digest
    artifact: Digest


class Validated(msgspec.Struct, frozen=True):
    """Signature record and digest checked at this load, golden vectors passed on this device."""

    artifact: Digest
    ts: float
    p99_ms: float


class DriftReport(msgspec.Struct, frozen=True):
    """What a device's detector says of one model's streams. `since` is the event time of the first alarm."""

    status: str  # not_calibrated, quiet, notice, alarm
    windows: int = 0  # drift windows since the commit
    statistic: float = 0.0
    streams: tuple[str, ...] = ()  # that alarmed first
    since: float | None = None


class LabelReport(msgspec.Struct, frozen=True):
    """What labels say of the newest labelled predictions of the release that serves."""

    labels: int
    right: int


class TrialReport(msgspec.Struct, frozen=True):
    """Candidate and incumbent on the same inputs of one device since this trial opened: blocks in which the candidate
    was worse (`plus`), equal (`zero`), better (`minus`) only grow. What they are about is named: it can be replayed."""

    manifest: Digest  # of the candidate
    against: Digest  # of the incumbent
    retry: int
    metric: Evidence
    block: int
    plus: int = 0
    zero: int = 0
    minus: int = 0
    pairs: int = 0  # input windows both answered, overlapping ones once
    agreed: int = 0  # of these, those with the same answer
    labels: int = 0  # of these, those with a label ...
    right: int = 0  # ... that the candidate got right
    right_before: int = 0  # ... that the incumbent got right
    waiting: int = 0  # pairs that wait for the label of a disagreement
    worst: tuple[int, int, int] | None = None  # the blocks, if every label that is missing spoke against the candidate


class RoadReport(msgspec.Struct, frozen=True):
    """How many samples of a model went upstream, and what today's budget has left."""

    policy: str
    sent: int  # samples handed to the outbox since the device was enrolled
    bytes_today: int  # sealed, of the UTC day
    budget: int  # bytes a day
    held_back: int = 0  # samples that wait for tomorrow's budget


class ModelReport(msgspec.Struct, frozen=True):
    """One model on one device. `answers` and `errors` count since the serving release started to serve."""

    phase: str
    since: float
    serving: Release | None = None
    candidate: Release | None = None
    previous: tuple[Release, ...] = ()
    validated: Validated | None = None
    answers: int = 0
    errors: int = 0
    reason: str = ""
    wanted: Digest | None = None  # the manifest the device was last told to run
    drift: DriftReport | None = None
    labelled: LabelReport | None = None
    trial: TrialReport | None = None
    road: RoadReport | None = None
    quarantined: dict[Digest, int] = {}  # manifests with a verdict against them -> the retry generation it was of


class Reported(msgspec.Struct, frozen=True):
    """The whole reported state; travels signed by the device's certificate key, retained in `reported`."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    seq: int
    ts: float
    boot: str
    seen: int  # seq of the newest assignment taken in
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
    session: int
    v: int = PROTOCOL


class Record(msgspec.Struct, frozen=True):
    """One numbered record of the outbox on `up/{kind}`; numbers have no gaps within (epoch, kind)."""

    epoch: int
    n: int
    ts: float
    boot: str
    body: msgspec.Raw
    v: int = PROTOCOL


class DeviceEvent(msgspec.Struct, frozen=True):
    """The body of `up/event`: something happened, under a stable code."""

    code: str
    text: str
    model: ModelName | None = None
    severity: Literal["info", "notice", "alarm"] = "info"
    facts: dict[str, str | int | float] = {}


class Side(msgspec.Struct, frozen=True):
    """One of the two releases of a why card, in numbers; shares are of labelled pairs, None without any."""

    number: int
    manifest: Digest
    accuracy: float | None = None
    answers: int = 0
    errors: int = 0
    p99_ms: float = 0.0


class WhyCard(msgspec.Struct, frozen=True):
    """The body of `up/why`: why this device gave a verdict against a release. Numbers only, no reading."""

    model: ModelName
    ts: float
    phase: str  # in which it was judged
    criterion: str  # stable code: guardrail, crash-loop, worse-than-incumbent, golden-mismatch, ...
    text: str
    new: Side
    old: Side | None  # who answers again; None: nobody
    trial: TrialReport | None = None
    log_harm: float | None = None  # natural logarithm of E_harm ...
    harm_at: float | None = None  # ... and of the threshold it reached
    log_safe: float | None = None
    safe_at: float | None = None


class SampleBatch(msgspec.Struct, frozen=True):
    """The body of `up/sample`: rows for retraining, sealed to the tenant's key (`sync.samples`), base64."""

    model: ModelName
    data_class: str
    region: str
    sealed: str


EVENT = Kind("event")
METRICS = Kind("metrics")
SAMPLE = Kind("sample")
CSR = Kind("csr")
WHY = Kind("why")


# --- on the device's local broker and HTTP ----------------------------------------------------------------------


class Prediction(msgspec.Struct, frozen=True):
    """The one prediction document. `probabilities` follow `classes`; both are empty where there is no model."""

    id: str
    model: ModelName
    ts: float  # event time of the last row of the window, or arrival time
    quality: Quality
    value: str | float | None = None
    probabilities: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    entity: str = ""
    release: int | None = None
    v: int = PROTOCOL
