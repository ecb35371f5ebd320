"""The orders about keys, and how signatures of people are collected: each signs in a process of their own, the steward
only collects and checks. What has all its signatures comes in force at once, with everything that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from core import orders
from core.catalog.releases import Proposal
from core.orders import OnlineRole
from core.release import checking, publish, signing
from core.release import layout as layouts
from core.release.layout import Layout
from core.release.metadata import newest_root, root_in_force
from core.release.signing import Drafts, Tally
from core.steward import assigning
from core.steward.house import House, PersistBroker
from core.steward.refusals import Refusal
from sync import chunks, roles
from sync.errors import Untrusted

ROOT = "root"  # the subject of a change of keys


# --- keys -------------------------------------------------------------------------------------------------------


def keys(house: House, order: orders.TrustKeys, now: float) -> dict[str, Any]:
    """The public halves of the online keys, in TUF's form, for a root to name; new ones for the roles that ask."""
    found, waits = {role: getattr(house.keys, role) for role in layouts.ONLINE}, _awaited(house)
    for role in order.fresh:
        if waits.get(role, found[role]) != found[role]:
            found[role] = waits[role]  # whoever rotates the same key as well signs the same root
            continue
        pem = roles.new_signing_key()
        house.online.bring(role, pem, found[role])
        found[role] = pem
        house.event(now, "online-key-made", f"a new key of {role} waits for the root that names it, by {order.actor}")
    publics = {role: roles.signer(pem).public_key for role, pem in found.items()}
    return {role: {"keyid": key.keyid, **key.to_dict()} for role, key in publics.items()}


def settle(house: House) -> tuple[OnlineRole, ...]:
    """Signs from now on with the online keys that the root in force names, as far as they are here; which are not."""
    root = root_in_force(house.catalog.releases.trust())
    if root is None:
        return ()
    held = _held(house, layouts.read(root))
    house.keys = replace(house.keys, **held)
    return tuple(role for role in layouts.ONLINE if role not in held)


def tell_missing(house: House, missing: Iterable[OnlineRole], now: float) -> None:
    """No device believes what the keys sign that the core has in their place."""
    for role in missing:
        text = (f"the key of {role} that the root names is not here: put the folder `keys` of the last backup back, or "
                f"run `falaj trust rotate --role {role}`")  # fmt: skip
        house.event(now, "online-key-missing", text, severity="alarm")


def _awaited(house: House) -> dict[str, bytes]:
    """Role -> the key of ours that the root names which waits for signatures."""
    waits = house.catalog.releases.proposal(ROOT)
    if waits is None:
        return {}
    return _held(house, signing.layout_of(_drafts(waits)))


def _held(house: House, layout: Layout) -> dict[str, bytes]:
    """Role -> the key of ours that this layout names."""
    return {
        role: pem
        for role in layouts.ONLINE
        for pem in (getattr(house.keys, role), *house.online.held(role))
        if roles.signer(pem).public_key.keyid == layout.online[role].keyid
    }


# --- changes of keys --------------------------------------------------------------------------------------------


def init(house: House, order: orders.TrustInit, now: float) -> dict[str, Any]:
    """The first root and targets, once: they must hold and name this core's own online keys."""
    if newest_root(house.catalog.releases.trust()) is not None:
        raise Refusal("trust-exists", "this tenant has a root already", "see `falaj trust status`")
    return _change(house, {"root": order.root.encode(), "targets": order.targets.encode()}, order.actor, now)


def change(house: House, order: orders.ChangeTrust, now: float) -> dict[str, Any]:
    """The next root; devices follow it by themselves."""
    if newest_root(house.catalog.releases.trust()) is None and house.catalog.releases.proposal(ROOT) is None:
        raise Refusal("no-trust", "there is no root to change", "run `falaj trust init` first")
    return _change(house, {name: text.encode() for name, text in order.metadata.items()}, order.actor, now)


def _change(house: House, drafts: Drafts, actor: str, now: float) -> dict[str, Any]:
    files = house.catalog.releases.trust()
    before = root_in_force(files)
    old = layouts.read(before) if before is not None else None
    layout = checking.check_change(files, drafts)
    held = _held(house, layout)
    if "director" not in held:
        raise Refusal("wrong-director", "the root names another director than this core's", "begin again")
    if len(held) != len(layouts.ONLINE):
        raise Untrusted("the root names other online keys than this core's, of another time: do it again")
    told = layouts.told(old, layout)
    signed = collect(house, Proposal(ROOT, told, _texts(drafts), now, actor), now)
    if signed is None:
        return waiting(house, ROOT)
    kept = house.keys
    house.keys = replace(house.keys, **held)
    try:
        put_in_force(house, signing.as_files(signed), now)
        if old is None:
            house.event(now, "trust-initialised", f"root 1, profile {layout.profile}")
        else:
            house.event(now, "trust-changed", f"by {actor}: {'; '.join(told)}", severity="notice")
            _tell_devices(house, old, layout, now)
    except BaseException:
        house.keys = kept  # nothing of this order is kept
        raise
    house.actions.append(PersistBroker())
    return {"root": chunks.digest(signed["root"]), "profile": layout.profile, "text": told}


