"""One device of the small world of `tests.edge.world`: a folder and an identity that outlive its agents, a loopback
uplink, and what can be seen of it from outside. Power is cut by dropping the agent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes

import numpy as np

from edge import proving, runtime
from edge.agent import Agent, House, Identity
from edge.agent.news import Trust
from edge.agent.ports import Box, Evidence, Guarded
from edge.answers import conclude
from edge.artifacts import Artifacts
from edge.journal import Journal
from edge.kept import Kept
from edge.outbox import Outbox
from edge.outcomes import Outcomes
from edge.serving import Answer, Serving
from edge.states import Action, Deployment, Failure, LinkChanged, Listen, Phase, Proof, Prove, Proved, Send, Unlisten
from edge.trials import Trials
from sync import codec, roles, topics
from sync.link import Publish
from sync.loopback import LoopbackLink
from sync.messages import ALARM, EVENT, REPORTED_TYPE, WHY, Ack, DeviceEvent, Prediction, Record, Reported
from sync.names import Digest
from sync.reports import WhyCard
from tests.edge.world import CLASSES, DEVICE, EPOCH, MODEL, NOW, TENANT, Core, Shipped, new_identity


def honest_prover(action: Prove) -> Proof | Failure:
    """The real measurement and verdict on outputs, in this process; time and memory as this world has them: none."""
    proof = proving.measure(action.request, lambda: 0.0, lambda: 0.0)
    return Proof(proof.passed, proof.worst, 1.0, 1.0, proof.detail)


@dataclass
class Device:
    """One device: a folder, an identity and, while it is switched on, an agent with its uplink."""

    core: Core
    folder: Path
    identity: Identity
    now: float = NOW
    prover: Callable[[Prove], Proof | Failure | None] = honest_prover
    journal_kind: Callable[[Path], Journal] = Journal.open
    outbox_kind: Callable[[Path, int, str], Outbox] = Outbox
    artifacts_kind: Callable[[Path], Artifacts] = Artifacts
    flags: frozenset[str] = frozenset()
    held: bool = False  # a person holds it at what it runs
    boots: int = 0
    jobs: list[Prove] = field(default_factory=list)
    felt: int = 0  # windows so far: their event time
    complaints: list[str] = field(default_factory=list)
    clock: Callable[[], float] | None = None  # times answers, where it is not `spent`
    spent: float = 0.0  # seconds that answers took; a test that wants slow ones says so
    found: frozenset[Digest] = frozenset()  # artifacts that crashed the last process

    def boot(self, *, link: bool = True) -> Device:
        """A new agent on the old folder; `link`: its uplink comes up too."""
        self.boots += 1
        boot = f"boot-{self.boots}"
        journal = self.journal_kind(self.folder / "journal.db")
        self.house = House(
            identity=self.identity, journal=journal, artifacts=self.artifacts_kind(self.folder / "artifacts"),
            outbox=self.outbox_kind(self.folder / "outbox.db", EPOCH, boot), trust=Trust(self.folder / "trust"),
            serving=Serving(clock=self.clock or (lambda: self.spent)), box=Box(boot, "0", self.flags),
            deployments=journal.deployments(),
            evidence=Evidence(
                Trials(Kept(self.folder / "trials", TENANT, bytes(32), "trial", token_bytes, self._complain)),
                Outcomes(Kept(self.folder / "splits", TENANT, bytes(32), "split", token_bytes, self._complain)),
            ),
            guard=Guarded(crashed=self.found, held=lambda: self.held),
        )  # fmt: skip
        self.agent = Agent(self.house)
        self.jobs.clear()
        self.link: LoopbackLink = self.core.hub.connect(DEVICE)
        self.carry_out(self.agent.start(self.now))
        if link:
            self.connect()
        return self

    def connect(self) -> None:
        self.link = self.core.hub.connect(DEVICE)
        self.link.start(
            lambda message: self.carry_out(self.agent.handle(message, self.now)),
            lambda up, reason: self.carry_out(self.agent.handle(LinkChanged(up), self.now)),
        )

    def cut_power(self) -> None:
        """The agent is gone in the middle of whatever it did; only the folder stays."""
        self.core.hub._clients.pop(DEVICE, None)
        self.core.hub._queue.clear()
        self.house.journal.close()
        self.house.outbox.close()

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.link.publish(message)
                case Listen():
                    self.listen(action)
                case Unlisten(patterns):
                    self.link.unsubscribe(*patterns)
                case Prove():
                    self.jobs.append(action)

    def listen(self, action: Listen) -> None:
        self.link.subscribe(*action.patterns)

    def settle(self, seconds: int = 3, *, ask: int | None = None) -> Device:
        """Lets everything under way come to an end; `ask` is asked of what serves, each second."""
        for _ in range(seconds):
            self.core.hub.run()
            while self.jobs:
                job = self.jobs.pop(0)
                outcome = self.prover(job)
                if outcome is not None:
                    self.carry_out(self.agent.handle(Proved(job.model, job.artifact, outcome), self.now))
                self.core.hub.run()
            if ask is not None and self.house.serving.incumbent(MODEL) is not None:
                self.ask(ask)
            self.now += 1.0
            self.carry_out(self.agent.tick(self.now))
        self.core.hub.run()
        return self

    def commit(self, shipped: Shipped, seconds: int = 7) -> Device:
        """Is assigned a release, and serves it when its trial is over: where most stories begin."""
        self.core.assign(shipped, self.identity)
        self.settle(seconds, ask=0)
        assert committed(self, shipped.number)
        return self

    def ask(self, index: int = 0) -> Answer | None:
        """One question; None where the model fails to answer it."""
        try:
            name = self.house.serving.loaded(MODEL).session.inputs[0].name
            asked = np.full((1, 1, 1), index, np.float32) if name == "window" else np.array([index], np.int64)
            return self.house.serving.predict(MODEL, {name: asked})
        except runtime.ModelError:
            return None

    def feel(self, index: int = 0, label: str | None = None, entity: str = "w1") -> Prediction | None:
        """One window of a stream, answered, paired and labelled as the local side does it; None without an answer."""
        answer = self.ask(index)
        self.felt += 1
        if answer is None:
            return None
        value, _ = conclude(answer.outputs, CLASSES)
        number, ts = f"{entity}-{self.felt}", float(self.felt)
        said = Prediction(number, MODEL, ts, "ok", value, release=answer.release.number, entity=entity)
        self.house.evidence.trials.see(said, np.full((1, 1), index, np.float32))
        if label is not None:
            self.house.evidence.trials.label(number, label)
        return said

    def _complain(self, code: str, text: str) -> None:
        self.complaints.append(code)

    # --- what is seen from outside ---

    @property
    def state(self) -> Deployment:
        return self.house.deployments[MODEL]

    @property
    def answering(self) -> int | None:
        """The number of the release that answers, as its own answer tells; None if nothing does."""
        answer = self.ask()
        return math.floor(float(answer.outputs["y"][0])) if answer else None

    def codes(self) -> list[str]:
        """The codes of all events since the folder was made, oldest first."""
        return [event.code for event in self.events()]

    def events(self) -> list[DeviceEvent]:
        query = "SELECT document FROM record WHERE epoch = ? AND kind IN (?, ?) ORDER BY rowid"
        found = self.house.outbox._db.execute(query, (EPOCH, ALARM, EVENT)).fetchall()
        return [codec.decode(DeviceEvent, bytes(codec.decode(Record, document).body)) for (document,) in found]

    def cards(self) -> list[WhyCard]:
        """The why cards in the outbox, oldest first."""
        pending = self.house.outbox.pending(10_000)
        bodies = [bytes(codec.decode(Record, document).body) for kind, _, document in pending if kind == WHY]
        return [codec.decode(WhyCard, body) for body in bodies]

    def reported(self) -> Reported:
        """The newest report on the broker, its signature checked."""
        envelope = self.core.hub.retained[topics.reported(TENANT, DEVICE)]
        return roles.verify(envelope, REPORTED_TYPE, Reported, [roles.signer(self.identity.signing_key).public_key])

    def acknowledge(self, n: int) -> None:
        """Of events, up to `n`, or of all there are."""
        ack = codec.encode(Ack(EPOCH, min(n, self.house.outbox.last(EVENT))))
        self.core.link.publish(Publish(f"{topics.tenant_root(TENANT)}/d/{DEVICE}/ack/event", ack))
        self.core.hub.run()


def new_device(core: Core, folder: Path) -> Device:
    folder.mkdir(parents=True, exist_ok=True)
    return Device(core, folder, new_identity(core.root))


def serving_device(core: Core, folder: Path) -> Device:
    """Release 1 is committed and answers; the events so far are acknowledged."""
    device = new_device(core, folder).boot().commit(core.ship(1))
    device.acknowledge(999)
    return device


def committed(device: Device, number: int) -> bool:
    """Whether this release passed its trial and answers."""
    state = device.state
    return (
        state.phase is Phase.STEADY
        and state.serving is not None
        and state.serving.release.number == number
        and device.answering == number
    )
