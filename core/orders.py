"""What the steward is asked to do: wishes from people, and commits from workers.

Each is a frozen document tagged with its name, carried over the steward's Unix socket. `actor` says who asked.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from core.handoffs import Box, Candidate, Landed
from core.project import Project
from sync.commands import Ask
from sync.names import DeviceId, LookupName, ModelName, SiteId

OnlineRole = Literal["snapshot", "timestamp", "director"]  # whose keys the core holds itself
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # what the catalog can hold
Minutes = Annotated[int, Meta(ge=0, le=7 * 24 * 60)]


class Order(msgspec.Struct, frozen=True, kw_only=True, tag_field="order", tag=True):
    """Base of all orders."""

    actor: str = "cli"


class Wish(Order, frozen=True, kw_only=True):
    """Base of what people ask for: the core's API takes these and no others."""


class Commit(Order, frozen=True, kw_only=True):
    """Base of what only processes of the core's own say: a worker, the listener for newcomers, the supervisor."""


# --- from people ------------------------------------------------------------------------------------------------


class ApplyProject(Wish, frozen=True, kw_only=True):
    """Take in a project file, parsed and checked; `folder` anchors its relative paths. Starts no work."""

    project: Project
    folder: str


class Ingest(Wish, frozen=True, kw_only=True):
    """Run one source of the project, or read one of its lookups."""

    source: str


class Train(Wish, frozen=True, kw_only=True):
    """Dataset, training, export, quantization and gates for one model of the project."""

    model: ModelName


class TrustKeys(Wish, frozen=True, kw_only=True):
    """Ask for the public halves of director, snapshot and timestamp, which a root must name; for `fresh` roles those of
    new keys, made now and used once a root names them."""

    fresh: tuple[OnlineRole, ...] = ()


class TrustInit(Wish, frozen=True, kw_only=True):
    """The first root and targets metadata (JSON texts), signed in the owner's process."""

    root: str
    targets: str


class ChangeTrust(Wish, frozen=True, kw_only=True):
    """The next root and what is signed anew with it: role -> metadata (JSON text), with signatures made in people's own
    processes. Waits until every threshold is met."""

    metadata: dict[str, str]


class Approve(Wish, frozen=True, kw_only=True):
    """A release approved by an owner: the model role's next metadata and, when it is new, the targets that delegate to
    it (role -> JSON text), signed in the owner's process. Waits until every threshold is met."""

    model: ModelName
    number: Number
    metadata: dict[str, str]


class RevokeRelease(Wish, frozen=True, kw_only=True):
    """The model role's next metadata without this release, signed and collected likewise. It never comes back."""

    model: ModelName
    number: Number
    metadata: dict[str, str]
    reason: str


class AutoKey(Wish, frozen=True, kw_only=True):
    """Ask for the public half of the key by which the core shall sign releases of a model: of a new one, unless one
    waits for signatures."""

    model: ModelName


class Automatic(Wish, frozen=True, kw_only=True):
    """Let the core sign releases of a model by itself, or end that: the model role's next metadata, signed and
    collected as an approval is."""

    model: ModelName
    on: bool
    metadata: dict[str, str]


class Override(Wish, frozen=True, kw_only=True):
    """Stage a candidate although a gate refused it. Who and why stand in its manifest and in the events for good."""

    candidate: Number
    reason: str


class Force(Wish, frozen=True, kw_only=True):
    """Roll an approved release out anew, to serve on its canary devices without a shadow's word, also where one gave a
    verdict against it. Who and why are kept with the rollout."""

    model: ModelName
    number: Number
    reason: str


class Reverse(Wish, frozen=True, kw_only=True):
    """Take every device back from a release that is on its way or has arrived; who and why are told for good."""

    model: ModelName
    number: Number
    reason: str


class SetAside(Wish, frozen=True, kw_only=True):
    """Call a device's verdict its own: the rollout neither counts it nor waits for that device any more."""

    model: ModelName
    number: Number
    device: DeviceId
    reason: str


class Label(Wish, frozen=True, kw_only=True):
    """Tell a device what its predictions really were: prediction id -> label."""

    device: DeviceId
    labels: dict[str, str]


class Question(Wish, frozen=True, kw_only=True):
    """Ask a device something once; its answer comes when it is there, and only a process with the tenant's key can read
    it."""

    device: DeviceId
    ask: Ask


