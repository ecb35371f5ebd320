"""What people and the steward check before they sign or keep metadata: that it follows what they know, and that a draft
does what it says and nothing besides. Pure, from bytes to bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from tuf.api.metadata import Root, Targets

from core.release import automatic, signing
from core.release import layout as layouts
from core.release.layout import Layout
from core.release.metadata import Files, newest, newest_root, parse, root_in_force, version_of
from core.release.signing import Drafts
from sync.errors import Untrusted
from sync.manifest import role_of
from sync.names import Digest, ModelName

SLACK = timedelta(days=1)  # by which the clock of whoever signs may be ahead of another's


# --- what is in force -------------------------------------------------------------------------------------------


def followed(pinned: bytes, files: Files) -> bytes:
    """The newest root that `files` lead to from `pinned`, each signed by the one before and by itself.

    Raises Untrusted if the newest of `files` is not reached: whoever sent them has another history.
    """
    root = parse(pinned, Root)
    while (data := files.get(f"{root.signed.version + 1}.root.json")) is not None:
        following = parse(data, Root)
        if following.signed.version != root.signed.version + 1:
            raise Untrusted(f"the root after {root.signed.version} says that it is {following.signed.version}")
        for delegator in (root.signed, following.signed):
            if not signing.count(delegator, "root", following).met:
                raise Untrusted(f"root {following.signed.version} was not signed as root {root.signed.version} asks")
        pinned, root = data, following
    if pinned != newest_root(files):
        raise Untrusted("the core shows another root than the one your keys know: nothing was signed. Was it reset, or "
                        "is it another core? If not, somebody has changed its files")  # fmt: skip
    return pinned


def check_base(files: Files, seen: Mapping[str, int] | None = None) -> dict[str, int]:
    """The version of targets and of each model role, which a draft extends.

    Raises Untrusted unless they were signed as the root asks, else a release or a delegation that somebody slipped in
    would be signed along; and unless none is older than `seen`, else one that was revoked would be signed back.
    """
    root, targets = root_in_force(files), newest(files, "targets", Targets)
    found: dict[str, int] = {}
    for name, file in automatic.of_people(files).items():
        role = parse(files[file], Targets)
        delegator = root if name == "targets" else targets.signed
        if delegator is None or not signing.count(delegator, name, role).met or role.signed.version != version_of(file):
            raise Untrusted(f"the core sent trust metadata that its owners never signed ({file}): nothing was signed. "
                            "Somebody has changed the core's files")  # fmt: skip
        found[name] = role.signed.version
    for name, version in (seen or {}).items():
        if found.get(name, 0) < version:
            raise Untrusted(
                f"the core shows {name} {found.get(name, 0)}, and your keys have seen {version}: nothing was signed. "
                "Was it restored from an older backup? If not, somebody wants a release back that was revoked"
            )
    return found


# --- drafts -----------------------------------------------------------------------------------------------------


def check_life(drafts: Drafts, now: float) -> datetime:
    """When the drafts end; raises Untrusted if that is later than people sign for, by a clock that says `now`."""
    until = signing.ends(drafts)
    if until.timestamp() > now + (signing.LIFE + SLACK).total_seconds():
        raise Untrusted(f"what is signed may hold for {signing.LIFE.days} days, and this would hold until "
                        f"{until:%Y-%m-%d}: is the clock of this machine right?")  # fmt: skip
    return until


def check_may_replace(files: Files, drafts: Drafts) -> None:
    """Raises Untrusted unless somebody has signed who holds a key of the root in force, if there is one: a draft that
    names a stranger asks for the stranger's signature as well, and must not take the place of what others signed."""
    root = root_in_force(files)
    if root is None:
        return
    present = {key.keyid for key in layouts.read(root).people}
    signed = {key.keyid for found in signing.tally(files, drafts).values() for one in found for key in one.signed}
    if not present & signed:
        raise Untrusted("something else waits for signatures, and only somebody whose key is in force puts this in its "
                        "place: `falaj trust status` shows both")  # fmt: skip


def check_approval(files: Files, model: ModelName, number: int, manifest: bytes, drafts: Drafts) -> None:
    """Raises Untrusted unless the drafts are those of this approval, and nothing besides."""
    wanted = signing.approval(files, model, number, manifest, signing.ends(drafts))
    _expect_same(drafts, wanted, f"approval of {model} {number}")


def check_revocation(files: Files, model: ModelName, number: int, drafts: Drafts) -> None:
    """Raises Untrusted unless the drafts take this release away, and nothing besides."""
    wanted = signing.revocation(files, model, number, signing.ends(drafts))
    _expect_same(drafts, wanted, f"revocation of {model} {number}")


def check_automatic(files: Files, model: ModelName, terms: Digest | None, drafts: Drafts) -> None:
    """Raises Untrusted unless the drafts let the core sign releases of this model on these terms, or with None end
    that, and do nothing besides. Whose key they name, the caller looks at."""
    until, name = signing.ends(drafts), role_of(model)
    if terms is None:
        wanted = automatic.opting_out(files, model, until)
    else:
        if (found := automatic.allowed_by(signing.role_in(drafts, name), model)) is None:
            raise Untrusted(f"the metadata does not let the core sign releases of {model}: do it again")
        wanted = automatic.opting_in(files, model, found.key, terms, until)
    _expect_same(drafts, wanted, f"automatic releases of {model}")


def check_change(files: Files, drafts: Drafts) -> Layout:
    """The layout that the drafts lead to; raises Untrusted unless they do that, and nothing besides. What one person
    alone let the core do does not follow a tenant into profile `organisation`."""
    if "root" not in drafts:
        raise Untrusted("a change of keys is a new root")
    layout = signing.layout_of(drafts)
    wanted = (
        signing.change(files, layout, signing.ends(drafts), releases=len(drafts) > 1)
        if newest_root(files) is not None
        else signing.beginning(layout, signing.ends(drafts))
    )
    _expect_same(drafts, wanted, "change of keys")
    before, alone = root_in_force(files), automatic.all_allowed(files)
    if alone and before is not None and layouts.read(before).profile != layout.profile:
        raise layouts.BadLayout(
            f"the core releases {', '.join(alone)} by itself, which one key allowed: end that first (`falaj trust auto "
            "MODEL --off`; what shall go on is approved by people before), and let all who sign allow it anew"
        )
    return layout


def _expect_same(drafts: Drafts, wanted: Drafts, what: str) -> None:
    if not signing.same(drafts, wanted):
        raise Untrusted(f"{what}: the metadata says something else than that; somebody signed meanwhile, or it was "
                        "not made by `falaj trust`: do it again")  # fmt: skip
