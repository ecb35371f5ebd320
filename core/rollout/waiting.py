"""Whom a rollout waits for in vain, and what a person is told of it: a device that cannot read its own verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from sync.names import DeviceId
from sync.reports import ANY, ModelReport

MOST_NAMED = 10  # devices in one text
ON_ITS_WAY = (State.SHADOW, State.SPLIT, State.CANARY, State.RAMP)
Fleet = Mapping[DeviceId, ModelReport | None]  # every device that belongs to the fleet, and its last word


def barred_in(rollout: Rollout, fleet: Fleet) -> tuple[DeviceId, ...]:
    """Whom a rollout on its way waits for in vain now; empty again once they can read or were set aside."""
    if rollout.state not in ON_ITS_WAY:
        return ()
    return tuple(d for d in rollout.assigned if d not in rollout.aside and is_barred(rollout, fleet.get(d)))


def is_barred(rollout: Rollout, report: ModelReport | None) -> bool:
    """Whether the device takes up nothing in this generation, for a verdict that rotted on its disk. That says nothing
    against the release, and is no reason to take it back from anybody."""
    return report is not None and report.quarantined.get(ANY, -1) >= rollout.retry and not runs(rollout, report)


def waits_for(barred: Sequence[DeviceId]) -> str:
    """What a person is told of those that `barred_in` found."""
    return f"waits for a person: {named(barred)} cannot read one of its own verdicts, which may be against any release"


def named(devices: Sequence[DeviceId]) -> str:
    """Devices by name, the first few of many."""
    more = len(devices) - MOST_NAMED
    return ", ".join(devices[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def runs(rollout: Rollout, report: ModelReport | None) -> bool:
    """Whether the device has the release, in whatever place."""
    arms = report.split.arms if report is not None and report.split is not None else ()
    return report is not None and any(
        r is not None and r.manifest == rollout.manifest for r in (report.serving, report.candidate, *arms)
    )
