"""How far the tenant's trust is set up, in figures and in one honest sentence. Pure; reads TUF metadata as JSON.

Nothing is verified here: the steward checked each file before it was kept. This only says what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from sync.errors import Malformed

SINGLE_OWNER_BADGE = "keys on this machine"


class TrustRole(msgspec.Struct, frozen=True):
    """One top-level role: its newest version and when it ends (seconds since 1970)."""

    version: int
    expires: float


class TrustState(msgspec.Struct, frozen=True):
    """`profile` and the roles are None until `falaj trust init`; `badge` says where the keys lie."""

    initialised: bool
    profile: str | None
    badge: str
    root: TrustRole | None
    targets: TrustRole | None
    timestamp: TrustRole | None


class _Quorum(msgspec.Struct, frozen=True):
    keyids: list[str] = []
    threshold: int = 1


class _Signed(msgspec.Struct, frozen=True):
    version: int
    expires: datetime
    roles: dict[str, _Quorum] = {}


class _Metadata(msgspec.Struct, frozen=True):
    signed: _Signed


def trust_state(files: Mapping[str, bytes]) -> TrustState:
    """The state told by the trust files (name -> bytes); raises Malformed for a file that is no TUF metadata."""
    root = _newest(files, "root")
    if root is None:
        return TrustState(False, None, "not set up", None, None, None)
    quorum = root.roles.get("root", _Quorum())
    single = quorum.threshold == 1 and len(quorum.keyids) <= 1
    return TrustState(
        initialised=True,
        profile="single-owner" if single else "organisation",
        badge=SINGLE_OWNER_BADGE if single else f"root needs {quorum.threshold} of {len(quorum.keyids)} keys",
        root=_role(root),
        targets=_role(_newest(files, "targets")),
        timestamp=_role(_read("timestamp.json", files)),
    )


def _role(signed: _Signed | None) -> TrustRole | None:
    return TrustRole(signed.version, signed.expires.timestamp()) if signed else None


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
