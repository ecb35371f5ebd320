"""Asks the releases that serve, one after the other, a question that they can answer: whether prediction answers.

That the doors' loops turn and no answer is late says nothing while nobody asks. So each release is now and then asked
its own sample, on the road that every question takes; nothing is counted by it, and it takes at most 1/200 of a core.

Only who answered its sample before, in this process, can fall silent by this: one that a graph never took says nothing.
What a silent release costs is a start of the agent, at which its golden vectors decide whether it answers again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from appliance import clock
from edge.deadlines import Deadlines
from edge.runtime import Overdue
from edge.serving import Loaded, ModelError, Serving, run

log = logging.getLogger("falaj.edge")

PAUSE = 5.0  # seconds between two questions, of a model that is quick
SHARE, LONGEST = 200, 300.0  # an answer that took long is followed by a pause so many times as long, up to so long
# Of the seconds that a run was allowed, the processor worked: it was the model that took them, and not a busy host.
BUSY = 0.5
STANDING = 120.0  # seconds that a question may take in all: it waits for something that does not come


class Probe:
    """`ask` is called by one thread, every PAUSE seconds; `answers` by any."""

    def __init__(
        self, serving: Serving, deadlines: Deadlines, ticks: clock.Clock = clock.ticks,
        worked: Callable[[], float] = clock.worked,
    ) -> None:  # fmt: skip
        self._serving, self._deadlines, self._ticks, self._worked = serving, deadlines, ticks, worked
        self._answered: dict[str, Loaded] = {}  # who answered its sample in this process, by model
        self._last = ""  # the model that was asked last
        self._silent: tuple[str, Loaded, int] | None = None  # who answers no more, and the mark that says so
        self._due = self._ticks()
        self._since: float | None = None  # when the question under way was asked

    def answers(self) -> bool:
        """Whether prediction answers, as far as anybody was asked; with no model there is nobody to ask."""
        since = self._since
        return self._silent is None and (since is None or self._ticks() - since < STANDING)

    def ask(self) -> None:
        """Asks the next release, or again the one that is silent."""
        live = {model: one for model, one in self._serving.models().items() if one is not None and one.sample}
        if self._silent is not None and live.get(self._silent[0]) is not self._silent[1]:
            self._heard()  # the walker has taken it off
        model = self._silent[0] if self._silent is not None else self._next(live)
        if self._ticks() < self._due or not model:
            return
        self._last = model
        began, worked = self._ticks(), self._worked()
        self._since = began
        try:
            told = self._put(live[model], worked)
        finally:
            self._since = None
        if told:
            self._due = self._ticks() + min(LONGEST, SHARE * (self._ticks() - began))
            self._heard()
            self._answered = {name: one for name, one in self._answered.items() if name in live} | {model: live[model]}
        elif told is False and self._silent is None and self._answered.get(model) is live[model]:
            self._fell_silent(model, live[model])

    def _next(self, live: dict[str, Loaded]) -> str:
        after = sorted(model for model in live if model > self._last)
        return (after or sorted(live) or [""])[0]

    def _put(self, loaded: Loaded, worked: float) -> bool | None:
        """Whether it answered; None where it was stopped for being late and the processor had other work: who knows."""
        sample = loaded.sample or {}
        try:
            run(loaded, sample)
        except Overdue:
            return None if self._worked() - worked < BUSY * loaded.session.allowed(1) else False
        except ModelError:
            return False
        return True

    def _fell_silent(self, model: str, loaded: Loaded) -> None:
        number = loaded.slot.release.number
        log.error("release %s of %s does not answer its own sample: no sign of life until it does", number, model)
        self._silent = model, loaded, self._deadlines.accuse(loaded.slot.release.artifact.encode())

    def _heard(self) -> None:
        if self._silent is not None:
            model, loaded, mark = self._silent
            log.warning("release %s of %s answers again, or is gone", loaded.slot.release.number, model)
            self._deadlines.acquit(mark)
        self._silent = None
