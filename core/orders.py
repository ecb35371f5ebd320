"""What the steward is asked to do: wishes from people, and commits from workers.

Each is a frozen document tagged with its name, carried over the steward's Unix socket. `actor` says who asked.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core.handoffs import Box, Candidate, LakeFile, Landed
from core.project import Project
from sync.names import DeviceId, ModelName, SiteId


class Order(msgspec.Struct, frozen=True, kw_only=True, tag_field="order", tag=True):
    """Base of all orders."""

    actor: str = "cli"


# --- from people ------------------------------------------------------------------------------------------------


class ApplyProject(Order, frozen=True, kw_only=True):
    """Take in a project file, parsed and checked; `folder` anchors its relative paths. Starts no work."""

    project: Project
    folder: str


class Ingest(Order, frozen=True, kw_only=True):
    """Run one source of the project."""

    source: str


class Train(Order, frozen=True, kw_only=True):
    """Dataset, training, export, quantization and gates for one model of the project."""

    model: ModelName


class TrustKeys(Order, frozen=True, kw_only=True):
    """Ask for the public halves of director, snapshot and timestamp, which the owner's first root must name."""


class TrustInit(Order, frozen=True, kw_only=True):
    """The first root and targets metadata (JSON texts), signed in the owner's process."""

    root: str
    targets: str


class Approve(Order, frozen=True, kw_only=True):
    """A release approved by its owner: the model role's next metadata and, when it is new, the targets that
    delegate to it (JSON texts), both signed in the owner's process."""

    model: ModelName
    number: int
    role: str
    targets: str | None = None


class Override(Order, frozen=True, kw_only=True):
    """Stage a candidate although a gate refused it. Who and why stand in its manifest and in the events for good."""

    candidate: int
    reason: str


class Force(Order, frozen=True, kw_only=True):
    """Roll an approved release out anew, to serve on its canary devices without a shadow's word, also where one gave a
    verdict against it. Who and why are kept with the rollout."""

    model: ModelName
    number: int
    reason: str


class Label(Order, frozen=True, kw_only=True):
    """Tell a device what its predictions really were: prediction id -> label."""

    device: DeviceId
    labels: dict[str, str]


class IssueToken(Order, frozen=True, kw_only=True):
    """A single-use enrolment token for one device."""

    device: DeviceId
    minutes: int = 60


class IssueSiteToken(Order, frozen=True, kw_only=True):
    """An enrolment token for `uses` boxes of a site; with `approve` a person accepts each (`Accept`)."""

    site: SiteId
    uses: int
    minutes: int = 60
    approve: bool = False


class ImportBoxes(Order, frozen=True, kw_only=True):
    """Boxes that are expected: serial number, name, site, labels. All of them are taken, or none."""

    boxes: tuple[Box, ...]


class Accept(Order, frozen=True, kw_only=True):
    """Admit boxes that wait, all of them if none is named; or let a device speak again that was seen twice."""

    devices: tuple[DeviceId, ...] = ()


class Revoke(Order, frozen=True, kw_only=True):
    """End a device's certificates and its session; it is no part of the fleet any more."""

    device: DeviceId
    reason: str


class Replace(Order, frozen=True, kw_only=True):
    """End a device's certificates and its session; another box takes its name, and with it its models, by the token
    that is the answer."""

    device: DeviceId
    minutes: int = 60


class Enrol(Order, frozen=True, kw_only=True):
    """An enrolment request as it came over HTTPS: a DSSE envelope (JSON text)."""

    envelope: str
    source: str = ""  # the address it came from


# --- from workers -----------------------------------------------------------------------------------------------


class JobProgress(Order, frozen=True, kw_only=True):
    """A job says how far it is: `done` from 0 to 1."""

    job: int
    stage: str
    done: float


class CommitRows(Order, frozen=True, kw_only=True):
    """Files landed in the lake; they become facts, with the source's position, in one transaction."""

    job: int
    landed: Landed


class CommitCandidate(Order, frozen=True, kw_only=True):
    """A training job is done: the candidate with its verdicts, accepted or not."""

    job: int
    candidate: Candidate


class JobFailed(Order, frozen=True, kw_only=True):
    """A job ended without a result; `hint` says what a person can do."""

    job: int
    error: str
    hint: str = ""


AnyOrder = (
    ApplyProject
    | Ingest
    | Train
    | TrustKeys
    | TrustInit
    | Approve
    | Override
    | Force
    | Label
    | IssueToken
    | IssueSiteToken
    | ImportBoxes
    | Accept
    | Revoke
    | Replace
    | Enrol
    | JobProgress
    | CommitRows
    | CommitCandidate
    | JobFailed
)


class Answer(msgspec.Struct, frozen=True):
    """What the steward says: a result, or an error with a stable code and what to do next."""

    ok: bool
    result: dict[str, Any] = {}
    error: str = ""
    code: str = ""
    hint: str = ""


# --- what the steward asks its surroundings to do ---------------------------------------------------------------


class JobSpec(msgspec.Struct, frozen=True):
    """Everything a job process is told, on its standard input; it opens no catalog."""

    job: int
    kind: str  # "ingest" | "train"
    subject: str  # source or model
    project: Project
    folder: str
    position: dict[str, str] = {}
    files: tuple[LakeFile, ...] = ()
    samples: tuple[LakeFile, ...] = ()  # of the view's samples source
