"""How long a thing is left alone that this host, or the line, is in the way of: ever longer, and told once.

An obstacle may last for as long as nobody comes, and each try costs something: a proof, a write, a record. So the pause
doubles while the same obstacle is met again, and another one is news, met with short pauses.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LONGEST = 5.0, 3600.0  # seconds until it is tried again, doubled each time


@dataclass(frozen=True)
class _Wait:
    until: float
    pause: float = 0.0
    code: str = ""


class Patience:
    """What waits, by name, and until when (seconds since 1970). A restart forgets it: then all is tried at once."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    def holds(self, name: str, now: float) -> bool:
        """Whether it is too early to try."""
        return name in self._waits and now < self._waits[name].until

    def until(self, name: str, when: float) -> None:
        """Not before `when`; no obstacle is met by that, and none is forgotten."""
        known = self._waits.get(name, _Wait(when))
        self._waits[name] = _Wait(when, known.pause, known.code)

    def put_off(self, name: str, code: str, now: float) -> bool:
        """The obstacle `code` was met: tried again later, and each time later. Whether it is another than the last."""
        known = self._waits.get(name)
        again = known is not None and known.code == code
        pause = min(2 * known.pause, LONGEST) if known is not None and again else FIRST
        self._waits[name] = _Wait(now + pause, pause, code)
        return not again

    def hurry(self) -> None:
        """Something has changed that may have been in the way: all are tried at once; what was told stays told."""
        self._waits = {name: _Wait(float("-inf"), one.pause, one.code) for name, one in self._waits.items()}

    def drop(self, name: str) -> None:
        """It got there, or is not wanted any more."""
        self._waits.pop(name, None)

    def clear(self) -> None:
        """Nothing waits."""
        self._waits.clear()
