"""The accepted-release record: what this device keeps of a release that it accepted, and by which every later load is
verified offline.

A release counts where the role of its model names it, which its owners sign. That role may let the core sign releases
by itself, in a role of its own beneath: of this model alone, and on terms that a release of people had. What differs in
more than what was learned is refused here, whoever signed it with the core's key.
"""

from __future__ import annotations

import hashlib

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Root, TargetFile, Targets

from edge import roots
from sync import codec
from sync.errors import Malformed, Untrusted
from sync.manifest import LIMIT, Manifest, auto_role_of, role_of, target_path, terms_of
from sync.names import ModelName
from sync.roles import TERMS_FIELD


class Record(msgspec.Struct, frozen=True):
    """All bytes needed to verify one release offline; `auto`: the core's role, of a release that only it names."""

    root: bytes
    targets: bytes
    role: bytes
    manifest: bytes
    auto: bytes = b""


class Unrecorded(Malformed):
    """A release without an accepted-release record that can be read: nothing is wrong with it, it is got anew."""

    code = "record-lost"


def delegated(role: Targets, model: ModelName, path: str) -> DelegatedRole | None:
    """What a model's role says of the core's, where it lets it sign this path."""
    found = (role.delegations.roles if role.delegations else None) or {}
    handed = found.get(auto_role_of(model))
    return handed if handed is not None and handed.is_delegated_path(path) else None


def verify(record: Record, model: ModelName, number: int) -> Manifest:
    """The manifest of an accepted release, verified from its record alone; raises Untrusted or Malformed."""
    path = target_path(model, number)
    try:
        role = _role(record, model, path)
        target = role.targets.get(path)
        if target is None and record.auto:
            target = _by_core(record, role, model, path)
    except (RepositoryError, ValueError) as error:
        raise Untrusted(f"record of {model} {number}: {error}") from error
    if target is None or target.hashes.get("sha256") != hashlib.sha256(record.manifest).hexdigest():
        raise Untrusted(f"record of {model} {number}: the manifest is not the one that was signed")
    manifest = codec.decode(Manifest, record.manifest, LIMIT)
    if manifest.model != model or manifest.number != number:
        raise Untrusted(f"manifest says {manifest.model} {manifest.number}, signed as {model} {number}")
    return manifest


def _role(record: Record, model: ModelName, path: str) -> Targets:
    """The model's role, by the root's word and its owners'."""
    name = role_of(model)
    root, targets = roots.parse(record.root, Root), roots.parse(record.targets, Targets)
    role = roots.parse(record.role, Targets)
    roots.vouched(root.signed, "root", root)
    roots.vouched(root.signed, "targets", targets)
    roots.vouched(targets.signed, name, role)
    delegations = targets.signed.delegations
    if delegations is None or not delegations.roles or not delegations.roles[name].is_delegated_path(path):
        raise Untrusted(f"record of {model}: {name} may not sign {path}")
    return role.signed


def _by_core(record: Record, role: Targets, model: ModelName, path: str) -> TargetFile | None:
    """The target as the core signed it, by the word of the model's role and on its terms."""
    handed = delegated(role, model, path)
    if handed is None:
        raise Untrusted(f"record of {model}: nobody let the core sign {path}")
    auto = roots.parse(record.auto, Targets)
    roots.vouched(role, auto_role_of(model), auto)
    if handed.unrecognized_fields.get(TERMS_FIELD) != terms_of(record.manifest):
        raise Untrusted(f"{path} was signed by the core alone, and on other terms than people allowed it")
    return auto.signed.targets.get(path)
