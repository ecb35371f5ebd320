"""What a device says of its models, typed and frozen: the parts of `reported` and of the why card that is sent on
`up/why`. `sync.messages` has the documents they travel in."""

from __future__ import annotations

from typing import Literal

import msgspec

from sync.names import Count, Digest, ModelName

Evidence = Literal["guardrails", "labels", "agreement"]


class Release(msgspec.Struct, frozen=True):
    """A release as a device names it: number, manifest, and the plaintext digest of the variant it runs."""

    number: Count
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
    retry: Count
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


class ArmReport(msgspec.Struct, frozen=True):
    """One release of a split on one device. `answers` and `errors` count since it was loaded, the others since the
    split began; a key is an entity or the key of a request, and counts where the split put it, once."""

    number: Count
    manifest: Digest
    retry: Count
    share: int  # places of 10,000, as ordered
    answers: int = 0
    errors: int = 0
    p99_ms: float = 0.0
    keys: int = 0  # that it answered, of the first ones of the split
    labels: int = 0  # outcomes of its answers that became known
    right: int = 0  # of these, the good ones
    losses: tuple[int, ...] = ()  # keys by how many of their first `per_key` outcomes were bad: 0, 1, ... per_key
    fallen: bool = False  # a guardrail broke: its keys are answered by the first release


class SplitReport(msgspec.Struct, frozen=True):
    """A split on one device. `split` is the digest of what it is about: another seed, place, release, retry or number
    of outcomes to a key is another split."""

    split: Digest
    per_key: int
    arms: tuple[ArmReport, ...]  # the first is the incumbent
    full: bool = False  # more keys came than are followed: those beyond are answered, and not counted


class RoadReport(msgspec.Struct, frozen=True):
    """How many samples of a model went upstream, and what today's budget has left."""

    policy: str
    sent: int  # samples handed to the outbox since the device was enrolled
    bytes_today: int  # sealed, of the UTC day
    budget: int  # bytes a day
    held_back: int = 0  # samples that wait for tomorrow's budget


ANY = Digest("0" * 64)  # the manifest of a verdict that a device cannot read any more: it bars every other release


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
    split: SplitReport | None = None
    quarantined: dict[Digest, Count] = {}  # manifests with a verdict against them -> the retry generation it was of


class Side(msgspec.Struct, frozen=True):
    """One of the two releases of a why card, in numbers; shares are of labelled pairs, None without any."""

    number: Count
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
