"""Sealing: what was sealed opens with the right key, tenant and name; anything else is Damaged."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from sync import codec, sealing
from sync.chunks import digest
from sync.errors import Damaged
from sync.names import TenantId
from sync.sealing import SEGMENT, seal, unseal, unseal_artifact

KEY = bytes(range(32))
TENANT = TenantId("acme")
TAG = 16


def device() -> tuple[bytes, bytes]:
    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


@pytest.mark.parametrize("length", [0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT + 5])
def test_sealed_content_opens(length: int) -> None:
    plain = os.urandom(length)
    assert unseal(seal(plain, KEY, TENANT, "x"), KEY, TENANT, "x") == plain


@settings(max_examples=60)
@given(st.binary(max_size=200), st.data())
def test_any_changed_bit_is_found(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(plain, KEY, TENANT, "x"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Damaged):
        unseal(bytes(sealed), KEY, TENANT, "x")


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(min_value=1, max_value=300))
def test_cut_or_lengthened_content_is_found(plain: bytes, amount: int) -> None:
    sealed = seal(plain, KEY, TENANT, "x")
    for wrong in (sealed[:-amount], sealed + b"\0" * amount):
        with pytest.raises(Damaged):
            unseal(wrong, KEY, TENANT, "x")


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(1, 400))
def test_packed_or_not_what_was_sealed_opens(plain: bytes, times: int) -> None:
    sealed = seal(plain * times, KEY, TENANT, "x", pack=True)
    assert unseal(sealed, KEY, TENANT, "x") == plain * times


def test_it_is_packed_where_that_pays_and_nowhere_else() -> None:
    dull, noise = bytes(100_000), os.urandom(100_000)
    assert len(seal(dull, KEY, TENANT, "x", pack=True)) < 1000 and len(seal(dull, KEY, TENANT, "x")) > 100_000
    assert seal(noise, KEY, TENANT, "x", pack=True) == seal(noise, KEY, TENANT, "x")


def test_what_unpacks_to_more_than_it_declares_is_not_unpacked_any_further() -> None:
    """Ten million bytes, declared as a hundred: whoever seals so holds the key, and still fills no memory."""
    bomb = zlib.compress(bytes(10_000_000))
    header = codec.encode(sealing.Header(TENANT, "x", 100, alg=sealing.PACKED))
    head = sealing.MAGIC + len(header).to_bytes(4, "big") + header
    sealed = head + AESGCM(KEY).encrypt(b"\1" + bytes(11), bomb, head)
    with pytest.raises(Damaged, match="101 bytes inside, 100 declared"):
        unseal(sealed, KEY, TENANT, "x")


@pytest.mark.parametrize("pack", [True, False])
def test_what_declares_more_than_is_allowed_is_not_opened(pack: bool) -> None:
    plain = bytes(100_000)
    sealed = seal(plain, KEY, TENANT, digest(plain), pack=pack)
    assert unseal_artifact(sealed, KEY, TENANT, digest(plain), 100_000) == plain
    with pytest.raises(Damaged, match="100000 bytes declared, 99999 are allowed"):
        unseal_artifact(sealed, KEY, TENANT, digest(plain), 99_999)


@pytest.mark.parametrize("length", [-1, -2, -(10**30), 2**41, 10**30])
@pytest.mark.parametrize("alg", [sealing.STREAM, sealing.PACKED])
def test_a_declared_length_that_is_none_is_damaged_before_anything_is_unpacked(length: int, alg: str) -> None:
    """-1 used to mean no limit at all: ten million bytes out of ten thousand."""
    bomb = zlib.compress(bytes(10_000_000))
    header = codec.encode({"tenant": str(TENANT), "object": "x", "length": length, "alg": alg})
    head = sealing.MAGIC + len(header).to_bytes(4, "big") + header
    sealed = head + AESGCM(KEY).encrypt(b"\1" + bytes(11), bomb, head)
    with pytest.raises(Damaged, match="length"):
        unseal(sealed, KEY, TENANT, "x", 100)


def test_what_is_no_packed_content_is_damaged() -> None:
    header = codec.encode(sealing.Header(TENANT, "x", 100, alg=sealing.PACKED))
    head = sealing.MAGIC + len(header).to_bytes(4, "big") + header
    with pytest.raises(Damaged, match="does not unpack"):
        unseal(head + AESGCM(KEY).encrypt(b"\1" + bytes(11), b"no such thing", head), KEY, TENANT, "x")


def _segments(sealed: bytes) -> tuple[bytes, list[bytes]]:
    start = len(seal(b"", KEY, TENANT, "x")) - TAG
    start += len(str((len(sealed) - start) // SEGMENT * SEGMENT)) - 1  # the header tells the length in digits
    body = sealed[start:]
    return sealed[:start], [body[i : i + SEGMENT + TAG] for i in range(0, len(body), SEGMENT + TAG)]


def test_segments_cannot_be_swapped_dropped_or_repeated() -> None:
    plain = os.urandom(SEGMENT) + os.urandom(SEGMENT) + os.urandom(SEGMENT)
    head, segments = _segments(seal(plain, KEY, TENANT, "x"))
    assert unseal(head + b"".join(segments), KEY, TENANT, "x") == plain
    a, b, c = segments
    for wrong in ([b, a, c], [a, b], [a, c], [a, a, b, c], [a, b, c, c], []):
        with pytest.raises(Damaged):
            unseal(head + b"".join(wrong), KEY, TENANT, "x")


def test_another_tenant_name_or_key_does_not_open() -> None:
    sealed = seal(b"secret", KEY, TENANT, "x")
    for key, tenant, name in (
        (KEY, TenantId("other"), "x"),
        (KEY, TENANT, "y"),
        (bytes(32), TENANT, "x"),
    ):
        with pytest.raises(Damaged):
            unseal(sealed, key, tenant, name)


@given(st.binary(max_size=120))
def test_foreign_bytes_are_damaged(data: bytes) -> None:
    for wrong in (data, sealing.MAGIC + data, sealing.MAGIC + b"\0\0\0\x02{}" + data):
        with pytest.raises(Damaged):
            unseal(wrong, KEY, TENANT, "x")


def test_nothing_of_the_plaintext_is_seen() -> None:
    plain = b"a reading of 21.5 degrees" * 40
    assert b"reading" not in seal(plain, KEY, TENANT, "x")


def test_an_artifact_is_bound_to_its_digest() -> None:
    content = b"model"
    sealed = seal(content, KEY, TENANT, digest(content))
    assert unseal_artifact(sealed, KEY, TENANT, digest(content)) == content
    lying = seal(b"another model", KEY, TENANT, digest(content))
    with pytest.raises(Damaged, match="content digest"):
        unseal_artifact(lying, KEY, TENANT, digest(content))


@pytest.mark.parametrize("pack", [False, True])
def test_a_file_is_opened_in_pieces_and_never_held_beside_what_it_holds(tmp_path: Path, pack: bool) -> None:
    """A small box has room for a model, not for three copies of it."""
    content = bytes(4_000_000 * pack) + random.Random(1).randbytes(4_000_000)
    sealed = seal(content, KEY, TENANT, digest(content), pack=pack)
    (tmp_path / "sealed").write_bytes(sealed)
    with (tmp_path / "sealed").open("rb") as file:
        assert unseal_artifact(file, KEY, TENANT, digest(content)) == content  # also loads what is loaded once
        file.seek(0)
        tracemalloc.start()
        try:
            opened = unseal_artifact(file, KEY, TENANT, digest(content))
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert opened == content
    assert most < 1.3 * len(content) + 10 * SEGMENT


def test_a_wrapped_key_opens_for_its_device_and_context_alone() -> None:
    private, public = device()
    stranger, _ = device()
    context = sealing.wrap_context(TENANT, "pump-7", digest(b"blob"))
    wrapped = sealing.wrap(KEY, public, context)
    assert KEY not in wrapped
    assert sealing.unwrap(wrapped, private, context) == KEY
    other_context = sealing.wrap_context(TENANT, "pump-8", digest(b"blob"))
    for data, key, info in (
        (wrapped, stranger, context),
        (wrapped, private, other_context),
        (wrapped[:-1], private, context),
        (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), private, context),
        (b"", private, context),
        (b"short", private, context),
    ):
        with pytest.raises(Damaged):
            sealing.unwrap(data, key, info)


def test_wrapping_twice_gives_different_bytes() -> None:
    _, public = device()
    assert sealing.wrap(KEY, public, "x") != sealing.wrap(KEY, public, "x")


@pytest.mark.parametrize("length", [0, 5, 16, 33])
def test_a_key_of_another_length_opens_nothing(length: int) -> None:
    """Whoever wraps keys to a device must not be able to end it with one."""
    sealed = sealing.seal(b"x", bytes(32), TenantId("acme"), "thing")
    with pytest.raises(Damaged, match="bytes, not 32"):
        sealing.unseal(sealed, bytes(length), TenantId("acme"), "thing")
