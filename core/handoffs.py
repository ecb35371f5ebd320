"""The hall of the core: what each stage hands to the next. Read this file and you know the pipeline.

Facts that are stored or cross a process are frozen msgspec documents; `Dataset` holds arrays and stays inside
the job that built it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from core.project import Project
from sync.features import TensorSpec, WindowSpec
from sync.manifest import Lookup, Manifest, Precision
from sync.messages import Gates
from sync.names import DeviceId, Digest, LookupName, ModelName, Serial, SiteId
from sync.reports import SplitReport, TrialReport

# --- ingest -> lake ---------------------------------------------------------------------------------------------


class LakeFile(msgspec.Struct, frozen=True):
    """One Parquet file of the lake. `content` is the digest of the rows, not of the (encrypted) bytes."""

    name: str  # relative to the source's folder
    rows: int
    content: Digest


class Rejection(msgspec.Struct, frozen=True):
    """A row, or a whole file (row = -1), that broke its contract. It is kept, with the reason, for replay."""

    origin: str
    row: int
    reason: str  # stable code: truncated, columns, type, range, value, null, time, changed
    text: str


class Merged(msgspec.Struct, frozen=True):
    """One file of the lake that stands for others, with the same rows in the same order."""

    file: LakeFile
    replaces: tuple[str, ...]


class Skew(msgspec.Struct, frozen=True):
    """Served predictions of one release that were made again (`core.release.skew`): how many, cells compared, and those
    that came out otherwise, first in prediction `example`; `unchecked`: not all that they rest on came with them."""

    device: DeviceId
    number: int
    predictions: int = 0
    cells: int = 0
    mismatching: int = 0
    unchecked: int = 0
    example: str = ""


LABELLED = "labelled"  # in the position of a samples source: how many labelled samples it landed, ever
REFUSED = "refused:"  # in a position, the beginning of the mark of what was refused as a whole


class Landed(msgspec.Struct, frozen=True):
    """What one run of a source did: committed with its position in one catalog transaction, or not at all.

    `position` maps each origin (file name) that is new in it to the mark of the bytes taken in
    (`core.ingest.interface`), so a rerun skips them. There are `more` units than one run takes in: a further run does.
    """

    source: str
    files: tuple[LakeFile, ...]
    rejections: tuple[Rejection, ...]
    position: dict[str, str]
    rows: int
    merged: tuple[Merged, ...] = ()
    removed: tuple[str, ...] = ()  # files that others stand for, and that left the disk
    more: bool = False
    skew: tuple[Skew, ...] = ()  # of samples, what came of them when they were made again


# --- features -> training ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Windows of one stretch: x (n, size, channels) float32, y (n,) class indices, entity (n,) whose readings each is
    of: the entity's name, or `device/entity` where a device sent it."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    entity: npt.NDArray[np.str_]


class Learned(msgspec.Struct, frozen=True):
    """What the field gave, in labelled windows of each device: `fit` to learn from, `gate` to judge by. `strange` ones
    were left out, for they are labelled as no chosen row is, and `surplus` ones to learn from, for no device may
    outweigh the others."""

    fit: dict[DeviceId, int] = {}
    gate: dict[DeviceId, int] = {}
    strange: dict[DeviceId, int] = {}
    surplus: dict[DeviceId, int] = {}


@dataclass(frozen=True)
class Dataset:
    """Reproducible from (view, snapshot): the same pair gives the same `digest` of content. With lookups the
    windows have their columns as channels too, and so has `window` (`core.features.lookups`)."""

    view: str  # hash of the view's definition
    snapshot: str  # id of the lake snapshot
    digest: Digest
    classes: tuple[str, ...]
    window: WindowSpec
    fit: Split
    gate: Split
    learned: Learned = field(default_factory=Learned)
    lookups: tuple[Lookup, ...] = ()
    calibrate: Split | None = None  # rows that neither are learned from nor judge


# --- training -> release ----------------------------------------------------------------------------------------


class Score(msgspec.Struct, frozen=True):
    """One precision of a candidate, measured on the gate rows and on this machine's CPU."""

    precision: Precision
    accuracy: float
    agreement: float  # share of gate rows with the same class as fp32
    p50_us: float
    p99_us: float
    bytes: int
    ece: float | None = None  # expected calibration error on the gate rows ...
    ece_before: float | None = None  # ... and without the temperature; the same where there is none


class Calibration(msgspec.Struct, frozen=True):
    """Whether probabilities were made honest, on `rows` that neither trained nor judged: `temperature` divides the
    scores in every file (1: not calibrated), `reason` says why, in words."""

    temperature: float
    rows: int
    reason: str


class Scorecard(msgspec.Struct, frozen=True):
    """The judged files are the files that ship."""

    rows: int
    scores: tuple[Score, ...]
    chosen: Precision
    reason: str
    parity: float  # worst absolute difference, torch against the exported graph, on gate rows
    burst: float = 1.0  # windows: how long a run of errors of the chosen file is (`sync.evidence.burst_length`)
    calibration: Calibration | None = None  # None: it was made before there was any


