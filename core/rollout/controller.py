"""Decides the next step of a rollout: a pure function of the rollout, the fleet's reports and the time.

Where pairs decide, the canary devices run it in shadow first, until the pairs of all of them say harm or safe
(`core.rollout.judge`); an A/B has it answer some of the keys there, until what became of their answers says better or
worse (`core.rollout.arms`). Neither goes on for ever: after `days` it is paused, and the devices are as before. Then,
or at once under guardrails, they serve it; the rest follows when every canary device has committed. Reversed as soon as
the pairs say harm, or a quorum of devices gave a verdict against the release (`core.quorum`); one verdict among three
devices or more keeps it from going on until a person speaks. Offline devices are waited for, never counted as failures
(docs/operations.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.quorum import quorum
from core.rollout.arms import Comparison, compare
from core.rollout.judge import Judgement, judge, pairs_decide
from core.rollout.waiting import ON_ITS_WAY, Fleet, barred_in, named, runs
from sync.evidence import Decision as Word
from sync.messages import Gates
from sync.names import DeviceId
from sync.reports import ModelReport

DAY = 86_400.0  # seconds
MOST_TOLD = 300  # characters of a device's own reason


@dataclass(frozen=True)
class Decision:
    """The rollout's next state, and the devices to assign: to the release, or back to the previous one.

    `mode` is for those assigned to the release, `gates` for all. `barred` are those that it waits for in vain.
    `judgement` is what the pairs said when it left the shadow, `comparison` what the keys said when the split ended,
    `heard` whose reports the decision rests on.
    """

    rollout: Rollout
    assign: tuple[DeviceId, ...] = ()
    take_back: tuple[DeviceId, ...] = ()
    mode: Literal["live", "shadow", "split"] = "live"
    gates: Gates = field(default_factory=Gates)
    judgement: Judgement | None = None
    comparison: Comparison | None = None
    heard: tuple[DeviceId, ...] = ()
    barred: tuple[DeviceId, ...] = ()


def decide(rollout: Rollout, fleet: Fleet, now: float, behind: Collection[DeviceId] = frozenset()) -> Decision:
    """The next step; the same inputs always give the same decision. An unchanged rollout means: hold.

    Devices `behind` have not yet answered to what they were told last: that such a one serves the release says nothing
    of this rollout, for it may have done so before. One that has left the fleet is waited for no more.
    """
    harmed = _harmed(rollout, fleet)
    if harmed and rollout.state in ON_ITS_WAY:
        return _against(rollout, fleet, harmed, now, behind)
    step = _step(replace(rollout, held=()), fleet, now, behind)
    barred = barred_in(rollout, fleet)
    if not barred or step.rollout.state != rollout.state:
        return step
    told = tuple(dict.fromkeys((*rollout.barred, *barred)))
    return dataclasses.replace(step, rollout=replace(step.rollout, barred=told), barred=barred)


def _step(rollout: Rollout, fleet: Fleet, now: float, behind: Collection[DeviceId]) -> Decision:
    match rollout.state:
        case State.APPROVED:
            return _start(rollout, fleet, now)
        case State.SHADOW:
            return _weigh(rollout, fleet, now, behind)
        case State.SPLIT:
            return _compare(rollout, fleet, now)
        case State.CANARY if _all_committed(rollout, fleet, behind):
            rest = tuple(d for d in fleet if d not in rollout.assigned)
            moved = replace(rollout, state=State.RAMP, since=now, assigned=(*rollout.assigned, *rest),
                            reason="every canary device committed")  # fmt: skip
            return Decision(moved, assign=rest, gates=spoken(rollout))
        case State.RAMP | State.COMPLETE:
            return _ramp(rollout, fleet, now, behind)
        case State.REVERSED:
            return _join(rollout, fleet, back=True)
        case State.REVERSING if not any(runs(rollout, fleet.get(d)) for d in rollout.assigned):
            return Decision(replace(rollout, state=State.REVERSED, since=now))
    return Decision(rollout)


def reverse(rollout: Rollout, fleet: Fleet, reason: str, now: float) -> Decision:
    """A person's word: everybody who has it goes back, however far the rollout is."""
    judgement = judge(rollout, fleet) if rollout.state is State.SHADOW else None
    return _reverse(rollout, reason, now, judgement, ())


