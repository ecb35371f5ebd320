"""What this device believes: tuf's client on files collected from the link, a high-water mark, accepted releases.

Theory. The files arrive first (retained messages, hinted by `trust/index`); then `tuf.ngclient` runs on them
without any network, so it never blocks and never trusts the hint: a missing file is a retry, a bad one a refusal.
tuf's own files are renamed without fsync, so the versions it accepted are also kept in the journal (`versions`);
anything lower is refused, even after its folder was lost. Only a new root lowers that mark, and only for what the
keys it took away had signed: so a thief who counted to the end can be followed. A release that passed leaves a
*record*: the metadata and manifest bytes, by which every later load is verified offline, ignoring expiry. Expiry
blocks installing, never running. tuf reads the clock itself; a clock that is not set is caught before (`edge.agent`).

The root also names the director, whose word says which release is wanted. `newer_root` therefore follows the chain of
roots by itself: a director that was replaced must not be needed to say so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from sync import codec
from sync.errors import Malformed, SyncError, Untrusted
from sync.manifest import LIMIT, Manifest, role_of, target_path
from sync.names import Digest, ModelName, TrustFile
from sync.roles import DIRECTOR_FIELD, key_from_dict

CONFIG = UpdaterConfig(prefix_targets_with_hash=True)
LAST_VERSION = 2**63 - 1  # what the journal's column holds

Kind = TypeVar("Kind", Root, Timestamp, Snapshot, Targets)


class Incomplete(SyncError):
    """Trust files are lacking or not current: no verdict yet, ask again when more have come."""

    code = "trust-incomplete"


class Record(msgspec.Struct, frozen=True):
    """The accepted-release record: all bytes needed to verify one release offline."""

    root: bytes
    targets: bytes
    role: bytes
    manifest: bytes


class Accepted(msgspec.Struct, frozen=True):
    """A release that tuf accepted now, and the whole high-water mark from now on: it replaces the one before."""

    manifest: Manifest
    record: Record
    versions: dict[str, int]


class _Collected(FetcherInterface):
    """tuf's fetcher over the files at hand; absent is 404, which is how the end of the root chain looks."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rsplit("/", 1)[-1]
        if name not in self.files:
            raise DownloadHTTPError(f"{name} has not arrived", 404)
        yield self.files[name]


def wanted(index: Iterable[str], have: Mapping[str, bytes], manifests: Iterable[Digest]) -> tuple[TrustFile, ...]:
    """The files to subscribe to: all metadata the index names and we lack, and our manifests, by digest.

    `timestamp.json` is always wanted: it is the one file that changes under its name.
    """
    names = {TrustFile("timestamp.json")}
    ours = {f"{digest}.manifest" for digest in manifests}
    for text in index:
        if text.endswith(".manifest") and text not in ours:
            continue
        if text not in have:
            names.add(TrustFile(text))
    names.update(TrustFile(n) for n in ours if n not in have)
    return tuple(sorted(names))