class IssueToken(Wish, frozen=True, kw_only=True):
    """A single-use enrolment token for one device."""

    device: DeviceId
    minutes: Minutes = 60


class IssueSiteToken(Wish, frozen=True, kw_only=True):
    """An enrolment token for `uses` boxes of a site; with `approve` a person accepts each (`Accept`)."""

    site: SiteId
    uses: Number
    minutes: Minutes = 60
    approve: bool = False


class ImportBoxes(Wish, frozen=True, kw_only=True):
    """Boxes that are expected: serial number, name, site, labels. All of them are taken, or none."""

    boxes: tuple[Box, ...]


class Accept(Wish, frozen=True, kw_only=True):
    """Admit boxes that wait, all of them if none is named; or let a device speak again that was seen twice."""

    devices: tuple[DeviceId, ...] = ()


class Revoke(Wish, frozen=True, kw_only=True):
    """End a device's certificates and its session; it is no part of the fleet any more."""

    device: DeviceId
    reason: str


class Replace(Wish, frozen=True, kw_only=True):
    """End a device's certificates and its session; another box takes its name, and with it its models, by the token
    that is the answer."""

    device: DeviceId
    minutes: Minutes = 60


class Authority(Wish, frozen=True, kw_only=True):
    """How a change of the certificate authority stands; to begin one; to finish it, without the devices of `strand`."""

    step: Literal["look", "begin", "finish"] = "look"
    strand: tuple[DeviceId, ...] = ()


class EnrolByFolder(Wish, frozen=True, kw_only=True):
    """An enrolment request (a DSSE envelope) from a folder: it proves that it knows a token, and never says it."""

    envelope: str


class CarryIn(Wish, frozen=True, kw_only=True):
    """What a device said in a folder: one bundle, a DSSE envelope (JSON text). It is heard as on the line."""

    device: DeviceId
    bundle: str


class CarryOut(Wish, frozen=True, kw_only=True):
    """What a device shall be told in a folder, signed now, so that it has its whole life before it."""

    device: DeviceId


# --- from workers, the listener and the supervisor ---------------------------------------------------------------


class Enrol(Commit, frozen=True, kw_only=True):
    """An enrolment request as it came over HTTPS: a DSSE envelope (JSON text)."""

    envelope: str
    source: str = ""  # the address it came from


class JobProgress(Commit, frozen=True, kw_only=True):
    """A job says how far it is: `done` from 0 to 1."""

    job: Number
    stage: str
    done: float


class CommitRows(Commit, frozen=True, kw_only=True):
    """Files landed in the lake; they become facts, with the source's position, in one transaction."""

    job: Number
    landed: Landed


class CommitLookup(Commit, frozen=True, kw_only=True):
    """A table was read; it becomes a version if it says something new. `content` are its bytes (`sync.lookups`)."""

    job: Number
    name: LookupName
    content: bytes


class CommitCandidate(Commit, frozen=True, kw_only=True):
    """A training job is done: the candidate with its verdicts, accepted or not."""

    job: Number
    candidate: Candidate


class JobFailed(Commit, frozen=True, kw_only=True):
    """A job ended without a result; `hint` says what a person can do."""

    job: Number
    error: str
    hint: str = ""


class PartsFailing(Commit, frozen=True, kw_only=True):
    """What the core's supervisor cannot keep up now, all of it: part -> what is in the way, and what to do."""

    parts: dict[str, str]


class BrokerDenied(Commit, frozen=True, kw_only=True):
    """Whom the broker turned down since the supervisor said so last."""

    words: dict[DeviceId, tuple[str, Number]] = {}  # that said where they may not: the first topic, how often
    filters: dict[DeviceId, tuple[str, Number]] = {}  # that asked to hear what is others': the first filter, how often
    handshakes: dict[str, Number] = {}  # that ended before there was a session: why, how often


AnyOrder = (
    ApplyProject | Ingest | Train | TrustKeys | TrustInit | ChangeTrust | Approve | RevokeRelease | AutoKey | Automatic
    | Override | Force | Reverse | SetAside | Label | Question | IssueToken | IssueSiteToken | ImportBoxes | Accept
    | Revoke | Replace | Authority | Enrol | EnrolByFolder | CarryIn | CarryOut | JobProgress | CommitRows
    | CommitLookup | CommitCandidate | JobFailed | PartsFailing | BrokerDenied
)  # fmt: skip
