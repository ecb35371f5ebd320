"""Who signs what: signing keys in TUF's form and DSSE envelopes around documents.

DSSE (github.com/secure-systems-lab/dsse, v1) signs the exact bytes together with their type, so there is no
canonical JSON and no confusion between documents.
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner as CryptoSigner
from securesystemslib.signer import Key as Key
from securesystemslib.signer import Signature, SSlibKey

from sync import codec
from sync.errors import Malformed, Untrusted

DIRECTOR_FIELD = "x-falaj-director"  # in the TUF root: the director's keys, so that the root rotates them too
NAME_FIELD = "x-falaj-name"  # in a key of the root: who holds it
TERMS_FIELD = "x-falaj-terms"  # in the delegation of an `auto` role: the terms its releases keep (`sync.manifest`)

Document = TypeVar("Document")
Keys = list[Key]  # public keys, one of which must have signed


class _Signature(msgspec.Struct, frozen=True):
    """One signature of an envelope: base64, as DSSE writes it."""

    keyid: str
    sig: str


class _Envelope(msgspec.Struct, frozen=True):
    """The wire form of a DSSE envelope, checked before the library sees it."""

    payload: str
    payloadType: str  # noqa: N815 - the standard's spelling
    signatures: list[_Signature]


def new_signing_key() -> bytes:
    """A new Ed25519 private key as PEM (PKCS#8, not encrypted: the caller protects the file)."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signer(pem: bytes) -> CryptoSigner:
    """A signer for a private key in PEM; its `public_key` carries the key id."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise Untrusted("a signing key must be Ed25519")
    return CryptoSigner(key)


def public_key(key: Ed25519PublicKey) -> SSlibKey:
    """The public key of a certificate in TUF's form."""
    return SSlibKey.from_crypto(key)


def public_key_from_raw(raw: bytes) -> SSlibKey:
    """An Ed25519 public key from its 32 bytes, as the core keeps a device's."""
    return public_key(Ed25519PublicKey.from_public_bytes(raw))


def key_from_dict(keyid: str, fields: dict[str, Any]) -> Key:
    """A public key out of TUF metadata."""
    return Key.from_dict(keyid, dict(fields))


def material(key: Key) -> str:
    """The public key itself, however it is spelt and whatever its id: one key under two ids is one."""
    return "".join(str(key.keyval).split()).lower()


def sign(document: object, kind: str, pem: bytes) -> bytes:
    """The DSSE envelope (JSON bytes) of a document under a media type."""
    envelope = Envelope(codec.encode(document), kind, {})
    envelope.sign(signer(pem))
    return msgspec.json.encode(envelope.to_dict())


def verify(payload: bytes, kind: str, document: type[Document], keys: Keys, limit: int = codec.LIMIT) -> Document:
    """The document in an envelope, signed by at least one of `keys` under exactly this type.

    Raises Malformed (no envelope), Untrusted (type or signature), Malformed (document), in that order.
    """
    raw = codec.decode(_Envelope, payload, limit)
    if raw.payloadType != kind:
        raise Untrusted(f"envelope holds {raw.payloadType!r}, not {kind!r}")
    content = peek(payload, limit)
    signatures = {}
    for entry in raw.signatures[:8]:
        try:
            signatures[entry.keyid] = Signature(entry.keyid, _hex(entry.sig))
        except ValueError as error:
            raise Malformed(f"envelope signature: {error}") from error
    try:
        Envelope(content, kind, signatures).verify(keys, 1)
    except (VerificationError, ValueError) as error:
        raise Untrusted("no valid signature of a trusted key") from error
    return codec.decode(document, content, limit)


def peek(payload: bytes, limit: int = codec.LIMIT) -> bytes:
    """The content of an envelope *without* any check: only to find out whose keys to check it with."""
    raw = codec.decode(_Envelope, payload, limit)
    try:
        return base64.b64decode(raw.payload, validate=True)
    except ValueError as error:
        raise Malformed("envelope payload is not base64") from error


def _hex(text: str) -> str:
    """DSSE writes signatures in base64, TUF in hex."""
    return base64.b64decode(text, validate=True).hex()
