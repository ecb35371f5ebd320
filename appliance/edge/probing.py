"""Asks the releases that serve, one after the other, a question that they can answer: whether prediction answers.

That the doors' loops turn and no answer is late says nothing while nobody asks. So each release is now and then asked
its own sample, on the road that every question takes; nothing is counted by it, and it takes at most 1/200 of a core,
but for a release that is silent. No release stays in memory for it: who is taken off is gone at once.

Only who answered its sample before, in this process, can fall silent by this: one that a graph never took says nothing.
What a silent release costs is a start of the agent, at which its golden vectors decide whether it answers again.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

from appliance import clock
from edge.deadlines import Deadlines
from edge.runtime import NoMemory, Overdue, Session
from edge.serving import Loaded, ModelError, Serving, run

log = logging.getLogger("falaj.edge")

PAUSE = 5.0  # seconds between two questions, of a model that is quick
SHARE = 200  # a question is followed by a pause of so many times what the processor worked for it
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
        self._answered: dict[str, weakref.ref[Session]] = {}  # who answered its sample in this process, by model
        self._last = ""  # the model that was asked last
        # The model that answers no more, its session, and the mark that says so.
        self._silent: tuple[str, weakref.ref[Session], int] | None = None
        self._due = self._ticks()
        self._since: float | None = None  # when the question under way was asked

    def answers(self) -> bool:
        """Whether prediction answers, as far as anybody was asked; with no model there is nobody to ask."""
        since = self._since
        return self._silent is None and (since is None or self._ticks() - since < STANDING)

    def ask(self) -> None:
        """Asks the next release, or again the one that is silent."""
        model, loaded = self._whom()
        if loaded is None or self._ticks() < self._due:
            return
        self._last = model
        worked, self._since = self._worked(), self._ticks()
        try:
            told = self._put(loaded, worked)
        finally:
            self._since = None
            self._due = self._ticks() + SHARE * (self._worked() - worked)
        if told:
            self._heard()
            self._answered[model] = weakref.ref(loaded.session)
        elif told is False and self._silent is None and _is(self._answered.get(model), loaded):
            self._fell_silent(model, loaded)
        if self._silent is not None:
            self._due = self._ticks()

    def _whom(self) -> tuple[str, Loaded | None]:
        """Who is to be asked; those that the walker has taken off are forgotten."""
        live = {model: one for model, one in self._serving.models().items() if one is not None and one.sample}
        self._answered = {model: of for model, of in self._answered.items() if _is(of, live.get(model))}
        if self._silent is not None:
            model, session, _ = self._silent
            if _is(session, live.get(model)):
                return model, live[model]
            self._heard()
        after = sorted(model for model in live if model > self._last) or sorted(live)
        return (after[0], live[after[0]]) if after else ("", None)

    def _put(self, loaded: Loaded, worked: float) -> bool | None:
        """Whether it answered; None where that is not known: it was stopped for being late and the processor had other
        work, or this host had no memory for it."""
        sample = loaded.sample or {}
        try:
            run(loaded, sample)
        except Overdue:
            return None if self._worked() - worked < BUSY * loaded.session.allowed(1) else False
        except (NoMemory, MemoryError):
            return None
        except ModelError:
            return False
        return True

    def _fell_silent(self, model: str, loaded: Loaded) -> None:
        number = loaded.slot.release.number
        log.error("release %s of %s does not answer its own sample: no sign of life until it does", number, model)
        mark = self._deadlines.accuse(loaded.slot.release.artifact.encode())
        self._silent = model, weakref.ref(loaded.session), mark

    def _heard(self) -> None:
        if self._silent is not None:
            model, _, mark = self._silent
            log.warning("the release of %s that was silent answers again, or is gone", model)
            self._deadlines.acquit(mark)
        self._silent = None


def _is(session: weakref.ref[Session] | None, loaded: Loaded | None) -> bool:
    return session is not None and loaded is not None and session() is loaded.session
