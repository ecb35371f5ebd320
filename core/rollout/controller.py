"""Decides the next step of a rollout: a pure function of the rollout, the fleet's reports and the time.

Where pairs decide, the canary devices run it in shadow first, until the pairs of all of them say harm or safe
(`core.rollout.judge`). Then, or at once under guardrails, they serve it; the rest follows when every canary device has
committed. Reversed as soon as the pairs say harm, or a quorum of devices gave a verdict against the release
(`core.quorum`); one verdict among three devices or more holds it where it is until a person speaks. Offline devices are
waited for, never counted as failures (docs/operations.md).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.quorum import quorum
from core.rollout.judge import Judgement, judge, pairs_decide
from sync.evidence import Decision as Word
from sync.messages import Gates
from sync.names import DeviceId
from sync.reports import ModelReport

MOST_TOLD = 300  # characters of a device's own reason
Fleet = Mapping[DeviceId, ModelReport | None]  # every device that belongs to the fleet, and its last word


@dataclass(frozen=True)
class Decision:
    """The rollout's next state, and the devices to assign: to the release, or back to the previous one.

    `mode` is for those assigned to the release, `gates` for all. `judgement` is what the pairs said when it left the
    shadow, `heard` whose reports the decision rests on.
    """

    rollout: Rollout
    assign: tuple[DeviceId, ...] = ()
    take_back: tuple[DeviceId, ...] = ()
    mode: Literal["live", "shadow"] = "live"
    gates: Gates = field(default_factory=Gates)
    judgement: Judgement | None = None
    heard: tuple[DeviceId, ...] = ()


def decide(rollout: Rollout, fleet: Fleet, now: float, behind: Collection[DeviceId] = frozenset()) -> Decision:
    """The next step; the same inputs always give the same decision. An unchanged rollout means: hold.

    Devices `behind` have not yet answered to what they were told last: that such a one serves the release says nothing
    of this rollout, for it may have done so before. One that has left the fleet is waited for no more.
    """
    harmed = _harmed(rollout, fleet)
    if harmed and rollout.state in (State.SHADOW, State.CANARY, State.RAMP):
        return _against(rollout, fleet, harmed, now)
    rollout = replace(rollout, held=())
    match rollout.state:
        case State.APPROVED:
            return _start(rollout, fleet, now)
        case State.SHADOW:
            return _weigh(rollout, fleet, now, behind)
        case State.CANARY if _all_committed(rollout, fleet, behind):
            rest = tuple(d for d in fleet if d not in rollout.assigned)
            moved = replace(rollout, state=State.RAMP, since=now, assigned=(*rollout.assigned, *rest),
                            reason="every canary device committed")  # fmt: skip
            return Decision(moved, assign=rest, gates=spoken(rollout))
        case State.RAMP | State.COMPLETE:
            return _ramp(rollout, fleet, now, behind)
        case State.REVERSED:
            return _join(rollout, fleet, back=True)
        case State.REVERSING if not any(_runs(rollout, fleet.get(d)) for d in rollout.assigned):
            return Decision(replace(rollout, state=State.REVERSED, since=now))
    return Decision(rollout)


def reverse(rollout: Rollout, fleet: Fleet, reason: str, now: float) -> Decision:
    """A person's word: everybody who has it goes back, however far the rollout is."""
    judgement = judge(rollout, fleet) if rollout.state is State.SHADOW else None
    return _reverse(rollout, reason, now, judgement, ())


def _against(rollout: Rollout, fleet: Fleet, harmed: tuple[DeviceId, ...], now: float) -> Decision:
    """Devices gave a verdict. Too few of them take nobody back, and are a reason not to go on: they are back by
    themselves already. In shadow the pairs of all may still say harm."""
    judgement = judge(rollout, fleet) if rollout.state is State.SHADOW else None
    names, why = ", ".join(harmed), _reason(fleet.get(harmed[0]))
    wanted = quorum(_taking_part(rollout, fleet))
    if len(harmed) >= wanted:
        return _reverse(rollout, f"{names} gave a verdict against it: {why}", now, judgement, harmed)
    if judgement is not None and judgement.decision is Word.HARM:
        return _reverse(rollout, _worse(rollout, judgement), now, judgement, harmed)
    text = f"held for a person: {names} gave a verdict against it, {wanted} devices take it back by themselves: {why}"
    return Decision(replace(rollout, held=harmed, reason=text))


def _harmed(rollout: Rollout, fleet: Fleet) -> tuple[DeviceId, ...]:
    """A verdict that was given once counts on: no device can take it back, nor alarm people by turns."""
    there = (d for d in rollout.assigned if d in fleet and d not in rollout.aside)
    return tuple(d for d in there if d in rollout.held or _refused(rollout, fleet[d]))


def _taking_part(rollout: Rollout, fleet: Fleet) -> int:
    return sum(d in fleet and d not in rollout.aside for d in rollout.assigned)