class Verdict(msgspec.Struct, frozen=True):
    """One gate's word. INCONCLUSIVE (too few rows) passes only together with the fallback gates, flagged."""

    gate: str
    outcome: Literal["pass", "fail", "inconclusive"]
    text: str
    figures: dict[str, float] = {}


class Artifact(msgspec.Struct, frozen=True):
    """A model file in the registry's store, sealed at rest, found by its plaintext digest."""

    precision: Precision
    needs: tuple[str, ...]
    plain: Digest
    length: int


class Known(msgspec.Struct, frozen=True):
    """What listeners know of a model: the classes and the major version of its newest approved release."""

    number: int
    major: int
    classes: tuple[str, ...]


class Candidate(msgspec.Struct, frozen=True):
    """A trained, exported, measured and judged model. A refused one is kept as a fact, with its reasons."""

    model: ModelName
    snapshot: str
    view: str
    dataset: Digest
    recipe: str
    seed: int
    classes: tuple[str, ...]
    window: WindowSpec
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    artifacts: tuple[Artifact, ...]  # in the publisher's order of preference
    golden: Digest
    scorecard: Scorecard
    verdicts: tuple[Verdict, ...]
    accepted: bool
    learned: Learned = Learned()
    lookups: tuple[Lookup, ...] = ()  # the tables it was trained with, as its release shall accept them


# --- release -> rollout -----------------------------------------------------------------------------------------


class RolloutState(StrEnum):
    """A rollout advances on devices that *committed* the release, never on devices that only received it."""

    APPROVED = "approved"
    SHADOW = "shadow"  # the canary devices run it beside the incumbent; the pairs decide
    SPLIT = "split"  # on the canary devices it answers a share of the keys; what became of their answers decides
    PAUSED = "paused"  # nothing decided in the time it was given: the devices are as before, a person decides
    CANARY = "canary"
    RAMP = "ramp"
    COMPLETE = "complete"
    REVERSING = "reversing"
    REVERSED = "reversed"
    SUPERSEDED = "superseded"  # a newer rollout of the model began before this one ended


ROLLOUT_ENDED = frozenset({RolloutState.COMPLETE, RolloutState.REVERSED, RolloutState.SUPERSEDED})


class SplitPlan(msgspec.Struct, frozen=True):
    """How a release is tried beside the incumbent: `share` of 10,000 places, by a lot for each device that `seeds` has,
    and `seed` draws for one that is not in it. What was told once holds: counts belong to one lot."""

    seed: str
    share: int
    incumbent: Digest
    seeds: dict[DeviceId, str] = {}


class Rollout(msgspec.Struct, frozen=True):
    """One release on its way. `previous` is the release number to take devices back to, None if there is none."""

    model: ModelName
    number: int
    manifest: Digest
    canary: tuple[DeviceId, ...]
    gates: Gates
    state: RolloutState = RolloutState.APPROVED
    since: float = 0.0
    previous: int | None = None
    assigned: tuple[DeviceId, ...] = ()
    reason: str = ""
    retry: int = 0  # the generation of its assignments: a higher one lifts the quarantine of the release
    forced: str = ""  # who had it serve without a shadow's word, and why
    decided: dict[DeviceId, TrialReport] = {}  # what each device's pairs said when they decided
    held: tuple[DeviceId, ...] = ()  # too few to take it back, whose verdicts keep it from going on: a person decides
    split: SplitPlan | None = None  # None: no A/B
    compared: dict[DeviceId, SplitReport] = {}  # what each device's keys said when they decided
    days: float = 0.0  # that a shadow or a split may take before it is paused; 0: any
    aside: tuple[DeviceId, ...] = ()  # whose verdicts a person called their own: neither counted nor waited for
    barred: tuple[DeviceId, ...] = ()  # that a person was told of once: waited for in vain, then or now


# --- who shall join ---------------------------------------------------------------------------------------------


class Box(msgspec.Struct, frozen=True):
    """A box that shall join: whoever shows this serial number at this site becomes this device."""

    serial: Serial
    name: DeviceId
    site: SiteId
    labels: tuple[str, ...] = ()  # words, or key=value


# --- steward -> job process -------------------------------------------------------------------------------------


class JobSpec(msgspec.Struct, frozen=True):
    """Everything a job process is told, on its standard input; it opens no catalog."""

    job: int
    kind: str  # "ingest" | "lookup" | "train"
    subject: str  # source, lookup or model
    project: Project
    folder: str
    position: dict[str, str] = {}
    files: tuple[LakeFile, ...] = ()
    samples: tuple[LakeFile, ...] = ()  # of the view's samples source
    crowded: tuple[tuple[LakeFile, ...], ...] = ()  # of the source: each group shall become one file
    outdated: tuple[str, ...] = ()  # of the source: others stand for them, and nobody reads them any more
    tables: dict[LookupName, tuple[Digest, ...]] = {}  # of the view's lookups: artifacts of all versions, oldest first
    known: Known | None = None  # what listeners know of the model
    released: tuple[Manifest, ...] = ()  # of the source's model, the newest: what served its samples
