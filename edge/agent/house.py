"""What the walker holds: who this device is, its durable rooms, and the little that may be forgotten."""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge import roots, slots
from edge.agent.disk import LONGEST, Disk
from edge.agent.news import Hunt, News
from edge.agent.patience import Patience
from edge.agent.returning import CoreWord
from edge.agent.strangers import Strangers
from edge.agent.timing import Time
from edge.artifacts import Artifacts
from edge.complaints import Complaints
from edge.database import obstacle
from edge.deadlines import Deadlines, standing
from edge.download import Download
from edge.health import Growth
from edge.journal import Journal
from edge.lookups import Lookups
from edge.metering import Meter
from edge.outbox import Outbox
from edge.outcomes import Outcomes
from edge.overflow import CAPACITY
from edge.serving import Loaded, Serving
from edge.states import CLOCK_FLOOR, Action, Answered, Deployment, HeldPiece, Listen, Send, Unlisten
from edge.trials import Trials
from edge.untold import Saying
from edge.verdicts import Quarantined
from sync import roles
from sync.commands import Ask
from sync.errors import SyncError, Untrusted
from sync.link import Publish, packet_size
from sync.messages import ALARM, EVENT, Assignment, DeviceEvent, Severity
from sync.names import DeviceId, Digest, ModelName, TenantId
from sync.pieces import Piece
from sync.reports import DriftReport, LabelReport, RoadReport, Validated, WhyCard

RECENT = 100  # events that are at hand, told or not
REFUSALS, ALL_REFUSALS = 1 / 600, 1 / 60  # a second, of one code and of all, that are told of a long row of them
MOST_REFUSED = 32  # different refusals of trust files that are told
BEHIND = 86_400.0  # seconds by which a clock may be behind what was signed last, as with certificates
TEXT, FACT = 1000, 200  # characters of an event's text, and of each of its facts
HELD = "a person holds this device (the file `hold` in its folder); what serves goes on"


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


@dataclass(frozen=True)
class Turned:
    """A table or config that was refused as it was ordered, the releases that were here then, and why."""

    piece: Piece
    here: frozenset[tuple[ModelName, int]]
    reason: str