def _against(
    rollout: Rollout, fleet: Fleet, harmed: tuple[DeviceId, ...], now: float, behind: Collection[DeviceId]
) -> Decision:
    """Devices gave a verdict. Too few of them take nobody back, and are a reason not to go on: they are back by
    themselves already. What ends a shadow or a split otherwise, harm, worse, or its days, ends it now too."""
    judgement = judge(rollout, fleet) if rollout.state is State.SHADOW else None
    names, why = named(harmed), _reason(fleet.get(harmed[0]))
    wanted = quorum(_taking_part(rollout, fleet))
    if len(harmed) >= wanted:
        return _reverse(rollout, f"{names} gave a verdict against it: {why}", now, judgement, harmed)
    if rollout.state in (State.SHADOW, State.SPLIT):
        step = _step(replace(rollout, held=()), fleet, now, behind)
        if step.take_back:
            return dataclasses.replace(step, heard=tuple(dict.fromkeys((*harmed, *step.heard))))
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
    beside = rollout.previous is not None and not rollout.forced
    mode: Literal["live", "shadow", "split"] = "live"
    if beside and (rollout.split is not None or pairs_decide(rollout.gates)):
        mode = "split" if rollout.split is not None else "shadow"
    begun = {"live": State.CANARY, "shadow": State.SHADOW, "split": State.SPLIT}[mode]
    moved = replace(rollout, state=begun, since=now, assigned=rollout.canary, reason=_beginning(rollout, mode))
    return Decision(moved, assign=rollout.canary, mode=mode, gates=rollout.gates)


def _beginning(rollout: Rollout, mode: str) -> str:
    if mode == "split" and rollout.split is not None:
        share = rollout.split.share / 100
        return f"on the canary devices it answers {share:g} % of the keys, release {rollout.previous} the others"
    if mode == "shadow":
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
            return _overdue(rollout, now) or Decision(rollout)
    moved = replace(rollout, state=State.CANARY, since=now, reason=reason, decided=judgement.devices)
    return Decision(moved, assign=rollout.assigned, gates=spoken(rollout), judgement=judgement, heard=heard)


def _compare(rollout: Rollout, fleet: Fleet, now: float) -> Decision:
    """In a split the keys decide: better goes on, worse goes back, and where keys or words are missing for a reason a
    person must look."""
    found = compare(rollout, fleet)
    heard, text = tuple(found.devices), f"release {rollout.previous}: {found.text}"
    kept = replace(rollout, since=now, compared=found.devices)
    match found.decision:
        case "worse":
            moved = replace(kept, state=State.REVERSING, reason=f"it does worse than {text}")
            return Decision(moved, take_back=rollout.assigned, gates=spoken(rollout), comparison=found, heard=heard)
        case "better":
            moved = replace(kept, state=State.CANARY, reason=f"it does better than {text}")
            return Decision(moved, assign=rollout.assigned, gates=spoken(rollout), comparison=found, heard=heard)
        case "mismatch":
            return _pause(kept, f"beside {text}", now, found)
    return _overdue(rollout, now, found) or Decision(rollout)


def _overdue(rollout: Rollout, now: float, found: Comparison | None = None) -> Decision | None:
    """What ends a shadow or a split that decides nothing: it costs its devices memory, and other models their turn."""
    if not rollout.days or now - rollout.since < rollout.days * DAY:
        return None
    told = f"; {found.text}" if found is not None else ""
    kept = replace(rollout, compared=found.devices) if found is not None else rollout
    return _pause(kept, f"{rollout.state.value} decided nothing in {rollout.days:g} days{told}", now, found)


def _pause(rollout: Rollout, reason: str, now: float, found: Comparison | None) -> Decision:
    """The devices are as before, and a person decides: forced, tried anew, or reversed."""
    moved = replace(rollout, state=State.PAUSED, since=now, reason=reason)
    heard = tuple(found.devices) if found is not None else ()
    return Decision(moved, take_back=rollout.assigned, gates=spoken(rollout), comparison=found, heard=heard)


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
    assigned = frozenset(rollout.assigned)
    joined = tuple(d for d in fleet if d not in assigned)
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


def _refused(rollout: Rollout, report: ModelReport | None) -> bool:
    """Whether the device gave a verdict in this generation: an older one is what a retry lifts."""
    return report is not None and report.quarantined.get(rollout.manifest, -1) >= rollout.retry


def _reason(report: ModelReport | None) -> str:
    return report.reason[:MOST_TOLD] if report and report.reason else "no reason given"
