"""Keys on disk: KEK provider `file`, the tenant's key under it, everything else derived or sealed under that.

    kek file (0600, random) --scrypt--> KEK --AES-GCM--> tenant key --HKDF--> one key a purpose

`key_protection` of it is honestly `none`: whoever has the whole disk has the keys. There is no other provider; one
that binds the KEK to a TPM, a token or systemd-creds would take the place of the same two functions.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance.errors import Trouble
from sync import durable, sealing
from sync.durable import write_private
from sync.errors import Damaged
from sync.names import TenantId

SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**15, 8, 1  # 32 MiB and about 0.1 s: RFC 7914's interactive choice, doubled
PROTECTION = "none"


class KeyUnsafe(Trouble):
    """A key file that must not be used as it is; the message says what to do."""


class _Wrapped(msgspec.Struct, frozen=True):
    """The tenant key's file."""

    salt: str
    wrapped: str
    n: int = SCRYPT_N
    r: int = SCRYPT_R
    p: int = SCRYPT_P
    v: int = 1


@dataclass(frozen=True)
class TenantKeys:
    """All keys of one tenant, from its tenant key."""

    tenant: TenantId
    _key: bytes = field(repr=False)

    def derive(self, purpose: str) -> bytes:
        """32 bytes that belong to this purpose alone."""
        return HKDF(hashes.SHA256(), 32, None, f"falaj/1 {self.tenant} {purpose}".encode()).derive(self._key)

    def object_key(self, purpose: str) -> Callable[[str], bytes]:
        """Name -> key, for stores whose names are digests of their content."""
        return lambda name: self.derive(f"{purpose}/{name}")

    def wrap(self, key: bytes) -> bytes:
        """`key` under this tenant's wrapping key (Parquet's data keys)."""
        return sealing.seal_small(key, self.derive("wrap"), b"falaj wrap", os.urandom(sealing.NONCE_BYTES))

    def unwrap(self, wrapped: bytes) -> bytes:
        return sealing.unseal_small(wrapped, self.derive("wrap"), b"falaj wrap")

    def keep_secret(self, path: Path, secret: bytes) -> None:
        """Writes a secret sealed under this tenant; the name of the file is bound to it."""
        key, aad = self.derive("secrets"), path.name.encode()
        write_private(path, sealing.seal_small(secret, key, aad, os.urandom(sealing.NONCE_BYTES)))

    def read_secret(self, path: Path) -> bytes:
        """The secret in a file; raises Damaged, which names it."""
        try:
            return sealing.unseal_small(path.read_bytes(), self.derive("secrets"), path.name.encode())
        except Damaged as error:
            raise Damaged(f"{path} does not open with this tenant's key: put it back from the backup, or move it away: "
                          "what can be made anew is, and the rest is said") from error  # fmt: skip


def tenant_keys(kek_file: Path, wrapped_file: Path, tenant: TenantId) -> TenantKeys:
    """The tenant's keys; both files are made if neither is there.

    Raises KeyUnsafe if a file is open to others, is missing while the other exists, or does not open.
    """
    pending = _pending(kek_file)
    if not kek_file.exists() and wrapped_file.exists() and pending.exists():
        durable.rename(pending, kek_file)  # the first start was cut between its two files
    if not kek_file.exists() and not wrapped_file.exists():
        _create(kek_file, wrapped_file, tenant)
    for path in (kek_file, wrapped_file):
        check_private(path)
    content, passphrase = wrapped_file.read_bytes(), kek_file.read_bytes()
    try:
        stored = msgspec.json.decode(content, type=_Wrapped)
        kek = Scrypt(base64.b64decode(stored.salt), 32, stored.n, stored.r, stored.p).derive(passphrase)
        raw = base64.b64decode(stored.wrapped)
        key = AESGCM(kek).decrypt(raw[:12], raw[12:], f"falaj/1 tenant {tenant}".encode())
    except (InvalidTag, msgspec.DecodeError, ValueError) as error:  # of another pair, or damaged
        raise KeyUnsafe(f"{wrapped_file} does not open with {kek_file}: restore the pair from one backup") from error
    return TenantKeys(tenant, key)


def _create(kek_file: Path, wrapped_file: Path, tenant: TenantId) -> None:
    passphrase = base64.b64encode(os.urandom(32))
    # Under its own name only when the other is there too: half a pair must never look like a loss.
    write_private(_pending(kek_file), passphrase)
    salt, nonce = os.urandom(16), os.urandom(12)
    kek = Scrypt(salt, 32, SCRYPT_N, SCRYPT_R, SCRYPT_P).derive(passphrase)
    wrapped = nonce + AESGCM(kek).encrypt(nonce, os.urandom(32), f"falaj/1 tenant {tenant}".encode())
    stored = _Wrapped(base64.b64encode(salt).decode(), base64.b64encode(wrapped).decode())
    write_private(wrapped_file, msgspec.json.encode(stored))
    durable.rename(_pending(kek_file), kek_file)


def _pending(kek_file: Path) -> Path:
    return kek_file.with_name(kek_file.name + ".pending")


def check_private(path: Path) -> None:
    """Raises KeyUnsafe unless the file is there and closed to others."""
    if not path.exists():
        raise KeyUnsafe(f"{path} is missing: restore it from the backup it was made with")
    if path.stat().st_mode & 0o077:
        raise KeyUnsafe(f"{path} can be read by others: run `chmod 600 {path}`")


@dataclass(frozen=True)
class DeviceKeys:
    """A device's own keys, made on the device; only the public halves ever leave it."""

    signing: bytes = field(repr=False)  # Ed25519 private, PEM: TLS and reports
    sealing: bytes = field(repr=False)  # X25519 private, raw
    sealing_public: bytes
    csr: bytes  # PEM


def new_device_keys(device: str) -> DeviceKeys:
    """Fresh keys and a certificate request; the CA composes the final names itself."""
    signing, box = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(signing, None)
    return DeviceKeys(
        signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        box.private_bytes_raw(),
        box.public_key().public_bytes_raw(),
        csr.public_bytes(Encoding.PEM),
    )


def new_box_key() -> bytes:
    """A fresh X25519 private key, 32 raw bytes."""
    return X25519PrivateKey.generate().private_bytes_raw()


def box_public(private: bytes) -> bytes:
    """The public half of an X25519 private key, 32 raw bytes each."""
    return sealing.public_half(private)


def certificate_fingerprint(pem: bytes) -> str:
    """SHA-256 of a certificate's DER form, in hex."""
    return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex()


__all__ = [
    "Damaged", "DeviceKeys", "KeyUnsafe", "TenantKeys", "box_public", "certificate_fingerprint", "check_private",
    "new_box_key", "new_device_keys", "tenant_keys",
]  # fmt: skip
