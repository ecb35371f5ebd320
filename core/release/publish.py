"""The tenant's TUF repository: what may ever run, signed by its owner; what is current, signed by the steward.

Theory (TUF 1.0.34). Four top-level roles and one delegated role a model. *root* and *targets* and the model roles
are signed in the owner's process and only checked here; *snapshot* and *timestamp* are online keys of the steward.
A release is a target `{model}/{number}/manifest` of role `model.{model}`. Everything is a pure function from bytes
to bytes: the caller keeps the files, `timestamp.json` always written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from sync.errors import Malformed, Untrusted
from sync.manifest import role_of, target_path
from sync.names import ModelName
from sync.roles import DIRECTOR_FIELD

ROOT_LIFE = timedelta(days=365)
TARGETS_LIFE = timedelta(days=365)
ONLINE_LIFE = timedelta(days=7)  # longer than a device is usually offline; expiry blocks installing, never running

Files = Mapping[str, bytes]  # file name -> bytes, the newest version of each and all roots


@dataclass(frozen=True)
class OnlineSigners:
    """The steward's signers."""

    snapshot: Signer
    timestamp: Signer


def first_root(owner: Signer, snapshot: Key, timestamp: Key, director: Key, now: float) -> bytes:
    """Root version 1 of profile `single-owner`: the owner's key signs root and targets, 1-of-1."""
    root = Root(version=1, expires=_later(now, ROOT_LIFE), consistent_snapshot=True)
    root.add_key(owner.public_key, "root")
    root.add_key(owner.public_key, "targets")
    root.add_key(snapshot, "snapshot")
    root.add_key(timestamp, "timestamp")
    # The director's key stands in the root, so that a root rotation replaces it and the token's root hash pins it.
    root.unrecognized_fields[DIRECTOR_FIELD] = {director.keyid: director.to_dict()}
    return _signed(Metadata(root), owner)


def first_targets(owner: Signer, now: float) -> bytes:
    """Targets version 1: no targets of its own, no delegations yet."""
    return _signed(Metadata(Targets(version=1, expires=_later(now, TARGETS_LIFE))), owner)


def approve(
    files: Files, model: ModelName, number: int, manifest: bytes, owner: Signer, now: float
) -> tuple[bytes | None, bytes]:
    """The owner's signature under one release: (new targets or None, new model role), to be sent to the steward.

    The targets change only when the model is new: then they delegate `{model}/*/*` to its role, terminating. What
    is extended comes from the core, so it must bear the owner's own signature: else a release or a delegation that
    somebody slipped in would be signed along. Raises Untrusted if it does not.
    """
    role_name = role_of(model)
    targets = _own(_newest(files, "targets", Targets), owner)
    new_targets = None
    if targets.signed.delegations is None or role_name not in (targets.signed.delegations.roles or {}):
        targets.signed.version += 1
        targets.signed.expires = _later(now, TARGETS_LIFE)
        delegations = targets.signed.delegations or Delegations({}, {})
        delegations.roles = delegations.roles or {}
        delegations.roles[role_name] = DelegatedRole(
            role_name, [owner.public_key.keyid], 1, terminating=True, paths=[f"{model}/*/*"]
        )
        delegations.keys[owner.public_key.keyid] = owner.public_key
        targets.signed.delegations = delegations
        new_targets = _signed(targets, owner)
        role = Metadata(Targets(version=1, expires=_later(now, TARGETS_LIFE)))
    else:
        role = _own(_newest(files, role_name, Targets), owner)
        role.signed.version += 1
        role.signed.expires = _later(now, TARGETS_LIFE)
    path = target_path(model, number)
    role.signed.targets[path] = TargetFile.from_data(path, manifest, ["sha256"])
    return new_targets, _signed(role, owner)


def check_trust_init(root: bytes, targets: bytes) -> None:
    """Raises Untrusted unless root 1 signs itself, names the director, and signs targets 1."""
    first = _parse(root, Root)
    try:
        first.signed.verify_delegate("root", first.signed_bytes, first.signatures)
        tops = _parse(targets, Targets)
        first.signed.verify_delegate("targets", tops.signed_bytes, tops.signatures)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"trust init: {error}") from error
    if first.signed.version != 1 or DIRECTOR_FIELD not in first.signed.unrecognized_fields:
        raise Untrusted("trust init: the root must be version 1 and name the director")
    if tops.signed.version != 1:
        raise Untrusted(f"trust init: the first targets must be version 1, not {tops.signed.version}")


def check_online(files: Files) -> None:
    """Raises Untrusted unless the root names the keys that signed the newest snapshot and the timestamp."""
    root = _newest(files, "root", Root)
    try:
        for role, metadata in (
            ("snapshot", _newest(files, "snapshot", Snapshot)),
            ("timestamp", _parse(files["timestamp.json"], Timestamp)),
        ):
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"the root names other online keys than this core's: {error}") from error


def check_approval(
    files: Files, model: ModelName, number: int, manifest: bytes, targets: bytes | None, role: bytes
) -> None:
    """Raises Untrusted unless these signatures hold, versions rise by one and the release is among the targets."""
    root = _newest(files, "root", Root)
    try:
        tops = _newest(files, "targets", Targets)
        if targets is not None:
            old = tops.signed.version
            tops = _parse(targets, Targets)
            root.signed.verify_delegate("targets", tops.signed_bytes, tops.signatures)
            _rises(old, tops.signed.version, "targets")
        new = _parse(role, Targets)
        tops.signed.verify_delegate(role_of(model), new.signed_bytes, new.signatures)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"approval of {model} {number}: {error}") from error
    known = [n for n in files if n.endswith(f".{role_of(model)}.json")]
    old_version = _newest(files, role_of(model), Targets).signed.version if known else 0
    _rises(old_version, new.signed.version, role_of(model))
    target = new.signed.targets.get(target_path(model, number))
    if target is None or target.hashes.get("sha256") != hashlib.sha256(manifest).hexdigest():
        raise Untrusted(f"the signed role does not name this manifest of {model} {number}")


