"""Content-addressed pieces of a sealed blob: each chunk has its own hash, the whole has its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from sync.manifest import Blob
from sync.names import Digest

CHUNK = 96 * 1024  # bytes; with headers it stays below the 128 KiB that the stricter brokers allow


def digest(data: bytes | memoryview) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def describe(sealed: bytes, plain: Digest, chunk: int = CHUNK) -> Blob:
    """What a manifest says of these sealed bytes; raises ValueError for none, or for chunks that no broker takes."""
    return Blob(plain, digest(sealed), len(sealed), chunk, tuple(digest(p) for p in split(sealed, chunk)))


def split(sealed: bytes, chunk: int = CHUNK) -> Iterator[bytes]:
    """The chunks in order; an empty blob has none."""
    for start in range(0, len(sealed), chunk):
        yield sealed[start : start + chunk]


def span(blob: Blob, index: int) -> tuple[int, int]:
    """(offset, length) of chunk `index`; raises IndexError beyond the last."""
    if not 0 <= index < len(blob.hashes):
        raise IndexError(f"chunk {index} of {len(blob.hashes)}")
    offset = index * blob.chunk
    return offset, min(blob.chunk, blob.length - offset)


def fits(blob: Blob, index: int, payload: bytes) -> bool:
    """Whether `payload` is chunk `index`: its length first, then its hash; a stranger never costs a copy."""
    try:
        _, length = span(blob, index)
    except IndexError:
        return False
    return len(payload) == length and digest(payload) == blob.hashes[index]
