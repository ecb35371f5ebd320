"""The tenant's TUF repository as the steward keeps it: what is current, signed with its online keys.

Theory (TUF 1.0.34). Four top-level roles and one delegated role a model. *root* and *targets* and the model roles
are signed in people's own processes (`core.release.signing`) and only checked here; *snapshot* and *timestamp* are
online keys of the steward. A release is a target `{model}/{number}/manifest` of role `model.{model}`. Everything is a
pure function from bytes to bytes: the caller keeps the files, `timestamp.json` always written last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from core.release.metadata import Files, later, newest, parse, target_roles, version_of, write
from sync.errors import Untrusted

ONLINE_LIFE = timedelta(days=7)  # longer than a device is usually offline; expiry blocks installing, never running
AHEAD = timedelta(hours=1)  # what holds for longer than its life by more than this was signed by a wrong clock
SNAPSHOT_LIFE = 4 * ONLINE_LIFE  # the timestamp is what keeps it from being withheld


@dataclass(frozen=True)
class OnlineSigners:
    """The steward's signers."""

    snapshot: Signer
    timestamp: Signer


def check_online(files: Files) -> None:
    """Raises Untrusted unless the root names the keys that signed the newest snapshot and the timestamp."""
    root = newest(files, "root", Root)
    try:
        for role, metadata in (
            ("snapshot", newest(files, "snapshot", Snapshot)),
            ("timestamp", parse(files["timestamp.json"], Timestamp)),
        ):
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"the root names other online keys than this core's: {error}") from error


def renew(files: Files, online: OnlineSigners, now: float) -> dict[str, bytes]:
    """The timestamp signed anew, and a snapshot of the newest targets and model roles. The one before serves again if
    it says the same, bears this key's signature and outlives the timestamp: no device has to fetch it then."""
    version = snapshot_version = 1
    until = later(now, ONLINE_LIFE)
    meta = {f"{role}.json": parse(files[name], Targets).signed.version for role, name in target_roles(files).items()}
    fresh: dict[str, bytes] = {}
    snapshot: bytes | None = None
    if "timestamp.json" in files:
        old = parse(files["timestamp.json"], Timestamp).signed
        version, snapshot_version = old.version + 1, old.snapshot_meta.version
        snapshot = _still_good(files.get(f"{snapshot_version}.snapshot.json"), meta, online.snapshot, until)
        snapshot_version += snapshot is None
    if snapshot is None:
        said = {name: MetaFile(number) for name, number in meta.items()}
        snapshot = _signed(Metadata(Snapshot(snapshot_version, None, later(now, SNAPSHOT_LIFE), said)), online.snapshot)
        fresh[f"{snapshot_version}.snapshot.json"] = snapshot
    points_at = MetaFile.from_data(snapshot_version, snapshot, ["sha256"])
    timestamp = Timestamp(version=version, expires=until, snapshot_meta=points_at)
    return fresh | {"timestamp.json": _signed(Metadata(timestamp), online.timestamp)}


def _still_good(data: bytes | None, meta: dict[str, int], signer: Signer, until: datetime) -> bytes | None:
    """A snapshot's bytes if it says just this, bears this signature and does not end before `until`."""
    if data is None:
        return None
    found = parse(data, Snapshot)
    try:
        signer.public_key.verify_signature(found.signatures[signer.public_key.keyid], found.signed_bytes)
    except (KeyError, UnverifiedSignatureError):
        return None
    same = {name: file.version for name, file in found.signed.meta.items()} == meta
    return data if same and found.signed.expires >= until else None


def renewal_due(files: Files, now: float, left: float = ONLINE_LIFE.total_seconds() / 2) -> bool:
    """Whether less than `left` seconds of the timestamp's life are left; or more than it ever has, as after a clock
    that was ahead: by such a one no device could tell that time stands still."""
    if "timestamp.json" not in files:
        return False
    expires = parse(files["timestamp.json"], Timestamp).signed.expires
    return not left <= expires.timestamp() - now <= (ONLINE_LIFE + AHEAD).total_seconds()


def current(files: Files) -> tuple[str, ...]:
    """The files a device may need now: every root, the newest of each other role, all manifests, timestamp last."""
    newest_of_each = {*target_roles(files).values()}
    snapshots = sorted((n for n in files if n.endswith(".snapshot.json")), key=version_of)
    newest_of_each.update(snapshots[-1:])
    roots = sorted((n for n in files if n.endswith(".root.json")), key=version_of)
    manifests = sorted(n for n in files if n.endswith(".manifest"))
    last = ("timestamp.json",) if "timestamp.json" in files else ()
    return (*roots, *manifests, *sorted(newest_of_each), *last)


def _signed(metadata: Metadata[Any], signer: Signer) -> bytes:
    metadata.signatures.clear()
    metadata.sign(signer)
    return write(metadata)
