"""What people sign: the first root, releases, revocations, changes of keys. Pure, from bytes to bytes.

Theory. A change is a set of *drafts*: the next metadata of each role it touches, all ending at the same time. Drafts
follow from what is in force and from a few words (which release, which layout), so whoever is asked for a further
signature makes them anew from what they verified themselves, and signs only if the same bytes come out. Signatures are
collected until every role has its threshold; a root needs that of the root before it and its own (TUF 1.0.34, 5.3),
and a key under two ids counts once. Only then the drafts become files, all together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, TargetFile, Targets

from core.release import automatic
from core.release import layout as layouts
from core.release.layout import Layout
from core.release.metadata import Files, newest, parse, root_in_force, write
from sync.errors import Untrusted
from sync.manifest import role_of, target_path
from sync.names import ModelName
from sync.roles import material

LIFE = timedelta(days=365)  # of what people sign

Drafts = Mapping[str, bytes]  # role -> its next metadata, with the signatures it has so far
_Signed = Root | Targets
_WHOSE = "`falaj trust status` names whose keys are asked for; was another one used (`--keys`)?"


@dataclass(frozen=True)
class Tally:
    """The signatures under one draft that count for one quorum, and whose are still lacking."""

    threshold: int
    signed: tuple[Key, ...]
    open: tuple[Key, ...]

    @property
    def met(self) -> bool:
        return len({material(key) for key in self.signed}) >= self.threshold


# --- drafts -----------------------------------------------------------------------------------------------------


def beginning(layout: Layout, until: datetime) -> dict[str, bytes]:
    """The first root, and targets that name no release and no model yet."""
    targets = Targets(version=1, expires=until)
    return {"root": _draft(layouts.write(layout, 1, until)), "targets": _draft(targets)}


def approval(files: Files, model: ModelName, number: int, manifest: bytes, until: datetime) -> dict[str, bytes]:
    """One release more in the role of its model. The targets change only when the model is new: then they delegate
    `{model}/*/*` to its role, terminating."""
    name, path = role_of(model), target_path(model, number)
    root, targets = _root(files), newest(files, "targets", Targets).signed
    drafts = {}
    if not _delegated(targets, name):
        _next(targets, until)
        _delegate(targets, name, [f"{model}/*/*"], layouts.read(root))
        drafts["targets"] = _draft(targets)
        role = Targets(version=1, expires=until)
    else:
        role = newest(files, name, Targets).signed
        _next(role, until)
    role.targets[path] = TargetFile.from_data(path, manifest, ["sha256"])
    return drafts | {name: _draft(role)}


def revocation(files: Files, model: ModelName, number: int, until: datetime) -> dict[str, bytes]:
    """One release less in the role of its model; raises Untrusted if it is not signed. Where the core may sign releases
    as well, a target that is no manifest stands in its place: people's word of a number comes before the core's, and
    devices hear it although the core's role may have expired."""
    role, path = newest(files, role_of(model), Targets).signed, target_path(model, number)
    gone = role.targets.pop(path, None)
    if gone is None and not automatic.signed_by_core(files, model, number):
        raise Untrusted(f"release {number} of {model} is not among the signed releases: there is nothing to revoke")
    if automatic.allowed(files, model) is not None:
        role.targets[path] = TargetFile.from_data(path, b"", ["sha256"])
    _next(role, until)
    return {role_of(model): _draft(role)}


def change(files: Files, layout: Layout, until: datetime, *, releases: bool = False) -> dict[str, bytes]:
    """The next root, which says `layout`. With other release keys, or if `releases` says so, targets and the roles of
    all models are signed anew as well, with what they let the core sign: only what it signs itself is left out."""
    root = _root(files)
    drafts = {"root": _draft(layouts.write(layout, root.version + 1, until))}
    if not releases and layouts.read(root).releases == layout.releases:
        return drafts
    for name in automatic.of_people(files):
        signed = newest(files, name, Targets).signed
        _next(signed, until)
        for model in _delegated(signed) if name == "targets" else ():
            _delegate(signed, model, signed.delegations.roles[model].paths, layout)
        drafts[name] = _draft(signed)
    return drafts


def layout_of(drafts: Drafts) -> Layout:
    """The layout that the drafted root says; raises BadLayout for one that Falaj did not make."""
    return layouts.read(parse(drafts["root"], Root).signed)


def role_in(drafts: Drafts, name: str) -> Targets:
    """What a draft of this role says; raises Untrusted where there is none."""
    if name not in drafts:
        raise Untrusted(f"{name} is not among what was signed: do it again")
    found: Targets = _read(name, drafts[name]).signed
    return found


def same(one: Drafts, other: Drafts) -> bool:
    """Whether both say the same, whoever has signed them."""
    return one.keys() == other.keys() and all(_content(one[name]) == _content(other[name]) for name in one)


def version(name: str, data: bytes) -> int:
    """Of the draft of a role."""
    return int(_read(name, data).signed.version)


