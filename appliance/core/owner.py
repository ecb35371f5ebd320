"""The owners' side of trust, in their own processes: what is signed is made here, from what was checked here, with key
files that the core never sees. A signature is handed to the core, which waits until there are enough."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from appliance.api import Api
from appliance.core.key_ring import RELEASE, KeyRing
from appliance.core.signing_desk import Trust, as_bytes, hand_in, holds_until, lacks_of, public, signed_by
from appliance.errors import Trouble
from core.orders import Approve, ChangeTrust, OnlineRole, RevokeRelease, TrustInit, TrustKeys
from core.release import automatic, checking, metadata, signing
from core.release import layout as layouts
from core.release.layout import Layout, Quorum
from core.release.signing import Drafts
from sync import chunks, codec, roles
from sync.manifest import LIMIT, Manifest
from sync.names import ModelName


@dataclass(frozen=True)
class Signed:
    """What was signed, in words a person can compare; `needs`: what evidence its rollout waits for, if any; `lacks`:
    which signatures are missing, empty once it is in force."""

    model: ModelName
    number: int
    digest: str
    metrics: dict[str, float]
    key: str
    needs: dict[str, Any] | None = None
    override: str = ""  # who let it pass against a gate's word, and why
    lacks: tuple[str, ...] = ()
    auto: str = ""  # what the core may still sign besides, where that is on other terms than these


@dataclass(frozen=True)
class Changed:
    """A change of keys: what it says, and which signatures are missing, none once it is in force."""

    text: tuple[str, ...]
    lacks: tuple[str, ...]
    keys: tuple[str, ...] = ()  # ids of those that signed here


@dataclass(frozen=True)
class Pending:
    """A change of keys that waits for signatures: what it does, and the bytes that do it."""

    text: tuple[str, ...]
    drafts: Drafts
    files: metadata.Files


# --- the first root ---------------------------------------------------------------------------------------------


def init(api: Api, folder: Path, actor: str, now: float) -> dict[str, Any]:
    """Profile `single-owner`: makes the release key, the first root and targets, and hands them to the core."""
    ring = KeyRing(folder)
    mine = ring.public(str(ring.make(RELEASE, "owner")))
    alone = Quorum((mine,), 1)
    result = _begin(api, ring, Layout(alone, alone, _online(api)), actor, now)
    return {**result, "profile": "single-owner", "release_key": str(folder / f"{RELEASE}.key"), "keyid": mine.keyid}


def init_organisation(api: Api, folder: Path, root: Quorum, releases: Quorum, actor: str, now: float) -> dict[str, Any]:
    """Profile `organisation` from the first root on; it comes in force when enough of its keys have signed it."""
    ring = KeyRing(folder)
    result = _begin(api, ring, organisation(root, releases, _online(api)), actor, now)
    return {**result, "profile": "organisation"}


def organisation(root: Quorum, releases: Quorum, online: Mapping[OnlineRole, roles.Key]) -> Layout:
    """The layout of that profile; raises BadLayout for a root that one person could sign."""
    if root.threshold < 2 or len(root.keys) < 3:
        raise layouts.BadLayout("an organisation's root needs two of three keys at least: name three with --root")
    if root.threshold == len(root.keys):
        raise layouts.BadLayout("with a root that all must sign, one that is lost is the end of it: name one more with "
                                "--root, or let fewer sign (--root-needs)")  # fmt: skip
    _check_people(layout := Layout(root, releases, online))
    return layout


def _check_people(layout: Layout) -> None:
    layouts.check_people(layout.root, "root")
    layouts.check_people(layout.releases, "releases")


def _begin(api: Api, ring: KeyRing, layout: Layout, actor: str, now: float) -> dict[str, Any]:
    if not Trust.read(api).files:  # else the core says itself that it was begun already
        ring.check_new()
    drafts = signing.sign({}, signing.beginning(layout, holds_until(now)), ring.signers())
    order = TrustInit(actor=actor, root=drafts["root"].decode(), targets=drafts["targets"].decode())
    result = api.order(order)
    if not result.get("waiting"):
        ring.check(signing.as_files(drafts))
    return result


# --- releases ---------------------------------------------------------------------------------------------------


def approve(api: Api, folder: Path, model: ModelName, number: int, actor: str, now: float) -> Signed:
    """Signs one release. The bytes that are signed are the bytes that were read: checked here, not at the core."""
    ring = KeyRing(folder)
    signers = ring.signers()
    found = api.get(f"/v1/releases/{model}/{number}")
    payload = base64.b64decode(found["manifest_base64"])
    manifest = codec.decode(Manifest, payload, LIMIT)
    if (manifest.model, manifest.number) != (model, number):
        raise Trouble(f"the core sent the manifest of {manifest.model} {manifest.number}: nothing was signed")
    trust = Trust.read(api)
    ring.check(trust.files)

    def make(until: datetime) -> Drafts:
        return signing.approval(trust.files, model, number, payload, until)

    drafts, ids = trust.signed(f"{model}@{number}", make, signers, now)
    result = hand_in(api, ring, Approve(actor=actor, model=model, number=number, metadata=drafts), drafts)
    return Signed(
        model, number, chunks.digest(payload), manifest.lineage.metrics, ids[0], result.get("needs"),
        manifest.lineage.override, lacks_of(result), automatic.on_other_terms(trust.files, model, number, payload),
    )  # fmt: skip


def revoke(
    api: Api, folder: Path, model: ModelName, number: int, reason: str, actor: str, now: float
) -> tuple[str, ...]:
    """Takes a release out of the signed ones for good; which signatures are missing, none once it is in force."""
    ring, trust = KeyRing(folder), Trust.read(api)
    signers = ring.signers()
    ring.check(trust.files)

    def make(until: datetime) -> Drafts:
        return signing.revocation(trust.files, model, number, until)

    drafts, _ = trust.signed(f"revoke {model}@{number}", make, signers, now)
    order = RevokeRelease(actor=actor, model=model, number=number, metadata=drafts, reason=reason)
    return lacks_of(hand_in(api, ring, order, drafts))


# --- keys -------------------------------------------------------------------------------------------------------


def harden(api: Api, folder: Path, root: Quorum, releases: Quorum, actor: str, now: float) -> Changed:
    """From `single-owner` to `organisation`: devices follow by themselves."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    layout = trust.layout()
    if layout.profile == "organisation":
        raise Trouble("this tenant's profile is organisation already: `falaj trust rotate` replaces a key")
    return _change(api, ring, trust, organisation(root, releases, layout.online), actor, now)


