"""The tenant's certificate authorities on disk: the one in force, and at most one that shall follow it.

`ca.pem` says which is in force, `ca.next.pem` which follows; of the two sealed keys, each goes with the certificate it
fits. So every step is one file: cut anywhere, the one of before holds, or the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.errors import Trouble
from appliance.keys import TenantKeys
from core.fleet.enrolment import Pair, fits
from sync.durable import write_private

NEXT = "ca.next.pem"


class AuthorityLost(Trouble, FileNotFoundError):
    """The key of the authority in force is not here, or not readable by it."""


def certificates(pki: Path) -> tuple[bytes, bytes]:
    """The certificate (PEM) of the one in force, and of the next one: empty if there is none. Opens no key."""
    present = (pki / "ca.pem").read_bytes()
    try:
        following = (pki / NEXT).read_bytes()
    except FileNotFoundError:
        following = b""
    return present, following if following != present else b""  # the same: cut before it was tidied away


@dataclass(frozen=True)
class AuthorityFolder:
    """Certificates in `pki`, keys sealed in `secrets`."""

    pki: Path
    secrets: Path
    tenant_keys: TenantKeys

    def held(self) -> tuple[Pair, Pair | None]:
        """The one in force, and the next one if there is one."""
        present, following = certificates(self.pki)
        return self._pair(present), self._pair(following) if following else None

    def begin(self, pair: Pair) -> None:
        """The tenant's first. The key goes first: a certificate without its key would never be made again."""
        self.tenant_keys.keep_secret(self._places[0], pair.key)
        write_private(self.pki / "ca.pem", pair.certificate)

    def bring(self, pair: Pair) -> None:
        """Keeps the next one, durably, beside the one in force."""
        self.tenant_keys.keep_secret(self._other(), pair.key)
        write_private(self.pki / NEXT, pair.certificate)

    def settle(self) -> None:
        """The next one takes the place of the one in force, and the key of that one goes."""
        following = self.pki / NEXT
        write_private(self.pki / "ca.pem", following.read_bytes())
        following.unlink()
        self._other().unlink(missing_ok=True)

    def tidy(self) -> None:
        """What a cut left of a step: the key of one that is dead must not lie about. Nothing while one shall follow."""
        if not certificates(self.pki)[1]:
            (self.pki / NEXT).unlink(missing_ok=True)
            self._other().unlink(missing_ok=True)

    @property
    def _places(self) -> tuple[Path, Path]:
        return self.secrets / "ca", self.secrets / "ca.next"

    def _pair(self, certificate: bytes) -> Pair:
        for path in self._places:
            if path.exists() and fits(found := Pair(certificate, self.tenant_keys.read_secret(path))):
                return found
        raise AuthorityLost(f"{self.secrets}: the key of the authority is not here; take the folder from a backup")

    def _other(self) -> Path:
        """Where the key that is not the one in force's lies, or may lie."""
        first, second = self._places
        key = self.held()[0].key
        return second if first.exists() and self.tenant_keys.read_secret(first) == key else first
