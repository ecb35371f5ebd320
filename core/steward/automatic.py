"""Releases that the core signs by itself, where their owners allowed it for a model, on terms that people had signed.

Only what every gate passed, that differs from what people allowed in nothing but what was learned, and that meets no
other rollout under way, is signed so; all else waits for a person, and is said to.
"""

from __future__ import annotations

from typing import Any

from core import orders
from core.catalog.fleet import ALL
from core.catalog.releases import Proposal, ReleaseRow
from core.handoffs import Candidate
from core.release import automatic, checking, gates, signing
from core.release.automatic import Allowed
from core.steward import approvals, retained, trust
from core.steward.house import House, PersistBroker
from core.steward.refusals import Refusal, declared_model
from sync import roles
from sync.errors import Damaged, SyncError, Untrusted
from sync.manifest import auto_role_of, role_of, terms_of
from sync.names import Digest, ModelName

# --- orders of people -------------------------------------------------------------------------------------------


def subject_of(model: ModelName, on: bool) -> str:
    """Under which name it waits for signatures."""
    return f"auto {'on' if on else 'off'} {model}"


def key(house: House, order: orders.AutoKey, now: float) -> dict[str, Any]:
    """The public half, in TUF's form, of the key that a delegation shall name: the one that waits, or a new one."""
    declared_model(house, order.model)
    pem = _awaited(house, order.model)
    if pem is None:
        role, pem = auto_role_of(order.model), roles.new_signing_key()
        found = automatic.allowed(house.catalog.releases.trust(), order.model)
        keep = _held(house, order.model, found) if found is not None else None
        house.online.bring(role, pem, keep or b"")
        house.event(now, "online-key-made", f"a new key of {role} waits for signatures, by {order.actor}")
    public = roles.signer(pem).public_key
    return {"keyid": public.keyid, **public.to_dict()}


def change(house: House, order: orders.Automatic, now: float) -> dict[str, Any]:
    """The core may sign releases of a model from now on, or may not any more. Then what it alone had signed is revoked:
    out of every assignment, and away from every device."""
    files, model = house.catalog.releases.trust(), order.model
    drafts = {name: text.encode() for name, text in order.metadata.items()}
    checking.check_automatic(files, model, _terms(house, model) if order.on else None, drafts)
    found = automatic.allowed_by(signing.role_in(drafts, role_of(model)), model)
    pem = _held(house, model, found) if found is not None else None
    if found is not None and pem is None:
        raise Untrusted("the metadata names another key than this core's, of another time: do it again")
    told = (f"the core may sign releases of {model} by itself, on the terms of the newest that people signed",)
    if not order.on:
        told = (f"the core signs no release of {model} by itself any more; what it alone signed is revoked",)
    subject = subject_of(model, order.on)
    signed = trust.collect(house, Proposal(subject, told, order.metadata, now, order.actor), now)
    if signed is None:
        return trust.waiting(house, subject)
    alone = sorted(number for named, number in automatic.by_core(files) if named == model)
    fresh = automatic.begun(files, model, roles.signer(pem), now) if pem is not None else {}
    trust.put_in_force(house, {**signing.as_files(signed), **fresh}, now)
    house.actions.append(PersistBroker())
    text = f"by {order.actor}: {told[0]}"
    if order.on:
        house.event(now, "auto-allowed", text, severity="notice", model=model, actor=order.actor)
        return {"revoked": []}
    house.event(now, "auto-ended", text, severity="notice", model=model, actor=order.actor)
    return {"revoked": _end(house, model, alone, order.actor, now)}


def _end(house: House, model: ModelName, alone: list[int], actor: str, now: float) -> list[str]:
    """Nothing falls back to one of them, so all are revoked before any is left."""
    reason, numbers = "the core signs no release of this model by itself any more", ", ".join(map(str, alone))
    for number in alone:
        house.catalog.releases.set_state(model, number, "revoked")
    if alone:
        approvals.leave(house, model, alone, reason, now)
        house.event(
            now, "release-revoked", f"release {numbers} by {actor}: {reason}", model=model, severity="alarm",
            number=numbers, actor=actor, reason=reason,
        )  # fmt: skip
    return [f"{model}@{number}" for number in alone]


# --- what the core does by itself -------------------------------------------------------------------------------


def release(house: House, candidate: Candidate, number: int, now: float) -> dict[str, Any]:
    """Signs release `number` that was just staged of a candidate, where its model's owners allow that, and begins its
    rollout. What the answer says of it; nothing where a person signs, as is told where the core might have. In a
    transaction."""
    found = automatic.allowed(house.catalog.releases.trust(), candidate.model)
    if found is None:
        return {}
    try:
        _sign(house, candidate, number, found, now)
    except (Refusal, SyncError) as error:
        text = f"release {number} waits for a person, although the core may sign releases of this model: {error}"
        house.event(now, "auto-release-waits", text, severity="notice", model=candidate.model)
        return {"waits": str(error)}
    text = f"release {number} by the core itself (auto): every gate passed it, on the terms that people signed"
    house.event(now, "release-auto-signed", text, severity="notice", model=candidate.model, number=str(number))
    return {"automatic": True}


