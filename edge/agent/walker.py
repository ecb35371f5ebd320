"""The walker: start, handle, tick. Level-triggered: every verb ends in the same walk over all models."""

from __future__ import annotations

from edge import health, runtime, slots
from edge.agent import intake, loading, steps
from edge.agent.house import House
from edge.agent.reporting import Reporter
from edge.lifecycle import AT_REST
from edge.states import (
    Action,
    Deployment,
    Drifted,
    Event,
    Failure,
    FailureClass,
    LinkChanged,
    Phase,
    Proved,
)
from sync import topics
from sync.errors import SyncError
from sync.link import Message
from sync.messages import DriftReport
from sync.names import ModelName

ROUNDS = 64  # steps one model may take in one walk; more is a loop between two phases


class Agent:
    """The agent of one device; one thread calls it, and carries out what it returns."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._reporter = Reporter()

    def start(self, now: float) -> list[Action]:
        """Serves again what served before, verified anew; resumes what was under way."""
        house = self.house
        house.root = house.root or house.identity.root
        if house.journal.put_aside is not None:
            text = f"the journal was unreadable and put aside as {house.journal.put_aside.name}"
            house.event(now, "journal-unreadable", text, severity="alarm")
        if house.outbox.put_aside is not None:
            text = f"the outbox was unreadable and put aside as {house.outbox.put_aside.name}: what it held is not told"
            house.event(now, "outbox-unreadable", text, severity="alarm")
        envelope = house.journal.assignment()
        if envelope is not None:
            try:
                house.assignment = intake.read_assignment(house, envelope)
            except SyncError as error:
                house.event(now, f"refused-{error.code}", f"stored assignment: {error}", severity="alarm")
        for deployment in list(house.deployments.values()):
            self._resume(deployment, now)
        return self._walk(now)

    def handle(self, happened: Message | Proved | LinkChanged | Drifted, now: float) -> list[Action]:
        """One message, job result or change of the link."""
        house = self.house
        match happened:
            case Message():
                intake.take(house, happened, now)
            case Proved(model, artifact, outcome):
                deployment = house.deployments.get(model)
                candidate = deployment.candidate if deployment else None
                if deployment and candidate and candidate.release.artifact == artifact:
                    steps.take_proof(house, deployment, outcome, now)
            case LinkChanged(up):
                self._link(up, now)
            case Drifted(model, report):
                self._drifted(model, report, now)
        return self._walk(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: soaks end, stalls show, records are sent again."""
        return self._walk(now)

    def _link(self, up: bool, now: float) -> None:
        house = self.house
        house.link_up = up
        if not up:
            return
        identity = house.identity
        house.listen(*topics.device_subscriptions(identity.tenant, identity.device))
        for download in house.downloads.values():  # the session may be new: ask again for what is under way
            download.asked.clear()
        self._reporter.session_opened(house, now)

    def _drifted(self, model: ModelName, report: DriftReport, now: float) -> None:
        """Drift alarms and asks for retraining; it never rolls back: the release before would see the same inputs."""
        text = f"the inputs have changed since the commit: {', '.join(report.streams)}"
        facts = {"windows": report.windows, "statistic": report.statistic, "since": report.since or 0.0}
        self.house.event(now, "drift-alarm", text, model, "alarm", **facts)
        self.house.dirty = True

    def _resume(self, d: Deployment, now: float) -> None:
        """The resume rule of the phase, and the load of whoever answers."""
        house = self.house
        d = house.write(slots.resumed(d)) if d.phase not in AT_REST else d
        looping = d.phase is Phase.PROBATION and health.looping(d.starts, steps.gates_of(d))
        if looping:
            failure = Failure(FailureClass.VERDICT, "crash-loop", looping)
            steps.give_up(house, d, Event.DEGRADED, looping, now, failure)
            return
        while d.serving is not None and d.phase is not Phase.REVERTING:
            try:
                loaded, validated = loading.load(house, d.serving, now)
            except (SyncError, runtime.ModelError) as error:
                d = self._cannot_serve(d, error, now)
                continue
            house.serving.put(d.model, loaded)
            house.write(slots.revalidated(d, validated))
            house.bindings_changed()
            return

    def _cannot_serve(self, d: Deployment, error: SyncError | runtime.ModelError, now: float) -> Deployment:
        """The release that answered before does not load any more: the last good one must."""
        house = self.house
        house.event(now, "load-failed", str(error), d.model, "alarm")
        if d.phase in (Phase.PROBATION, Phase.STEADY):
            steps.give_up(house, d, Event.DEGRADED, str(error), now, loading.failure(error))
            return house.deployments[d.model]
        return house.write(slots.drop_previous(d))  # a candidate is under way; what is behind it must answer meanwhile

    def _walk(self, now: float) -> list[Action]:
        house = self.house
        for model in house.assignment.models if house.assignment else ():
            if model not in house.deployments:
                house.write(Deployment(model, since=now))
        for model in list(house.deployments):
            for _ in range(ROUNDS):
                if not steps.advance(house, house.deployments[model], now):
                    break
            else:
                raise RuntimeError(f"{model} moved {ROUNDS} times at once: {house.deployments[model].phase}")
        self._reporter.tell(house, now)
        actions, house.actions = house.actions, []
        return actions
