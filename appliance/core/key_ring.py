"""A person's keys: a folder of their own with `NAME.key` (private, PEM) and `NAME.pub`, which is given away; the root
their keys know (`root.json`), and the newest versions they have seen of what they sign (`seen.json`). Nothing of it is
ever sent but signatures and public halves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import Trouble
from appliance.keys import check_private
from core.release import checking, signing
from core.release import layout as layouts
from core.release.metadata import Files, newest_root
from core.release.signing import Drafts
from sync import codec, roles
from sync.chunks import digest
from sync.durable import write_private
from sync.errors import Malformed, SyncError, Untrusted
from sync.names import BadName, DeviceId

RELEASE = "release"  # the key that profile `single-owner` makes


class NoReleaseKey(Trouble):
    """There is no key here that could sign."""


class _Public(msgspec.Struct, frozen=True):
    """What stands in `NAME.pub`."""

    name: str
    ed25519: str  # the public key, 64 hex digits


class _Seen(msgspec.Struct, frozen=True):
    """What stands in `seen.json`."""

    versions: dict[str, int]  # role -> the newest version in force that these keys saw


@dataclass(frozen=True)
class KeyRing:
    """The keys in `folder`."""

    folder: Path

    def make(self, name: str, holder: str = "") -> Path:
        """A new key, kept if it is there already; where its public half lies. `holder` is who signs with it."""
        try:
            DeviceId(name)
        except BadName as error:
            raise Trouble(f"a key's name is of small letters, digits and hyphens: {error}") from error
        key, public = self.folder / f"{name}.key", self.folder / f"{name}.pub"
        if not key.exists():
            self._write(key, roles.new_signing_key())
        raw = str(_signer(key).public_key.keyval["public"])
        self._write(public, codec.encode(_Public(holder or name, raw)))
        return public

    def signers(self) -> tuple[roles.CryptoSigner, ...]:
        """All keys of the folder; raises NoReleaseKey without any, KeyUnsafe for one that others may read."""
        paths = sorted(self.folder.glob("*.key"))
        if not paths:
            raise NoReleaseKey(
                f"no release key at {self.folder}: `falaj trust init` makes one, --keys names another folder, "
                "`falaj trust key NAME` makes a further one"
            )
        return tuple(map(_signer, paths))

    def public(self, given: str) -> roles.Key:
        """The key in a `.pub` file, by its path or its name in this folder; it says who holds it."""
        path = Path(given) if given.endswith(".pub") else self.folder / f"{given}.pub"
        try:
            found = codec.decode(_Public, path.read_bytes())
            key = roles.public_key_from_raw(bytes.fromhex(found.ed25519))
        except (OSError, Malformed, ValueError) as error:
            raise Trouble(f"{path} is no public key ({error}): `falaj trust key NAME` makes a pair, and whoever holds "
                          "it gives NAME.pub away") from error  # fmt: skip
        return layouts.key_of(key, found.name)

    def check(self, files: Files) -> str:
        """Follows the roots from the one these keys know, checks all that could be extended, and remembers the newest.

        The digest of that root. The first one that names a key of this folder is believed: compare it with the others.
        Raises Untrusted if the core shows another history, or an older one.
        """
        newest = newest_root(files)
        if newest is None:
            self.check_new()
            raise Trouble("this tenant has no root of trust yet: run `falaj trust init` first")
        known, seen = self._root(), self._versions()
        reached = checking.followed(known or newest, files)
        versions = checking.check_base(files, seen)
        if reached != known:
            self._write(self._known, reached)
        self._remember(seen, versions)
        return digest(reached)

    def check_new(self) -> None:
        """Raises Untrusted if these keys know a root: they sign no first one besides."""
        if self._known.exists():
            raise Untrusted(
                f"your keys know the root of a tenant, and this core has none: nothing was signed. For another core "
                f"use other keys (--keys); if it was made anew and the one before is gone for good, remove "
                f"{self._known} and {self._seen.name} beside it"
            )

    def in_force(self, drafts: Drafts) -> None:
        """Remembers what came in force, so that nobody can show these keys what was before."""
        versions = {name: signing.version(name, data) for name, data in drafts.items() if name != "root"}
        self._remember(self._versions(), versions)

    @property
    def _known(self) -> Path:
        return self.folder / "root.json"

    @property
    def _seen(self) -> Path:
        return self.folder / "seen.json"

    def _root(self) -> bytes | None:
        """The root these keys know, None before the first."""
        if not self._known.exists():
            return None
        try:
            signing.layout_of({"root": (data := self._known.read_bytes())})
        except (OSError, SyncError) as error:
            raise _damaged(self._known, error) from error
        return data

    def _versions(self) -> dict[str, int]:
        if not self._seen.exists():
            return {}
        try:
            return codec.decode(_Seen, self._seen.read_bytes()).versions
        except (OSError, Malformed) as error:
            raise _damaged(self._seen, error) from error

    def _remember(self, seen: Mapping[str, int], versions: Mapping[str, int]) -> None:
        newest = dict(seen) | {name: max(n, seen.get(name, 0)) for name, n in versions.items()}
        if newest != seen:
            self._write(self._seen, codec.encode(_Seen(newest)))

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_private(path, content)
        except OSError as error:
            raise Trouble(f"{path} cannot be written ({error.strerror}): what keys have signed is remembered beside "
                          "them; make the folder writable, or use a copy of it (--keys)") from error  # fmt: skip


def _damaged(path: Path, error: Exception) -> Trouble:
    return Trouble(f"{path} cannot be read ({error}): nothing was signed. Take it from a copy of your keys, or remove "
                   "it if you know why it is damaged")  # fmt: skip


def _signer(path: Path) -> roles.CryptoSigner:
    """The key in a file; raises KeyUnsafe for one that others may read, and Trouble for one that is none."""
    check_private(path)
    try:
        return roles.signer(path.read_bytes())
    except (OSError, ValueError, TypeError, Untrusted) as error:
        raise Trouble(f"{path} is no key that falaj can sign with (Ed25519, PEM, without a passphrase): take it from "
                      "a copy, or move it out of the folder") from error  # fmt: skip
