"""The orders about releases that their owners signed: to serve, or never again. Signatures are collected and checked
(`core.steward.trust`), never made here; the rollout of an approved release begins with the next round. What the core
may sign itself: `core.steward.automatic`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from core import orders
from core.catalog.fleet import ALL
from core.catalog.releases import Proposal, ReleaseRow
from core.handoffs import ROLLOUT_ENDED, Rollout, RolloutState, SplitPlan
from core.release import checking, signing
from core.release.automatic import by_core
from core.rollout import power
from core.rollout.plans import fallback, generation, plan
from core.steward import assigning, retained, rounds, staging, trust
from core.steward.house import House, PersistBroker
from core.steward.refusals import Refusal, declared_model
from sync import codec
from sync.manifest import LIMIT, Manifest
from sync.messages import SHARES
from sync.names import ModelName
from sync.splits import seed_of


def approve(house: House, order: orders.Approve, now: float) -> dict[str, Any]:
    """1. the signatures hold; once they are enough: 2. trust files; 3. blobs; 4. the rollout begins with the next
    round."""
    found = house.catalog.releases.release(order.model, order.number)
    if found is None:
        raise Refusal("no-such-release", f"there is no release {order.number} of {order.model}")
    row, payload = found
    if row.state == "revoked":
        raise Refusal("release-revoked", f"release {order.number} was revoked", "train a new one: `falaj train`")
    if (row.model, row.number) in by_core(house.catalog.releases.trust()):
        return _countersign(house, order, row, payload, now)
    moving = (r for _, r in under_way(house, order.model) if r.state is not RolloutState.PAUSED)
    if any(r.number == order.number for r in moving):
        raise Refusal("rollout-under-way", f"release {order.number} is on its way already", "see `falaj status`")
    if row.state == "staged":
        manifest = codec.decode(Manifest, payload, LIMIT)
        staging.refuse_breaking(house, order.model, manifest.classes, manifest.major)
    rollout = planned(house, row, now)
    retained.check_room(house, house.catalog.releases.keys(order.model, order.number))
    signed = _collected(house, order, payload, f"shall serve, manifest {row.digest[:12]}", now)
    if signed is None:
        return _waits(house, row)
    publish(house, row, payload, signed, rollout, now)
    house.event(now, "release-approved", f"release {order.number} by {order.actor}", model=order.model)
    return {"digest": row.digest, "canary": list(rollout.canary), **needed(rollout)}


def publish(
    house: House, row: ReleaseRow, payload: bytes, fresh: Mapping[str, bytes], rollout: Rollout, now: float
) -> None:
    """A release whose signatures are all there (`fresh`) goes out, and its rollout begins."""
    for digest in house.catalog.releases.keys(row.model, row.number):
        house.publish_blob(digest)
    trust.put_in_force(house, {f"{row.digest}.manifest": payload, **fresh}, now)
    house.catalog.releases.set_state(row.model, row.number, "approved")
    house.actions.append(PersistBroker())
    begin(house, rollout, f"release {row.number} was approved", now)


def _countersign(house: House, order: orders.Approve, row: ReleaseRow, payload: bytes, now: float) -> dict[str, Any]:
    """People approve what the core signed by itself: it stays when the core may not any more. Nothing is rolled out."""
    told = f"(which the core signed) shall stay, manifest {row.digest[:12]}"
    signed = _collected(house, order, payload, told, now)
    if signed is None:
        return _waits(house, row)
    trust.put_in_force(house, signed, now)
    house.actions.append(PersistBroker())
    text = f"release {order.number}, which the core had signed by itself, by {order.actor}"
    house.event(now, "release-approved", text, model=order.model)
    return {"digest": row.digest}


def _collected(
    house: House, order: orders.Approve, payload: bytes, what: str, now: float
) -> Mapping[str, bytes] | None:
    """The role that an approval signs, once all signatures that it needs are here; None while some lack. `what` is to
    become of the release, for those who sign after."""
    drafts = {name: text.encode() for name, text in order.metadata.items()}
    checking.check_approval(house.catalog.releases.trust(), order.model, order.number, payload, drafts)
    subject, told = f"{order.model}@{order.number}", f"release {order.number} of {order.model} {what}"
    signed = trust.collect(house, Proposal(subject, (told,), order.metadata, now, order.actor), now)
    return None if signed is None else signing.as_files(signed)


def _waits(house: House, row: ReleaseRow) -> dict[str, Any]:
    return {"digest": row.digest, **trust.waiting(house, f"{row.model}@{row.number}")}


def revoke(house: House, order: orders.RevokeRelease, now: float) -> dict[str, Any]:
    """A release that shall never serve again: out of the signed targets, out of every assignment."""
    reason, found = " ".join(order.reason.split()), house.catalog.releases.release(order.model, order.number)
    if not reason:
        raise Refusal("no-reason", "who takes a release away says why", "give the reason: --reason TEXT")
    if found is None:
        raise Refusal("no-such-release", f"there is no release {order.number} of {order.model}")
    if found[0].state != "approved":
        text = f"release {order.number} of {order.model} is {found[0].state}: no device may install it"
        raise Refusal("not-approved", text, "there is nothing to revoke")
    drafts = {name: text.encode() for name, text in order.metadata.items()}
    checking.check_revocation(house.catalog.releases.trust(), order.model, order.number, drafts)
    subject = f"revoke {order.model}@{order.number}"
    told = (f"release {order.number} of {order.model} shall never serve again: {reason}",)
    signed = trust.collect(house, Proposal(subject, told, order.metadata, now, order.actor), now)
    if signed is None:
        return trust.waiting(house, subject)
    trust.put_in_force(house, signing.as_files(signed), now)
    house.catalog.releases.set_state(order.model, order.number, "revoked")
    devices = leave(house, order.model, [order.number], reason, now)
    house.actions.append(PersistBroker())
    house.event(
        now, "release-revoked", f"release {order.number} by {order.actor}: {reason}", model=order.model,
        severity="alarm", number=str(order.number), actor=order.actor, reason=reason,
    )  # fmt: skip
    return {"revoked": f"{order.model}@{order.number}", "devices": devices}


def leave(house: House, model: ModelName, numbers: Collection[int], reason: str, now: float) -> list[str]:
    """Nobody is told to run these any more, and nobody to go back to them; which devices were."""
    approved = [r.number for r in house.catalog.releases.releases(ALL) if (r.model, r.state) == (model, "approved")]
    past = [r for _, r in house.catalog.fleet.rollouts(active=False, limit=ALL) if r.model == model]
    fleet = house.catalog.fleet.devices()
    wanted = {d.device: house.catalog.fleet.wanted(d.device) for d in fleet}
    told = {d.device: {n for w in wanted[d.device] if w.model == model for n in w.numbers} for d in fleet}
    on_it = [d for d in fleet if not told[d.device].isdisjoint(numbers)]
    for key, rollout in house.catalog.fleet.rollouts(limit=ALL):
        if rollout.model != model or not {rollout.number, rollout.previous} & {*numbers}:
            continue
        left = replace(rollout, previous=fallback(rollout.number, approved, past))
        if rollout.number in numbers and rollout.state is not RolloutState.SUPERSEDED:
            left = replace(left, state=RolloutState.REVERSED, since=now, reason=f"revoked: {reason}")
        elif _beside(rollout):
            left = replace(left, state=RolloutState.PAUSED, since=now, reason=f"its incumbent was revoked: {reason}")
            rounds.take_back(house, left, [d for d in fleet if d.device in left.assigned and d not in on_it], now)
        house.catalog.fleet.put_rollout(key, left)  # also of one that is complete: who enrols later follows it
    for number in sorted({n for d in on_it for n in told[d.device]} & {*numbers}):
        own = next((r for r in past if r.number == number), None)
        if own is not None:
            back = replace(own, previous=fallback(number, approved, past))
            rounds.take_back(house, back, [d for d in on_it if number in told[d.device]], now)
    return [d.device for d in on_it]


def _beside(rollout: Rollout) -> bool:
    """Whether the release is being tried beside the one before it, or is about to be in a split: without that one there
    is nothing to compare it with."""
    if rollout.state is RolloutState.APPROVED:
        return rollout.split is not None
    return rollout.state in (RolloutState.SHADOW, RolloutState.SPLIT)


def planned(house: House, row: ReleaseRow, now: float, forced: str = "") -> Rollout:
    """The rollout of a release as the project asks for it now, in a generation above all before it.

    Raises Refusal for a model that is not declared, for evidence that could never decide, for an A/B of releases
    that cannot answer side by side, and where a canary device could not be told of it beside all else it runs.
    """
    settings = declared_model(house, row.model).rollout
    approved = [r.number for r in house.catalog.releases.releases(ALL) if (r.model, r.state) == (row.model, "approved")]
    past = [r for _, r in house.catalog.fleet.rollouts(active=False, limit=ALL) if r.model == row.model]
    previous = fallback(row.number, approved, past)
    rollout = plan(
        row.model, row.number, row.digest, settings, previous, now,
        retry=generation(row.number, past) + 1, forced=forced, split=None if forced else _split(house, row, previous),
        burst=_burst(house, row.model, previous),
    )  # fmt: skip
    if (refused := power.refuse(rollout.gates)) is not None:
        hint = f"allow a larger margin in falaj.toml, or choose evidence {' or '.join(refused.offers)}, and apply it"
        raise Refusal(refused.code, refused.text, hint)
    assigning.check_room(house, rollout, now)
    return rollout


def _split(house: House, row: ReleaseRow, previous: int | None) -> SplitPlan | None:
    """How the release is tried beside the one before it, by a lot of its own, where the project asks for an A/B."""
    settings = declared_model(house, row.model).rollout
    before = house.catalog.releases.release(row.model, previous) if previous is not None else None
    arm = house.catalog.releases.release(row.model, row.number)
    if settings.kind != "ab" or before is None or arm is None:
        return None
    if other := _unlike(*(codec.decode(Manifest, payload, LIMIT) for _, payload in (before, arm))):
        text = f"release {row.number} cannot answer beside release {previous}: its {', '.join(other)} are not the same"
        raise Refusal("split-unlike", text, 'set rollout.kind = "canary" in falaj.toml and apply it, then approve')
    seed = house.random(16).hex()
    seeds = {device: seed_of(seed, device) for device in settings.canary}
    return SplitPlan(seed, round(settings.share * SHARES), before[0].digest, seeds)


def _burst(house: House, model: ModelName, number: int | None) -> float:
    """In how many windows errors of a release came in a row when it was judged."""
    found = house.catalog.releases.release(model, number) if number is not None else None
    judged = house.catalog.releases.candidate(found[0].candidate) if found else None
    return judged.scorecard.burst if judged else 1.0


def _unlike(incumbent: Manifest, arm: Manifest) -> list[str]:
    """In what an arm must be as the incumbent, and is not: questions are put, and answers told, as the incumbent has
    them."""
    parts = ("inputs", "outputs", "classes", "window", "lookups", "variables")
    found = [part for part in parts if getattr(incumbent, part) != getattr(arm, part)]
    return found if _read(incumbent) == _read(arm) else [*found, "bindings"]


def _read(manifest: Manifest) -> list[tuple[object, ...]]:
    """What its bindings hear, and how they read it; not what they tell."""
    return [(b.topic, b.format, b.time_field, b.fields, b.columns, b.units) for b in manifest.bindings]


def needed(rollout: Rollout) -> dict[str, Any]:
    """What an answer says of the pairs a rollout needs; nothing where none are counted."""
    found = power.needs(rollout.gates, len(rollout.canary))
    return {"needs": {"blocks": found.blocks, "windows": found.windows, "text": found.text}} if found else {}


def begin(house: House, rollout: Rollout, why: str, now: float) -> None:
    """Makes it the rollout of its model: one that is under way ends here, and a shadow with it, for nobody would weigh
    its pairs. One that was taking devices back stays a reversal, so that no later rollout falls back to its release."""
    for key, older in under_way(house, rollout.model):
        if older.state in (RolloutState.SHADOW, RolloutState.SPLIT):
            devices = [d for d in house.catalog.fleet.devices() if d.device in older.assigned]
            rounds.take_back(house, older, devices, now)
        taken_back = older.state is RolloutState.REVERSING
        state = RolloutState.REVERSED if taken_back else RolloutState.SUPERSEDED
        reason = f"{older.reason}; {why}" if taken_back else why
        house.catalog.fleet.put_rollout(key, replace(older, state=state, since=now, reason=reason))
        house.event(now, "rollout-superseded", f"release {older.number}: {why}", model=rollout.model)
    house.catalog.fleet.add_rollout(rollout)


def under_way(house: House, model: ModelName) -> list[tuple[int, Rollout]]:
    """Rollouts of this model that have not ended."""
    rollouts = house.catalog.fleet.rollouts(limit=ALL)
    return [(key, r) for key, r in rollouts if r.model == model and r.state not in ROLLOUT_ENDED]
