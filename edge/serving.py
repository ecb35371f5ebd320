"""What answers now: one live release a model, swapped by one assignment, counted since it began to serve.

A question that has begun keeps the release it began with, so no question is lost to a swap. A number that is
not finite is never an answer. Only what is the model's own fault counts against it: inputs that do not fit,
or that carry NaN themselves, are the asker's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.runtime import BadInput, ModelError, RunFailed, Session, beyond, finite
from edge.states import Health, Slot
from sync.golden import Arrays
from sync.messages import Release
from sync.names import ModelName

__all__ = ["Answer", "BadInput", "Loaded", "ModelError", "NoModel", "NotFinite", "RunFailed", "Serving", "run"]


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
    """A release ready to answer."""

    session: Session
    slot: Slot


@dataclass(frozen=True, slots=True)
class Answer:
    """All outputs of the graph by name, and the release that gave them."""

    outputs: Arrays
    release: Release


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

    def count(self, *, ok: bool, not_finite: bool) -> None:
        with self.lock:
            self.answers += ok
            self.errors += not ok
            self.not_finite += not_finite


OnAnswer = Callable[[ModelName, bool], None]  # (model, whether it went well)
Observe = Callable[[ModelName, int, float, bool], None]  # (model, release number, seconds, whether it went well)


def _unheard(model: ModelName, ok: bool) -> None:
    """Nobody listens."""


def _unseen(model: ModelName, release: int, seconds: float, ok: bool) -> None:
    """Nobody measures."""


class Serving:
    """The live releases. Any thread may ask; the walker's thread puts and takes away.

    `on_answer` and `observe` are called on the asker's thread after each answer or failure that counts; they
    must be quick and must not raise.
    """

    def __init__(
        self,
        on_answer: OnAnswer = _unheard,
        observe: Observe = _unseen,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._live: dict[str, _Live | None] = {}
        self._on_answer = on_answer
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
        """The counts of the release that serves now; all nought where none does."""
        live = self._live.get(model)
        if live is None:
            return Health()
        with live.lock:
            return Health(live.answers, live.errors, live.not_finite)

    def predict(self, model: ModelName, inputs: Arrays, release: int | None = None) -> Answer:
        """The live release's answer to `inputs` by graph input name.

        Raises NoModel (also if `release` is given and another one is live), BadInput, RunFailed, NotFinite;
        the last two count as errors of the release.
        """
        live = self._find(model)
        slot = live.loaded.slot
        if release is not None and release != slot.release.number:
            raise NoModel(f"{model} version {release}", known=False)
        start = self._clock()
        try:
            outputs = self._run(live, inputs)
        except (RunFailed, NotFinite):
            self._tell(model, slot.release.number, start, ok=False)
            raise
        self._tell(model, slot.release.number, start, ok=True)
        return Answer(outputs, slot.release)

    def _run(self, live: _Live, inputs: Arrays) -> Arrays:
        try:
            outputs = run(live.loaded, inputs)
        except (RunFailed, NotFinite) as error:
            live.count(ok=False, not_finite=isinstance(error, NotFinite))
            raise
        live.count(ok=True, not_finite=False)
        return outputs

    def _tell(self, model: ModelName, release: int, start: float, *, ok: bool) -> None:
        self._observe(model, release, self._clock() - start, ok)
        self._on_answer(model, ok)

    def _find(self, model: str) -> _Live:
        live = self._live.get(model)
        if live is None:
            raise NoModel(model, known=model in self._live)
        return live
