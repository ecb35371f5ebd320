"""A release on its way to the fleet: the stages behind and ahead, the evidence, and where each device stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.console import wording
from core.console.evidence import Evidence, comparison, counts_pairs, evidence
from core.console.facts import Facts
from core.console.why_card import newest_against
from core.console.wording import Badge, Moment
from core.handoffs import Rollout, RolloutState
from core.rollout.waiting import barred_in, is_barred, waits_for
from sync.names import DeviceId
from sync.reports import ModelReport

_ENDS = {
    RolloutState.REVERSING: (RolloutState.REVERSING, RolloutState.REVERSED),
    RolloutState.REVERSED: (RolloutState.REVERSING, RolloutState.REVERSED),
    RolloutState.SUPERSEDED: (RolloutState.SUPERSEDED,),
    RolloutState.PAUSED: (RolloutState.PAUSED,),
}
_FORWARD = (RolloutState.RAMP, RolloutState.COMPLETE)


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
    """`committed` of `total` enrolled devices run the release for good; `forced` says who had it serve, and why."""

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
    forced: str
    override: str  # who let it pass against a gate's word, and why
    evidence: Evidence | None
    comparison: str  # what the keys of an A/B say
    why: int | None  # the newest why card against it


def cards(facts: Facts, now: float) -> tuple[RolloutCard, ...]:
    """The newest rollout of every model."""
    return tuple(_card(facts, rollout, now) for rollout in facts.rollouts)


def _card(facts: Facts, rollout: Rollout, now: float) -> RolloutCard:
    fleet = facts.reports(rollout.model)
    everyone = tuple(dict.fromkeys((*rollout.canary, *rollout.assigned, *fleet)))
    parts = tuple(_part(rollout, device, fleet) for device in everyone)
    barred = barred_in(rollout, fleet)
    panel, keys = evidence(rollout, fleet), comparison(rollout, fleet)
    return RolloutCard(
        model=rollout.model,
        number=rollout.number,
        digest=wording.short(rollout.manifest),
        full=rollout.manifest,
        previous=str(rollout.previous) if rollout.previous is not None else "",
        state=wording.badge("rollout", rollout.state),
        since=wording.moment(rollout.since, now),
        reason=waits_for(barred) if barred and not rollout.held else rollout.reason,
        gates=_gates(rollout),
        stages=_stages(_track(rollout, panel), rollout.state),
        parts=parts,
        committed=sum(part.state.word == "committed" for part in parts),
        total=len(parts),
        forced=rollout.forced,
        override=facts.overrides.get((rollout.model, rollout.number), ""),
        evidence=panel,
        comparison=keys.text if keys is not None else "",
        why=newest_against(facts, rollout.model, rollout.manifest),
    )


def _gates(rollout: Rollout) -> str:
    gates = rollout.gates
    return (
        f"{gates.evidence}; {gates.soak_answers} answers to soak, at most {wording.plural(gates.max_errors, 'error')}"
    )


def _stages(track: tuple[RolloutState, ...], state: RolloutState) -> tuple[Stage, ...]:
    here = track.index(state)
    return tuple(
        Stage(stage.value, "past" if place < here else "here" if place == here else "ahead")
        for place, stage in enumerate(track)
    )


def _track(rollout: Rollout, panel: Evidence | None) -> tuple[RolloutState, ...]:
    """The stages this rollout passes, where it stands among them whatever has become of the release before."""
    track = _planned(rollout, panel)
    return track if rollout.state in track else (*track, rollout.state)


def _planned(rollout: Rollout, panel: Evidence | None) -> tuple[RolloutState, ...]:
    """With a shadow where pairs decide, unless somebody forced it past them."""
    in_shadow = counts_pairs(rollout) and not rollout.forced
    in_split = rollout.split is not None and not rollout.forced
    begun = (RolloutState.APPROVED, RolloutState.SHADOW) if in_shadow else (RolloutState.APPROVED,)
    begun = (*begun, RolloutState.SPLIT) if in_split else begun
    if rollout.state not in _ENDS:
        return (*begun, RolloutState.CANARY, *_FORWARD)
    if in_split or rollout.state is RolloutState.PAUSED:
        return (*begun, *_ENDS[rollout.state])
    served = not in_shadow or (panel is not None and panel.decided and panel.decision.level == "ok")
    return (*begun, *((RolloutState.CANARY,) if served else ()), *_ENDS[rollout.state])


def _part(rollout: Rollout, device: DeviceId, fleet: dict[DeviceId, ModelReport | None]) -> Part:
    return Part(device, device in rollout.canary, _standing(rollout, device, fleet))


def _standing(rollout: Rollout, device: DeviceId, fleet: dict[DeviceId, ModelReport | None]) -> Badge:
    if device not in fleet:
        return Badge("notice", "not enrolled")
    report = fleet[device]
    if report is not None and report.quarantined.get(rollout.manifest, -1) >= rollout.retry:
        return Badge("alarm", "refused it")
    if device in rollout.assigned and is_barred(rollout, report):
        return Badge("alarm", "takes up none")
    if report is not None and report.serving and report.serving.manifest == rollout.manifest:
        return Badge("ok", "committed") if report.phase == "steady" else wording.badge("phase", report.phase)
    if device not in rollout.assigned:
        return Badge("plain", "waits")
    if rollout.state in (RolloutState.REVERSING, RolloutState.REVERSED):
        return Badge("plain", "taken back")
    if report is None or not report.candidate or report.candidate.manifest != rollout.manifest:
        return Badge("busy", "assigned")
    return wording.badge("phase", report.phase)
