"""Two releases on the same inputs of this device: the one that serves answers, the other is asked unheard.

Whichever of the two gave the answer, the other one runs on the same window afterwards, and `edge.pairing` keeps the
books. They lie sealed on disk (`edge.kept`), written with the pair that ends a block, every `KEEP_EVERY` pairs and at
each checkpoint, together with the end of each entity's last counted window. A kill costs at most the pairs since then;
none counts twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from edge.answers import conclude
from edge.kept import Kept
from edge.lookups import Lookups
from edge.pairing import About, Books, Pair, Tally, fresh
from edge.predictions import draw
from edge.serving import BadInput, Loaded, ModelError, NotFinite, run
from edge.states import Health
from sync.errors import SyncError
from sync.evidence import MAX_MARGIN, Counters, Decision, decide, log_harm, log_safe
from sync.messages import Gates, Prediction
from sync.names import ModelName
from sync.reports import TrialReport
from sync.sketch import pack, unpack
from sync.windows import Rows

KEEP_EVERY = 20  # pairs or labels between two checkpoints
SPARE = 1.0  # seconds of a core that a shadow may take at once, after it took none for a while
LATE = 30.0  # seconds after which an answer that a candidate still owes counts as failed

Known = Callable[[str], str | None]  # prediction id -> its label


def _unknown(prediction_id: str) -> str | None:
    """Nobody remembers labels."""
    return None


def _stopped() -> float:
    """A clock that stands: nothing is late."""
    return 0.0


@dataclass
class _Trial:
    """One open trial, in memory."""

    new: Loaded
    old: Loaded
    margin: float
    tally: Tally
    health: Health = field(default_factory=Health)
    asked: float | None = None  # when the candidate was asked in shadow, while it owes the answer
    changes: int = 0  # since the last checkpoint
    said: set[str] = field(default_factory=set)
    share: float = 1.0  # of one core that asking the candidate may take; 1: any
    spare: float = SPARE  # seconds of a core that it has left ...
    filled: float = 0.0  # ... as of then


class Trials:
    """The trials of one device, one a model. Thread-safe; nothing that goes wrong here reaches serving.

    Without `kept` a trial does not outlive its process, and nothing is reported. `known` is the label that was already
    given to a prediction, None without one: what a kill took from the books is asked for again. It must not raise.
    `clock` is in seconds since anything; it tells a candidate that never answers. `lookups` fill the graph inputs that
    are not windows.
    """

    def __init__(
        self,
        kept: Kept | None = None,
        known: Known = _unknown,
        clock: Callable[[], float] = _stopped,
        lookups: Lookups | None = None,
    ) -> None:
        self._kept, self._known, self._clock = kept, known, clock
        self._lookups = lookups or Lookups()
        self._trials: dict[ModelName, _Trial] = {}
        self._lock = threading.Lock()
        self._unsaved: dict[ModelName, Books] = {}
        self._saving = threading.Lock()  # taken before the other one, never while that is held: a disk takes its time

    def open(self, model: ModelName, new: Loaded, old: Loaded, gates: Gates, retry: int) -> None:
        """Compares `new` with `old` from now on; a kept trial of the same two releases, retry generation, metric and
        block length is continued, so this may be called again and again.

        A margin or block length for which there is no evidence (`sync.evidence`) is taken as the nearest that has.
        Numbers are neither right nor equal as names are: of releases without classes no block is counted.
        """
        manifests = str(new.slot.release.manifest), str(old.slot.release.manifest)
        named = bool(new.slot.manifest.classes and old.slot.manifest.classes)
        about = About(*manifests, retry, gates.evidence if named else "guardrails", max(1, gates.block))
        margin = min(max(gates.margin, 0.0), MAX_MARGIN)
        with self._lock:
            trial = self._trials.get(model)
            if trial is None or trial.tally.about != about:
                trial = self._trials[model] = _Trial(new, old, margin, Tally(self._restore(model, about)))
                self._catch_up(model, trial, trial.tally.unlabelled())
            trial.new, trial.old, trial.margin, trial.share = new, old, margin, gates.shadow_share
            if about.metric != gates.evidence:
                self._say(trial, "trial-not-paired", f"{model}: no classes, so nothing speaks for {gates.evidence}")

    def asks(self, model: ModelName) -> bool:
        """Whether a trial of this model is open; never waits."""
        return model in self._trials

    def close(self, model: ModelName) -> None:
        """Ends the trial, if there is one, for good."""
        with self._saving:
            with self._lock:
                self._trials.pop(model, None)
                self._unsaved.pop(model, None)
            if self._kept is not None:
                self._kept.remove(model)

    def see(self, prediction: Prediction, window: Rows) -> None:
        """One answered prediction with its input window, (size, channels) float32: asks the other release too.

        Takes as long as the other release takes. Windows that overlap the last counted one of their entity change
        nothing, and so do repeated ones.
        """
        with self._lock:
            trial = self._trials.get(prediction.model)
            if trial is None or not _wanted(trial, prediction, window):
                return
            begun = self._clock()
            if not _affords(trial, prediction.id, begun):
                return
            in_shadow = prediction.release == trial.old.slot.release.number
            other = trial.new if in_shadow else trial.old
            trial.asked = begun if in_shadow else None
        heard = self._ask(other, prediction.entity or "", window)  # takes a while: nobody else must wait for it
        with self._lock:
            trial.asked = None
            trial.spare -= self._clock() - begun
            # Meanwhile it may have been closed, or the same window seen by another thread.
            if self._trials.get(prediction.model) is trial and _wanted(trial, prediction, window):
                self._hear(trial, prediction, heard, in_shadow=in_shadow)
        self._save()

    def label(self, prediction_id: str, label: str) -> bool:
        """What a prediction really was; false if no trial saw it, or it has its label, or that is none of its classes:
        then nothing changed. Never waits for the disk: the next checkpoint writes it down."""
        with self._lock:
            return any(self._label(model, trial, prediction_id, label) for model, trial in self._trials.items())

    def report(self, model: ModelName) -> TrialReport | None:
        """What the pairs of this model's trial say; None while there is none."""
        with self._lock:
            trial = self._trials.get(model)
            return trial.tally.report() if trial else None

    def health(self, model: ModelName) -> Health:
        """What the candidate did in shadow since this process opened the trial; all nought without one."""
        with self._lock:
            trial = self._trials.get(model)
            if trial is None:
                return Health()
            late = trial.asked is not None and self._clock() - trial.asked >= LATE
            return msgspec.structs.replace(trial.health, errors=trial.health.errors + late)

    def decision(self, model: ModelName) -> tuple[Decision, float, float]:
        """What this device's own blocks say, with the natural logarithms of E_harm and E_safe; HOLD without a trial.

        SAFE is said only if it would be whatever the labels say that are missing.
        """
        with self._lock:
            trial = self._trials.get(model)
            counters, margin = (trial.tally.counters, trial.margin) if trial else (Counters(), 0.0)
            decision = decide(counters, margin)
            worst = trial.tally.worst() if trial and decision is Decision.SAFE else counters
        if worst != counters and decide(worst, margin) is not Decision.SAFE:
            decision = Decision.HOLD
        return decision, log_harm(counters, margin), log_safe(worst, margin)

    def checkpoint(self) -> None:
        """Writes down every trial that changed since it was written last."""
        with self._lock:
            for model, trial in self._trials.items():
                if trial.changes:
                    self._keep(model, trial)
        self._save()

    def _ask(self, other: Loaded, entity: str, window: Rows) -> str | ModelError:
        """The other release's answer, as a label would put it, or what kept it from one; a table that is stale to it
        counts, for it would answer so too."""
        try:
            inputs, _, _ = self._lookups.question(other.session, other.slot.manifest, entity, window)
            return str(conclude(run(other, inputs), other.slot.manifest.classes)[0])
        except ModelError as error:
            return error

    def _hear(self, trial: _Trial, prediction: Prediction, heard: str | ModelError, *, in_shadow: bool) -> None:
        model, before = prediction.model, trial.tally.counters
        if isinstance(heard, BadInput):
            self._say(trial, "trial-not-paired", f"{model}: a window is not for both releases: {heard}")
            return
        if in_shadow:
            trial.health = _counted(trial.health, heard)
        if trial.tally.set_back(prediction.entity or "", prediction.ts):
            text = f"{model}: the clock of an entity was set back by more than a day; its windows go on from there"
            self._say(trial, "trial-set-back", text)
        said, answer = str(prediction.value), None if isinstance(heard, ModelError) else heard
        pair = Pair(prediction.id, answer, said) if in_shadow else Pair(prediction.id, said, answer)
        if trial.tally.pair(prediction.entity or "", prediction.ts, pair):
            self._changed(model, trial, before)
            self._catch_up(
                model, trial, (pair.id,)
            )  # a label may be faster than the pair, or the window a repeated one
        else:
            text = (
                "windows stay out of the evidence: too many wait for labels, which must be sent, or too many entities"
            )
            self._say(trial, "trial-full", f"{model}: {text}")

    def _catch_up(self, model: ModelName, trial: _Trial, predictions: tuple[str, ...]) -> None:
        for prediction_id in predictions:
            label = self._known(prediction_id)
            if label is not None:
                self._label(model, trial, prediction_id, label)

    def _label(self, model: ModelName, trial: _Trial, prediction_id: str, label: str) -> bool:
        before, classes = trial.tally.counters, {*trial.new.slot.manifest.classes, *trial.old.slot.manifest.classes}
        if (classes and label not in classes) or not trial.tally.label(prediction_id, label):
            return False
        self._changed(model, trial, before)
        return True

    def _changed(self, model: ModelName, trial: _Trial, before: Counters) -> None:
        trial.changes += 1
        if trial.changes >= KEEP_EVERY or trial.tally.counters != before:
            self._keep(model, trial)

    def _keep(self, model: ModelName, trial: _Trial) -> None:
        trial.changes = 0
        self._unsaved[model] = trial.tally.books()

    def _save(self) -> None:
        """Writes down what is to be kept; whoever counts, or asks how it stands, does not wait for the disk."""
        if self._kept is None or not self._unsaved:
            return
        with self._saving:
            with self._lock:
                unsaved, self._unsaved = self._unsaved, {}
            for model, books in unsaved.items():
                self._kept.save(model, pack(books))

    def _restore(self, model: ModelName, about: About) -> Books:
        content = self._kept.load(model) if self._kept is not None else None
        if self._kept is None or content is None:
            return fresh(about)
        try:
            books = unpack(Books, content)
        except SyncError as error:
            self._kept.lost(model, error)
            return fresh(about)
        return books if books.about == about else fresh(about)

    def _say(self, trial: _Trial, code: str, text: str) -> None:
        """Reports, once a trial, what keeps windows out of the evidence."""
        if code not in trial.said and self._kept is not None:
            self._kept.report(code, text)
        trial.said.add(code)


