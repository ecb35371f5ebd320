"""Who may sign what in a tenant: keys and thresholds of its root, as a value that can be compared and told.

Two profiles. *single-owner*: one key signs root and releases. *organisation*: the root needs at least two of its keys,
which lie offline; releases need so many of so many people. The three online keys are the core's in both. A key carries
the name of who holds it, signed with the root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from securesystemslib.signer import Key
from tuf.api.metadata import Root

from core.orders import OnlineRole
from sync.errors import SyncError
from sync.roles import DIRECTOR_FIELD, NAME_FIELD, key_from_dict, material, public_key_from_raw

ONLINE: tuple[OnlineRole, ...] = ("snapshot", "timestamp", "director")

Profile = Literal["single-owner", "organisation"]


class BadLayout(SyncError):
    """Keys and thresholds that make no sense; the message says what to change."""

    code = "bad-layout"


@dataclass(frozen=True)
class Quorum:
    """So many of these keys sign."""

    keys: tuple[Key, ...]
    threshold: int

    def __post_init__(self) -> None:
        if len({material(key) for key in self.keys}) != len(self.keys):
            raise BadLayout("one key stands there twice: each person needs a key of their own")
        if not 1 <= self.threshold <= len(self.keys):
            raise BadLayout(f"{self.threshold} of {len(self.keys)} keys cannot sign: give more keys, or ask for fewer")


@dataclass(frozen=True)
class Layout:
    """All keys of a tenant."""

    root: Quorum
    releases: Quorum
    online: Mapping[OnlineRole, Key]

    @property
    def profile(self) -> Profile:
        return "organisation" if self.root.threshold > 1 else "single-owner"

    @property
    def people(self) -> tuple[Key, ...]:
        """The keys of people, each once."""
        return tuple({key.keyid: key for key in (*self.root.keys, *self.releases.keys)}.values())

    def replaced(self, old: Key, new: Key) -> Layout:
        """The same with another key in the place of a person's."""
        root, releases = (
            Quorum(tuple(new if key.keyid == old.keyid else key for key in quorum.keys), quorum.threshold)
            for quorum in (self.root, self.releases)
        )
        return replace(self, root=root, releases=releases)


def key_of(key: Key, name: str) -> Key:
    """A public key that says who holds it."""
    return key_from_dict(key.keyid, {**key.to_dict(), NAME_FIELD: name})


def name_of(key: Key) -> str:
    """Who holds a key, as the root says it; the beginning of its id if it says nothing."""
    name = key.unrecognized_fields.get(NAME_FIELD)
    return name if isinstance(name, str) and name else key.keyid[:12]


def check_people(quorum: Quorum, what: str) -> None:
    """Raises BadLayout for two keys of one holder where more than one must sign: two files do not make two people."""
    names = [" ".join(name_of(key).split()).casefold() for key in quorum.keys]
    twice = sorted({name for name in names if names.count(name) > 1})
    if quorum.threshold > 1 and twice:
        raise BadLayout(f"{what}: {', '.join(twice)} holds two of the keys, and could sign for two; name one each")


def read(root: Root) -> Layout:
    """The layout of a root; raises BadLayout for one that Falaj did not make.

    A key's id is made of the key, which TUF leaves to whoever writes it: people are told of changes by ids, and another
    key under a known id would seem to be no change.
    """
    directors = root.unrecognized_fields.get(DIRECTOR_FIELD) or {}
    try:
        (director,) = (key_from_dict(keyid, fields) for keyid, fields in directors.items())
        online: dict[OnlineRole, Key] = {"director": director}
        for role in ONLINE[:2]:
            (keyid,) = root.roles[role].keyids
            online[role] = root.keys[keyid]
        root_keys, target_keys = (tuple(root.keys[i] for i in root.roles[r].keyids) for r in ("root", "targets"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadLayout(f"this root is not laid out as Falaj does it: {error}") from error
    for key in (*root_keys, *target_keys, *online.values()):
        if not _is_its_own(key):
            raise BadLayout(f"{key.keyid[:12]} is not the id of its key: somebody put another key in its place")
    return Layout(
        Quorum(root_keys, root.roles["root"].threshold), Quorum(target_keys, root.roles["targets"].threshold), online
    )


def _is_its_own(key: Key) -> bool:
    try:
        made = public_key_from_raw(bytes.fromhex(str(key.keyval["public"])))
    except (KeyError, ValueError):
        return False
    return (key.keyid, key.keytype, key.scheme, key.keyval) == (made.keyid, made.keytype, made.scheme, made.keyval)


def write(layout: Layout, version: int, until: datetime) -> Root:
    """The root that says so."""
    root = Root(version=version, expires=until, consistent_snapshot=True)
    for role, quorum in (("root", layout.root), ("targets", layout.releases)):
        for key in quorum.keys:
            root.add_key(key, role)
        root.roles[role].threshold = quorum.threshold
    root.add_key(layout.online["snapshot"], "snapshot")
    root.add_key(layout.online["timestamp"], "timestamp")
    # The director's key stands in the root, so that a root rotation replaces it and the token's root hash pins it.
    director = layout.online["director"]
    root.unrecognized_fields[DIRECTOR_FIELD] = {director.keyid: director.to_dict()}
    return root


def told(old: Layout | None, new: Layout) -> tuple[str, ...]:
    """What changes from one layout to the other, a sentence each, for whoever is asked to sign it."""
    if old is None:
        return (f"the first root: {_quorum(new.root)}", f"releases: {_quorum(new.releases)}", *_online(new, ONLINE))
    lines = []
    for what, before, after in (("root", old.root, new.root), ("releases", old.releases, new.releases)):
        ids = {key.keyid for key in before.keys}, {key.keyid for key in after.keys}
        lines += [f"{what}: {_key(key)} goes" for key in before.keys if key.keyid not in ids[1]]
        lines += [f"{what}: {_key(key)} comes" for key in after.keys if key.keyid not in ids[0]]
        names = {key.keyid: name_of(key) for key in before.keys}
        lines += [f"{what}: {_key(key)} was called {names[key.keyid]}"
                  for key in after.keys if names.get(key.keyid, name_of(key)) != name_of(key)]  # fmt: skip
        if before.threshold != after.threshold or len(before.keys) != len(after.keys):
            lines.append(f"{what}: {after.threshold} of {len(after.keys)} sign, "
                         f"instead of {before.threshold} of {len(before.keys)}")  # fmt: skip
    lines += _online(new, [role for role in ONLINE if old.online[role].keyid != new.online[role].keyid])
    return tuple(lines) or ("nobody's key changes; what there is holds for longer",)


def _online(layout: Layout, roles: Iterable[OnlineRole]) -> list[str]:
    return [f"{role}: the core's key {layout.online[role].keyid[:12]}" for role in roles]


def _quorum(quorum: Quorum) -> str:
    return f"{quorum.threshold} of {', '.join(map(_key, quorum.keys))}"


def _key(key: Key) -> str:
    name = name_of(key)
    return name if key.keyid.startswith(name) else f"{name} ({key.keyid[:12]})"
