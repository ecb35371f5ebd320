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
from sync.roles import DIRECTOR_FIELD, NAME_FIELD, key_from_dict

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


def material(key: Key) -> str:
    """The public key itself, whatever its id: one key under two ids is one."""
    return "".join(str(key.keyval).split()).lower()


def read(root: Root) -> Layout:
    """The layout of a root; raises BadLayout for one that Falaj did not make."""
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
    return Layout(
        Quorum(root_keys, root.roles["root"].threshold), Quorum(target_keys, root.roles["targets"].threshold), online
    )


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
