"""A person's keys: a folder of their own with `NAME.key` (private, PEM) and `NAME.pub`, which is given away, and the
root their keys know (`root.json`). Nothing of it is ever sent but signatures and public halves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import Trouble
from appliance.keys import check_private, write_private
from core.release import layout as layouts
from core.release import signing
from core.release.metadata import Files, newest_root, root_in_force
from sync import codec, roles
from sync.chunks import digest
from sync.errors import Malformed
from sync.names import BadName, DeviceId

RELEASE = "release"  # the key that profile `single-owner` makes


class NoReleaseKey(Trouble):
    """There is no key here that could sign."""


class _Public(msgspec.Struct, frozen=True):
    """What stands in `NAME.pub`."""

    name: str
    ed25519: str  # the public key, 64 hex digits


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
            write_private(key, roles.new_signing_key())
        check_private(key)
        raw = str(roles.signer(key.read_bytes()).public_key.keyval["public"])
        write_private(public, codec.encode(_Public(holder or name, raw)))
        return public

    def signers(self) -> tuple[roles.CryptoSigner, ...]:
        """All keys of the folder; raises NoReleaseKey without any, KeyUnsafe for one that others may read."""
        paths = sorted(self.folder.glob("*.key"))
        if not paths:
            raise NoReleaseKey(
                f"no release key at {self.folder}: `falaj trust init` makes one, --keys names another folder, "
                "`falaj trust key NAME` makes a further one"
            )
        for path in paths:
            check_private(path)
        return tuple(roles.signer(path.read_bytes()) for path in paths)

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
        Raises Untrusted if the core shows another history.
        """
        root, known = root_in_force(files), self.folder / "root.json"
        if root is None:
            raise Trouble("this tenant has no root of trust yet: run `falaj trust init` first")
        pinned = known.read_bytes() if known.exists() else newest_root(files)
        assert pinned is not None
        reached = signing.followed(pinned, files)
        signing.check_base(files)
        if not known.exists() or reached != pinned:
            write_private(known, reached)
        return digest(reached)
