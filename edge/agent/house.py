"""What the walker holds: who this device is, its durable rooms, and the little that may be forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge import slots
from edge.agent.disk import LONGEST, Disk
from edge.artifacts import Artifacts
from edge.download import Download
from edge.journal import Journal, Quarantined
from edge.outbox import Outbox
from edge.serving import Loaded, Serving
from edge.states import Action, Deployment, Listen, Send, Unlisten
from edge.trials import Trials
from sync.link import Publish
from sync.messages import (
    EVENT,
    WHY,
    Assignment,
    DeviceEvent,
    DriftReport,
    LabelReport,
    RoadReport,
    Validated,
    WhyCard,
)
from sync.names import DeviceId, Digest, ModelName, TenantId

TEXT, FACT = 1000, 200  # characters of an event's text, and of each of its facts
CLOCK_FLOOR = 1_767_225_600.0  # 2026-01-01: before this the clock was never set; serve, do not install


@dataclass(frozen=True)
class Identity:
    """Who this device is, as enrolment left it."""

    tenant: TenantId
    device: DeviceId
    epoch: int
    root: bytes  # the first TUF root, pinned by the enrolment token
    signing_key: bytes  # PEM, the certificate's key: signs `reported`
    sealing_key: bytes  # X25519 private, raw
    key_protection: str = "none"
    certificate: str = ""  # PEM
    begins: float = 0.0  # from when the certificate holds (seconds since 1970) ...
    ends: float = math.inf  # ... and to when


@dataclass
class Renewal:
    """What is remembered of the certificate's renewal; all of it may be forgotten."""

    asked: float = -math.inf
    tried: str = ""  # the certificate that was handed over last
    told: bool = False  # that it ended


@dataclass
class House:
    """Everything of the walker. The first block survives a restart, the second is found again."""

    identity: Identity
    journal: Journal
    artifacts: Artifacts
    outbox: Outbox
    trust_folder: Path

    serving: Serving
    cpu_flags: frozenset[str]
    boot: str
    agent_version: str
    deployments: dict[ModelName, Deployment]
    assignment: Assignment | None = None
    root: bytes = b""  # the newest root this device trusts
    files: dict[str, bytes] = field(default_factory=dict)  # trust files that arrived
    index: tuple[str, ...] = ()
    downloads: dict[Digest, Download] = field(default_factory=dict)
    warm: dict[ModelName, Loaded | None] = field(default_factory=dict)  # to go back to, until commit; None: not loaded
    shadows: dict[ModelName, tuple[Loaded, Validated]] = field(default_factory=dict)  # candidates in memory
    trials: Trials = field(default_factory=Trials)
    proving: set[ModelName] = field(default_factory=set)
    blocked: dict[ModelName, float] = field(default_factory=dict)  # when to try a transient failure again
    disk: Disk = field(default_factory=Disk)
    cards: float | None = 0.0  # when why cards are put into the outbox (again); None: none waits
    link_up: bool = False
    dirty: bool = True  # `reported` is no longer true
    told: dict[ModelName, tuple[object, ...]] = field(default_factory=dict)  # progress as last reported
    actions: list[Action] = field(default_factory=list)
    bindings_changed: Callable[[], None] = lambda: None
    labelled: Callable[[ModelName, int], LabelReport | None] = lambda model, release: None
    drift: Callable[[ModelName], DriftReport | None] = lambda model: None
    road: Callable[[ModelName], RoadReport | None] = lambda model: None
    renewal: Renewal = field(default_factory=Renewal)
    csr: Callable[[], str] | None = None  # makes a certificate request (PEM) for the key this device has
    label: Callable[[str, str], str | None] = lambda prediction_id, label: None  # why it is not kept, or None

    def write(
        self, deployment: Deployment, verdict: Quarantined | None = None, card: WhyCard | None = None
    ) -> Deployment:
        """Journal first: nothing is acted on before this returns."""
        self.journal.write(deployment, verdict, card)
        self.deployments[deployment.model] = deployment
        self.dirty = True
        return deployment

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.actions.append(Send(Publish(topic, payload, qos=1, retain=retain)))

    def listen(self, *patterns: str) -> None:
        if patterns and self.link_up:
            self.actions.append(Listen(patterns))

    def unlisten(self, *patterns: str) -> None:
        if patterns and self.link_up:
            self.actions.append(Unlisten(patterns))

    def event(
        self,
        now: float,
        code: str,
        text: str,
        model: ModelName | None = None,
        severity: str = "info",
        **facts: str | int | float,
    ) -> bool:
        """Remembers something that happened, under a stable code, until the core has committed it; false if the disk
        refuses, which the outbox counts."""
        level = severity if severity in ("notice", "alarm") else "info"
        # Texts may quote what a stranger sent; a record too large for the core would hold up all behind it.
        short = {k: v[:FACT] if isinstance(v, str) else v for k, v in facts.items()}
        return self.outbox.add(EVENT, DeviceEvent(code, text[:TEXT], model, level, short), now)  # type: ignore[arg-type]

    def tell_why(self, now: float) -> None:
        """Puts every why card into the outbox that is not there yet; one may come twice after a power cut."""
        if self.cards is None or now < self.cards:
            return
        for number, card in self.journal.untold():
            if not self.outbox.add(WHY, card, now):
                self.cards = now + LONGEST
                return
            self.journal.told(number)
        self.cards = None

    def kept(self) -> set[Digest]:
        """Sealed digests that some deployment may still need."""
        keep: set[Digest] = set()
        for d in self.deployments.values():
            for slot in (d.serving, d.candidate, *d.previous[: slots.PINNED]):
                if slot is not None:
                    keep.add(slot.manifest.golden.sealed)
                    keep.update(v.blob.sealed for v in slot.manifest.variants)
        return keep | set(self.downloads)
