"""A TUF repository that may lie, the device that reads it, and what makes a case of the two.

What is tried with them follows the TUF specification 1.0.34 and the case lists of python-tuf and tuf-conformance, told
again over this link: metadata as files that were collected. Each case begins alike: the device has accepted releases 1
and 2, and release 3 is published. Then somebody spoils what is published. Every case runs with tuf's folder kept and
with the folder lost, where only the journal's mark is left, and ends alike: the outcome is of its class, a refusal
leaves the mark as it was, the release before still verifies, and what is honest is accepted afterwards.

The repository is written against tuf's metadata classes alone, not with `core.release.publish`: it must be able to
sign what no honest publisher would. Every signature is real. What it publishes is a dictionary of files, as they
arrive over the link; the device is `edge.trust` with a folder and the mark that its journal would keep.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
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

from edge import roots, trust
from edge.trust import Accepted, Record
from sync import chunks, roles
from sync.errors import SyncError
from sync.manifest import role_of, target_path
from sync.names import Digest, ModelName
from sync.roles import DIRECTOR_FIELD
from tests.edge.world import NOW
from tests.sync.manifests import manifest

MODEL = ModelName("motion")
ROLE = role_of(MODEL)
TOP = ("root", "snapshot", "timestamp")  # what the snapshot does not list
# What refusals say.
NOT_SIGNED, SIGNED_BY = "not among the signed", "was signed by"
OLDER = r"must be >=|older than|Expected .* version"


@cache
def key(name: str) -> CryptoSigner:
    """One key a name for the whole run: what is tried here is who may sign, not how a key is made."""
    return roles.signer(roles.new_signing_key())


def digest_of(number: int) -> Digest:
    return chunks.digest(manifest(number))


def in_days(days: float) -> datetime:
    return datetime.fromtimestamp(NOW, UTC).replace(microsecond=0) + timedelta(days=days)


@dataclass
class Repository:
    """The state of a repository, to be changed at will; nothing is signed before `write` or `publish`."""

    signed: dict[str, Any] = field(default_factory=dict)  # role -> tuf's signed part
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)  # role -> who signs it
    files: dict[str, bytes] = field(default_factory=dict)
    listed: bool = False  # whether the snapshot lists hashes and lengths too

    @classmethod
    def new(cls) -> Repository:
        repo = cls()
        root = Root(version=1, expires=in_days(30), consistent_snapshot=True)
        root.unrecognized_fields[DIRECTOR_FIELD] = director("director")
        repo.signed = {
            "root": root,
            "timestamp": Timestamp(version=1, expires=in_days(7)),
            "snapshot": Snapshot(version=1, expires=in_days(7)),
            "targets": Targets(version=1, expires=in_days(30)),
        }
        for role in ("root", "targets", "snapshot", "timestamp"):
            repo.trust(role, "owner" if role in ("root", "targets") else role)
        repo.delegate(ROLE, "owner", [f"{MODEL}/*/*"], terminating=True)
        repo.write("root")
        repo.publish()
        return repo

    def fork(self) -> Repository:
        """The same repository, to go its own way from here."""
        return Repository(copy.deepcopy(self.signed), {**self.signers}, dict(self.files), self.listed)

    @property
    def root(self) -> Root:
        return self.signed["root"]  # type: ignore[no-any-return]

    @property
    def targets(self) -> Targets:
        return self.signed["targets"]  # type: ignore[no-any-return]

    @property
    def snapshot(self) -> Snapshot:
        return self.signed["snapshot"]  # type: ignore[no-any-return]

    @property
    def timestamp(self) -> Timestamp:
        return self.signed["timestamp"]  # type: ignore[no-any-return]

    @property
    def role(self) -> Targets:
        return self.signed[ROLE]  # type: ignore[no-any-return]

    def trust(self, role: str, *names: str, threshold: int = 1) -> None:
        """From the next root on these keys, and no others, sign `role`; they do so at once."""
        self.root.roles[role].keyids.clear()
        for name in names:
            self.root.add_key(key(name).public_key, role)
        self.root.roles[role].threshold = threshold
        self.sign_with(role, *names)

    def sign_with(self, role: str, *names: str) -> None:
        """Who signs `role`, whatever the root says."""
        self.signers[role] = [key(name) for name in names]

    def delegate(
        self, role: str, signer: str, paths: list[str], terminating: bool = False, by: str = "targets"
    ) -> Targets:
        """Role `by` hands these paths to `role`, first in order; a role that is new begins empty, at version 1."""
        public = key(signer).public_key
        delegator: Targets = self.signed[by]
        before = delegator.delegations or Delegations({}, {})
        handed = DelegatedRole(role, [public.keyid], 1, terminating, paths)
        after = {role: handed} | {name: kept for name, kept in (before.roles or {}).items() if name != role}
        delegator.delegations = Delegations(before.keys | {public.keyid: public}, after)
        self.sign_with(role, signer)
        return self.signed.setdefault(role, Targets(version=1, expires=in_days(30)))  # type: ignore[no-any-return]

    def release(self, number: int, role: str = ROLE) -> None:
        """The manifest of release `number`, its target in `role`, and everything published anew."""
        payload = manifest(number)
        self.files[f"{chunks.digest(payload)}.manifest"] = payload
        path = target_path(MODEL, number)
        self.signed[role].targets[path] = TargetFile.from_data(path, payload, ["sha256"])
        self.signed[role].version += 1
        self.publish()

    def next_root(self, *by: str) -> None:
        """The root as it stands becomes the next version, signed by these keys."""
        self.root.version += 1
        self.sign_with("root", *(by or ("owner",)))
        self.write("root")

    def publish(self) -> None:
        """Signs the targets roles, then a newer snapshot of them and a newer timestamp of that."""
        for role in sorted(self.signed.keys() - {*TOP}):
            self.write(role)
        self.snapshot.version += 1
        self.list_roles()

    def list_roles(self) -> None:
        """The snapshot lists what there is, under the version it has, and the timestamp follows."""
        for role in sorted(self.signed.keys() - {*TOP}):
            version = self.signed[role].version
            data = self.files.get(file_name(role, version), b"")
            entry = MetaFile.from_data(version, data, ["sha256"]) if self.listed else MetaFile(version)
            self.snapshot.meta[f"{role}.json"] = entry
        self.point()

    def point(self) -> None:
        """Signs the snapshot as it stands, and a newer timestamp that points at it."""
        data = self.write("snapshot")
        self.timestamp.snapshot_meta = MetaFile.from_data(self.snapshot.version, data, ["sha256"])
        self.timestamp.version += 1
        self.write("timestamp")

    def write(self, role: str) -> bytes:
        """Signs `role` as it stands and puts it among the files."""
        metadata: Metadata[Any] = Metadata(self.signed[role])
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        self.files[file_name(role, self.signed[role].version)] = data
        return data

    def name(self, role: str) -> str:
        """The file in which `role` is current."""
        return file_name(role, self.signed[role].version)

    def read(self, role: str) -> dict[str, Any]:
        """The document of `role` as it was published."""
        return json.loads(self.files[self.name(role)])  # type: ignore[no-any-return]

    def put(self, role: str, data: bytes | dict[str, Any]) -> None:
        """Other bytes, or a changed document, under the name of `role`.

        Whoever vouches for it by hash vouches for these: else the hash alone would refuse what is tried here.
        """
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.files[self.name(role)] = data
        if role == "snapshot":
            digest = chunks.digest(data)
            self.timestamp.snapshot_meta = MetaFile(self.snapshot.version, hashes={"sha256": digest})
            self.write("timestamp")


def file_name(role: str, version: int) -> str:
    return "timestamp.json" if role == "timestamp" else f"{version}.{quote(role, '')}.json"


def director(name: str) -> dict[str, Any]:
    public = key(name).public_key
    return {public.keyid: public.to_dict()}


@dataclass
class Device:
    """The client: tuf's folder, the root it trusts, the mark of its journal, the release it accepted last."""

    folder: Path
    root: bytes
    mark: dict[str, int] = field(default_factory=dict)
    record: Record | None = None
    number: int = 0

    def accept(self, files: dict[str, bytes], number: int) -> Accepted:
        accepted = trust.accept(self.folder, self.root, files, self.mark, MODEL, number, digest_of(number), 0.0)
        self.mark, self.record, self.number = accepted.versions, accepted.record, number
        return accepted

    def adopt(self, files: dict[str, bytes]) -> None:
        """Follows the roots alone, as the walker does when one arrives."""
        root = roots.newer_root(self.root, files)
        self.mark, self.root = roots.settled(self.mark, self.root, root), root

    def twin(self, folder: Path) -> Device:
        """Another device at the same point of its life."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Device(folder, self.root, dict(self.mark), self.record, self.number)

    def lose_folder(self) -> None:
        shutil.rmtree(self.folder)

    def holds(self) -> bool:
        """Whether the release accepted before still verifies, offline."""
        return self.record is not None and trust.verify(self.record, MODEL, self.number).number == self.number


Files = dict[str, bytes]
Attack = Callable[..., int | None]  # (release 3 published, the files of release 1) -> the release asked, if not 3


@dataclass(frozen=True)
class Case:
    """One attack and what comes of it: a class of refusal, or None for a release that is rightly accepted."""

    name: str
    attack: Attack
    outcome: type[SyncError] | None
    says: str = ""
    heals: bool = True  # whether what is honest is accepted afterwards; not where a key was stolen or an owner erred


class Cases:
    """The cases of one file, registered where they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[Case, bool]] = []

    def case(
        self, outcome: type[SyncError] | None, says: str = "", *roles: str, heals: bool = True, lost: bool = True
    ) -> Callable[[Attack], None]:
        """Registers an attack, once for each role it is tried on; `lost` also where tuf's folder is gone."""

        def register(attack: Attack) -> None:
            name = attack.__name__.strip("_").replace("_", "-")
            named = {name: attack} if not roles else {f"{r}-{name}": partial(attack, role=r) for r in roles}
            for title, one in named.items():
                told = Case(title, one, outcome, says, heals)
                self.told += [(told, False), (told, True)] if lost else [(told, False)]

        return register

    def params(self) -> list[Any]:
        return [pytest.param(*told, id=f"{told[0].name}-{'lost' if told[1] else 'kept'}") for told in self.told]


