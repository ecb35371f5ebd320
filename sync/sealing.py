"""Sealing: ciphertext is all that broker and disk ever see.

A sealed object is `FLJ1`, a length (4 bytes, big endian), a JSON header, then segments of 64 KiB plaintext, each
AES-256-GCM with a 16-byte tag. The nonce is the segment's number with a last-segment flag in its first byte
(the STREAM construction: Hoang, Reyhanitabar, Rogaway, Vizár 2015), the header is the associated data, so that
cutting, reordering, swapping and renaming all fail to open. A key seals one object, once: nonces repeat across
objects. Keys travel wrapped to a device by HPKE (RFC 9180, X25519 / HKDF-SHA256 / AES-256-GCM).

An object may be packed (DEFLATE, RFC 1950) before it is sealed, where that pays; what is declared and checked is its
length and digest as it was before.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sync import codec
from sync.chunks import digest
from sync.errors import Damaged, Malformed
from sync.names import Digest, TenantId

MAGIC = b"FLJ1"
SEGMENT = 64 * 1024
KEY_BYTES = 32
NONCE_BYTES = 32  # of a small sealed piece
PAYS = 0.9  # of its size: what packing must bring it down to, or a device unpacks at each load for nothing
SAMPLE = 1 << 20  # bytes that are packed to see whether it may pay
MOST = 1 << 40  # bytes that an object may declare
STREAM, PACKED = "A256GCM-STREAM", "DEFLATE+A256GCM-STREAM"
_TAG = 16
_HEADER = 4096  # bytes of one at most
_suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Header(msgspec.Struct, frozen=True):
    """What a sealed object says of itself, bound to every segment."""

    tenant: TenantId
    object: str  # what it is: a plaintext digest, or a name such as `samples/2026-01-01`
    length: Annotated[int, msgspec.Meta(ge=0, le=MOST)]  # bytes of plaintext
    segment: int = SEGMENT
    alg: str = STREAM
    v: int = 1


def seal(plain: bytes, key: bytes, tenant: TenantId, name: str, *, pack: bool = False) -> bytes:
    """The sealed object; `key` is KEY_BYTES fresh random bytes that never seal anything else. With `pack` it is packed
    if that pays; only for what no stranger has a part in: the length would tell of it."""
    length, alg = len(plain), STREAM
    if pack and (packed := _packed(plain)) is not None:
        plain, alg = packed, PACKED
    header = codec.encode(Header(tenant, name, length, alg=alg))
    head = MAGIC + struct.pack(">I", len(header)) + header
    cipher = AESGCM(key)
    count = max(1, -(-len(plain) // SEGMENT))
    parts = [head]
    for i in range(count):
        piece = plain[i * SEGMENT : (i + 1) * SEGMENT]
        parts.append(cipher.encrypt(_nonce(i, last=i == count - 1), piece, head))
    return b"".join(parts)


def unseal(sealed: bytes | BufferedIOBase, key: bytes, tenant: TenantId, name: str, most: int | None = None) -> bytes:
    """The plaintext of an object, or of an open file that holds one, which is read a segment at a time; raises Damaged
    unless every bit, the tenant and the name are as sealed, and before it is unpacked if it declares more than `most`
    bytes: a packed one may become a thousand times as large. OSError if the file does not read."""
    if len(key) != KEY_BYTES:
        raise Damaged(f"the key of {name} has {len(key)} bytes, not {KEY_BYTES}")
    file = io.BytesIO(sealed) if isinstance(sealed, bytes) else sealed
    header, head = _read_header(file)
    if header.tenant != tenant or header.object != name:
        raise Damaged(f"sealed for {header.tenant}/{header.object}, not {tenant}/{name}")
    if most is not None and header.length > most:
        raise Damaged(f"{name}: {header.length} bytes declared, {most} are allowed")
    pieces = _segments(file, AESGCM(key), header, head)
    if header.alg == PACKED:
        pieces = _unpacked(pieces, header.length, name)
    plain = io.BytesIO()
    for piece in pieces:
        plain.write(piece)
    if plain.tell() != header.length:
        raise Damaged(f"{name}: {plain.tell()} bytes inside, {header.length} declared")
    return plain.getvalue()


def unseal_artifact(
    sealed: bytes | BufferedIOBase, key: bytes, tenant: TenantId, plain: Digest, most: int | None = None
) -> bytes:
    """Unseals an object named by its plaintext digest, of `most` bytes, and checks that digest. Raises as `unseal`."""
    content = unseal(sealed, key, tenant, plain, most)
    if digest(content) != plain:
        raise Damaged(f"content digest is {digest(content)}, not {plain}")
    return content


def public_half(private_key: bytes) -> bytes:
    """The X25519 public key (32 raw bytes) of a private one: what others seal to."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def wrap(key: bytes, device_key: bytes, context: str) -> bytes:
    """`key` encrypted to a device's X25519 public key (32 raw bytes); `context` must be given again to unwrap."""
    public = X25519PublicKey.from_public_bytes(device_key)
    return _suite.encrypt(key, public, info=context.encode())


