"""What time it is for a box whose clock was never set: no earlier than what somebody with a clock has signed.

Such a box counts from its start. The last signed time that a folder brought it is the floor under that count, and is
kept over a power cut with what was counted since; so its reports never go back in time. A clock that is set says the
time itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.states import CLOCK_FLOOR


@dataclass
class Time:
    """`signed` is the floor, `counted` what the machine said when it was learnt; `unset`: its clock is not set now."""

    signed: float = 0.0
    counted: float = 0.0
    unset: bool = False

    def at(self, machine: float) -> float:
        """The time, when the machine's clock says `machine`; both in seconds since 1970."""
        self.unset = machine < CLOCK_FLOOR
        if not self.unset or not self.signed:
            return machine
        self.counted = min(self.counted, machine)  # it was set back: what it had counted stands, and goes on
        return self.signed + machine - self.counted

    def learn(self, signed: float, machine: float) -> bool:
        """A time that was signed; whether it is later than what it seemed to be."""
        if machine >= CLOCK_FLOOR or signed <= self.at(machine):
            return False
        self.signed, self.counted = signed, machine
        return True
