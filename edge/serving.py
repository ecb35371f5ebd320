"""What answers now: one live release a model, swapped by one assignment, counted since it began to serve.

A question that has begun keeps the release it began with, so no question is lost to a swap. A number that is
not finite is never an answer. Only what is the model's own fault counts against it: inputs that do not fit,
or that carry NaN themselves, are the asker's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from edge import batching
from edge.runtime import BadInput, ModelError, RunFailed, Session, beyond, finite
from edge.states import Health, Slot
from sync.golden import Arrays
from sync.names import ModelName
from sync.reports import Release

__all__ = ["Answer", "BadInput", "Loaded", "ModelError", "NoModel", "NotFinite", "RunFailed", "Serving", "run"]


TIMED, FEWEST = 200, 20  # newest answers whose times are known, and how many a p99 needs
EXTREME = 1e12  # no sensor reads this: a network that overflows on it is not at fault, whoever asks is


class NoModel(ModelError):
    """Nothing answers under this name. `known`: the device has the model, it only does not serve just now."""

    code = "no-model"

    def __init__(self, model: str, *, known: bool) -> None:
        next_step = "try again soon" if known else "see /v2/repository/index for those it has"
        super().__init__(f"no release of {model!r} serves on this device; {next_step}")
        self.known = known


class NotFinite(ModelError):
    """The model answered with NaN or an infinity to inputs that were finite."""

    code = "not-finite"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A release ready to answer; of several questions, `rows` rows may go as one run (`edge.batching.height`).
    `sample` is a question that it can answer."""

    session: Session
    slot: Slot
    rows: int = 1
    sample: Arrays | None = None


class Answer(msgspec.Struct, frozen=True):
    """All outputs of the graph by name, and the slot of the release that gave them."""

    outputs: Arrays
    slot: Slot

    @property
    def release(self) -> Release:
        return self.slot.release


def run(loaded: Loaded, inputs: Arrays) -> Arrays:
    """What a release says to `inputs`, by graph output name, whether or not it serves; nothing is counted.

    Raises BadInput where the asker is at fault, else RunFailed or NotFinite.
    """
    outputs = loaded.session.run(inputs)
    if finite(outputs):
        return outputs
    if not finite(inputs) or beyond(inputs, EXTREME):
        raise BadInput("the inputs hold NaN, an infinity or absurd numbers, and this model has no answer to that")
    raise NotFinite(f"release {loaded.slot.release.number} answered with NaN or an infinity")


@dataclass(slots=True)
class _Live:
    """One release while it serves, with its own counters: a swap starts from nought without any reset."""

    loaded: Loaded
    lock: threading.Lock = field(default_factory=threading.Lock)
    answers: int = 0
    errors: int = 0
    not_finite: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))

    def count(self, seconds: float, *, answers: int = 0, error: ModelError | None = None) -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.answers += answers
            self.errors += error is not None
            self.not_finite += isinstance(error, NotFinite)


# (model, release number, seconds, answers that took so long together): no answers mean one failure
Observe = Callable[[ModelName, int, float, int], None]


def _unseen(model: ModelName, release: int, seconds: float, answers: int) -> None:
    """Nobody measures."""