def renew(house: House, now: float) -> None:
    """The roles that the core signs by itself, signed anew when half their life is over; of a model whose key is not
    here that is told, and the others go on."""
    fresh = automatic.renewed(house.catalog.releases.trust(), signers(house, now), now)
    if not fresh:
        return
    try:
        with house.catalog.transaction():
            trust.put_in_force(house, fresh, now)
            house.event(now, "trust-renewed", f"{', '.join(sorted(fresh))} signed anew")
    except Untrusted:
        return  # the key of snapshot or timestamp is not here, which was told at the start


def signers(house: House, now: float) -> dict[ModelName, roles.CryptoSigner]:
    """By which the core signs releases by itself, as far as they are here. One that is not is told once: without it
    what the core signed ends within `automatic.LIFE`."""
    found = {}
    for model, said in automatic.all_allowed(house.catalog.releases.trust()).items():
        try:
            pem, why = _held(house, model, said), _missing(model)
        except Damaged as error:
            pem, why = None, f"{error}; then `falaj trust auto {model} --on` brings another"
        if pem is not None:
            found[model] = roles.signer(pem)
            house.memory.keyless.discard(model)
        elif model not in house.memory.keyless:
            house.memory.keyless.add(model)
            with house.catalog.transaction():
                house.event(now, "online-key-missing", why, model=model, severity="alarm")
    return found


def _sign(house: House, candidate: Candidate, number: int, found: Allowed, now: float) -> None:
    """All that may be in the way is asked before anything is written."""
    kept = house.catalog.releases.release(candidate.model, number)
    if kept is None:
        raise RuntimeError(f"release {candidate.model} {number} was staged and is not there")
    row, payload = kept
    _refuse(house, candidate, row, payload, found)
    pem = _held(house, row.model, found)
    if pem is None:
        raise Refusal("online-key-missing", _missing(row.model))
    rollout = approvals.planned(house, row, now)
    retained.check_room(house, house.catalog.releases.keys(row.model, number))
    files = house.catalog.releases.trust()
    fresh = automatic.released(files, row.model, number, payload, roles.signer(pem), now)
    approvals.publish(house, row, payload, fresh, rollout, now)


def _refuse(house: House, candidate: Candidate, row: ReleaseRow, payload: bytes, found: Allowed) -> None:
    """Raises Refusal for what a person must look at."""
    if silent := sorted(set(gates.NEEDED) - {verdict.gate for verdict in candidate.verdicts}):
        raise Refusal("gates-silent", f"{', '.join(silent)} said nothing of it")
    if doubts := [verdict.gate for verdict in candidate.verdicts if verdict.outcome != "pass"]:
        raise Refusal("gates-inconclusive", f"{', '.join(doubts)} did not pass it without a doubt")
    if terms_of(payload) != found.terms:
        text = "it says more than was learned anew (bindings, uplink, classes ...), and people allowed other terms"
        raise Refusal("auto-terms", f"{text}: `falaj trust approve`, then `falaj trust auto {row.model} --on` again")
    _refuse_widening(house, row.model, found)
    if moving := [r.number for _, r in approvals.under_way(house, row.model)]:
        raise Refusal("rollout-under-way", f"the rollout of release {moving[0]} has not ended")


def _refuse_widening(house: House, model: ModelName, found: Allowed) -> None:
    """Raises Refusal where the newest release that people signed, or the one rolled out last, is on other terms than
    the delegation: to go on would take back, without a signature, what people changed."""
    if _terms(house, model) != found.terms:
        number, _ = automatic.model_release(house.catalog.releases.trust(), model)
        text = f"people signed release {number} since, on other terms than those they allowed the core"
        raise Refusal("auto-terms", f"{text}: `falaj trust auto {model} --on` allows it these")
    past = house.catalog.fleet.rollouts(active=False, limit=ALL)
    last = next((rollout.number for _, rollout in past if rollout.model == model), None)
    kept = house.catalog.releases.release(model, last) if last is not None else None
    if kept is not None and kept[0].state == "approved" and terms_of(kept[1]) != found.terms:
        text = f"release {last} was rolled out last, on other terms than people allowed the core"
        raise Refusal("auto-terms", f"{text}: `falaj trust approve` this one, then `falaj trust auto {model} --on`")


def _terms(house: House, model: ModelName) -> Digest:
    """Those of the newest release that people signed; raises Untrusted without one."""
    number, digest = automatic.model_release(house.catalog.releases.trust(), model)
    kept = house.catalog.releases.release(model, number)
    if kept is None or kept[0].digest != digest:
        raise Untrusted(f"release {number} of {model}, which people signed, is not in this core's catalog")
    return terms_of(kept[1])


# --- keys -------------------------------------------------------------------------------------------------------


def _missing(model: ModelName) -> str:
    return (f"the key of {auto_role_of(model)} is not here: put the folder `keys` of the last backup back, or "
            f"`falaj trust auto {model} --on` brings another")  # fmt: skip


def _awaited(house: House, model: ModelName) -> bytes | None:
    """The key of ours that waits for signatures."""
    waits = house.catalog.releases.proposal(subject_of(model, on=True))
    if waits is None:
        return None
    drafts = {name: text.encode() for name, text in waits.metadata.items()}
    found = automatic.allowed_by(signing.role_in(drafts, role_of(model)), model)
    return _held(house, model, found) if found is not None else None


def _held(house: House, model: ModelName, found: Allowed) -> bytes | None:
    """The key of ours that is allowed, if it is here."""
    held = house.online.held(auto_role_of(model))
    return next((pem for pem in held if roles.signer(pem).public_key.keyid == found.key.keyid), None)
