"""What is in the way of the core's parts: each is tried by itself, again and again, and people are told.

The log has it at once. The steward is told the whole of it whenever it has changed, for people look at its events and
at the console, not at the log of a supervisor: a word that was lost is said again, and what is over stands nowhere,
whoever of the two began anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from appliance import clock
from appliance.errors import Trouble
from sync.errors import SyncError

log = logging.getLogger("falaj.core")

AGAIN = 5.0  # seconds until what could not be put right is tried again
DENIALS = "word of what was denied"
_TELLING = "word to the steward"
_UNTOLD = (_TELLING, DENIALS)  # whoever should hear that these fail is who does not hear


@dataclass(frozen=True)
class _Trouble:
    """What is in the way of a part, how people are told, and when it is tried again."""

    text: str
    words: str
    due: float


class Troubles:
    """Used by one thread. `words` says for people what it means that a part fails, and what to do, from its name and
    what is in its way; `tell` hands all that fails to the steward (part -> words), or raises."""

    def __init__(
        self, words: Callable[[str, str], str], tell: Callable[[dict[str, str]], None],
        ticks: Callable[[], float] = clock.ticks,
    ) -> None:  # fmt: skip
        self._words, self._tell, self._ticks = words, tell, ticks
        self._trouble: dict[str, _Trouble] = {}
        self._ending: dict[str, str] = {}
        self._told: dict[str, str] | None = None  # None: it was told nothing yet, and may believe what is long over

    def attempt(self, part: str, work: Callable[[], None]) -> None:
        """Whatever is in the way is logged once, and tried again AGAIN seconds later; the other parts go on."""
        before = self._trouble.get(part)
        if before is not None and self._ticks() < before.due:
            return
        try:
            work()
            self._trouble.pop(part, None)
        except Exception as error:  # the border between the parts: a damaged key file must not end the broker
            ours = isinstance(error, Trouble | SyncError | OSError)
            text, due = str(error) if ours else f"{type(error).__name__}: {error}", self._ticks() + AGAIN
            if before is not None and before.text == text:
                self._trouble[part] = replace(before, due=due)
                return
            log.error("%s: %s", part, text, exc_info=not ours)
            self._trouble[part] = _Trouble(text, self._words(part, text), due)

    def ends(self, part: str, text: str) -> None:
        """A part starts, and does not stay up; an empty text: it does."""
        if text:
            self._ending[part] = self._words(part, text)
        else:
            self._ending.pop(part, None)

    def tell(self) -> None:
        """Has the steward hear of it, if it does not know."""
        self.attempt(_TELLING, self._tell_all)

    def _tell_all(self) -> None:
        standing = self._ending | {part: found.words for part, found in self._trouble.items() if part not in _UNTOLD}
        if standing != self._told:
            self._tell(standing)
            self._told = standing
