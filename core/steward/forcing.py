"""The orders by which a person overrules the machine: a candidate against a gate's word, a release without a shadow's,
a rollout that is held or should be, a device's verdict. All ask for a reason; who and why are told for good."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from core import orders
from core.catalog.fleet import ALL
from core.fleet.reports import reports_of
from core.handoffs import ROLLOUT_ENDED, Rollout, RolloutState
from core.rollout import controller
from core.steward import approvals, rounds
from core.steward.house import House
from core.steward.refusals import Refusal, declared_model
from core.steward.staging import stage


def override(house: House, order: orders.Override, now: float) -> dict[str, Any]:
    """Stages a refused candidate; its owner has still to sign the release. Returns model, number, failed gates."""
    reason = _reason(order.reason)
    candidate = house.catalog.releases.candidate(order.candidate)
    if candidate is None:
        hint = "`falaj candidate list` has all of them"
        raise Refusal("no-such-candidate", f"there is no candidate {order.candidate}", hint)
    declared_model(house, candidate.model)
    staged = [r.number for r in house.catalog.releases.releases(ALL) if r.candidate == order.candidate]
    if candidate.accepted:
        text = f"candidate {order.candidate} passed its gates: there is nothing to override"
        raise Refusal("candidate-accepted", text, "its release awaits the owner: `falaj status` shows it")
    if staged:
        text = f"candidate {order.candidate} is release {staged[0]} of {candidate.model} already"
        raise Refusal("candidate-staged", text, f"sign it: `falaj trust approve {candidate.model}@{staged[0]}`")
    failed = {v.gate: v.text for v in candidate.verdicts if v.outcome != "pass"}
    manifest = stage(house, candidate, order.candidate, now, override=f"{order.actor}: {reason}")
    gates = ", ".join(failed)
    text = f"release {manifest.number} awaits approval against {gates or 'its gates'}, by {order.actor}: {reason}"
    house.event(
        now, "gates-overridden", text, model=candidate.model, severity="alarm", candidate=str(order.candidate),
        number=str(manifest.number), actor=order.actor, reason=reason, **{f"gate {g}": t for g, t in failed.items()},
    )  # fmt: skip
    return {"model": candidate.model, "number": manifest.number, "failed": failed}


def force(house: House, order: orders.Force, now: float) -> dict[str, Any]:
    """Rolls an approved release out anew, live on its canary devices at once; a rollout under way ends. Where pairs
    count, the devices still take it back by themselves if their own say harm."""
    reason = _reason(order.reason)
    found = house.catalog.releases.release(order.model, order.number)
    if found is None:
        raise Refusal("no-such-release", f"there is no release {order.number} of {order.model}", "see `falaj status`")
    row, _ = found
    if row.state != "approved":
        hint = (
            f"sign it first: `falaj trust approve {order.model}@{order.number}`"
            if row.state == "staged"
            else "what was revoked never comes back: train a new one, `falaj train`"
        )
        raise Refusal("not-approved", f"release {order.number} of {order.model} is {row.state}", hint)
    rollout = approvals.planned(house, row, now, forced=f"{order.actor}: {reason}")
    if _serves_everywhere(house, rollout):
        text = f"release {order.number} of {order.model} serves on every device already"
        raise Refusal("serves-everywhere", text, "there is nothing to force; `falaj status` shows each device")
    approvals.begin(house, rollout, f"release {order.number} was forced", now)
    house.event(
        now, "rollout-forced", f"release {order.number} shall serve without a shadow, by {order.actor}: {reason}",
        model=order.model, severity="alarm", number=str(order.number), retry=str(rollout.retry), actor=order.actor,
        reason=reason,
    )  # fmt: skip
    return {"canary": list(rollout.canary), "retry": rollout.retry, **approvals.needed(rollout)}


def reverse(house: House, order: orders.Reverse, now: float) -> dict[str, Any]:
    """Everybody who has the release goes back to the one before, or to none. Returns who."""
    reason = _reason(order.reason)
    key, rollout = _newest(house, order)
    if rollout.state not in _TURNS:
        text = f"release {order.number} of {order.model} is {rollout.state.value}: there is nobody to take back"
        raise Refusal("nothing-to-reverse", text, f"see `falaj rollout show {order.model}`")
    devices = {row.device: row for row in house.catalog.fleet.devices()}
    said = f"by {order.actor}: {reason}"
    decision = controller.reverse(rollout, reports_of(rollout.model, devices.values()), said, now)
    rounds.carry_out(house, key, rollout, decision, devices, now)
    return {"devices": list(decision.take_back), "previous": rollout.previous}


def set_aside(house: House, order: orders.SetAside, now: float) -> dict[str, Any]:
    """The device's verdict is its own: it stays where it is, the rollout goes by the others. Returns all such."""
    reason = _reason(order.reason)
    key, rollout = _newest(house, order)
    if rollout.state in ROLLOUT_ENDED or order.device not in rollout.assigned:
        text = f"{order.device} has no word in the rollout of release {order.number} of {order.model}"
        raise Refusal("not-taking-part", text, f"see `falaj rollout show {order.model}`")
    aside = (*(d for d in rollout.aside if d != order.device), order.device)
    held = tuple(d for d in rollout.held if d != order.device)
    house.catalog.fleet.put_rollout(key, replace(rollout, aside=aside, held=held))
    house.event(
        now, "verdict-set-aside", f"release {order.number} goes by the others, without {order.device}, by "
        f"{order.actor}: {reason}", model=order.model, severity="alarm", number=str(order.number), device=order.device,
        actor=order.actor, reason=reason,
    )  # fmt: skip
    return {"aside": list(aside)}


_TURNS = (
    RolloutState.SHADOW, RolloutState.SPLIT, RolloutState.PAUSED, RolloutState.CANARY, RolloutState.RAMP,
    RolloutState.COMPLETE,
)  # fmt: skip


def _newest(house: House, order: orders.Reverse | orders.SetAside) -> tuple[int, Rollout]:
    for key, rollout in house.catalog.fleet.rollouts(active=False, limit=ALL):
        if rollout.model == order.model:
            if rollout.number == order.number:
                return key, rollout
            break  # an older one decides nothing any more
    text = f"release {order.number} is not the one that {order.model} was rolled out with last"
    raise Refusal("no-such-rollout", text, "`falaj rollout show` has the newest of each model")


def _reason(given: str) -> str:
    reason = " ".join(given.split())
    if not reason:
        raise Refusal("no-reason", "who overrules the machine says why", "give the reason: --reason TEXT")
    return reason


def _serves_everywhere(house: House, rollout: Rollout) -> bool:
    """Whether every device serves it, and none was ordered another that it has not begun with."""
    devices = house.catalog.fleet.devices()
    for row in devices:
        ordered = next((w for w in house.catalog.fleet.wanted(row.device) if w.model == rollout.model), None)
        if ordered is not None and (ordered.number, ordered.mode) != (rollout.number, "live"):
            return False
    models = [row.report.models.get(rollout.model) if row.report else None for row in devices]
    return bool(models) and all(
        m is not None and m.phase == "steady" and m.serving is not None and m.serving.manifest == rollout.manifest
        for m in models
    )