def _affords(trial: _Trial, prediction_id: str, now: float) -> bool:
    """Whether this window is in the sample that the share of a core allows. By lot, and the less is left the fewer, so
    that no rhythm of the entities decides whose windows are compared."""
    if trial.share >= 1:
        return True
    trial.spare = min(SPARE, trial.spare + trial.share * max(0.0, now - trial.filled))
    trial.filled = now
    return draw(prediction_id) < trial.spare / SPARE


def _wanted(trial: _Trial, prediction: Prediction, window: Rows) -> bool:
    """Whether this is an answer of one of the two to a window that begins after the entity's last counted one."""
    answered = next((one for one in (trial.new, trial.old) if one.slot.release.number == prediction.release), None)
    if answered is None or prediction.quality != "ok" or prediction.value is None:
        return False
    spec = answered.slot.manifest.window
    lasted = (len(window) - 1) * spec.period if spec else 0.0
    return trial.tally.fits(prediction.entity or "", prediction.ts - lasted)


def _counted(health: Health, heard: str | ModelError) -> Health:
    if not isinstance(heard, ModelError):
        return msgspec.structs.replace(health, answers=health.answers + 1)
    not_finite = health.not_finite + isinstance(heard, NotFinite)
    return msgspec.structs.replace(health, errors=health.errors + 1, not_finite=not_finite)
