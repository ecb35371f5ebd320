"""Answers that take longer than the profile allows: is it the release on trial, or this host?

The release before it runs in turn with it, on the same input: a busy host slows down both, and is no reason to go back.
"""

from __future__ import annotations

from edge.agent.house import House
from edge.health import PACED, Pace, pace
from edge.states import Deployment, Health, Slot
from sync.names import ModelName

AT_ONCE = 2  # runs of each in one walk: a slow release must not hold up the walker


def begin(house: House, model: ModelName) -> None:
    """Another release is on trial: what was known of the one before says nothing of it."""
    house.bench.paces.pop(model, None)
    house.bench.host_slow.discard(model)


def slowed(house: House, d: Deployment, slot: Slot, counted: Health, now: float) -> tuple[Pace | None, str]:
    """Whom the answers of the release on trial wait for, and in words; None while they are quick enough, or there is no
    release to run beside it."""
    allowed, warm = slot.manifest.profile.p99_ms, house.bench.warm.get(d.model)
    if counted.p99_ms <= allowed or warm is None:
        house.bench.paces.pop(d.model, None)
        return None, ""
    new, old = house.bench.paces.setdefault(d.model, ([], []))
    for known, more in zip((new, old), house.serving.beside(d.model, warm, AT_ONCE), strict=True):
        if not more:
            return None, ""
        known += more
        del known[:-PACED]
    found = pace(new, old, allowed)
    text = f"p99 is {counted.p99_ms:.2f} ms, the profile allows {allowed:g} ms"
    if found is Pace.HOST:
        text += f"; release {warm.slot.release.number} beside it took up to {max(old):.2f} ms: this host is busy"
        if d.model not in house.bench.host_slow:
            house.bench.host_slow.add(d.model)
            house.events.report(now, "host-slow", text, d.model, "alarm", p99_ms=counted.p99_ms, beside_ms=max(old))
    return found, text
