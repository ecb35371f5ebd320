"""Who answers before its trial is over, because nothing else would: a first release that a newer order follows.

It goes on answering until the one ordered instead is proved and begins its own trial, and then is the one to go back
to. It never counts as committed by that: it is held to the hard guardrails in every phase (`watch`), and where it is
gone back to its trial goes on (PROBATION). Memory is held against it there alone: here another may be on trial.

A committed release is watched as well while another is on its way, for one thing: that it crashes the agent.
"""

from __future__ import annotations

from edge import health, slots
from edge.agent import leaving, why
from edge.agent.house import House
from edge.states import Deployment, Event, Failure, FailureClass, Phase, Slot
from edge.verdicts import Quarantined
from sync.messages import ModelOrder


def stays(d: Deployment, order: ModelOrder) -> bool:
    """Whether the release on trial answers on though this order wants another: there is none to go back to, and nobody
    took it back, by mode or by floor."""
    if d.serving is None or order.mode == "off" or slots.fallbacks(slots.renew(d, order)):
        return False
    return d.serving.release.number >= order.floor


def watch(house: House, d: Deployment, now: float) -> Deployment:
    """Takes off who answers while another release is on its way, if it breaks a guardrail: with a verdict and its card;
    or, on trial, if the floor of the order was raised above it. Who is behind it answers, or nobody; what is on its way
    begins anew."""
    slot = d.serving
    if slot is None or d.phase not in _UNDER_WAY:
        return d
    if slot.unsoaked and d.order is not None and slot.release.number < d.order.floor:
        text = f"release {slot.release.number} is below the floor, {d.order.floor}, and its trial is not over"
        leaving.leave(house, d, slots.drop_serving(d, text, now), None, None, None)
        return house.deployments[d.model]
    failure = _broken(house, d, slot, now)
    if failure is None:
        return d
    retry = slots.generation(d, slot)
    verdict = Quarantined(slot.release.artifact, slot.release.manifest, retry, failure.text)
    facts = {**failure.facts, "manifest": str(slot.release.manifest)}
    says = house.events.happened(now, failure.code, failure.text, d.model, "alarm", **facts)
    card = why.of_answering(house, d, slot, failure, now)
    leaving.leave(house, d, slots.drop_serving(d, failure.text, now), verdict, card, says)
    return house.deployments[d.model]


_UNDER_WAY = frozenset({Phase.FETCHING, Phase.STAGED, Phase.PROVING, Phase.SHADOW})


def _broken(house: House, d: Deployment, slot: Slot, now: float) -> Failure | None:
    gates = leaving.gates_of(d)
    crashing = health.crashing(slot.crashes, now, gates)
    if crashing:
        return Failure(FailureClass.VERDICT, "crash-loop", crashing)
    answers = house.serving.incumbent(d.model)
    if not slot.unsoaked or answers is None or answers.slot.release != slot.release:
        return None
    event, reason = health.judge(house.serving.health(d.model), gates)
    return Failure(FailureClass.VERDICT, "guardrail", reason) if event is Event.DEGRADED else None