@dataclass
class House:
    """Everything of the walker. What lies in the rooms of the first block survives a restart; of all the rest, what is
    not read from them anew may be forgotten."""

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
    labels: frozenset[str] = frozenset()  # what this box is: releases may require it (`sync.manifest.all_labels`)
    assignment: Assignment | None = None
    ended: tuple[bytes, float] | None = None  # the last that came and had expired by this clock, and when it did
    root: bytes = b""  # the newest root this device trusts
    void: bytes = b""  # the order of a director that was replaced just now; the broker may still have it
    files: dict[str, bytes] = field(default_factory=dict)  # trust files that arrived
    index: tuple[str, ...] = ()
    downloads: dict[Digest, Download] = field(default_factory=dict)
    meter: Meter = field(default_factory=Meter)  # what the line may carry down
    lookups: Lookups = field(default_factory=Lookups)  # tables and config in force
    pieces: dict[str, HeldPiece] = field(default_factory=dict)  # what is on disk of each
    turned: dict[str, Turned] = field(default_factory=dict)
    gathers: set[Digest] = field(default_factory=set)  # sealed digests of those under way
    waits: Patience = field(default_factory=Patience)  # those that the disk refused
    warm: dict[ModelName, Loaded | None] = field(default_factory=dict)  # to go back to, until commit; None: not loaded
    shadows: dict[ModelName, tuple[Loaded, Validated]] = field(default_factory=dict)  # candidates in memory
    trials: Trials = field(default_factory=Trials)
    outcomes: Outcomes = field(default_factory=Outcomes)  # of splits
    paces: dict[ModelName, tuple[list[float], list[float]]] = field(default_factory=dict)  # ms, see `pacing`
    lane_paces: dict[tuple[ModelName, int], tuple[list[float], list[float]]] = field(default_factory=dict)  # of arms
    host_slow: set[ModelName] = field(default_factory=set)  # models on trial for which that was told
    proving: dict[ModelName, Digest] = field(default_factory=dict)  # what the child is at, by plaintext digest
    blocked: Patience = field(default_factory=Patience)  # models that an obstacle is in the way of
    hunts: dict[ModelName, Hunt] = field(default_factory=dict)  # for the trust files of what is assigned
    disk: Disk = field(default_factory=Disk)
    news: News = field(default_factory=News)
    complaints: Complaints = field(default_factory=lambda: Complaints(REFUSALS, ALL_REFUSALS))
    untold: float | None = 0.0  # when what the journal has to tell is put into the outbox (again); None: nothing waits
    core: CoreWord = field(default_factory=CoreWord)
    strangers: Strangers = field(default_factory=Strangers)
    link_up: bool = False
    time: Time = field(default_factory=Time)  # of a box whose clock is not set
    keeps: bool = False  # the link keeps what is said: all that waits may be said at once
    session: int | None = None  # the link's number of this session: what is asked for in it is void in the next
    limit: int = 0  # bytes of the largest packet it takes; 0: any
    unconfirmed: Callable[[], int] = lambda: 0  # messages that the link has taken and the broker has not confirmed
    dirty: bool = True  # `reported` is no longer true
    told: dict[ModelName, tuple[object, ...]] = field(default_factory=dict)  # progress as last reported
    actions: list[Action] = field(default_factory=list)
    bindings_changed: Callable[[], None] = lambda: None
    labelled: Callable[[ModelName, int], LabelReport | None] = lambda model, release: None
    drift: Callable[[ModelName], DriftReport | None] = lambda model: None
    road: Callable[[ModelName], RoadReport | None] = lambda model: None
    renewal: Renewal = field(default_factory=Renewal)
    deadlines: Deadlines = field(default_factory=lambda: Deadlines(standing))
    held: Callable[[], bool] = lambda: False  # whether a person holds this device at what it runs
    memory: Callable[[], float] = lambda: 0.0  # MiB that this process holds now ...
    before: dict[ModelName, float] = field(default_factory=dict)  # ... and held before a release on trial came in
    growth: Growth = field(default_factory=Growth)  # while arms of splits answer
    begun: float = -math.inf  # when this process began
    crashed: frozenset[Digest] = frozenset()  # artifacts that were being asked when the last process ended of a fault
    room_mb: float = math.inf  # MiB that all models together may take
    csr: Callable[[], str] | None = None  # makes a certificate request (PEM) for the key this device has
    label: Callable[[str, str], str | None] = lambda prediction_id, label: None  # why it is not kept, or None
    recent: deque[tuple[float, DeviceEvent]] = field(default_factory=lambda: deque(maxlen=RECENT))  # what happened
    asked: float = -math.inf  # when a command was last answered
    answer: Callable[[Ask, int, float], Answered | str] = lambda ask, seq, now: "nothing is remembered here"  # or why

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
            self.tell(says.ts if says is not None else deployment.since, anew=True)
        return deployment

    def clock_is_off(self, now: float) -> bool:
        """Whether this clock cannot be right: it was never set, or is well behind the last signed time. What has
        expired would seem to hold."""
        return now < max(CLOCK_FLOOR, self.journal.counter("signed_time") - BEHIND)

    def lacks_roots(self) -> bool:
        """Whether a newer root was trusted once than any that is known: the journal lost it."""
        return roots.trusted(self.root).version < self.journal.high_water().get("root", 0)

    def directors(self) -> roles.Keys:
        """Whose word counts; raises Untrusted while nobody knows whom the root that was lost had taken away."""
        if self.lacks_roots():
            raise Untrusted("the newest root that was trusted here is lost: nobody is believed before it came again")
        return roots.director_keys(self.root)

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.actions.append(Send(Publish(topic, payload, qos=1, retain=retain)))

    def fits(self, topic: str, payload: bytes) -> bool:
        """Whether the broker takes it: one packet beyond what it takes ends the session, and so the next one."""
        return not self.limit or packet_size(topic, len(payload)) <= self.limit

    def listen(self, *patterns: str) -> None:
        if patterns and self.link_up:
            self.actions.append(Listen(patterns, self.session))

    def unlisten(self, *patterns: str) -> None:
        if patterns and self.link_up:
            self.actions.append(Unlisten(patterns))

    def happened(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "info",
        **facts: str | int | float,
    ) -> Saying:  # fmt: skip
        """Something under a stable code, to be written with the change of state that it tells of."""
        # Texts may quote what a stranger sent; a record too large for the core would hold up all behind it.
        short = {k: v[:FACT] if isinstance(v, str) else v for k, v in facts.items()}
        event = DeviceEvent(code, text[:TEXT], model, severity, short)
        self.recent.append((now, event))
        return Saying(now, event)

    def event(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "info",
        **facts: str | int | float,
    ) -> bool:  # fmt: skip
        """Remembers something that happened and changed nothing in the journal, until the core has committed it; false
        if the disk refuses, which the outbox counts."""
        saying = self.happened(now, code, text, model, severity, **facts)
        return self.outbox.add(saying.kind, saying.body, now)

    def complain(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "alarm",
        **facts: str | int | float,
    ) -> None:  # fmt: skip
        """An event that whoever holds the line can cause as often as they like: told of each code a few times, then now
        and then with how many were not, and never once half of the outbox waits. So it pushes out nothing else."""
        room = self.outbox.waiting(EVENT) + self.outbox.waiting(ALARM) < CAPACITY // 2
        missed = self.complaints.admit(code, now, room=room)
        if missed is not None:
            more = {"suppressed": missed} if missed else {}
            self.event(now, code, text, model, severity, **facts, **more)

    def refuse_files(self, error: SyncError, now: float, model: ModelName | None = None, **facts: str) -> None:
        """Trust files that do not hold: told once, however often somebody hands them out, until some hold again."""
        if self._is_news(error):
            self.complain(now, f"refused-{error.code}", str(error), model, "alarm", **facts)

    def files_expired(self, error: SyncError, now: float, model: ModelName | None = None) -> None:
        """Trust files whose time is over: no verdict, but somebody may keep newer ones back; told once as well."""
        if self._is_news(error):
            self.complain(now, "trust-expired", str(error), model)

    def put_off(self, model: ModelName, code: str, text: str, now: float, severity: Severity = "notice") -> None:
        """An obstacle that is no fault of the release: tried again, ever later; told when it is another one."""
        if self.blocked.put_off(model, code, now):
            self.event(now, code, text, model, severity)

    def _is_news(self, error: SyncError) -> bool:
        if str(error) in self.news.refused or len(self.news.refused) >= MOST_REFUSED:
            return False
        self.news.refused.add(str(error))
        return True

    def tell(self, now: float, *, anew: bool = False) -> None:
        """Puts what the journal keeps for the core into the outbox, in its order; `anew`: there is more than before. A
        disk that refuses is no reason not to act on what was written: it is told later."""
        if not anew and (self.untold is None or now < self.untold):
            return
        self.untold = now + LONGEST
        try:
            for saying in self.journal.untold():
                if not self.outbox.move(saying):
                    return
                self.journal.told(saying.id)
            self._tell_lost(now)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return
        self.untold = None

    def _tell_lost(self, now: float) -> None:
        """A cut between event and counter may tell the same ones twice, never not at all."""
        lost = self.journal.counter("untold_lost")
        text = f"the outbox took nothing for so long that {lost} events and why cards were too many to keep: see `why`"
        if lost and self.event(now, "untold-lost", text, severity="alarm", lost=lost):
            self.journal.set_counter("untold_lost", 0)

    def kept(self) -> set[Digest]:
        """Sealed digests that some deployment may still need."""
        keep: set[Digest] = set()
        for d in self.deployments.values():
            arms = (lane.slot for lane in d.lanes if not lane.fallen)
            for slot in (d.serving, d.candidate, *d.previous[: slots.PINNED], *arms):
                if slot is not None:
                    keep.add(slot.manifest.golden.sealed)
                    keep.update(v.blob.sealed for v in slot.manifest.variants)
        pieces = (piece for held in self.pieces.values() for piece in (held.current, held.previous))
        keep.update(piece.blob.sealed for piece in pieces if piece is not None)
        keep.update(turned.piece.blob.sealed for turned in self.turned.values())
        return keep | set(self.downloads)
