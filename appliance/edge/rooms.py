"""The rooms of a device beside its walker, composed from its folder: drift, predictions, trials and the road.

What is predicted goes to the ring and then to the trial (what programs ask, by way of `edge.recording`), a label to
both; what may leave the device goes from the ring to the outbox. No thread begins here.
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from appliance import clock
from appliance.edge.state import EdgeFolder
from appliance.keys import TenantKeys
from edge.agent import House, Identity, accounting
from edge.agent.news import Trust
from edge.agent.ports import Box, Evidence, Outside
from edge.artifacts import Artifacts
from edge.budget import DAY, Budget
from edge.database import obstacle
from edge.journal import Journal
from edge.kept import Kept
from edge.lookups import Lookups
from edge.outbox import Outbox
from edge.outcomes import Outcomes
from edge.performance import Counted, Performance
from edge.predictions import Predictions, Refusal
from edge.recording import Recorder
from edge.road import Road
from edge.runtime import cpu_flags
from edge.serving import Serving
from edge.states import Phase
from edge.steady import Steady
from edge.telemetry import Telemetry
from edge.trials import Trials
from sync.messages import SAMPLE, Prediction
from sync.names import ModelName
from sync.remembered import NO_BASIS, Basis, Remembered, window_of
from sync.reports import DriftReport
from sync.windows import Rows

log = logging.getLogger("falaj.edge")

WAITING = 20  # batches in the outbox, of at most 64 KiB each, beyond which none is added
CHECKPOINT = 5.0  # seconds between two checkpoints of the trials
FORGET = 600.0  # seconds between two looks at what is too old to be remembered
SLICE = 8  # predictions sealed at a stretch
BEHIND = 64  # answered windows that may wait for the other release of a trial: more are not paired, a kill costs these

Clock = Callable[[], float]
Report = Callable[[str, str], None]  # (stable code, text)
Later = Callable[[Callable[[], None]], object]  # has a call run, now or on another thread
_ON_THE_ROAD = (Phase.STEADY, Phase.SHADOW, Phase.PROBATION, Phase.LIVE_SPLIT)


def _at_once(call: Callable[[], None]) -> None:
    call()


def _straight_on() -> None:
    """Somebody waits for this: no rest."""


@dataclass
class Rooms:
    """All that is remembered of what was served."""

    telemetry: Telemetry
    predictions: Predictions
    trials: Trials
    budget: Budget
    road: Road
    recorder: Recorder
    report: Report
    later: Later  # has the pairs of trials made: a release that is slow costs whoever answers nothing
    lookups: Lookups = field(default_factory=Lookups)
    outcomes: Outcomes = field(default_factory=Outcomes)  # of splits
    elapsed: Clock = clock.elapsed
    rest: Callable[[], None] = _straight_on  # between slices of the tick's work: others want the interpreter, too
    performance: Performance = field(default_factory=lambda: Performance(dict))
    kept: float = 0.0  # when the trials were last written down
    steady: Steady = field(default_factory=Steady)
    forgot: float = -math.inf  # when the ring was last rid of what is too old, by `elapsed`
    room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(BEHIND))
    behind: bool = False  # that there was no room was reported

    def remember(self, prediction: Prediction, window: Rows, basis: Basis = NO_BASIS) -> None:
        """An answered prediction; called after the answer was given, and quick while no trial runs or `later` is."""
        self.predictions.remember(prediction, window, basis)
        self._follow(prediction, window)

    def _follow(self, prediction: Prediction, window: Rows | None) -> None:
        """Shows an answer to split and trial; only windows can be put to another release as they were."""
        if prediction.value is None:
            return
        self.outcomes.see(prediction)
        self.performance.see(prediction)
        if window is None or not self.trials.asks(prediction.model):
            return
        if self.room.acquire(blocking=False):
            self.later(partial(self._see, prediction, window))
        elif not self.behind:
            self.behind = True
            self.report("trial-behind", f"{prediction.model}: windows stay out of the evidence, a release is too slow")

    def label(self, prediction_id: str, label: str) -> Refusal | None:
        """What a prediction really was, and why it is not taken if it is not.

        A trial may wait for a label for longer than the ring remembers, and goes on where the ring's disk refuses.
        """
        told = self.predictions.hear(prediction_id, label)
        if told is Refusal.UNKNOWN_ID and self.write_down():
            told = self.predictions.hear(prediction_id, label)
        if told is Refusal.UNKNOWN_LABEL:
            return told
        refusal = told if isinstance(told, Refusal) else None
        if told is not None and not isinstance(told, Refusal):  # to a split the first word counts
            self.outcomes.learn(told.prediction, told.arrived, good=str(told.prediction.value) == label)
        taken = self.trials.label(prediction_id, label)
        return None if taken and refusal is Refusal.UNKNOWN_ID else refusal

    def watch(self, house: House) -> None:
        """A committed release is watched for drift; its baseline begins with the commit."""
        for deployment in house.deployments.values():
            if deployment.phase in (Phase.STEADY, Phase.LIVE_SPLIT) and deployment.serving is not None:
                self.telemetry.watch(deployment.serving.manifest)

    def tick(self, house: House, now: float) -> None:
        """Time has passed, on the walker's thread: what programs were answered is written down, what is too old is
        forgotten, batches that are due are handed over, detectors and trials written down.

        While the disk refuses, nothing leaves the device.
        """
        self.write_down(self.rest)
        self._forget(house, now)
        try:
            for model in house.deployments:
                if house.disk.reason or house.outbox.waiting(SAMPLE) > WAITING:
                    break
                haul(house, self.road, model, now)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            house.disk.refused(error, now)
        accounting.account(house, self.performance, self.telemetry, now, self.elapsed())
        if abs(now - self.kept) >= CHECKPOINT:
            self.kept = now
            self.rest()
            self.telemetry.write_down()
            self.rest()
            self.trials.checkpoint()
            self.outcomes.checkpoint()

    def write_down(self, rest: Callable[[], None] = _straight_on) -> int:
        """How many predictions that programs asked for went into the ring just now."""
        found = self.recorder.drain()
        self.predictions.remember_all(_paced(found, rest))
        for one in found:
            self._follow(one.prediction, window_of(one))
        return len(found)

    def _forget(self, house: House, now: float) -> None:
        """By a clock that is not set, or cannot be right, nobody can tell what is old."""
        elapsed, assignment = self.elapsed(), house.assignment
        due = elapsed - self.forgot >= FORGET
        if house.time.unset or (due and house.clock_is_off(now)):
            self.steady.stop()
            return
        run = self.steady.look(now, elapsed, vouched=assignment is not None and now <= assignment.expires)
        if due and not self.predictions.forget(now, run):
            self.forgot = elapsed

    def _see(self, prediction: Prediction, window: Rows) -> None:
        try:
            self.trials.see(prediction, window)
        finally:
            self.room.release()

    def close(self) -> None:
        """A last checkpoint of everything."""
        self.write_down()
        self.telemetry.close()
        self.trials.checkpoint()
        self.outcomes.checkpoint()
        self.predictions.close()
        self.budget.close()


def _paced(found: Sequence[Remembered], rest: Callable[[], None]) -> Iterator[Remembered]:
    """All of them, with a rest after every `SLICE`: sealing takes some time, and others want the interpreter."""
    for number, one in enumerate(found, 1):
        yield one
        if number % SLICE == 0:
            rest()


def open_rooms(
    folder: EdgeFolder,
    own: Identity,
    keys: TenantKeys,
    now: Clock,
    drifted: Callable[[ModelName, DriftReport], None],
    report: Report,
    later: Later = _at_once,
    ticks: Clock = clock.ticks,
    rest: Callable[[], None] = _straight_on,
    elapsed: Clock = clock.elapsed,
    counted: Counted = dict,
) -> Rooms:
    """The rooms of one device from its folder; `drifted` and `report` may be called from any thread. `later` takes what
    may last as long as an unproven release lets it; `ticks` and `elapsed` are in seconds since anything and never jump,
    and only `elapsed` runs on while the machine is suspended; `rest` pauses for a moment."""
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    nonces = secrets.token_bytes
    predictions = Predictions(folder.predictions, own.tenant, keys.derive("predictions"), nonces, now, report)
    budget = Budget(folder.budget, int(now() // DAY), report)
    trials = Kept(folder.trials, own.tenant, keys.derive("trials"), "trial", nonces, report)
    telemetry = Telemetry(Kept(folder.drift, own.tenant, keys.derive("drift"), "drift", nonces, report), drifted)
    lookups = Lookups(now)
    return Rooms(
        telemetry,
        predictions,
        Trials(trials, predictions.label_of, ticks, lookups),
        budget,
        Road(predictions, budget, own.tenant, own.device, report),
        Recorder(secrets.token_hex(10), now, telemetry.observe),
        report,
        later,
        lookups,
        Outcomes(Kept(folder.splits, own.tenant, keys.derive("splits"), "split", nonces, report)),
        elapsed,
        rest,
        Performance(counted),
    )


def open_house(
    folder: EdgeFolder,
    own: Identity,
    serving: Serving,
    boot: str,
    outside: Outside,
    rooms: Rooms | None = None,
    labels: frozenset[str] = frozenset(),
) -> House:
    """What one agent's walker holds, from its folder; without `rooms` nothing is remembered of what is served."""
    folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = Journal.open(folder.journal)
    house = House(
        identity=own,
        box=Box(boot, importlib.metadata.version("falaj"), cpu_flags(), labels),
        journal=journal,
        artifacts=Artifacts(folder.artifacts),
        outbox=Outbox(folder.outbox, own.epoch, boot),
        serving=serving,
        deployments=journal.deployments(),
        trust=Trust(folder.trust),
        outside=outside,
    )
    if rooms is not None:
        house.pieces.lookups = rooms.lookups
        house.evidence = Evidence(
            rooms.trials, rooms.outcomes, rooms.label, rooms.predictions.report, rooms.telemetry.report,
            rooms.road.report,
        )  # fmt: skip
    return house


def log_disk(before: str, said: str) -> str:
    """Logs once that the disk refuses (`said` is what it says, empty: it works), and once that it works again."""
    if said and not before:
        log.error("the disk refuses, nothing is installed or reported, serving goes on: %s; check the disk", said)
    elif before and not said:
        log.warning("the disk works again")
    return said


def haul(house: House, road: Road, model: ModelName, now: float) -> None:
    """Puts what may leave of one model into the outbox, then marks it.

    A crash between the two sends it twice, which the core sees by its ids; none is lost.
    """
    deployment, assignment = house.deployments[model], house.assignment
    if deployment.serving is None or deployment.phase not in _ON_THE_ROAD or assignment is None:
        return
    beside = (*deployment.previous, *(lane.slot for lane in deployment.lanes))
    before = tuple(slot.manifest for slot in beside)
    manifest = deployment.serving.manifest
    for batch in road.due(manifest, house.evidence.drift(model), assignment.tenant_key, now, before):
        if not house.outbox.add(SAMPLE, batch, now):  # it was paid for: the next one waits for the disk
            house.disk.refused(OSError("the outbox takes nothing"), now)
            return
        road.handed(batch)