class Serving:
    """The live releases. Any thread may ask; the walker's thread puts and takes away.

    `observe` is called on the asker's thread after answers or a failure that count; it must be quick and not raise.
    """

    def __init__(self, observe: Observe = _unseen, clock: Callable[[], float] = time.perf_counter) -> None:
        self._live: dict[str, _Live | None] = {}
        self._observe = observe
        self._clock = clock

    def put(self, model: ModelName, loaded: Loaded) -> None:
        """From the next question on, `loaded` answers; its counters start from nought."""
        self._live[model] = _Live(loaded)

    def take_away(self, model: ModelName) -> None:
        """From the next question on, nothing answers; the model stays known: askers are told to wait."""
        self._live[model] = None

    def forget(self, model: ModelName) -> None:
        """The device has no such model any more."""
        self._live.pop(model, None)

    def models(self) -> dict[str, Loaded | None]:
        """All known models, None where nothing serves; a copy."""
        return {name: live.loaded if live else None for name, live in sorted(self._live.copy().items())}

    def incumbent(self, model: ModelName) -> Loaded | None:
        """What answers now, None if nothing does."""
        live = self._live.get(model)
        return live.loaded if live else None

    def loaded(self, model: str) -> Loaded:
        """What answers now; raises NoModel."""
        return self._find(model).loaded

    def health(self, model: ModelName) -> Health:
        """The counts of the release that serves now, an answer that is overdue being a failed one; all nought where
        none does."""
        live = self._live.get(model)
        if live is None:
            return Health()
        with live.lock:
            times = sorted(live.seconds)
            p99_ms = 1000 * times[int(0.99 * (len(times) - 1))] if len(times) >= FEWEST else 0.0
            return Health(live.answers, live.errors + live.loaded.session.late(), live.not_finite, p99_ms)

    def beside(self, model: ModelName, other: Loaded, runs: int) -> tuple[list[float], list[float]]:
        """Milliseconds of the release that serves and of `other`, run in turn on the sample of the first; nothing is
        counted. Nothing where none serves or there is no sample, or one of them fails on it."""
        live = self.incumbent(model)
        times: tuple[list[float], list[float]] = [], []
        if live is None or live.sample is None:
            return times
        for _ in range(runs):
            for one, spent in zip((live, other), times, strict=True):
                start = self._clock()
                try:
                    one.session.run(live.sample)
                except ModelError:
                    return [], []
                spent.append(1000 * (self._clock() - start))
        return times

    def predict(self, model: ModelName, inputs: Arrays, release: int | None = None) -> Answer:
        """The live release's answer to `inputs` by graph input name.

        Raises NoModel (also if `release` is given and another one is live), BadInput, RunFailed, NotFinite;
        the last two count as errors of the release.
        """
        return self._ask(model, self._wanted(model, release), inputs)

    def predict_each(
        self, model: ModelName, questions: Sequence[Arrays], release: int | None = None
    ) -> list[Answer | ModelError]:
        """What `predict` returns or raises, for each of the questions in order; what may go as one run does so.

        All are answered by one release. Raises NoModel.
        """
        live = self._wanted(model, release)
        if len(questions) == 1:
            return [self._told(model, live, questions[0])]
        told: dict[int, Answer | ModelError] = {}
        for group in batching.stacks(questions, live.loaded.rows):
            told.update(zip(group, self._ask_together(model, live, [questions[n] for n in group]), strict=True))
        return [told[number] for number in range(len(questions))]

    def _ask_together(self, model: ModelName, live: _Live, asked: Sequence[Arrays]) -> list[Answer | ModelError]:
        slot = live.loaded.slot
        if len(asked) > 1:
            start = self._clock()
            try:
                shares = batching.unstack(run(live.loaded, batching.stack(asked)), asked)
            except ModelError:
                shares = None  # one of them is to blame, and it is told so when each is asked for itself
            if shares is not None:
                spent = self._clock() - start
                live.count(spent, answers=len(asked))
                self._observe(model, slot.release.number, spent, len(asked))
                return [Answer(share, slot) for share in shares]
        return [self._told(model, live, inputs) for inputs in asked]

    def _told(self, model: ModelName, live: _Live, inputs: Arrays) -> Answer | ModelError:
        try:
            return self._ask(model, live, inputs)
        except ModelError as error:
            return error

    def _ask(self, model: ModelName, live: _Live, inputs: Arrays) -> Answer:
        slot = live.loaded.slot
        start = self._clock()
        try:
            outputs = run(live.loaded, inputs)
        except (RunFailed, NotFinite) as error:
            spent = self._clock() - start
            live.count(spent, error=error)
            self._observe(model, slot.release.number, spent, 0)
            raise
        spent = self._clock() - start
        live.count(spent, answers=1)
        self._observe(model, slot.release.number, spent, 1)
        return Answer(outputs, slot)

    def _wanted(self, model: str, release: int | None) -> _Live:
        live = self._find(model)
        if release is not None and release != live.loaded.slot.release.number:
            raise NoModel(f"{model} version {release}", known=False)
        return live

    def _find(self, model: str) -> _Live:
        live = self._live.get(model)
        if live is None:
            raise NoModel(model, known=model in self._live)
        return live
