"""How long a thing is left alone that this host, or the line, is in the way of: ever longer, and told once.

An obstacle may last for as long as nobody comes, and each try costs something: a proof, a write, a record. So the pause
doubles while the same obstacle is met again, and another one is news, met with short pauses.

A restart forgets it, and nothing durable is lost by that. A start loads every model, which costs more than a try of
most that waits here, and the memory that was lacking may be free now. What may itself be why the agent starts again and
again is counted in the journal instead: a proof and a trial are given up at the third start (`Deployment.starts`), who
crashed the process by its crashes (`Slot.crashes`). So a loop of starts proves nothing a fourth time. What was told is
told again at each start, which the outbox bounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, LONGEST = 5.0, 3600.0  # seconds until it is tried again, doubled each time


@dataclass(frozen=True)
class _Wait:
    until: float
    pause: float = 0.0
    code: str = ""
    met: float = float("-inf")  # when the obstacle was met last ...
    times: int = 0  # ... and how often
    rests: bool = False  # until then, whatever changes


class Patience:
    """What waits, by name, and until when (seconds since 1970). A restart forgets it: then all is tried at once."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    def holds(self, name: str, now: float) -> bool:
        """Whether it is too early to try."""
        return name in self._waits and now < self._waits[name].until

    def until(self, name: str, when: float) -> None:
        """Not before `when`; no obstacle is met by that, and none is forgotten."""
        self._waits[name] = replace(self._waits.get(name, _Wait(when)), until=when)

    def rest(self, name: str, when: float) -> None:
        """Not before `when`, whatever changes meanwhile."""
        self._waits[name] = replace(self._waits.get(name, _Wait(when)), until=when, rests=True)

    def put_off(self, name: str, code: str, now: float) -> bool:
        """The obstacle `code` was met: tried again later, and each time later. Whether it is another than the last, or
        was not met for long."""
        known = self._waits.get(name)
        if known is None or known.code != code or now - known.met > known.pause + LONGEST:
            known = _Wait(now)
        pause = min(2 * known.pause, LONGEST) if known.times else FIRST
        self._waits[name] = _Wait(now + pause, pause, code, now, known.times + 1)
        return not known.times

    def times(self, name: str) -> int:
        """How often the obstacle was met that is in the way now; 0: nothing is."""
        return self._waits[name].times if name in self._waits else 0

    def hurry(self) -> None:
        """Something has changed that may have been in the way: all that does not rest is tried at once; what was told
        stays told."""
        self._waits = {
            name: one if one.rests else replace(one, until=float("-inf")) for name, one in self._waits.items()
        }

    def drop(self, name: str) -> None:
        """It got there, or is not wanted any more."""
        self._waits.pop(name, None)

    def only(self, prefix: str, names: set[str]) -> None:
        """Of what begins with `prefix`, nothing but these is wanted any more."""
        self._waits = {k: one for k, one in self._waits.items() if k in names or not k.startswith(prefix)}

    def clear(self) -> None:
        """Nothing waits."""
        self._waits.clear()
