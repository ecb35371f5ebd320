"""The orders about trust: the first root, and releases that their owner signed. The signatures are checked here, never
made; the rollout of an approved release begins with the next round."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from core import orders
from core.catalog.fleet import ALL
from core.catalog.releases import ReleaseRow
from core.handoffs import ROLLOUT_ENDED, Rollout, RolloutState
from core.release import publish
from core.rollout import power
from core.rollout.plans import fallback, generation, plan
from core.steward import rounds
from core.steward.house import House, PersistBroker
from core.steward.refusals import Refusal, declared_model
from sync import chunks, roles
from sync.names import ModelName


def trust_keys(house: House, order: orders.TrustKeys, now: float) -> dict[str, Any]:
    """The public halves of the online keys, in TUF's form, for the owner's first root to name."""
    pems = {"director": house.keys.director, "snapshot": house.keys.snapshot, "timestamp": house.keys.timestamp}
    publics = {name: roles.signer(pem).public_key for name, pem in pems.items()}
    return {name: {"keyid": key.keyid, **key.to_dict()} for name, key in publics.items()}


def trust_init(house: House, order: orders.TrustInit, now: float) -> dict[str, Any]:
    """Takes in the first root and targets, once: they must hold and name this core's own online keys."""
    files = house.catalog.releases.trust()
    if "1.root.json" in files:
        raise Refusal("trust-exists", "this tenant has a root already", "see `falaj trust status`")
    root, targets = order.root.encode(), order.targets.encode()
    publish.check_trust_init(root, targets)
    director = roles.signer(house.keys.director).public_key.keyid
    if director not in publish.director_ids(root):
        raise Refusal("wrong-director", "the root names another director than this core's")
    fresh = {"1.root.json": root, "1.targets.json": targets}
    fresh |= publish.renew(fresh, _online(house), now)
    publish.check_online(fresh)  # else no device would ever believe what this core signs
    house.catalog.releases.put_trust(fresh)
    house.event(now, "trust-initialised", "root 1, profile single-owner")
    house.publish_trust(house.catalog.releases.trust())
    return {"root": chunks.digest(root)}


def approve(house: House, order: orders.Approve, now: float) -> dict[str, Any]:
    """1. the owner's signatures hold; 2. trust files; 3. blobs; 4. the rollout begins with the next round."""
    found = house.catalog.releases.release(order.model, order.number)
    if found is None:
        raise Refusal("no-such-release", f"there is no release {order.number} of {order.model}")
    row, payload = found
    if row.state == "revoked":
        raise Refusal("release-revoked", f"release {order.number} was revoked", "train a new one: `falaj train`")
    if any(r.number == order.number for _, r in _under_way(house, order.model)):
        raise Refusal("rollout-under-way", f"release {order.number} is on its way already", "see `falaj status`")
    rollout = planned(house, row, now)
    files = house.catalog.releases.trust()
    targets = order.targets.encode() if order.targets is not None else None
    publish.check_approval(files, order.model, order.number, payload, targets, order.role.encode())
    fresh = publish.approved_files(order.model, payload, targets, order.role.encode())
    fresh |= publish.renew({**files, **fresh}, _online(house), now)
    house.catalog.releases.put_trust(fresh)
    house.catalog.releases.set_state(order.model, order.number, "approved")
    for digest in house.catalog.releases.keys(order.model, order.number):
        house.publish_blob(digest)
    house.publish_trust(house.catalog.releases.trust())
    house.actions.append(PersistBroker())
    begin(house, rollout, f"release {order.number} was approved", now)
    house.event(now, "release-approved", f"release {order.number} by {order.actor}", model=order.model)
    return {"digest": row.digest, "canary": list(rollout.canary), **needed(rollout)}


def planned(house: House, row: ReleaseRow, now: float, forced: str = "") -> Rollout:
    """The rollout of a release as the project asks for it now, in a generation above all before it.

    Raises Refusal for a model that is not declared, and for evidence that could never decide.
    """
    settings = declared_model(house, row.model).rollout
    approved = [r.number for r in house.catalog.releases.releases(ALL) if (r.model, r.state) == (row.model, "approved")]
    past = [r for _, r in house.catalog.fleet.rollouts(active=False, limit=ALL) if r.model == row.model]
    rollout = plan(
        row.model, row.number, row.digest, settings, fallback(row.number, approved, past), now,
        retry=generation(row.number, past) + 1, forced=forced,
    )  # fmt: skip
    if (refused := power.refuse(rollout.gates)) is not None:
        hint = f"allow a larger margin in falaj.toml, or choose evidence {' or '.join(refused.offers)}, and apply it"
        raise Refusal(refused.code, refused.text, hint)
    return rollout


def needed(rollout: Rollout) -> dict[str, Any]:
    """What an answer says of the pairs a rollout needs; nothing where none are counted."""
    found = power.needs(rollout.gates)
    return {"needs": {"blocks": found.blocks, "windows": found.windows, "text": found.text}} if found else {}


def begin(house: House, rollout: Rollout, why: str, now: float) -> None:
    """Makes it the rollout of its model: one that is under way ends here, and a shadow with it, for nobody would weigh
    its pairs. One that was taking devices back stays a reversal, so that no later rollout falls back to its release."""
    for key, older in _under_way(house, rollout.model):
        if older.state is RolloutState.SHADOW:
            devices = [d for d in house.catalog.fleet.devices() if d.device in older.assigned]
            rounds.take_back(house, older, devices, now)
        taken_back = older.state is RolloutState.REVERSING
        state = RolloutState.REVERSED if taken_back else RolloutState.SUPERSEDED
        reason = f"{older.reason}; {why}" if taken_back else why
        house.catalog.fleet.put_rollout(key, replace(older, state=state, since=now, reason=reason))
        house.event(now, "rollout-superseded", f"release {older.number}: {why}", model=rollout.model)
    house.catalog.fleet.add_rollout(rollout)


def _under_way(house: House, model: ModelName) -> list[tuple[int, Rollout]]:
    """Rollouts of this model that have not ended."""
    rollouts = house.catalog.fleet.rollouts(limit=ALL)
    return [(key, r) for key, r in rollouts if r.model == model and r.state not in ROLLOUT_ENDED]


def _online(house: House) -> publish.OnlineSigners:
    return publish.OnlineSigners(roles.signer(house.keys.snapshot), roles.signer(house.keys.timestamp))