def renew(files: Files, online: OnlineSigners, now: float) -> dict[str, bytes]:
    """A new snapshot of the newest targets and model roles, and the timestamp that points at it."""
    snapshot = Snapshot(version=1, expires=_later(now, ONLINE_LIFE), meta={})
    timestamp_version = 1
    if "timestamp.json" in files:
        old = _parse(files["timestamp.json"], Timestamp)
        snapshot.version = old.signed.snapshot_meta.version + 1
        timestamp_version = old.signed.version + 1
    for role, name in _target_roles(files).items():
        snapshot.meta[f"{role}.json"] = MetaFile(_parse(files[name], Targets).signed.version)
    snapshot_bytes = _signed(Metadata(snapshot), online.snapshot)
    timestamp = Timestamp(
        version=timestamp_version,
        expires=_later(now, ONLINE_LIFE),
        snapshot_meta=MetaFile.from_data(snapshot.version, snapshot_bytes, ["sha256"]),
    )
    return {
        f"{snapshot.version}.snapshot.json": snapshot_bytes,
        "timestamp.json": _signed(Metadata(timestamp), online.timestamp),
    }


def renewal_due(files: Files, now: float) -> bool:
    """Whether half of the timestamp's life is over."""
    if "timestamp.json" not in files:
        return False
    expires = _parse(files["timestamp.json"], Timestamp).signed.expires
    return bool(expires.timestamp() - now < ONLINE_LIFE.total_seconds() / 2)


def current(files: Files) -> tuple[str, ...]:
    """The files a device may need now: every root, the newest of each other role, all manifests, timestamp last."""
    newest = {*_target_roles(files).values()}
    snapshots = sorted((n for n in files if n.endswith(".snapshot.json")), key=version_of)
    newest.update(snapshots[-1:])
    roots = sorted((n for n in files if n.endswith(".root.json")), key=version_of)
    manifests = sorted(n for n in files if n.endswith(".manifest"))
    last = ("timestamp.json",) if "timestamp.json" in files else ()
    return (*roots, *manifests, *sorted(newest), *last)


def version_of(name: str) -> int:
    """The version in front of a metadata file's name."""
    return int(name.split(".", 1)[0])


def _target_roles(files: Files) -> dict[str, str]:
    """Role -> file name of its newest version, for targets and every model role."""
    newest: dict[str, str] = {}
    for name in files:
        if not name.endswith(".json") or name == "timestamp.json":
            continue
        role = name.split(".", 1)[1].removesuffix(".json")
        if role in ("root", "snapshot"):
            continue
        if role not in newest or version_of(name) > version_of(newest[role]):
            newest[role] = name
    return newest


def _newest(files: Files, role: str, kind: type) -> Metadata[Any]:
    names = [n for n in files if n.endswith(f".{role}.json") and n.split(".", 1)[1] == f"{role}.json"]
    if not names:
        raise Untrusted(f"there is no {role} metadata yet: run `falaj trust init` first")
    return _parse(files[max(names, key=version_of)], kind)


def _parse(data: bytes, kind: type) -> Metadata[Any]:
    try:
        metadata = Metadata.from_bytes(data)
    except (DeserializationError, ValueError) as error:
        raise Malformed(f"trust metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise Untrusted(f"trust metadata is {metadata.signed.type}, not {kind.__name__.lower()}")
    return metadata


def _own(metadata: Metadata[Any], owner: Signer) -> Metadata[Any]:
    """`metadata`, if this owner signed every byte of it."""
    key = owner.public_key
    try:
        key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    except (KeyError, UnverifiedSignatureError, VerificationError) as error:
        raise Untrusted(
            "the core sent trust metadata that this release key never signed: nothing was signed. Was another key "
            "used before (`--keys`)? If not, somebody has changed the core's files"
        ) from error
    return metadata


def _rises(old: int, new: int, role: str) -> None:
    if new != old + 1:
        raise Untrusted(f"{role}: version {new} must follow {old}; somebody approved meanwhile: approve again")


def _signed(metadata: Metadata[Any], signer: Signer) -> bytes:
    metadata.signatures.clear()
    metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))


def _later(now: float, life: timedelta) -> datetime:
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0) + life


def director_ids(root: bytes) -> tuple[str, ...]:
    """The key ids of the directors a root names."""
    return tuple(_parse(root, Root).signed.unrecognized_fields.get(DIRECTOR_FIELD, {}))


def approved_files(model: ModelName, manifest: bytes, targets: bytes | None, role: bytes) -> dict[str, bytes]:
    """The files an approval adds, under their names: manifest, model role and, if it changed, targets."""
    files = {f"{hashlib.sha256(manifest).hexdigest()}.manifest": manifest}
    files[f"{_parse(role, Targets).signed.version}.{role_of(model)}.json"] = role
    if targets is not None:
        files[f"{_parse(targets, Targets).signed.version}.targets.json"] = targets
    return files
