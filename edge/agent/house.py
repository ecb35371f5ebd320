"""What the walker holds: who this device is, its durable rooms, and the little that may be forgotten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge.agent.bench import Bench
from edge.agent.disk import Disk
from edge.agent.events import Events
from edge.agent.line import Line
from edge.agent.news import Trust
from edge.agent.patience import Patience
from edge.agent.pieces import Pieces
from edge.agent.ports import Box, Evidence, Guarded, Outside
from edge.agent.returning import CoreWord
from edge.agent.timing import Time
from edge.artifacts import Artifacts
from edge.download import Download
from edge.journal import Journal
from edge.outbox import Outbox
from edge.serving import Serving
from edge.states import CLOCK_FLOOR, Action, Deployment, Listen, Send, Unlisten
from edge.untold import Saying
from edge.verdicts import Quarantined
from sync.link import Publish
from sync.messages import Assignment, Severity
from sync.names import DeviceId, Digest, ModelName, TenantId
from sync.reports import WhyCard

BEHIND = 86_400.0  # seconds by which a clock may be behind what was signed last, as with certificates


@dataclass(frozen=True)
class Identity:
    """Who this device is, as enrolment left it."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    root: bytes  # the first TUF root, pinned by the enrolment token
    signing_key: bytes = field(repr=False)  # PEM, the certificate's key: signs `reported`
    sealing_key: bytes = field(repr=False)  # X25519 private, raw
    key_protection: str = "none"
    certificate: str = ""  # PEM
    fingerprint: str = ""  # of it: SHA-256 of its DER form, hex
    authorities: tuple[str, ...] = ()  # whom it believes to be the broker, PEM
    reports_key: str = ""  # X25519 public key (base64) as enrolment gave it; an assignment's is newer
    begins: float = 0.0  # from when the certificate holds (seconds since 1970) ...
    ends: float = math.inf  # ... and to when


@dataclass
class Renewal:
    """What is remembered of the certificate's renewal; all of it may be forgotten."""

    asked: float = -math.inf
    tried: tuple[str, tuple[str, ...]] = ("", ())  # the certificate and authorities that were handed over last
    told: bool = False  # that it ended
    put_off: float = -math.inf  # when the disk refused the one that was handed over last


@dataclass
class House:
    """Everything of the walker. `journal`, `artifacts` and `outbox` survive a restart; of all the rest, what is not
    read from them anew may be forgotten."""

    identity: Identity
    box: Box
    journal: Journal
    artifacts: Artifacts
    outbox: Outbox
    serving: Serving
    deployments: dict[ModelName, Deployment]
    trust: Trust
    assignment: Assignment | None = None

    # what comes, and what is under way
    line: Line = field(default_factory=Line)
    core: CoreWord = field(default_factory=CoreWord)
    downloads: dict[Digest, Download] = field(default_factory=dict)
    pieces: Pieces = field(default_factory=Pieces)
    bench: Bench = field(default_factory=Bench)
    blocked: Patience = field(default_factory=Patience)  # models that an obstacle is in the way of
    renewal: Renewal = field(default_factory=Renewal)
    time: Time = field(default_factory=Time)  # of a box whose clock is not set
    disk: Disk = field(default_factory=Disk)

    # what the process hands it
    evidence: Evidence = field(default_factory=Evidence)
    guard: Guarded = field(default_factory=Guarded)
    outside: Outside = field(default_factory=Outside)

    # what goes out
    events: Events = field(init=False)
    dirty: bool = True  # `reported` is no longer true
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.events = Events(self.journal, self.outbox)

    def write(
        self,
        deployment: Deployment,
        verdict: Quarantined | None = None,
        card: WhyCard | None = None,
        says: Saying | None = None,
    ) -> Deployment:
        """Journal first: nothing is acted on before this returns. What it `says` no power cut takes away."""
        self.journal.write(deployment, verdict, card, says)
        self.deployments[deployment.model] = deployment
        self.dirty = True
        if card is not None or says is not None:
            self.events.hand_over(says.ts if says is not None else deployment.since, anew=True)
        return deployment

    def clock_is_off(self, now: float) -> bool:
        """Whether this clock cannot be right: it was never set, or is well behind the last signed time. What has
        expired would seem to hold."""
        return now < max(CLOCK_FLOOR, self.journal.counter("signed_time") - BEHIND)

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.actions.append(Send(Publish(topic, payload, qos=1, retain=retain)))

    def listen(self, *patterns: str) -> None:
        if patterns and self.line.up:
            self.actions.append(Listen(patterns, self.line.session))

    def unlisten(self, *patterns: str) -> None:
        if patterns and self.line.up:
            self.actions.append(Unlisten(patterns))

    def put_off(self, model: ModelName, code: str, text: str, now: float, severity: Severity = "notice") -> None:
        """An obstacle that is no fault of the release: tried again, ever later; told when it is another one."""
        if self.blocked.put_off(model, code, now):
            self.events.report(now, code, text, model, severity)
