"""What this device believes: tuf's client on files collected from the link, a high-water mark, accepted releases.

Theory. The files arrive first (retained messages, hinted by `trust/index`); then `tuf.ngclient` runs on them
without any network, so it never blocks and never trusts the hint: a missing file is a retry, a bad one a refusal.
tuf's own files are renamed without fsync, so the versions it accepted are also kept in the journal (`versions`);
anything lower is refused, even after its folder was lost. Only a new root lowers that mark, and only for what the
keys it took away had signed: so a thief who counted to the end can be followed. A release that passed leaves a
*record* (`edge.accepted`), by which every later load is verified offline, ignoring expiry. Expiry blocks installing,
never running. tuf reads the machine's clock itself: what it lets pass is held against the time that the walker knows as
well, which on a box without a clock is later.

What is no longer among the signed targets was revoked, and `revoked` says so of what this device holds. The chain of
roots is followed for itself besides (`edge.roots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Snapshot, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge import roots
from edge.accepted import Record, Unrecorded, delegated, verify
from sync.errors import SyncError, Untrusted
from sync.manifest import Manifest, auto_role_of, role_of, target_path
from sync.names import LAST, Digest, ModelName, TrustFile

CONFIG = UpdaterConfig(prefix_targets_with_hash=True)
_TOP = ("root", "timestamp", "snapshot", "targets")

__all__ = ["Accepted", "DiskRefused", "Expired", "Incomplete", "Record", "Standing", "Unrecorded", "accept", "revoked",
           "verify", "wanted"]  # fmt: skip


class Incomplete(SyncError):
    """Trust files are lacking or not current: no verdict yet, ask again when more have come."""

    code = "trust-incomplete"


class Expired(Incomplete):
    """What came is right, and its time is over: a broker that keeps newer files back looks like this."""

    code = "trust-expired"


class DiskRefused(Incomplete):
    """tuf could not keep what came: nothing is wrong with it, and nothing else has to come."""

    code = "disk-refused"


class Accepted(msgspec.Struct, frozen=True):
    """A release that tuf accepted now, and the whole high-water mark from now on: it replaces the one before."""

    manifest: Manifest
    record: Record
    versions: dict[str, int]


class Standing(msgspec.Struct, frozen=True):
    """The releases that were revoked, the models of which no verdict is due, for metadata of theirs alone has expired
    (what did), the root now trusted, and the whole high-water mark from now on."""

    revoked: tuple[tuple[ModelName, int], ...]
    expired: dict[ModelName, str]
    root: bytes
    versions: dict[str, int]


@dataclass(frozen=True)
class _Current:
    """The metadata tuf's client holds after a refresh, the signed digest of each release that was asked for (None: not
    signed), the mark; releases for which metadata of their model alone has expired are in `expired`, with what did."""

    found: dict[str, bytes]
    digests: dict[tuple[ModelName, int], str | None]
    mark: dict[str, int]
    expired: dict[tuple[ModelName, int], str]


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
    now: float,
) -> Accepted:
    """Runs tuf's client over `files` and accepts one release.

    `folder` keeps tuf's metadata, `root` is the pinned first root or a newer one that this device came to trust,
    `floor` the high-water mark, `now` the least that the time can be. Raises Incomplete (files missing, or Expired: not
    now) or Untrusted (never): signature, rollback, digest, or a release that is not among the signed targets of its
    model's role.
    """
    current = _refreshed(folder, root, files, floor, [(model, number)], now)
    if current.expired:
        raise Expired(current.expired[model, number])
    found = current.found
    if current.digests[model, number] != digest or role_of(model) not in found:
        raise Untrusted(f"{model} {number} with digest {digest[:12]} is not among the signed releases")
    manifest = files.get(f"{digest}.manifest")
    if manifest is None:
        raise Incomplete(f"manifest {digest[:12]} has not arrived")
    auto = found.get(auto_role_of(model), b"")  # only where the model's own role does not name the release
    record = Record(found["root"], found["targets"], found[role_of(model)], manifest, auto)
    return Accepted(verify(record, model, number), record, current.mark)


def revoked(
    folder: Path,
    root: bytes,
    files: Mapping[str, bytes],
    floor: Mapping[str, int],
    held: Mapping[tuple[ModelName, int], Digest],
    now: float,
) -> Standing:
    """Which of the releases `held` here (model and number -> manifest) are not among the signed ones any more.

    Runs tuf's client as `accept` does, and raises the same; but each release is judged by itself, so that one whose
    metadata has expired keeps no revocation of another from being heard.
    """
    current = _refreshed(folder, root, files, floor, held, now)
    gone = (one for one, signed in current.digests.items() if signed != held[one])
    late = {model: why for (model, _), why in current.expired.items()}
    return Standing(tuple(sorted(gone)), late, current.found["root"], current.mark)


def _refreshed(
    folder: Path,
    root: bytes,
    files: Mapping[str, bytes],
    floor: Mapping[str, int],
    releases: Iterable[tuple[ModelName, int]],
    now: float,
) -> _Current:
    """tuf's client over `files`; raises Incomplete (DiskRefused, Expired) or Untrusted."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(folder), "trust:/", str(folder), "trust:/", _Collected(files), CONFIG, bootstrap=root,
        )  # fmt: skip
        updater.refresh()
        found = {name: (folder / f"{name}.json").read_bytes() for name in _TOP}
        _check_current(found, now)
        digests, expired = dict[tuple[ModelName, int], str | None](), dict[tuple[ModelName, int], str]()
        for one in releases:
            try:
                signed = _digest(updater.get_targetinfo(target_path(*one)))
                _check_current(roles := _kept(folder, _looked_into(folder, *one)), now)
                digests[one], found = signed, found | roles
            except (ExpiredMetadataError, Expired) as error:
                expired[one] = f"release {one[1]} of {one[0]}: {error}"
        mark = _raised(_under(folder, root, found["root"], floor), found)
        return _Current(found, digests, mark, expired)
    except (RepositoryError, DownloadLengthMismatchError, ValueError) as error:
        # What has expired may be renewed in place; a file of the wrong length must be dropped to be asked for again.
        kind = Expired if isinstance(error, ExpiredMetadataError) else Untrusted
        raise kind(f"trust files: {error}") from error
    except DownloadError as error:
        raise Incomplete(f"trust files: {error}") from error
    except OSError as error:
        raise DiskRefused(f"trust files: {error}") from error