def _start(rollout: Rollout, fleet: Fleet, now: float) -> Decision:
    """Waits until every canary device is enrolled: a canary that is not there proves nothing."""
    absent = [d for d in rollout.canary if d not in fleet]
    if absent or not rollout.canary:
        return Decision(replace(rollout, reason=f"waiting for canary {', '.join(absent) or 'devices'} to enrol"))
    paired = pairs_decide(rollout.gates) and rollout.previous is not None and not rollout.forced
    moved = replace(rollout, state=State.SHADOW if paired else State.CANARY, since=now, assigned=rollout.canary,
                    reason=_beginning(rollout, paired=paired))  # fmt: skip
    mode: Literal["live", "shadow"] = "shadow" if paired else "live"
    return Decision(moved, assign=rollout.canary, mode=mode, gates=rollout.gates)


def _beginning(rollout: Rollout, *, paired: bool) -> str:
    if paired:
        return f"the canary devices run it beside release {rollout.previous}; {rollout.gates.evidence} decide"
    if rollout.forced:
        return f"canary assigned without a shadow, forced by {rollout.forced}"
    alone = rollout.previous is None
    return "canary assigned; a first release is judged by guardrails" if alone else "canary assigned"


def _weigh(rollout: Rollout, fleet: Fleet, now: float, behind: Collection[DeviceId]) -> Decision:
    """In shadow the pairs decide. A device without an incumbent of its own serves at once: if all of the canary did
    and committed, there is nobody left to compare anything."""
    judgement = judge(rollout, fleet)
    heard = tuple(judgement.devices)
    match judgement.decision:
        case Word.HARM:
            return _reverse(rollout, _worse(rollout, judgement), now, judgement, heard)
        case Word.SAFE:
            reason = f"it does no worse than release {rollout.previous}: {judgement.text}"
        case _ if _all_committed(rollout, fleet, behind):
            reason = "every canary device committed it without an incumbent to compare it with"
        case _:
            return Decision(rollout)
    moved = replace(rollout, state=State.CANARY, since=now, reason=reason, decided=judgement.devices)
    return Decision(moved, assign=rollout.assigned, gates=spoken(rollout), judgement=judgement, heard=heard)


def _worse(rollout: Rollout, judgement: Judgement) -> str:
    return f"it does worse than release {rollout.previous}: {judgement.text}"


def _reverse(
    rollout: Rollout, reason: str, now: float, judgement: Judgement | None, heard: tuple[DeviceId, ...]
) -> Decision:
    decided = judgement.devices if judgement else rollout.decided
    moved = replace(rollout, state=State.REVERSING, since=now, reason=reason, decided=decided, held=())
    told = tuple(dict.fromkeys((*heard, *(judgement.devices if judgement else ()))))
    return Decision(moved, take_back=rollout.assigned, gates=spoken(rollout), judgement=judgement, heard=told)


def spoken(rollout: Rollout) -> Gates:
    """The gates of whoever comes after the evidence: it is not gathered twice, and never against a release that is
    being taken back."""
    return replace(rollout.gates, evidence="guardrails")


def _ramp(rollout: Rollout, fleet: Fleet, now: float, behind: Collection[DeviceId]) -> Decision:
    """Devices that enrolled meanwhile join; complete when all have committed.

    A complete rollout stays complete when one joins: its verdict would be its own, no reason to take back the rest.
    """
    joining = _join(rollout, fleet, back=False)
    if joining.assign:
        return joining
    if rollout.state is State.RAMP and _all_committed(rollout, fleet, behind):
        done = replace(rollout, state=State.COMPLETE, since=now, reason="every device committed")
        return Decision(done)
    return Decision(rollout)


def _join(rollout: Rollout, fleet: Fleet, *, back: bool) -> Decision:
    """Whoever enrolled meanwhile gets the release, or after a reversal what the others went back to."""
    joined = tuple(d for d in fleet if d not in rollout.assigned)
    if not joined or (back and rollout.previous is None):
        return Decision(rollout)
    moved = replace(rollout, assigned=(*rollout.assigned, *joined))
    gates = spoken(rollout)
    return Decision(moved, take_back=joined, gates=gates) if back else Decision(moved, assign=joined, gates=gates)


def _all_committed(rollout: Rollout, fleet: Fleet, behind: Collection[DeviceId]) -> bool:
    there = [d for d in rollout.assigned if d in fleet and d not in rollout.aside]
    return bool(there) and all(d not in behind and _committed(rollout, fleet[d]) for d in there)


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
    """Whether the device gave a verdict in this generation: an older one is what a retry lifts."""
    return report is not None and report.quarantined.get(rollout.manifest, -1) >= rollout.retry


def _reason(report: ModelReport | None) -> str:
    return report.reason[:MOST_TOLD] if report and report.reason else "no reason given"
