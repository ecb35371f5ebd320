"""Decides the next step of a rollout: a pure function of the rollout, the fleet's reports and the time.

Canary first; the rest when every canary device has committed; reversed as soon as one device gave a verdict
against the release. Offline devices are waited for, never counted as failures (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from sync.messages import ModelReport
from sync.names import DeviceId

Fleet = Mapping[DeviceId, ModelReport | None]  # every enrolled device and its last word on this model


@dataclass(frozen=True)
class Decision:
    """The rollout's next state, and the devices to assign: to the release, or back to the previous one."""

    rollout: Rollout
    assign: tuple[DeviceId, ...] = ()
    take_back: tuple[DeviceId, ...] = ()


def decide(rollout: Rollout, fleet: Fleet, now: float) -> Decision:
    """The next step; the same inputs always give the same decision. An unchanged rollout means: hold."""
    harmed = tuple(d for d in rollout.assigned if _refused(rollout, fleet.get(d)))
    if harmed and rollout.state in (State.CANARY, State.RAMP):
        names = ", ".join(harmed)
        text = f"{names} gave a verdict against it: {_reason(fleet.get(harmed[0]))}"
        moved = replace(rollout, state=State.REVERSING, since=now, reason=text)
        return Decision(moved, take_back=rollout.assigned)
    match rollout.state:
        case State.APPROVED:
            return _start(rollout, fleet, now)
        case State.CANARY if _all_committed(rollout, rollout.assigned, fleet):
            rest = tuple(d for d in fleet if d not in rollout.assigned)
            moved = replace(rollout, state=State.RAMP, since=now, assigned=(*rollout.assigned, *rest),
                            reason="every canary device committed")  # fmt: skip
            return Decision(moved, assign=rest)
        case State.RAMP | State.COMPLETE:
            return _ramp(rollout, fleet, now)
        case State.REVERSED:
            return _join(rollout, fleet, back=True)
        case State.REVERSING if not any(_runs(rollout, fleet.get(d)) for d in rollout.assigned):
            return Decision(replace(rollout, state=State.REVERSED, since=now))
    return Decision(rollout)


def _start(rollout: Rollout, fleet: Fleet, now: float) -> Decision:
    """Waits until every canary device is enrolled: a canary that is not there proves nothing."""
    absent = [d for d in rollout.canary if d not in fleet]
    if absent or not rollout.canary:
        return Decision(replace(rollout, reason=f"waiting for canary {', '.join(absent) or 'devices'} to enrol"))
    moved = replace(rollout, state=State.CANARY, since=now, assigned=rollout.canary, reason="canary assigned")
    return Decision(moved, assign=rollout.canary)


def _ramp(rollout: Rollout, fleet: Fleet, now: float) -> Decision:
    """Devices that enrolled meanwhile join; complete when all have committed.

    A complete rollout stays complete when one joins: its verdict would be its own, no reason to take back the rest.
    """
    joining = _join(rollout, fleet, back=False)
    if joining.assign:
        return joining
    if rollout.state is State.RAMP and _all_committed(rollout, rollout.assigned, fleet):
        done = replace(rollout, state=State.COMPLETE, since=now, reason="every device committed")
        return Decision(done)
    return Decision(rollout)


def _join(rollout: Rollout, fleet: Fleet, *, back: bool) -> Decision:
    """Whoever enrolled meanwhile gets the release, or after a reversal what the others went back to."""
    joined = tuple(d for d in fleet if d not in rollout.assigned)
    if not joined or (back and rollout.previous is None):
        return Decision(rollout)
    moved = replace(rollout, assigned=(*rollout.assigned, *joined))
    return Decision(moved, take_back=joined) if back else Decision(moved, assign=joined)


def _all_committed(rollout: Rollout, devices: tuple[DeviceId, ...], fleet: Fleet) -> bool:
    return bool(devices) and all(_committed(rollout, fleet.get(d)) for d in devices)


def _committed(rollout: Rollout, report: ModelReport | None) -> bool:
    return (
        report is not None
        and report.phase == "steady"
        and report.serving is not None
        and report.serving.manifest == rollout.manifest
    )


def _runs(rollout: Rollout, report: ModelReport | None) -> bool:
    return report is not None and any(
        r is not None and r.manifest == rollout.manifest for r in (report.serving, report.candidate)
    )


def _refused(rollout: Rollout, report: ModelReport | None) -> bool:
    return report is not None and rollout.manifest in report.quarantined


def _reason(report: ModelReport | None) -> str:
    return report.reason if report and report.reason else "no reason given"