def _digest(target: TargetFile | None) -> str | None:
    return target.hashes.get("sha256") if target is not None else None


def _kept(folder: Path, roles: Iterable[str]) -> dict[str, bytes]:
    """The metadata that tuf's client keeps of the models' roles, of those that are one."""
    return {role: path.read_bytes() for role in roles if (path := folder / f"{role}.json").exists()}


def _looked_into(folder: Path, model: ModelName, number: int) -> Iterator[str]:
    """Whose metadata tuf's client has just gone through for a release: the core's only where people's does not name it.
    What it did not go through may lie there since another time."""
    yield role_of(model)
    if (people := folder / f"{role_of(model)}.json").exists():
        role, path = roots.parse(people.read_bytes(), Targets).signed, target_path(model, number)
        if path not in role.targets and delegated(role, model, path) is not None:
            yield auto_role_of(model)


def _check_current(found: Mapping[str, bytes], now: float) -> None:
    """Raises Expired for what has ended by `now`."""
    for name, data in found.items():
        ends = Metadata[Any].from_bytes(data).signed.expires
        if ends.timestamp() <= now:
            raise Expired(f"trust files: {name} has expired on {ends:%Y-%m-%d}, by the time that was signed since")


def _under(folder: Path, root: bytes, trusted: bytes, floor: Mapping[str, int]) -> Mapping[str, int]:
    """The mark under the root trusted now; it was made under the root whose version it names.

    That root is part of the chain the client has just followed from `root`, or nothing is forgotten.
    """
    made = floor.get("root", 0)
    if not roots.trusted(root).version <= made < roots.trusted(trusted).version:
        return floor
    return roots.settled(floor, (folder / "root_history" / f"{made}.root.json").read_bytes(), trusted)


def _raised(floor: Mapping[str, int], found: Mapping[str, bytes]) -> dict[str, int]:
    """The mark raised to what was found; raises Untrusted if anything is lower, or beyond what can be kept.

    The roles that were not looked into count as well: the snapshot lists the version of each.
    """
    versions: dict[str, int] = {name: Metadata[Any].from_bytes(data).signed.version for name, data in found.items()}
    meta = roots.parse(found["snapshot"], Snapshot).signed.meta.items()
    listed = {name.removesuffix(".json"): one.version for name, one in meta}
    for name, seen in floor.items():
        version = versions.get(name, listed.get(name, 0))
        if version < seen:
            raise Untrusted(f"{name} version {version} is older than {seen}, seen before")
    for name, version in versions.items():
        if version != listed.get(name, version):
            raise Untrusted(f"{name} version {version} is not the one of this snapshot")
        if version > LAST:
            raise Untrusted(f"{name} version {version} is beyond what any publisher counts to")
    return dict(floor) | versions
