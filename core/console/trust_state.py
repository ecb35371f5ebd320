"""How far the tenant's trust is set up, in figures and in one honest sentence. Pure; reads TUF metadata as JSON.

Nothing is verified here: the steward checked each file before it was kept. This only says what they say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from core.catalog.releases import Proposal
from sync.errors import Malformed
from sync.roles import DIRECTOR_FIELD, NAME_FIELD

SINGLE_OWNER_BADGE = "keys on this machine"
MODEL_ROLE = "model."  # in front of a model's name
AUTO_ROLE = "auto."  # likewise, the role by which the core signs releases of it


class Holder(msgspec.Struct, frozen=True):
    """A key and who holds it, as the root says."""

    name: str
    keyid: str


class TrustRole(msgspec.Struct, frozen=True):
    """One role: its newest version, when it ends (seconds since 1970), how many of whose keys sign the next."""

    version: int
    expires: float
    threshold: int = 1
    holders: tuple[Holder, ...] = ()


class Automatic(msgspec.Struct, frozen=True):
    """A model that the core may release by itself: by which key, and which releases in force no person signed."""

    keyid: str
    releases: tuple[int, ...] = ()


class Waiting(msgspec.Struct, frozen=True):
    """Something that lacks signatures: what it does, whose it has, what is missing."""

    subject: str
    text: tuple[str, ...]
    signed: tuple[str, ...]
    lacks: tuple[str, ...]
    since: float


class TrustState(msgspec.Struct, frozen=True):
    """`profile` and the roles are None until there is a root; `badge` says where the keys lie."""

    initialised: bool
    profile: str | None
    badge: str
    root: TrustRole | None
    targets: TrustRole | None
    timestamp: TrustRole | None
    director: Holder | None = None
    models: dict[str, TrustRole] = {}
    automatic: dict[str, Automatic] = {}
    waiting: tuple[Waiting, ...] = ()


class _Quorum(msgspec.Struct, frozen=True):
    keyids: list[str] = []
    threshold: int = 1


class _Delegations(msgspec.Struct, frozen=True):
    keys: dict[str, Any] = {}


class _Signed(msgspec.Struct, frozen=True):
    version: int
    expires: datetime
    roles: dict[str, _Quorum] = {}
    keys: dict[str, dict[str, Any]] = {}
    director: dict[str, Any] = msgspec.field(name=DIRECTOR_FIELD, default_factory=dict)
    targets: dict[str, Any] = {}
    delegations: _Delegations | None = None


class _Metadata(msgspec.Struct, frozen=True):
    signed: _Signed


def trust_state(files: Mapping[str, bytes], proposals: Iterable[Proposal] = ()) -> TrustState:
    """The state told by the trust files (name -> bytes); raises Malformed for a file that is no TUF metadata."""
    waiting = tuple(Waiting(p.subject, p.text, p.signed, p.lacks, p.since) for p in proposals)
    root = _newest(files, "root")
    if root is None:
        return TrustState(False, None, "not set up", None, None, None, waiting=waiting)
    own, releases = root.roles.get("root", _Quorum()), root.roles.get("targets", _Quorum())
    single = own.threshold == 1
    badge = (
        f"root needs {own.threshold} of {len(own.keyids)} keys, a release {releases.threshold} of "
        f"{len(releases.keyids)}"
    )
    named = (n.partition(".")[2] for n in files)
    models = sorted({role.removesuffix(".json") for role in named if role.startswith(MODEL_ROLE)})
    return TrustState(
        initialised=True,
        profile="single-owner" if single else "organisation",
        badge=SINGLE_OWNER_BADGE if single else badge,
        root=_role(root, root, "root"),
        targets=_role(_newest(files, "targets"), root, "targets"),
        timestamp=_role(_read("timestamp.json", files), root, "timestamp"),
        director=next((Holder("", keyid) for keyid in root.director), None),
        models={
            name.removeprefix(MODEL_ROLE): found
            for name in models
            if (found := _role(_newest(files, name), root, "targets")) is not None
        },
        automatic={
            name.removeprefix(MODEL_ROLE): Automatic(next(iter(role.delegations.keys), ""), _alone(files, name))
            for name in models
            if (role := _newest(files, name)) is not None and role.delegations is not None
        },
        waiting=waiting,
    )


def _alone(files: Mapping[str, bytes], role: str) -> tuple[int, ...]:
    """The releases that the core's role names, and that of people does not."""
    people, core = _newest(files, role), _newest(files, f"{AUTO_ROLE}{role.removeprefix(MODEL_ROLE)}")
    named = core.targets.keys() - (people.targets.keys() if people else set()) if core else ()
    return tuple(sorted(int(path.split("/")[1]) for path in named))


def _role(signed: _Signed | None, root: _Signed, name: str) -> TrustRole | None:
    if signed is None:
        return None
    quorum = root.roles.get(name, _Quorum())
    holders = tuple(Holder(str(root.keys.get(keyid, {}).get(NAME_FIELD, "")), keyid) for keyid in quorum.keyids)
    return TrustRole(signed.version, signed.expires.timestamp(), quorum.threshold, holders)


def _newest(files: Mapping[str, bytes], role: str) -> _Signed | None:
    versions = [n.partition(".")[0] for n in files if n.partition(".")[2] == f"{role}.json"]
    numbers = [int(v) for v in versions if v.isdecimal()]
    return _read(f"{max(numbers)}.{role}.json", files) if numbers else None


def _read(name: str, files: Mapping[str, bytes]) -> _Signed | None:
    if name not in files:
        return None
    try:
        return msgspec.json.decode(files[name], type=_Metadata).signed
    except msgspec.DecodeError as error:
        raise Malformed(f"trust file {name}: {error}") from error
