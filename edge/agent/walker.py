"""The walker: start, handle, tick. Level-triggered: every verb ends in the same walk over all models.

Here is the one border to a disk that refuses (`edge.agent.disk`): the verb ends where a write raised, what had come is
kept and taken in when the disk works, and nobody hears of anything that could not be journalled. Meanwhile nothing on
trial answers where there is a release before it: a verdict could not be kept either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial

from edge import roots
from edge.agent import gathering, growing, intake, renewing, reporting, resuming, revoking, steps, trusting
from edge.agent.house import House
from edge.agent.reporting import Reporter
from edge.aside import FOLLOWS
from edge.database import obstacle
from edge.states import Action, Deployment, Drifted, LinkChanged, Phase, Proved
from sync import codec, topics
from sync.errors import SyncError
from sync.link import Message
from sync.names import ModelName
from sync.reports import DriftReport

STEP = 60.0  # seconds; a clock that goes back further was set
ROUNDS = 64  # steps one model may take in one walk; more is a loop between two phases

Happened = Message | Proved | LinkChanged | Drifted


class Agent:
    """The agent of one device; one thread calls it, and carries out what it returns."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._reporter = Reporter()
        self._begun = False
        self._unresumed = list(house.deployments)  # found in the journal, and not taken up yet
        self._uncounted = set(house.deployments)  # ... with this start not counted yet
        self._waiting: dict[tuple[str, str], Happened] = {}  # what the disk did not let in, the newest of each kind
        self._overview: dict[str, object] = {}
        self._stopped = False  # somebody asked the process before to end
        self._latest = float("-inf")  # time of the walk before

    def start(self, now: float) -> list[Action]:
        """Serves again what served before, verified anew; resumes what was under way."""
        house = self.house
        house.trust.root = house.trust.root or house.identity.root
        self._attempt(lambda: house.time.learn(float(house.journal.counter("time")), now), now)
        house.bench.begun = house.time.at(now)
        return self._walk(house.bench.begun)

    def handle(self, happened: Happened, now: float) -> list[Action]:
        """One message, job result or change of the link."""
        key, now = _key(happened), self.house.time.at(now)
        self._waiting.pop(key, None)
        if not self._attempt(partial(self._take, happened, now), now):
            self._waiting[key] = happened
        return self._walk(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: soaks end, stalls show, records are sent again."""
        return self._walk(self.house.time.at(now))

    def stop(self, now: float) -> None:
        """The end that was asked for: the start after it says nothing against what is on trial."""
        now = self.house.time.at(now)
        self._attempt(lambda: self.house.journal.set_counter("stopped", 1), now)

    def overview(self) -> dict[str, object]:
        """What people on this device are shown (`/v1/status`); where the disk refuses, what it showed last."""
        disk = self.house.disk.reason
        try:
            self._overview = reporting.overview(self.house)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            disk = disk or str(error)
        line = codec.builtins(self.house.line.meter.report(self._latest))
        return {**self._overview, "disk": disk or "works", "line": line}

    def _attempt(self, work: Callable[[], object], now: float) -> bool:
        """Whether `work` came to its end; a disk that refuses ends it, anything else is a programmer's mistake."""
        try:
            work()
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            self.house.disk.refused(error, now)
            return False
        return True

    def _walk(self, now: float) -> list[Action]:
        house = self.house
        if now < self._latest - STEP:
            self._set_back()
        self._latest = now
        if not house.disk.waits(now) and not self._attempt(partial(self._move, now), now):
            self._get_by(now)
        # Each was journalled before it was asked for: a write that failed takes back nothing of what came before it.
        actions, house.actions = house.actions, []
        return actions

    def _set_back(self) -> None:
        """The clock was set back: nothing waits for a time that is far off now, and an order that seemed to have
        expired is asked for again."""
        house = self.house
        house.blocked.clear()
        house.pieces.waits.clear()
        house.trust.look_anew()
        house.events.hurry()
        house.listen(topics.desired(house.identity.tenant, house.identity.device))

    def _get_by(self, now: float) -> None:
        """The disk refuses: whoever is known to be good answers, until what is under way can go on."""
        for model, d in self.house.deployments.items():
            if d.phase is Phase.PROBATION and model not in self._unresumed:
                self._unresumed.append(model)
        for model in self._unresumed:
            self._attempt(partial(resuming.meanwhile, self.house, model, now), now)

    def _move(self, now: float) -> None:
        """All there is to do now, what an obstacle held up first."""
        house = self.house
        refused = bool(house.disk.reason)
        if refused:
            house.journal.prove()  # that nothing needed a write would say nothing
        self._catch_up(now)
        intake.look_again(house, now)
        for model in house.assignment.models if house.assignment else ():
            if model not in house.deployments:
                house.write(Deployment(model, since=now))
        revoking.look_after(house, now)
        growing.look(house, now)
        for model in list(house.deployments):
            if model in self._unresumed and resuming.waits(house, house.deployments[model]):
                continue
            for _ in range(ROUNDS):
                if not steps.advance(house, house.deployments[model], now):
                    break
            else:
                raise RuntimeError(f"{model} moved {ROUNDS} times at once: {house.deployments[model].phase}")
        gathering.gather(house, now)
        renewing.look_after(house, now)
        house.events.hand_over(now)
        self._reporter.tell(house, now)
        if refused:
            self._recovered(now)

    def _catch_up(self, now: float) -> None:
        """The beginning, once; then what came while the disk refused, and models that could not resume."""
        if not self._begun:
            self._begin(now)
            self._begun = True
        for key, happened in list(self._waiting.items()):
            self._take(happened, now)
            del self._waiting[key]
        for model in self._unresumed.copy():
            if self.house.blocked.holds(resuming.place(model), now):
                continue
            if model in self._uncounted:
                resuming.count(self.house, model, now, stopped=self._stopped)
                self._uncounted.discard(model)
            if resuming.resume(self.house, model, now):
                self._unresumed.remove(model)

    def _begin(self, now: float) -> None:
        house = self.house
        house.journal.settle()
        house.outbox.settle()
        self._stopped = bool(house.journal.counter("stopped"))
        if self._stopped:
            house.journal.set_counter("stopped", 0)
        house.trust.root = trusting.known_root(house)
        self._tell_aside(now)
        envelope = house.journal.assignment()
        if house.journal.put_aside is not None:
            text = f"the journal was unreadable and put aside as {house.journal.put_aside.name}"
            house.events.report(now, "journal-unreadable", text, severity="alarm")
        if house.outbox.put_aside is not None:
            text = f"the outbox was unreadable and put aside as {house.outbox.put_aside.name}: what it held is not told"
            house.events.report(now, "outbox-unreadable", text, severity="alarm")
        if envelope is not None:
            try:
                house.assignment = intake.read_assignment(house, envelope)
                house.outbox.alarms_apart = house.assignment.alarms
            except SyncError as error:
                house.events.report(now, f"refused-{error.code}", f"stored assignment: {error}", severity="alarm")
        gathering.resume(house, now)

    def _tell_aside(self, now: float) -> None:
        """Tells once, durably, which rows of the journal could not be read."""
        house = self.house
        for lost in house.journal.aside():
            text = f"{lost.place} {lost.name} of the journal cannot be read and was put aside in it: {lost.reason}"
            text = f"{text}; {FOLLOWS.get(lost.place, 'it counts no more')}"
            says = house.events.happened(now, "journal-row-unreadable", text, lost.model, "alarm", table=lost.place)
            house.journal.tell_aside(lost.id, says)

    def _recovered(self, now: float) -> None:
        """Tells once, when all that had waited is done, that the disk refused. The order is asked for again: of those
        that came meanwhile the last is kept, and a broker may have said an older one again after the newest."""
        disk, identity = self.house.disk, self.house.identity
        self.house.listen(topics.desired(identity.tenant, identity.device))
        text = f"the disk refused for {max(0.0, now - disk.since):.0f} s: {disk.reason}; what had waited is done"
        if self.house.events.report(now, "disk-works-again", text, severity="alarm"):
            disk.works()
        else:
            disk.refused(OSError("the outbox takes nothing"), now)

    def _take(self, happened: Happened, now: float) -> None:
        house = self.house
        match happened:
            case Message():
                intake.take(house, happened, now)
            case Proved(model, artifact, outcome):
                if house.bench.proving.get(model) == artifact:  # also when nobody waits for it any more
                    del house.bench.proving[model]
                deployment = house.deployments.get(model)
                candidate = deployment.candidate if deployment else None
                if deployment and candidate and candidate.release.artifact == artifact:
                    steps.take_proof(house, deployment, outcome, now)
            case LinkChanged():
                self._link(happened, now)
            case Drifted(model, report):
                self._drifted(model, report, now)

    def _link(self, link: LinkChanged, now: float) -> None:
        house = self.house
        house.line.changed(link)
        if link.refused:
            house.line.strangers.met(link.refused, now)
        if not link.up:
            return
        identity = house.identity
        house.listen(
            *topics.device_subscriptions(identity.tenant, identity.device),
            topics.trust(identity.tenant, roots.next_root(house.trust.root)),
        )
        for download in house.downloads.values():  # the session may be new: ask again for what is under way
            download.asked.clear()
        house.trust.news.asked.clear()
        self._tell_strangers(now)
        self._reporter.session_opened(house, now)

    def _tell_strangers(self, now: float) -> None:
        """That somebody stood in the broker's place; the first link after it carries the word."""
        met = self.house.line.strangers
        if not met.times:
            return
        text = f"what answered in the broker's place was turned away {met.times} times and told nothing: {met.why}"
        if self.house.events.report(now, "broker-refused", text, severity="alarm", times=met.times, since=met.since):
            met.told()

    def _drifted(self, model: ModelName, report: DriftReport, now: float) -> None:
        """Drift alarms and asks for retraining; it never rolls back: the release before would see the same inputs."""
        text = f"the inputs have changed since the commit: {', '.join(report.streams)}"
        facts = {"windows": report.windows, "statistic": report.statistic, "since": report.since or 0.0}
        self.house.events.report(now, "drift-alarm", text, model, "alarm", **facts)
        self.house.dirty = True


def _key(happened: Happened) -> tuple[str, str]:
    """What the newest of makes the ones before it void."""
    match happened:
        case Message():
            return "message", happened.topic
        case Proved(model) | Drifted(model):
            return type(happened).__name__, str(model)
        case LinkChanged():
            return "link", ""
