"""The one table of transitions, and the one rule for every power cut. docs/lifecycle.md is drawn from here.

Theory. A pair that is not in the table raises and changes nothing. Failures before a release served end in
REVERTING like all others: it is the one place where "who answers now?" is settled, by RETURNED or EMPTIED.
"""

from __future__ import annotations

from edge.states import Event, Phase

TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.NO_MODEL, Event.OFFERED): Phase.FETCHING,
    (Phase.STEADY, Event.OFFERED): Phase.FETCHING,
    (Phase.STEADY, Event.DEGRADED): Phase.REVERTING,
    (Phase.STEADY, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.STEADY, Event.JOINED): Phase.LIVE_SPLIT,
    (Phase.FETCHING, Event.COMPLETE): Phase.STAGED,
    (Phase.FETCHING, Event.REFUSED): Phase.REVERTING,
    (Phase.FETCHING, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.STAGED, Event.ALLOWED): Phase.PROVING,
    (Phase.STAGED, Event.REFUSED): Phase.REVERTING,
    (Phase.STAGED, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.PROVING, Event.UNFIT): Phase.FETCHING,
    (Phase.PROVING, Event.PROVED): Phase.SHADOW,
    (Phase.PROVING, Event.REFUSED): Phase.REVERTING,
    (Phase.PROVING, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.SHADOW, Event.CLEARED): Phase.PROBATION,
    (Phase.SHADOW, Event.JOINED): Phase.LIVE_SPLIT,
    (Phase.SHADOW, Event.DEGRADED): Phase.REVERTING,
    (Phase.SHADOW, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.PROBATION, Event.OFFERED): Phase.FETCHING,
    (Phase.PROBATION, Event.SOAKED): Phase.STEADY,
    (Phase.PROBATION, Event.DEGRADED): Phase.REVERTING,
    (Phase.PROBATION, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.LIVE_SPLIT, Event.OFFERED): Phase.FETCHING,
    (Phase.LIVE_SPLIT, Event.CLEARED): Phase.PROBATION,
    (Phase.LIVE_SPLIT, Event.DEGRADED): Phase.REVERTING,
    (Phase.LIVE_SPLIT, Event.WITHDRAWN): Phase.REVERTING,
    (Phase.REVERTING, Event.RETURNED): Phase.STEADY,
    (Phase.REVERTING, Event.BACK_ON_TRIAL): Phase.PROBATION,
    (Phase.REVERTING, Event.EMPTIED): Phase.NO_MODEL,
}

# After a power cut in this phase, go on in that one. What is not journalled (a proof) is repeated;
# what a trial counted lies in a file of its own (`edge.trials`).
RESUME: dict[Phase, Phase] = {
    Phase.NO_MODEL: Phase.NO_MODEL,
    Phase.STEADY: Phase.STEADY,
    Phase.FETCHING: Phase.FETCHING,
    Phase.STAGED: Phase.STAGED,
    Phase.PROVING: Phase.STAGED,
    Phase.SHADOW: Phase.SHADOW,
    Phase.PROBATION: Phase.PROBATION,
    Phase.LIVE_SPLIT: Phase.LIVE_SPLIT,
    Phase.REVERTING: Phase.REVERTING,
}

AT_REST = frozenset({Phase.NO_MODEL, Phase.STEADY, Phase.LIVE_SPLIT})  # a new order may be taken up here


class IllegalEvent(RuntimeError):
    """A programmer's mistake: the walker fed an event that cannot happen in this phase."""


def step(phase: Phase, event: Event) -> Phase:
    """The next phase; raises IllegalEvent for a pair that is not in the table."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalEvent(f"{event} cannot happen in {phase}") from None


def drawing() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2"]
    lines += [f"    {a.name} --> {b.name}: {event}" for (a, event), b in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"