@dataclass(frozen=True)
class Scene:
    """Where every case begins; each gets its own copy."""

    repo: Repository
    old: Files
    device: Device

    def at(self, folder: Path) -> Scene:
        return Scene(self.repo.fork(), dict(self.old), self.device.twin(folder))


def begin(folder: Path) -> Scene:
    repo = Repository.new()
    repo.release(1)
    old = dict(repo.files)
    device = Device(folder, repo.files["1.root.json"])
    device.accept(repo.files, 1)
    repo.targets.version += 1
    repo.release(2)
    device.accept(repo.files, 2)
    repo.targets.version += 1
    repo.release(3)
    return Scene(repo, old, device)


def healed(honest: Repository, spoiled: Repository) -> Files:
    """What the publisher publishes next, counting on from whatever was published in its name."""
    listed = {f"{role}.json": spoiled.signed[role].version for role in ("timestamp", "snapshot")}
    listed |= {name: meta.version for name, meta in spoiled.snapshot.meta.items()}
    for role, signed in honest.signed.items():
        if role != "root":
            signed.version = max(signed.version, listed.get(f"{role}.json", 0)) + 1
    honest.publish()
    return honest.files


def attempt(case: Case, scene: Scene, lose: bool = False) -> None:
    """Runs one case to its end."""
    repo, device = scene.repo, scene.device
    honest, mark = repo.fork() if case.heals and case.outcome else None, dict(device.mark)
    asked = case.attack(repo, scene.old) or 3
    if lose:
        device.lose_folder()
    if case.outcome is None:
        assert device.accept(repo.files, asked).manifest.number == asked
        assert all(device.mark[role] >= version for role, version in mark.items())
        assert device.holds()
        return
    with pytest.raises(case.outcome, match=case.says or None) as refused:
        device.accept(repo.files, asked)
    assert refused.type is case.outcome
    assert device.mark == mark
    assert device.number == 2 and device.holds()
    if honest:
        assert device.accept(healed(honest, repo), 3).manifest.number == 3
