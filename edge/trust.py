"""What this device believes: tuf's client on files collected from the link, a high-water mark, accepted releases.

Theory. The files arrive first (retained messages, hinted by `trust/index`); then `tuf.ngclient` runs on them
without any network, so it never blocks and never trusts the hint: a missing file is a retry, a bad one a refusal.
tuf's own files are renamed without fsync, so the versions it accepted are also kept in the journal (`versions`);
anything lower is refused, even after its folder was lost. A release that passed leaves a *record*: the metadata
and manifest bytes, by which every later load is verified offline, ignoring expiry. Expiry blocks installing,
never running. tuf reads the clock itself; a clock that is not set is caught before (`edge.agent`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from sync import codec
from sync.errors import Malformed, SyncError, Untrusted
from sync.manifest import LIMIT, Manifest, role_of, target_path
from sync.names import Digest, ModelName, TrustFile
from sync.roles import DIRECTOR_FIELD, key_from_dict


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
    """A release that tuf accepted now, and the versions seen, for the high-water mark."""

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

    `folder` keeps tuf's metadata, `root` is the pinned first root, `floor` the high-water mark. Raises Incomplete
    (files missing or expired: not now) or Untrusted (never): signature, rollback, digest, or a release that is
    not among the signed targets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        updater = Updater(
            str(folder), "trust:/", str(folder), "trust:/", _Collected(files),
            UpdaterConfig(prefix_targets_with_hash=True), bootstrap=root,
        )  # fmt: skip
        updater.refresh()
        info = updater.get_targetinfo(target_path(model, number))
    except (RepositoryError, DeserializationError, DownloadLengthMismatchError, ValueError) as error:
        # What has expired may be renewed in place; a file of the wrong length must be dropped to be asked for again.
        kind = Incomplete if isinstance(error, ExpiredMetadataError) else Untrusted
        raise kind(f"trust files: {error}") from error
    except (DownloadError, OSError) as error:
        raise Incomplete(f"trust files: {error}") from error
    if info is None or info.hashes.get("sha256") != digest:
        raise Untrusted(f"{model} {number} with digest {digest[:12]} is not among the signed releases")
    manifest = files.get(f"{digest}.manifest")
    if manifest is None:
        raise Incomplete(f"manifest {digest[:12]} has not arrived")
    role = role_of(model)
    local = {name: (folder / f"{name}.json").read_bytes() for name in ("timestamp", "snapshot", "targets", role)}
    trusted_root = (folder / "root.json").read_bytes()
    versions = _versions(trusted_root, local)
    for name, version in versions.items():
        if version < floor.get(name, 0):
            raise Untrusted(f"{name} version {version} is older than {floor[name]}, seen before")
    record = Record(trusted_root, local["targets"], local[role], manifest)
    return Accepted(verify(record, model, number), record, versions)


def verify(record: Record, model: ModelName, number: int) -> Manifest:
    """The manifest of an accepted release, verified from its record alone; raises Untrusted or Malformed."""
    try:
        root: Metadata[Root] = Metadata.from_bytes(record.root)
        targets: Metadata[Targets] = Metadata.from_bytes(record.targets)
        role: Metadata[Targets] = Metadata.from_bytes(record.role)
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
        root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        targets.signed.verify_delegate(role_of(model), role.signed_bytes, role.signatures)
    except (RepositoryError, DeserializationError, ValueError) as error:
        raise Untrusted(f"record of {model} {number}: {error}") from error
    target = role.signed.targets.get(target_path(model, number))
    if target is None or target.hashes.get("sha256") != hashlib.sha256(record.manifest).hexdigest():
        raise Untrusted(f"record of {model} {number}: the manifest is not the one that was signed")
    manifest = codec.decode(Manifest, record.manifest, LIMIT)
    if manifest.model != model or manifest.number != number:
        raise Untrusted(f"manifest says {manifest.model} {manifest.number}, signed as {model} {number}")
    return manifest


def director_keys(root: bytes) -> list[Key]:
    """The director's public keys in a root this device trusts."""
    try:
        metadata: Metadata[Root] = Metadata.from_bytes(root)
        fields = metadata.signed.unrecognized_fields[DIRECTOR_FIELD]
        return [key_from_dict(keyid, body) for keyid, body in fields.items()]
    except (DeserializationError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Malformed(f"the root names no director: {error}") from error


def _versions(root: bytes, local: Mapping[str, bytes]) -> dict[str, int]:
    versions = {"root": Metadata[Root].from_bytes(root).signed.version}
    for name, data in local.items():
        signed: Timestamp | Snapshot | Targets = Metadata.from_bytes(data).signed  # type: ignore[assignment]
        versions[name] = signed.version
    return versions
