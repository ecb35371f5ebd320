"""Chunks: cutting and joining loses nothing, and only the right bytes at the right place fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import chunks

PLAIN = chunks.digest(b"what is inside")
CONTENT = st.binary(max_size=300)
SIZE = st.integers(min_value=1, max_value=64)


@given(CONTENT.filter(len), SIZE)
def test_joined_chunks_are_the_blob(sealed: bytes, size: int) -> None:
    blob = chunks.describe(sealed, PLAIN, size)
    pieces = list(chunks.split(sealed, size))
    assert b"".join(pieces) == sealed
    assert blob.sealed == chunks.digest(sealed)
    assert [chunks.span(blob, i) for i in range(len(pieces))] == [
        (i * size, len(piece)) for i, piece in enumerate(pieces)
    ]
    assert all(chunks.fits(blob, i, piece) for i, piece in enumerate(pieces))


@given(st.binary(min_size=2, max_size=300), SIZE, st.data())
def test_one_changed_bit_never_fits(sealed: bytes, size: int, data: st.DataObject) -> None:
    blob = chunks.describe(sealed, PLAIN, size)
    index = data.draw(st.integers(0, len(blob.hashes) - 1))
    piece = bytearray(list(chunks.split(sealed, size))[index])
    piece[data.draw(st.integers(0, len(piece) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not chunks.fits(blob, index, bytes(piece))


def test_a_piece_of_another_length_or_place_does_not_fit() -> None:
    blob = chunks.describe(b"abcdefgh", PLAIN, 3)
    assert not chunks.fits(blob, 0, b"ab")
    assert not chunks.fits(blob, 0, b"abcd")
    assert not chunks.fits(blob, 1, b"abc")
    assert not chunks.fits(blob, 3, b"gh")
    assert not chunks.fits(blob, -1, b"gh")
    assert not chunks.fits(blob, 0, b"")  # an empty chunk means "cleared"


def test_there_is_no_span_beyond_the_last() -> None:
    blob = chunks.describe(b"abc", PLAIN, 3)
    for index in (-1, 1):
        with pytest.raises(IndexError):
            chunks.span(blob, index)


def test_nothing_at_all_is_no_blob() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        chunks.describe(b"", PLAIN)


def test_a_chunk_with_its_headers_stays_below_128_kib() -> None:
    assert chunks.CHUNK + 1024 < 128 * 1024
