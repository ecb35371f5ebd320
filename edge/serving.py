"""What answers now: one live release a model, swapped by one assignment, counted since it began to serve.

A question that has begun keeps the release it began with, so no question is lost to a swap. A number that is
not finite is never an answer. Only what is the model's own fault counts against it: inputs that do not fit,
or that carry NaN themselves, are the asker's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from edge import batching
from edge.answers import BadOutput
from edge.live import Answer, Live, Loaded, NotFinite, Split, run
from edge.routing import Passing, Routes
from edge.runtime import BadInput, ModelError, Overdue, RunFailed
from edge.states import Health
from sync.golden import Arrays
from sync.names import ModelName

__all__ = ["Answer", "BadInput", "Loaded", "ModelError", "NoModel", "NotFinite", "RunFailed", "Serving", "run"]


_STANDS = "a question that came with this one was stopped at its deadline; ask again, alone"


class NoModel(ModelError):
    """Nothing answers under this name. `known`: the device has the model, it only does not serve just now."""

    code = "no-model"

    def __init__(self, model: str, *, known: bool) -> None:
        next_step = "try again soon" if known else "see /v2/repository/index for those it has"
        super().__init__(f"no release of {model!r} serves on this device; {next_step}")
        self.known = known


# (model, release number, seconds, answers that took so long together): no answers mean one failure
Observe = Callable[[ModelName, int, float, int], None]


def _unseen(model: ModelName, release: int, seconds: float, answers: int) -> None:
    """Nobody measures."""


class Serving:
    """The live releases. Any thread may ask; the walker's thread puts and takes away.

    `observe` is called on the asker's thread after answers or a failure that count; it must be quick and not raise.
    """

    def __init__(self, observe: Observe = _unseen, clock: Callable[[], float] = time.perf_counter) -> None:
        self._live: dict[str, Live | None] = {}
        self._splits: dict[str, Split] = {}
        self._observe = observe
        self._clock = clock

    def put(self, model: ModelName, loaded: Loaded) -> None:
        """From the next question on, `loaded` answers; its counters start from nought."""
        self._live[model] = Live(loaded)

    def take_away(self, model: ModelName) -> None:
        """From the next question on, nothing answers; the model stays known: askers are told to wait."""
        self._live[model] = None

    def forget(self, model: ModelName) -> None:
        """The device has no such model any more."""
        self._live.pop(model, None)

    def split(self, model: ModelName, routes: Routes, arms: Mapping[int, Loaded]) -> None:
        """From the next question with a key on, these arms answer as `routes` say; one that was there keeps its counts.
        Without arms the release that serves answers all."""
        before = self._splits.get(model)
        held = before.arms if before else {}
        kept = {n: held[n] if n in held and held[n].loaded is one else Live(one) for n, one in arms.items()}
        if kept:
            self._splits[model] = Split(routes, kept)
        else:
            self._splits.pop(model, None)

    def arms(self, model: str) -> dict[int, Loaded]:
        """The arms of the model's split, by release number; a copy."""
        split = self._splits.get(model)
        return {number: live.loaded for number, live in split.arms.items()} if split else {}

    def routes(self, model: ModelName) -> Routes | None:
        """Who answers for whom; None without a split."""
        split = self._splits.get(model)
        return split.routes if split else None

    def models(self) -> dict[str, Loaded | None]:
        """All known models, None where nothing serves; a copy."""
        return {name: live.loaded if live else None for name, live in sorted(self._live.copy().items())}

    def incumbent(self, model: ModelName) -> Loaded | None:
        """What answers now, None if nothing does."""
        live = self._live.get(model)
        return live.loaded if live else None

    def loaded(self, model: str, key: str = "") -> Loaded:
        """What answers now, in a split for this key; raises NoModel."""
        live, split = self._find(model), self._splits.get(model)
        return (split.arms.get(split.routes.release(key), live) if split else live).loaded

    def health(self, model: ModelName, arm: int | None = None) -> Health:
        """The counts of the release that serves now, or of an arm by its number, an answer that is overdue being a
        failed one; all nought where there is none."""
        split = self._splits.get(model) if arm is not None else None
        live = self._live.get(model) if arm is None else split.arms.get(arm) if split else None
        return live.health() if live else Health()

    def blame(self, model: ModelName, loaded: Loaded, error: ModelError) -> None:
        """An arm of a split could not answer what the incumbent did answer, or who serves gave what is no answer in its
        own classes: that counts as an error. Nothing happens where it does not answer any more, or where the error
        counted when it was raised."""
        live = self._live.get(model)
        if live is not None and live.loaded is loaded and isinstance(error, BadOutput):
            live.count(0.0, error=error)
        number, split = loaded.slot.release.number, self._splits.get(model)
        arm = split.arms.get(number) if split else None
        if arm is not None and arm.loaded is loaded and not isinstance(error, RunFailed | NotFinite):
            arm.count(0.0, error=error)
            self._observe(model, number, 0.0, 0)

    def beside(self, model: ModelName, other: Loaded, runs: int) -> tuple[list[float], list[float]]:
        """Milliseconds of the release that serves and of `other`, run in turn on a question that took too long, of the
        arm if `other` is one, else of the first; where there is none, on its sample. Nothing is counted. Nothing where
        none serves or there is no question, or one of them fails on it."""
        live, split = self._live.get(model), self._splits.get(model)
        times: tuple[list[float], list[float]] = [], []
        judged = next((arm for arm in split.arms.values() if arm.loaded is other), live) if split else live
        sample = judged.sample() if judged is not None else None
        if live is None or sample is None:
            return times
        for _ in range(runs):
            for one, spent in zip((live.loaded, other), times, strict=True):
                start = self._clock()
                try:
                    one.session.run(sample)
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
        self, model: ModelName, questions: Sequence[Arrays], release: int | None = None, keys: Sequence[str] = ()
    ) -> list[Answer | ModelError]:
        """What `predict` returns or raises, for each of the questions in order; what may go as one run does so.

        All are answered by one release; in a split, by those of their `keys`, and where an arm fails by the incumbent.
        Raises NoModel.
        """
        live = self._wanted(model, release)
        split = self._splits.get(model) if any(keys) and release is None else None
        if split is None:
            return self._each(model, live, questions)
        told: dict[int, Answer | ModelError] = {}
        for arm, group in split.groups(live, keys).values():
            told.update(zip(group, self._each(model, arm, [questions[n] for n in group]), strict=True))
            failed = [n for n in group if arm is not live and isinstance(told[n], RunFailed | NotFinite)]
            told.update(zip(failed, self._each(model, live, [questions[n] for n in failed]), strict=True))
        return [_keyed(told[number], key) for number, key in enumerate(keys)]

    def _each(self, model: ModelName, live: Live, questions: Sequence[Arrays]) -> list[Answer | ModelError]:
        if len(questions) == 1:
            return [self._told(model, live, questions[0])]
        told: dict[int, Answer | ModelError] = {}
        hangs = False
        for group in batching.stacks(questions, live.loaded.rows):
            answers = self._ask_together(model, live, [questions[n] for n in group], hangs=hangs)
            hangs = hangs or any(isinstance(one, Overdue) for one in answers)
            told.update(zip(group, answers, strict=True))
        return [told[number] for number in range(len(questions))]

    def _ask_together(
        self, model: ModelName, live: Live, asked: Sequence[Arrays], *, hangs: bool
    ) -> list[Answer | ModelError]:
        slot = live.loaded.slot
        if len(asked) > 1 and not hangs:
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
        return self._in_turn(model, live, asked, hangs=hangs)

    def _in_turn(
        self, model: ModelName, live: Live, asked: Sequence[Arrays], *, hangs: bool
    ) -> list[Answer | ModelError]:
        """One after the other. Once one was overdue (`hangs`: before) the others, which came with it, are not run: each
        would be stopped at its deadline, and whoever answers stands still all the while."""
        told: list[Answer | ModelError] = []
        for inputs in asked:
            told.append(Overdue(_STANDS) if hangs else self._told(model, live, inputs))
            hangs = hangs or isinstance(told[-1], Overdue)
        return told

    def _told(self, model: ModelName, live: Live, inputs: Arrays) -> Answer | ModelError:
        try:
            return self._ask(model, live, inputs)
        except ModelError as error:
            return error

    def _ask(self, model: ModelName, live: Live, inputs: Arrays) -> Answer:
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
        if 1000 * spent > slot.manifest.profile.p99_ms:
            live.took_long(inputs)
        self._observe(model, slot.release.number, spent, 1)
        return Answer(outputs, slot)

    def _wanted(self, model: str, release: int | None) -> Live:
        live, split = self._find(model), self._splits.get(model)
        if split is not None and release in split.arms:
            return split.arms[release]
        if release is not None and release != live.loaded.slot.release.number:
            raise NoModel(f"{model} version {release}", known=False)
        return live

    def _find(self, model: str) -> Live:
        live = self._live.get(model)
        if live is None:
            raise NoModel(model, known=model in self._live)
        return live


def _keyed(told: Answer | ModelError, key: str) -> Answer | ModelError:
    return told if isinstance(told, ModelError) or isinstance(key, Passing) else msgspec.structs.replace(told, key=key)
