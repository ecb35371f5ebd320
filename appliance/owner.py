"""The owner's side of trust, in the owner's process: the release key is a file of the person at the command line,
and the core never sees it. Profile `single-owner`: one key signs root, targets and releases, 1-of-1."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.api import Api
from appliance.errors import Trouble
from appliance.keys import check_private, write_private
from core.orders import Approve, TrustInit, TrustKeys
from core.release import publish
from sync import chunks, codec, roles
from sync.manifest import LIMIT, Manifest
from sync.names import ModelName

PROFILE = "single-owner"


class NoReleaseKey(Trouble):
    """There is no release key here."""


@dataclass(frozen=True)
class Signed:
    """What was signed, in words a person can compare; `needs`: what evidence its rollout waits for, if any."""

    model: ModelName
    number: int
    digest: str
    metrics: dict[str, float]
    key: str
    needs: dict[str, Any] | None = None
    override: str = ""  # who let it pass against a gate's word, and why


def init(api: Api, folder: Path, actor: str, now: float) -> dict[str, Any]:
    """Makes the release key and the first root and targets, and hands them to the core."""
    key_file = folder / "release.key"
    if not key_file.exists():
        write_private(key_file, roles.new_signing_key())
    owner = _signer(folder)
    online = api.order(TrustKeys(actor=actor))
    snapshot, timestamp, director = (_public(online[name]) for name in ("snapshot", "timestamp", "director"))
    root = publish.first_root(owner, snapshot, timestamp, director, now)
    targets = publish.first_targets(owner, now)
    result = api.order(TrustInit(actor=actor, root=root.decode(), targets=targets.decode()))
    return {**result, "profile": PROFILE, "release_key": str(key_file), "keyid": owner.public_key.keyid}


def approve(api: Api, folder: Path, model: ModelName, number: int, actor: str, now: float) -> Signed:
    """Signs one release. The bytes that are signed are the bytes that were read: checked here, not at the core."""
    owner = _signer(folder)
    found = api.get(f"/v1/releases/{model}/{number}")
    payload = base64.b64decode(found["manifest_base64"])
    manifest = codec.decode(Manifest, payload, LIMIT)
    if (manifest.model, manifest.number) != (model, number):
        raise Trouble(f"the core sent the manifest of {manifest.model} {manifest.number}: nothing was signed")
    files = {name: base64.b64decode(text) for name, text in api.get("/v1/trust")["files"].items()}
    targets, role = publish.approve(files, model, number, payload, owner, now)
    order = Approve(
        actor=actor, model=model, number=number, role=role.decode(), targets=targets.decode() if targets else None
    )
    result = api.order(order)
    digest, lineage = chunks.digest(payload), manifest.lineage
    return Signed(model, number, digest, lineage.metrics, owner.public_key.keyid, result.get("needs"), lineage.override)


def _signer(folder: Path) -> roles.CryptoSigner:
    key_file = folder / "release.key"
    if not key_file.exists():
        raise NoReleaseKey(f"no release key at {key_file}: `falaj trust init` makes one, --keys names another folder")
    check_private(key_file)
    return roles.signer(key_file.read_bytes())


def _public(fields: dict[str, Any]) -> roles.Key:
    body = dict(fields)
    return roles.key_from_dict(body.pop("keyid"), body)