def rotate(api: Api, folder: Path, old: str, new: str, actor: str, now: float) -> Changed:
    """Another key in the place of a person's, wherever that stands. `old` is a name or the beginning of a key's id,
    `new` a `.pub` file."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    layout = trust.layout()
    found = [key for key in layout.people if layouts.name_of(key) == old or key.keyid.startswith(old)]
    if len(found) != 1:
        have = ", ".join(f"{layouts.name_of(key)} ({key.keyid[:12]})" for key in layout.people)
        raise Trouble(f"{old!r} is {'no' if not found else 'more than one'} key of this tenant; there are: {have}")
    _check_people(replaced := layout.replaced(found[0], ring.public(new)))
    return _change(api, ring, trust, replaced, actor, now)


def rotate_online(api: Api, folder: Path, role: OnlineRole, actor: str, now: float) -> Changed:
    """A new key of the core's own: the core makes it, people put it into the root; also such of its other keys as it
    lost, and has others for."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    return _change(api, ring, trust, replace(trust.layout(), online=_online(api, role)), actor, now)


def renew(api: Api, folder: Path, actor: str, now: float) -> Changed:
    """Root, targets and model roles signed anew with the same keys, before they expire."""
    ring, trust = KeyRing(folder), Trust.read(api)
    ring.check(trust.files)
    return _change(api, ring, trust, trust.layout(), actor, now, releases=True)


def pending(api: Api, folder: Path) -> Pending | None:
    """The change of keys that waits, told by what it really does; raises Untrusted if it does something besides."""
    trust, ring = Trust.read(api), KeyRing(folder)
    drafts = trust.waiting.get("root")
    if drafts is None:
        return None
    before = metadata.root_in_force(trust.files)
    if before is not None:
        ring.check(trust.files)
    else:
        ring.check_new()
    layout = checking.check_change(trust.files, drafts)
    old = layouts.read(before) if before is not None else None
    told = (*layouts.told(old, layout), *automatic.told(trust.files), f"holds until {signing.ends(drafts):%Y-%m-%d}")
    return Pending(told, drafts, trust.files)


def sign(api: Api, folder: Path, shown: Pending, actor: str, now: float) -> Changed:
    """A further signature under a change of keys: under the very bytes that were shown."""
    checking.check_life(shown.drafts, now)
    ring = KeyRing(folder)
    signed, ids = signed_by(shown.files, shown.drafts, ring.signers())
    result = hand_in(api, ring, ChangeTrust(actor=actor, metadata=signed), signed)
    return Changed(shown.text, lacks_of(result), ids)


def _change(
    api: Api, ring: KeyRing, trust: Trust, layout: Layout, actor: str, now: float, *, releases: bool = False
) -> Changed:
    def make(until: datetime) -> Drafts:
        return signing.change(trust.files, layout, until, releases=releases)

    drafts, ids = trust.signed("root", make, ring.signers(), now)
    result = hand_in(api, ring, ChangeTrust(actor=actor, metadata=drafts), drafts)
    told = (*layouts.told(trust.layout(), layout), *automatic.told(trust.files))
    waited = trust.waiting.get("root")
    if waited is not None and not signing.same(waited, as_bytes(drafts)):
        told = (*told, "what waited for signatures before is void: whoever signed it signs again if it is still wanted")
    return Changed(told, lacks_of(result), ids)


def _online(api: Api, *fresh: OnlineRole) -> dict[OnlineRole, roles.Key]:
    """The core's own public keys, new ones for the roles that are named."""
    found = api.order(TrustKeys(fresh=fresh))
    return {role: public(found[role]) for role in layouts.ONLINE}
