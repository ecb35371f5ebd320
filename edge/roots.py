"""The chain of TUF roots that a device follows by itself, from files alone: needs no order, no clock and no network.

A root says whose signatures count from now on, and names the director, whose word says which release is wanted: a
director that was replaced must not be needed to say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from sync.errors import Malformed, Untrusted
from sync.names import TrustFile
from sync.roles import DIRECTOR_FIELD, key_from_dict, material

TRUST_FILE_LIMIT = 512_000  # bytes of any trust file; what tuf itself allows a root

Kind = TypeVar("Kind", Root, Timestamp, Snapshot, Targets)


def newer_root(root: bytes, files: Mapping[str, bytes]) -> bytes:
    """The newest root that `files` lead to from `root`, each signed by the one before and by itself; else `root`.

    Needs no order and no clock: an expired root blocks installing, yet it names the director better than an older
    one. Raises Untrusted if the very next root is bad, so that every call gets further or says why not.
    """
    newest = root
    try:
        trusted = parse(root, Root)
        while (data := files.get(f"{trusted.signed.version + 1}.root.json")) is not None:
            if len(data) > TRUST_FILE_LIMIT:
                raise RepositoryError(f"{len(data)} bytes are more than {TRUST_FILE_LIMIT}")
            following = parse(data, Root)
            if following.signed.version != trusted.signed.version + 1:
                raise RepositoryError(f"it says version {following.signed.version}")
            vouched(trusted.signed, "root", following)
            vouched(following.signed, "root", following)
            newest, trusted = data, following
    except (RepositoryError, ValueError) as error:
        if newest is root:
            raise Untrusted(f"the root after the trusted one: {error}") from error
    return newest


def next_root(root: bytes) -> TrustFile:
    """The name of the one file that can follow `root`: worth listening to as long as the device lives."""
    return TrustFile(f"{trusted(root).version + 1}.root.json")


def behind(root: bytes, index: Iterable[str]) -> bool:
    """Whether the index names a root newer than `root`."""
    newest, names = trusted(root).version, (name.partition(".") for name in index)
    return any(rest == "root.json" and v.isdecimal() and int(v[:20]) > newest for v, _, rest in names)


def settled(mark: Mapping[str, int], old: bytes, new: bytes) -> dict[str, int]:
    """The high-water mark `mark`, made under root `old`, under the newer root `new` of the same chain.

    A version is forgotten where what the old keys signed does not hold any more (TUF 1.0.34, 5.3.11). As in tuf's
    client the timestamp's keys vouch for the snapshot's version too, and the snapshot's for all it lists. Of a mark
    that is known to be of a later root than `old`, nothing is forgotten.
    """
    before, after = trusted(old), trusted(new)
    if mark.get("root", 0) > before.version:
        return dict(mark) | {"root": max(mark["root"], after.version)}
    gone: set[str] = set()
    if _rotated(before, after, "timestamp"):
        gone |= {"timestamp", "snapshot"}
    if _rotated(before, after, "snapshot"):
        gone |= set(mark) - {"root", "timestamp"}
    return {role: version for role, version in mark.items() if role not in gone} | {"root": after.version}


def director_keys(root: bytes) -> list[Key]:
    """The director's public keys in a root this device trusts."""
    try:
        metadata: Metadata[Root] = Metadata.from_bytes(root)
        fields = metadata.signed.unrecognized_fields[DIRECTOR_FIELD]
        return [key_from_dict(keyid, body) for keyid, body in fields.items()]
    except (RepositoryError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Malformed(f"the root names no director: {error}") from error


def director_replaced(old: bytes, new: bytes) -> bool:
    """Whether no director's key of root `old` stands in root `new` either: its orders do not hold any more."""
    return not _directors(old) & _directors(new)


def _directors(root: bytes) -> set[str]:
    try:
        return {material(key) for key in director_keys(root)}
    except Malformed:  # a root may name no director
        return set()


def parse(data: bytes, kind: type[Kind]) -> Metadata[Kind]:
    """Metadata of exactly this kind; raises RepositoryError."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(f"this is {metadata.signed.type}, not {kind.type}")
    return metadata


def trusted(root: bytes) -> Root:
    """A root that was verified before; raises Untrusted if these bytes are none."""
    try:
        return parse(root, Root).signed
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"the trusted root: {error}") from error


def vouched(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Raises RepositoryError unless a threshold of *different* keys signed: one key under two ids is one."""
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    distinct = {material(key) for key in result.signed.values()}
    if len(distinct) < result.threshold:
        raise RepositoryError(f"{role} was signed by {len(distinct)}/{result.threshold} different keys")


def _rotated(before: Root, after: Root, role: str) -> bool:
    """Whether what the old keys signed no longer holds."""
    kept = set(before.roles[role].keyids) & set(after.roles[role].keyids)
    return len(kept) < after.roles[role].threshold