def accept(
    folder: Path,
    root: bytes,
    files: Mapping[str, bytes],
    floor: Mapping[str, int],
    model: ModelName,
    number: int,
    digest: Digest,
) -> Accepted:
    """Runs tuf's client over `files` and accepts one release.

    `folder` keeps tuf's metadata, `root` is the pinned first root or a newer one that this device came to trust,
    `floor` the high-water mark. Raises Incomplete (files missing or expired: not now) or Untrusted (never):
    signature, rollback, digest, or a release that is not among the signed targets of its model's role.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder), "trust:/", str(folder), "trust:/", _Collected(files), CONFIG, bootstrap=root,
        )  # fmt: skip
        updater.refresh()
        info = updater.get_targetinfo(target_path(model, number))
        found = _kept(folder, role_of(model))
        mark = _raised(_under(folder, root, found["root"], floor), found)
    except (RepositoryError, DownloadLengthMismatchError, ValueError) as error:
        # What has expired may be renewed in place; a file of the wrong length must be dropped to be asked for again.
        kind = Incomplete if isinstance(error, ExpiredMetadataError) else Untrusted
        raise kind(f"trust files: {error}") from error
    except (DownloadError, OSError) as error:
        raise Incomplete(f"trust files: {error}") from error
    if info is None or info.hashes.get("sha256") != digest or role_of(model) not in found:
        raise Untrusted(f"{model} {number} with digest {digest[:12]} is not among the signed releases")
    manifest = files.get(f"{digest}.manifest")
    if manifest is None:
        raise Incomplete(f"manifest {digest[:12]} has not arrived")
    record = Record(found["root"], found["targets"], found[role_of(model)], manifest)
    return Accepted(verify(record, model, number), record, mark)


def verify(record: Record, model: ModelName, number: int) -> Manifest:
    """The manifest of an accepted release, verified from its record alone; raises Untrusted or Malformed."""
    name, path = role_of(model), target_path(model, number)
    try:
        root, targets = _parse(record.root, Root), _parse(record.targets, Targets)
        role = _parse(record.role, Targets)
        _vouched(root.signed, "root", root)
        _vouched(root.signed, "targets", targets)
        _vouched(targets.signed, name, role)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"record of {model} {number}: {error}") from error
    delegations = targets.signed.delegations
    if delegations is None or not delegations.roles or not delegations.roles[name].is_delegated_path(path):
        raise Untrusted(f"record of {model} {number}: {name} may not sign {path}")
    target = role.signed.targets.get(path)
    if target is None or target.hashes.get("sha256") != hashlib.sha256(record.manifest).hexdigest():
        raise Untrusted(f"record of {model} {number}: the manifest is not the one that was signed")
    manifest = codec.decode(Manifest, record.manifest, LIMIT)
    if manifest.model != model or manifest.number != number:
        raise Untrusted(f"manifest says {manifest.model} {manifest.number}, signed as {model} {number}")
    return manifest


def newer_root(root: bytes, files: Mapping[str, bytes]) -> bytes:
    """The newest root that `files` lead to from `root`, each signed by the one before and by itself; else `root`.

    Needs no order and no clock: an expired root blocks installing, yet it names the director better than an older
    one. Raises Untrusted if the very next root is bad, so that every call gets further or says why not.
    """
    newest = root
    try:
        trusted = _parse(root, Root)
        while (data := files.get(f"{trusted.signed.version + 1}.root.json")) is not None:
            if len(data) > CONFIG.root_max_length:
                raise RepositoryError(f"{len(data)} bytes are more than {CONFIG.root_max_length}")
            following = _parse(data, Root)
            if following.signed.version != trusted.signed.version + 1:
                raise RepositoryError(f"it says version {following.signed.version}")
            _vouched(trusted.signed, "root", following)
            _vouched(following.signed, "root", following)
            newest, trusted = data, following
    except (RepositoryError, ValueError) as error:
        if newest is root:
            raise Untrusted(f"the root after the trusted one: {error}") from error
    return newest


def next_root(root: bytes) -> TrustFile:
    """The name of the one file that can follow `root`: worth listening to as long as the device lives."""
    return TrustFile(f"{_trusted(root).version + 1}.root.json")


def settled(mark: Mapping[str, int], old: bytes, new: bytes) -> dict[str, int]:
    """The high-water mark `mark`, made under root `old`, under the newer root `new` of the same chain.

    A version is forgotten where what the old keys signed does not hold any more (TUF 1.0.34, 5.3.11). As in tuf's
    client the timestamp's keys vouch for the snapshot's version too, and the snapshot's for all it lists. Of a mark
    that is known to be of a later root than `old`, nothing is forgotten.
    """
    before, after = _trusted(old), _trusted(new)
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
        return {_material(key) for key in director_keys(root)}
    except Malformed:  # a root may name no director
        return set()


def _material(key: Key) -> str:
    """The public key itself, however it is spelt."""
    return "".join(str(key.keyval).split()).lower()


def _parse(data: bytes, kind: type[Kind]) -> Metadata[Kind]:
    """Metadata of exactly this kind; raises RepositoryError."""
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    if not isinstance(metadata.signed, kind):
        raise RepositoryError(f"this is {metadata.signed.type}, not {kind.type}")
    return metadata


def _trusted(root: bytes) -> Root:
    """A root that was verified before; raises Untrusted if these bytes are none."""
    try:
        return _parse(root, Root).signed
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"the trusted root: {error}") from error


def _vouched(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """Raises RepositoryError unless a threshold of *different* keys signed: one key under two ids is one."""
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    distinct = {_material(key) for key in result.signed.values()}
    if len(distinct) < result.threshold:
        raise RepositoryError(f"{role} was signed by {len(distinct)}/{result.threshold} different keys")


def _kept(folder: Path, role: str) -> dict[str, bytes]:
    """The metadata tuf's client keeps after a refresh; the model's role only if it is one."""
    names = ("root", "timestamp", "snapshot", "targets", *((role,) if (folder / f"{role}.json").exists() else ()))
    return {name: (folder / f"{name}.json").read_bytes() for name in names}


def _under(folder: Path, root: bytes, trusted: bytes, floor: Mapping[str, int]) -> Mapping[str, int]:
    """The mark under the root trusted now; it was made under the root whose version it names.

    That root is part of the chain the client has just followed from `root`, or nothing is forgotten.
    """
    made = floor.get("root", 0)
    if not _trusted(root).version <= made < _trusted(trusted).version:
        return floor
    return settled(floor, (folder / "root_history" / f"{made}.root.json").read_bytes(), trusted)


def _raised(floor: Mapping[str, int], found: Mapping[str, bytes]) -> dict[str, int]:
    """The mark raised to what was found; raises Untrusted if anything is lower, or beyond what can be kept.

    The roles that were not looked into count as well: the snapshot lists the version of each.
    """
    versions: dict[str, int] = {name: Metadata[Any].from_bytes(data).signed.version for name, data in found.items()}
    meta = _parse(found["snapshot"], Snapshot).signed.meta.items()
    listed = {name.removesuffix(".json"): one.version for name, one in meta}
    for name, seen in floor.items():
        version = versions.get(name, listed.get(name, 0))
        if version < seen:
            raise Untrusted(f"{name} version {version} is older than {seen}, seen before")
    for name, version in versions.items():
        if version != listed.get(name, version):
            raise Untrusted(f"{name} version {version} is not the one of this snapshot")
        if version > LAST_VERSION:
            raise Untrusted(f"{name} version {version} is beyond what any publisher counts to")
    return dict(floor) | versions


def _rotated(before: Root, after: Root, role: str) -> bool:
    """Whether what the old keys signed no longer holds."""
    kept = set(before.roles[role].keyids) & set(after.roles[role].keyids)
    return len(kept) < after.roles[role].threshold