def ends(drafts: Drafts) -> datetime:
    """When the drafts end, all of them: what is needed to make them anew. Raises Untrusted if they differ."""
    found = {_read(name, data).signed.expires for name, data in drafts.items()}
    if len(found) != 1:
        raise Untrusted("what waits for signatures ends at different times: it was not made by `falaj trust`")
    only: datetime = found.pop()
    return only


# --- signatures -------------------------------------------------------------------------------------------------


def sign(files: Files, drafts: Drafts, signers: Iterable[Signer]) -> dict[str, bytes]:
    """The drafts with a signature more of each signer that a quorum asks for; as they are where none is."""
    signed, asked = {}, {name: _asked(tallies) for name, tallies in tally(files, drafts).items()}
    given = tuple(signers)
    for name, data in drafts.items():
        metadata = _read(name, data)
        for signer in given:
            if signer.public_key.keyid in asked[name]:
                metadata.sign(signer, append=True)
        signed[name] = write(metadata)
    return signed


def merged(one: Drafts, other: Drafts) -> dict[str, bytes]:
    """Drafts that say the same, with the signatures of both; of a key that signed both the newer one."""
    found = {}
    for name in one:
        metadata = _read(name, one[name])
        metadata.signatures |= _read(name, other[name]).signatures
        found[name] = write(metadata)
    return found


def tally(files: Files, drafts: Drafts) -> dict[str, tuple[Tally, ...]]:
    """Role -> what each quorum it needs has so far; a root needs two. Raises Untrusted unless every draft follows what
    is in force."""
    before = root_in_force(files)
    after = parse(drafts["root"], Root).signed if "root" in drafts else before
    if after is None:
        raise Untrusted("there is no root yet: run `falaj trust init` first")
    targets = parse(drafts["targets"], Targets) if "targets" in drafts else newest(files, "targets", Targets)
    found = {}
    for name, data in drafts.items():
        metadata = _read(name, data)
        _follows(files, name, metadata.signed)
        delegators: tuple[_Signed, ...] = (after,) if name in ("root", "targets") else (targets.signed,)
        if name == "root" and before is not None:
            delegators = (before, after)
        found[name] = tuple(count(delegator, name, metadata) for delegator in delegators)
    return found


def count(delegator: Root | Targets, name: str, metadata: Metadata[Any]) -> Tally:
    """What one who delegates `name` counts under its metadata; raises Untrusted if it does not delegate that."""
    try:
        found = delegator.get_verification_result(name, metadata.signed_bytes, metadata.signatures)
    except ValueError as error:
        raise Untrusted(f"{name}: {error}") from error
    return Tally(found.threshold, tuple(found.signed.values()), tuple(found.unsigned.values()))


def check_signatures(files: Files, drafts: Drafts) -> None:
    """Raises Untrusted unless there is a signature, and every one holds and is of a key that is asked for."""
    counted = 0
    for name, tallies in tally(files, drafts).items():
        given = _read(name, drafts[name]).signatures.keys()
        valid = {key.keyid for one in tallies for key in one.signed}
        if not given <= valid:
            raise Untrusted(f"{name}: a signature does not hold, or nobody asked for that key. {_WHOSE}")
        counted += len(valid)
    if not counted:
        raise Untrusted(f"nobody has signed who is asked. {_WHOSE}")


def as_files(drafts: Drafts) -> dict[str, bytes]:
    """The drafts under the names of files."""
    return {f"{version(name, data)}.{name}.json": data for name, data in drafts.items()}


def _root(files: Files) -> Root:
    signed: Root = newest(files, "root", Root).signed
    return signed


def _read(name: str, data: bytes) -> Metadata[Any]:
    return parse(data, Root if name == "root" else Targets)


def _content(data: bytes) -> bytes:
    return Metadata[Any].from_bytes(data).signed_bytes


def _draft(signed: _Signed) -> bytes:
    return write(Metadata(signed))


def _next(signed: Targets, until: datetime) -> None:
    signed.version += 1
    signed.expires = until


def _delegated(targets: Targets, *only: str) -> list[str]:
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    return [name for name in roles if not only or name in only]


def _delegate(targets: Targets, name: str, paths: list[str] | None, layout: Layout) -> None:
    quorum = layout.releases
    roles = {} if targets.delegations is None else dict(targets.delegations.roles or {})
    roles[name] = DelegatedRole(name, [k.keyid for k in quorum.keys], quorum.threshold, terminating=True, paths=paths)
    targets.delegations = Delegations({key.keyid: key for key in quorum.keys}, roles)


def _follows(files: Files, name: str, signed: _Signed) -> None:
    known = any(file.partition(".")[2] == f"{name}.json" for file in files)
    old = newest(files, name, Root if name == "root" else Targets).signed.version if known else 0
    if signed.version != old + 1:
        raise Untrusted(f"{name}: version {signed.version} must follow {old}; somebody signed meanwhile: do it again")


def _asked(tallies: tuple[Tally, ...]) -> set[str]:
    return {key.keyid for one in tallies for key in (*one.signed, *one.open)}
