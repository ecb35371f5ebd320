"""Releases while they answer: loaded, asked, counted; one, or several side by side in a split. `edge.serving` has them
under their names."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from edge.routing import Routes
from edge.runtime import BadInput, ModelError, Session, beyond, finite
from edge.states import Health, Slot
from sync.golden import Arrays
from sync.reports import Release

TIMED, FEWEST = 200, 20  # newest answers whose times are known, and how many a p99 needs
EXTREME = 1e12  # no sensor reads this: a network that overflows on it is not at fault, whoever asks is


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
    """All outputs of the graph by name, and the slot of the release that gave them; `key` is whose it is in a split,
    empty where it is nobody's."""

    outputs: Arrays
    slot: Slot
    key: str = ""

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
class Live:
    """One release while it serves, with its own counters: a swap starts from nought without any reset."""

    loaded: Loaded
    lock: threading.Lock = field(default_factory=threading.Lock)
    answers: int = 0
    errors: int = 0
    not_finite: int = 0
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))
    slow: Arrays | None = None  # the newest question of one row that took longer than the profile allows

    def count(self, seconds: float, *, answers: int = 0, error: ModelError | None = None) -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.answers += answers
            self.errors += error is not None
            self.not_finite += isinstance(error, NotFinite)

    def took_long(self, inputs: Arrays) -> None:
        """Keeps a question that was answered slowly, unless it has many rows: that may take longer, and much memory."""
        if all(len(array) == 1 for array in inputs.values() if array.ndim):
            self.slow = inputs

    def sample(self) -> Arrays | None:
        """A question that shows whether it is slow: one that was answered slowly, else what it was proved with."""
        return self.loaded.sample if self.slow is None else self.slow

    def health(self) -> Health:
        """The counts since it began; an answer that is overdue is a failed one."""
        with self.lock:
            times = sorted(self.seconds)
            p99_ms = 1000 * times[int(0.99 * (len(times) - 1))] if len(times) >= FEWEST else 0.0
            return Health(self.answers, self.errors + self.loaded.session.late(), self.not_finite, p99_ms)


@dataclass(frozen=True, slots=True)
class Split:
    """Who answers for whom, and the arms that are loaded, by release number."""

    routes: Routes
    arms: dict[int, Live] = field(default_factory=dict)

    def groups(self, live: Live, keys: Sequence[str]) -> dict[int, tuple[Live, list[int]]]:
        """The questions of each release that is asked, by number and in order; one that is not loaded is not asked."""
        found: dict[int, tuple[Live, list[int]]] = {}
        for number, key in enumerate(keys):
            arm = self.arms.get(self.routes.release(key), live)
            found.setdefault(id(arm), (arm, []))[1].append(number)
        return found
