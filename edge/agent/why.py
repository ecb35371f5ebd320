"""The why card of a verdict: the criterion, and the numbers of both releases as they stood when it was given."""

from __future__ import annotations

import math

from edge import slots
from edge.agent.events import TEXT
from edge.agent.house import House
from edge.states import Deployment, Failure, FailureClass, Health, Phase, Slot
from sync.evidence import ALPHA_HARM, ALPHA_SAFE
from sync.reports import Side, TrialReport, WhyCard

SERVED = (Phase.PROBATION, Phase.STEADY, Phase.LIVE_SPLIT)  # where the release that is judged is the one that answers


def tried(d: Deployment) -> Slot | None:
    """The release under way, which need not be the one last ordered; None before its manifest is here."""
    return d.candidate or (d.serving if d.phase in SERVED else None)


def worse(trial: TrialReport, log_harm: float) -> Failure:
    """The verdict of the pairs, in words with the numbers of both."""
    blocks = trial.plus + trial.zero + trial.minus
    text = f"worse in {trial.plus} of {blocks} blocks and better in {trial.minus}"
    if trial.metric == "agreement":
        text = f"other answers than the incumbent in {trial.plus} of {blocks} blocks"
    if trial.labels:
        new, old = trial.right / trial.labels, trial.right_before / trial.labels
        text += f": right in {new:.2f} of {trial.labels} labelled windows, the incumbent in {old:.2f}"
    facts: dict[str, str | int | float] = {"plus": trial.plus, "zero": trial.zero, "minus": trial.minus}
    return Failure(FailureClass.VERDICT, "worse-than-incumbent", text, {**facts, "log_harm": log_harm})


def card(house: House, d: Deployment, failure: Failure, now: float) -> WhyCard | None:
    """The card of a verdict against the release under way, from what is counted now; None if there is no release."""
    trial = house.evidence.trials.report(d.model)
    new = _new(house, d, trial)
    if new is None:
        return None
    _, log_harm, log_safe = house.evidence.trials.decision(d.model)
    decides = trial is not None and trial.metric != "guardrails"
    return WhyCard(
        model=d.model,
        ts=now,
        phase=d.phase.value,
        criterion=failure.code,
        text=failure.text[:TEXT],
        new=new,
        old=_old(house, d, trial),
        trial=trial,
        log_harm=log_harm if decides else None,
        harm_at=-math.log(ALPHA_HARM) if decides else None,
        log_safe=log_safe if decides else None,
        safe_at=-math.log(ALPHA_SAFE) if decides else None,
    )


def of_arm(house: House, d: Deployment, slot: Slot, failure: Failure, now: float) -> WhyCard:
    """The card of a verdict against an arm of a split, beside the release that answers its keys from now on."""
    known, _ = house.evidence.outcomes.found(d.model)

    def side(one: Slot, health: Health) -> Side:
        told = known.get(one.release.number)
        return _side(one, health, told.right if told else 0, told.labels if told else 0)

    new = side(slot, house.serving.health(d.model, slot.release.number))
    old = side(d.serving, house.serving.health(d.model)) if d.serving else None
    return WhyCard(d.model, now, d.phase.value, failure.code, failure.text[:TEXT], new, old)


def of_answering(house: House, d: Deployment, slot: Slot, failure: Failure, now: float) -> WhyCard:
    """The card of a verdict against the release that answers while another is on its way, beside the one behind it."""
    behind = slots.fallbacks(d)
    new = _side(slot, house.serving.health(d.model) if _answers(house, slot) else Health(), 0, 0)
    old = _side(behind[0], Health(), 0, 0) if behind else None
    return WhyCard(d.model, now, d.phase.value, failure.code, failure.text[:TEXT], new, old)


def _new(house: House, d: Deployment, trial: TrialReport | None) -> Side | None:
    slot = tried(d)
    if slot is None:
        return Side(d.order.number, d.order.manifest) if d.order else None
    served = d.phase in SERVED and _answers(house, slot)
    health = house.serving.health(d.model) if served else house.evidence.trials.health(d.model)
    return _side(slot, health, trial.right if trial else 0, trial.labels if trial else 0)


def _old(house: House, d: Deployment, trial: TrialReport | None) -> Side | None:
    behind = slots.fallbacks(d)
    slot = (behind[0] if behind else None) if d.phase in SERVED else d.serving
    if slot is None:
        return None
    health = house.serving.health(d.model) if _answers(house, slot) else Health()
    return _side(slot, health, trial.right_before if trial else 0, trial.labels if trial else 0)


def _answers(house: House, slot: Slot) -> bool:
    live = house.serving.incumbent(slot.manifest.model)
    return live is not None and live.slot.release == slot.release


def _side(slot: Slot, health: Health, right: int, labels: int) -> Side:
    accuracy = right / labels if labels else None
    return Side(slot.release.number, slot.release.manifest, accuracy, health.answers, health.errors, slot.p99_ms)
