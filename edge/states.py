"""The hall of the edge: the plain words its rooms pass to each other. Read this file and you know the device."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from sync.link import Publish
from sync.manifest import Manifest, Precision
from sync.messages import ModelOrder
from sync.names import Digest, ModelName
from sync.pieces import Piece
from sync.reports import DriftReport, Release, Validated

CLOCK_FLOOR = 1_767_225_600.0  # 2026-01-01: this program is younger, so a clock before it was never set


class Phase(StrEnum):
    """Where one model on this device stands (docs/lifecycle.md is drawn from `edge.lifecycle`)."""

    NO_MODEL = "no_model"
    STEADY = "steady"
    FETCHING = "fetching"
    STAGED = "staged"
    PROVING = "proving"
    SHADOW = "shadow"
    PROBATION = "probation"
    LIVE_SPLIT = "live_split"
    REVERTING = "reverting"


class Event(StrEnum):
    """What can happen to a model. Says what happened, never what to do."""

    OFFERED = "offered"  # a signed assignment names another release
    COMPLETE = "complete"  # all bytes are here, opened and verified
    REFUSED = "refused"  # a verdict before it ever served: signature, digest, golden vectors, profile
    WITHDRAWN = "withdrawn"  # a newer assignment no longer wants it
    ALLOWED = "allowed"  # window and hold file permit the next step
    UNFIT = "unfit"  # this variant failed its proof here, and the release has another for this CPU
    PROVED = "proved"  # golden vectors and profile passed in the child
    CLEARED = "cleared"  # the shadow gate is passed (or asks for nothing), or an arm of a split shall answer for all
    JOINED = "joined"  # a proven release stands beside the one that answers, as an arm of a split
    SOAKED = "soaked"  # enough answers in probation without a breach
    DEGRADED = "degraded"  # a guardrail broke or the pairs spoke against it, in shadow or while it served
    RETURNED = "returned"  # the previous release answers again
    BACK_ON_TRIAL = "back_on_trial"  # who answers again had not passed its trial when a newer order came
    EMPTIED = "emptied"  # there is no previous release: no model, declared as such


class FailureClass(StrEnum):
    """Transient: stay and retry. Environment: blocked, reported. Verdict: quarantine the artifact."""

    TRANSIENT = "transient"
    ENVIRONMENT = "environment"
    VERDICT = "verdict"


class Failure(msgspec.Struct, frozen=True):
    """Why a step did not work, under a stable code."""

    kind: FailureClass
    code: str
    text: str
    facts: dict[str, str | int | float] = {}


class Slot(msgspec.Struct, frozen=True):
    """One release as it lies on this device. The manifest's signature record lies beside it in the journal."""

    release: Release
    manifest: Manifest
    keys: dict[Digest, str]  # wrapped keys, as the assignment carried them: sealed digest -> base64
    p99_ms: float = 0.0  # as the proof on this device measured it ...
    rss_mb: float = 0.0  # ... and the memory it took (MiB)
    crashes: tuple[float, ...] = ()  # when it ended the agent's process, the newest few
    refused: tuple[Digest, ...] = ()  # variants of it that failed their proof here, by plaintext digest
    retry: int = 0  # the generation in which it was ordered last, once another one was
    unsoaked: bool = False  # it answers, or did, though its trial is not over: nothing else would have answered


class Lane(msgspec.Struct, frozen=True):
    """One arm of a split: it answers for `share` places from `first` on (`edge.routing`), for none before the split has
    begun. Once `fallen` the release that serves has its places."""

    slot: Slot
    first: int = 0
    share: int = 0
    retry: int = 0
    fallen: bool = False


class Deployment(msgspec.Struct, frozen=True):
    """All the journal knows of one model: the phase, who serves, who is on trial, who served before."""

    model: ModelName
    phase: Phase = Phase.NO_MODEL
    since: float = 0.0
    serving: Slot | None = None  # the committed release, or in PROBATION the one on trial
    candidate: Slot | None = None
    previous: tuple[Slot, ...] = ()  # newest first, two are kept
    order: ModelOrder | None = None
    validated: Validated | None = None
    starts: int = 0  # starts of the agent in this phase: the loop breaker
    reason: str = ""
    lanes: tuple[Lane, ...] = ()  # of a split, beside `serving`
    seed: str = ""  # of the split in force
    per_key: int = 1  # see Gates
    bound: Manifest | None = None  # whose bindings hold while nothing serves: of what did last, or was to

    def slots(self) -> tuple[Slot, ...]:
        """Every release that answers here, is tried, or can be gone back to."""
        held = (self.serving, self.candidate, *self.previous, *(lane.slot for lane in self.lanes))
        return tuple(slot for slot in held if slot is not None)


class HeldPiece(msgspec.Struct, frozen=True):
    """What the journal knows of one table, or of the config: the version in force, and the one before it."""

    current: Piece | None = None
    previous: Piece | None = None


class Proof(msgspec.Struct, frozen=True):
    """What the proving child measured; it judges nothing."""

    passed: bool
    worst: float  # largest absolute difference to the golden outputs
    p99_ms: float
    rss_mb: float
    detail: str = ""
    cpu_ms: float = 0.0  # of the p99, what the processor worked


class Health(msgspec.Struct, frozen=True):
    """What serving counted since the release on trial started to serve."""

    answers: int = 0
    errors: int = 0
    not_finite: int = 0
    p99_ms: float = 0.0  # of the newest answers; nought while they are too few


class ProofRequest(msgspec.Struct, frozen=True):
    """What the child is given: the plaintext model and the golden vectors, over a pipe, never a file."""

    model: bytes
    golden: bytes
    precision: Precision  # which of the golden outputs this variant must give
    rss_mb: int


# --- what the walker asks its surroundings to do, and what it hears from them ------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this on the uplink."""

    message: Publish


@dataclass(frozen=True, slots=True)
class Listen:
    """Subscribe to these topics of the uplink; it was decided in this `session`, None if there is but one."""

    patterns: tuple[str, ...]
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Unlisten:
    """Unsubscribe from these topics of the uplink."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prove:
    """A job for the prover, off the walker's thread; its result comes back as `Proved`."""

    model: ModelName
    artifact: Digest
    request: ProofRequest


@dataclass(frozen=True, slots=True)
class Install:
    """Check this certificate and whom to believe to be the broker (PEM; none: those of before), keep both, and open the
    uplink anew with them."""

    certificate: str
    authorities: tuple[str, ...] = ()


# What the journal counts, or remembers as a number.
Counter = Literal[
    "epoch", "desired_seq", "reported_seq", "command_seq", "session", "proof", "time", "signed_time", "stopped",
    "untold_lost",  # words about changes of state that were too many to keep
    "command_time",  # milliseconds since 1970 up to which nobody knows what was asked
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """What this device tells the core when it is asked: a sealed file (`sync.answers`), and in words what is in it."""

    file: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Proved:
    """The prover's result. `artifact` tells a late one, of a release that is no longer wanted, from the real one."""

    model: ModelName
    artifact: Digest
    outcome: Proof | Failure


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """The uplink came up or went down. `keeps`: it keeps whatever is said until it is heard, as a folder does that
    somebody carries; nothing need wait for an answer. `session` is the link's number of the one that came up, `limit`
    the largest packet (bytes) it takes; 0: any. `refused` is why this device turned away what answered in the broker's
    place; empty if it did not."""

    up: bool
    keeps: bool = False
    session: int | None = None
    limit: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Drifted:
    """A model's inputs have changed since its release was committed, materially."""

    model: ModelName
    report: DriftReport


Action = Send | Listen | Unlisten | Prove | Install