def _tell_devices(house: House, old: Layout, new: Layout, now: float) -> None:
    """What the old director signed is void on every device that follows the new root: all of it is signed anew."""
    if old.online["director"].keyid == new.online["director"].keyid:
        return
    for device in house.catalog.fleet.devices():
        if device.active and house.catalog.fleet.assignment(device.device) is not None:
            assigning.assign(house, device, now)


# --- signatures -------------------------------------------------------------------------------------------------


def collect(house: House, asked: Proposal, now: float) -> Drafts | None:
    """Adds the signatures to those that wait for the same; the drafts once every threshold is met, None before.

    Raises Untrusted for a signature of somebody who is not asked, or drafts that do not follow what is in force.
    """
    files, shelf = house.catalog.releases.trust(), house.catalog.releases
    drafts = _drafts(asked)
    checking.check_life(drafts, now)
    signing.check_signatures(files, drafts)
    before = shelf.proposal(asked.subject)
    if before is not None and signing.same(_drafts(before), drafts):
        drafts = signing.merged(_drafts(before), drafts)
    elif before is not None:
        checking.check_may_replace(files, drafts)
        _dropped(house, before, f"{asked.actor} signed something else in its place", now)
    tallies = signing.tally(files, drafts)
    if all(one.met for found in tallies.values() for one in found):
        shelf.drop_proposal(asked.subject)
        return drafts
    names = {layouts.name_of(key) for found in tallies.values() for one in found for key in one.signed}
    kept = msgspec.structs.replace(
        asked, metadata=_texts(drafts), signed=tuple(sorted(names)), lacks=_lacks(tallies),
        since=before.since if before is not None else now,
    )  # fmt: skip
    shelf.put_proposal(kept)
    text = f"{asked.subject} was signed by {', '.join(kept.signed)}; {'; '.join(kept.lacks)}"
    house.event(now, "signature-collected", text, actor=asked.actor)
    return None


def put_in_force(house: House, fresh: Mapping[str, bytes], now: float) -> None:
    """New metadata, and the snapshot and timestamp over it; proposals that do not follow it any more go."""
    shelf, whole = house.catalog.releases, {**house.catalog.releases.trust(), **fresh}
    online = publish.OnlineSigners(roles.signer(house.keys.snapshot), roles.signer(house.keys.timestamp))
    whole |= (renewed := publish.renew(whole, online, now))
    publish.check_online(whole)  # else no device would ever believe what this core signs
    shelf.put_trust({**fresh, **renewed})
    for proposal in shelf.proposals():
        try:
            signing.tally(whole, _drafts(proposal))
        except Untrusted as error:
            shelf.drop_proposal(proposal.subject)
            _dropped(house, proposal, str(error), now)
    house.publish_trust(whole)


def waiting(house: House, subject: str) -> dict[str, Any]:
    """What an answer says of a proposal that lacks signatures."""
    found = house.catalog.releases.proposal(subject)
    return {"waiting": {"subject": subject, "signed": found.signed, "lacks": found.lacks}} if found else {}


def _dropped(house: House, proposal: Proposal, why: str, now: float) -> None:
    text = f"the signatures of {', '.join(proposal.signed)} under {proposal.subject} are void: {why}"
    house.event(now, "signatures-dropped", text, severity="notice")


def _lacks(tallies: Mapping[str, tuple[Tally, ...]]) -> tuple[str, ...]:
    """A sentence each for what is missing; what several roles lack alike is said once."""
    lines = {}
    for name, found in tallies.items():
        for one in found:
            if not one.met:
                names = ", ".join(sorted(map(layouts.name_of, one.open)))
                whose = "root" if name == ROOT else "releases"
                lines[f"{whose}: {one.threshold - len(one.signed)} more of {names}"] = True
    return tuple(lines)


def _drafts(proposal: Proposal) -> dict[str, bytes]:
    return {name: text.encode() for name, text in proposal.metadata.items()}


def _texts(drafts: Drafts) -> dict[str, str]:
    return {name: data.decode() for name, data in drafts.items()}
