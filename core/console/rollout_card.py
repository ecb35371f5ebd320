"""A release on its way to the fleet: the stages behind and ahead, and where each device stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.console import wording
from core.console.facts import Facts
from core.console.wording import Badge, Moment
from core.handoffs import Rollout, RolloutState
from sync.messages import ModelReport
from sync.names import DeviceId

_FORWARD = (RolloutState.APPROVED, RolloutState.CANARY, RolloutState.RAMP, RolloutState.COMPLETE)
_BACK = (RolloutState.APPROVED, RolloutState.CANARY, RolloutState.REVERSING, RolloutState.REVERSED)


@dataclass(frozen=True)
class Stage:
    """One stage of the track."""

    name: str
    place: Literal["past", "here", "ahead"]


@dataclass(frozen=True)
class Part:
    """What one device has to do with the rollout."""

    device: str
    canary: bool
    state: Badge


@dataclass(frozen=True)
class RolloutCard:
    """`committed` of `total` enrolled devices run the release for good."""

    model: str
    number: int
    digest: str
    full: str
    previous: str
    state: Badge
    since: Moment | None
    reason: str
    gates: str
    stages: tuple[Stage, ...]
    parts: tuple[Part, ...]
    committed: int
    total: int


def cards(facts: Facts, now: float) -> tuple[RolloutCard, ...]:
    """The newest rollout of every model."""
    return tuple(_card(facts, rollout, now) for rollout in facts.rollouts)


def _card(facts: Facts, rollout: Rollout, now: float) -> RolloutCard:
    fleet = {d.device: d.report.models.get(rollout.model) if d.report else None for d in facts.devices}
    everyone = tuple(dict.fromkeys((*rollout.canary, *rollout.assigned, *fleet)))
    parts = tuple(_part(rollout, device, fleet) for device in everyone)
    return RolloutCard(
        model=rollout.model,
        number=rollout.number,
        digest=wording.short(rollout.manifest),
        full=rollout.manifest,
        previous=str(rollout.previous) if rollout.previous is not None else "",
        state=wording.badge("rollout", rollout.state),
        since=wording.moment(rollout.since, now),
        reason=rollout.reason,
        gates=f"{rollout.gates.evidence}: {rollout.gates.soak_answers} answers, "
        f"at most {rollout.gates.max_errors} errors",
        stages=_stages(rollout.state),
        parts=parts,
        committed=sum(part.state.word == "committed" for part in parts),
        total=len(parts),
    )


def _stages(state: RolloutState) -> tuple[Stage, ...]:
    track = _FORWARD if state in _FORWARD else _BACK
    here = track.index(state)
    return tuple(
        Stage(stage.value, "past" if place < here else "here" if place == here else "ahead")
        for place, stage in enumerate(track)
    )


def _part(rollout: Rollout, device: DeviceId, fleet: dict[DeviceId, ModelReport | None]) -> Part:
    return Part(device, device in rollout.canary, _standing(rollout, device, fleet))


def _standing(rollout: Rollout, device: DeviceId, fleet: dict[DeviceId, ModelReport | None]) -> Badge:
    if device not in fleet:
        return Badge("notice", "not enrolled")
    report = fleet[device]
    if report is not None and rollout.manifest in report.quarantined:
        return Badge("alarm", "refused it")
    if report is not None and report.serving and report.serving.manifest == rollout.manifest:
        return Badge("ok", "committed") if report.phase == "steady" else wording.badge("phase", report.phase)
    if device not in rollout.assigned:
        return Badge("plain", "waits")
    if rollout.state in (RolloutState.REVERSING, RolloutState.REVERSED):
        return Badge("plain", "taken back")
    if report is None or not report.candidate or report.candidate.manifest != rollout.manifest:
        return Badge("busy", "assigned")
    return wording.badge("phase", report.phase)
