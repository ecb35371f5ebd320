"""What happened here, told to the core under stable codes: once, durably, and without pushing out anything else."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, field

from edge.agent.disk import LONGEST
from edge.complaints import Complaints
from edge.database import obstacle
from edge.journal import Journal
from edge.outbox import Outbox
from edge.overflow import CAPACITY
from edge.untold import Saying
from sync.messages import ALARM, EVENT, DeviceEvent, Severity
from sync.names import ModelName

RECENT = 100  # events that are at hand, told or not
REFUSALS, ALL_REFUSALS = 1 / 600, 1 / 60  # a second, of one code and of all, that are told of a long row of them
TEXT, FACT = 1000, 200  # characters of an event's text, and of each of its facts


@dataclass
class Events:
    """Between what is journalled with a change of state, or only said, and the outbox."""

    journal: Journal
    outbox: Outbox
    complaints: Complaints = field(default_factory=lambda: Complaints(REFUSALS, ALL_REFUSALS))
    untold: float | None = 0.0  # when what the journal has to tell is put into the outbox (again); None: nothing waits
    recent: deque[tuple[float, DeviceEvent]] = field(default_factory=lambda: deque(maxlen=RECENT))  # what happened

    def happened(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "info",
        **facts: str | int | float,
    ) -> Saying:  # fmt: skip
        """Something under a stable code, to be written with the change of state that it tells of."""
        # Texts may quote what a stranger sent; a record too large for the core would hold up all behind it.
        short = {k: v[:FACT] if isinstance(v, str) else v for k, v in facts.items()}
        event = DeviceEvent(code, text[:TEXT], model, severity, short)
        self.recent.append((now, event))
        return Saying(now, event)

    def report(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "info",
        **facts: str | int | float,
    ) -> bool:  # fmt: skip
        """Remembers something that happened and changed nothing in the journal, until the core has committed it; false
        if the disk refuses, which the outbox counts."""
        saying = self.happened(now, code, text, model, severity, **facts)
        return self.outbox.add(saying.kind, saying.body, now)

    def complain(
        self, now: float, code: str, text: str, model: ModelName | None = None, severity: Severity = "alarm",
        **facts: str | int | float,
    ) -> None:  # fmt: skip
        """An event that whoever holds the line can cause as often as they like: told of each code a few times, then now
        and then with how many were not, and never once half of the outbox waits. So it pushes out nothing else."""
        room = self.outbox.waiting(EVENT) + self.outbox.waiting(ALARM) < CAPACITY // 2
        missed = self.complaints.admit(code, now, room=room)
        if missed is not None:
            more = {"suppressed": missed} if missed else {}
            self.report(now, code, text, model, severity, **facts, **more)

    def hand_over(self, now: float, *, anew: bool = False) -> None:
        """Puts what the journal keeps for the core into the outbox, in its order; `anew`: there is more than before. A
        disk that refuses is no reason not to act on what was written: it is told later."""
        if not anew and (self.untold is None or now < self.untold):
            return
        self.untold = now + LONGEST
        try:
            for saying in self.journal.untold():
                if not self.outbox.move(saying):
                    return
                self.journal.told(saying.id)
            self._tell_lost(now)
        except (sqlite3.Error, OSError) as error:
            if not obstacle(error):
                raise
            return
        self.untold = None

    def hurry(self) -> None:
        """The clock was set back: what waits does so for no time that is far off now."""
        if self.untold is not None:
            self.untold = 0.0

    def _tell_lost(self, now: float) -> None:
        """A cut between event and counter may tell the same ones twice, never not at all."""
        lost = self.journal.counter("untold_lost")
        text = f"the outbox took nothing for so long that {lost} events and why cards were too many to keep: see `why`"
        if lost and self.report(now, "untold-lost", text, severity="alarm", lost=lost):
            self.journal.set_counter("untold_lost", 0)