def unwrap(wrapped: bytes, private_key: bytes, context: str) -> bytes:
    """The key; raises Damaged if it was wrapped to another device or under another context."""
    try:
        return _suite.decrypt(wrapped, X25519PrivateKey.from_private_bytes(private_key), info=context.encode())
    except (InvalidTag, ValueError) as error:
        raise Damaged("a wrapped key does not open with this device's key") from error


def wrap_context(tenant: TenantId, device: str, sealed: Digest) -> str:
    """Binds a wrapped key to its tenant, device and blob."""
    return f"falaj/1 artifact {tenant} {device} {sealed}"


def seal_small(plain: bytes, key: bytes, aad: bytes, nonce: bytes) -> bytes:
    """`plain` under a long-lived key, as `nonce` + AES-256-GCM ciphertext, for records rewritten many times.

    `nonce` is NONCE_BYTES fresh random bytes. It salts an HKDF-SHA256 that gives each piece a key of its own, so
    that the 2^32 pieces which plain AES-GCM allows a key with random nonces are no limit. `aad` must be given
    again.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return nonce + AESGCM(_piece_key(key, nonce)).encrypt(_nonce(0, last=True), plain, aad)


def unseal_small(sealed: bytes, key: bytes, aad: bytes) -> bytes:
    """The plaintext of `seal_small`; raises Damaged unless every bit and `aad` are as sealed."""
    nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    if len(body) < _TAG:
        raise Damaged(f"a sealed piece of {len(sealed)} bytes is too short to be one")
    try:
        return AESGCM(_piece_key(key, nonce)).decrypt(_nonce(0, last=True), body, aad)
    except InvalidTag as error:
        raise Damaged("a sealed piece does not open: it is damaged, or of another place or key") from error


def _piece_key(key: bytes, nonce: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=nonce, info=b"falaj/1 small piece").derive(key)


def _nonce(index: int, *, last: bool) -> bytes:
    return bytes([last]) + b"\0\0\0" + struct.pack(">Q", index)


def _segments(file: BufferedIOBase, cipher: AESGCM, header: Header, head: bytes) -> Iterator[bytes]:
    """The segments of the object in `file`, which is read from behind `head`, opened one after the other."""
    step = header.segment + _TAG
    length = file.seek(0, io.SEEK_END) - len(head)
    file.seek(len(head))
    held = memoryview(bytearray(min(step, length)))
    count = max(1, -(-length // step))
    for i in range(count):
        piece = held[: file.readinto(held)]
        try:
            yield cipher.decrypt(_nonce(i, last=i == count - 1), piece, head)
        except InvalidTag as error:
            raise Damaged(f"segment {i} of {header.object} does not open") from error


def _packed(plain: bytes) -> bytes | None:
    """`plain` packed, or None where that does not pay; weights in floats hardly ever do."""
    if len(zlib.compress(plain[:SAMPLE])) > PAYS * min(len(plain), SAMPLE):
        return None
    packed = zlib.compress(plain)
    return packed if len(packed) <= PAYS * len(plain) else None


def _unpacked(pieces: Iterable[bytes], length: int, name: str) -> Iterator[bytes]:
    """In steps of a segment, and never more than one byte beyond the declared length, whatever it would unpack to."""
    unpacker, left = zlib.decompressobj(), length + 1
    for packed in pieces:
        full = True  # as long as a step is filled more may come of what was put in
        while left and full:
            step = min(left, SEGMENT)
            try:
                plain = unpacker.decompress(packed, step)
            except zlib.error as error:
                raise Damaged(f"{name} does not unpack: {error}") from error
            packed, full, left = unpacker.unconsumed_tail, len(plain) == step, left - len(plain)
            yield plain


def _read_header(file: BufferedIOBase) -> tuple[Header, bytes]:
    """What the object says of itself, and the bytes that say so, from its magic on."""
    start = file.read(8)
    if len(start) < 8 or start[:4] != MAGIC:
        raise Damaged("not a sealed object")
    (length,) = struct.unpack(">I", start[4:])
    said = file.read(min(length, _HEADER))
    if len(said) < length:
        raise Damaged("sealed object with a broken header")
    try:
        header = codec.decode(Header, said)
    except Malformed as error:
        raise Damaged(f"sealed object: {error}") from error
    if header.alg not in (STREAM, PACKED) or not 1024 <= header.segment <= 1 << 24:
        raise Damaged(f"sealed object: unknown form {header.alg!r}")
    return header, start + said
