"""Sealed files of devices: who can open them, and that nobody can change one, or write one in another's name."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sync import answers, codec, roles, sealing
from sync.answers import Predictions, Support
from sync.commands import PART, PARTS, AskPredictions
from sync.errors import Damaged, Malformed, SyncError, Untrusted
from sync.messages import Prediction
from sync.names import DeviceId, ModelName, TenantId
from sync.remembered import Basis, Looked, Remembered, cpu_class

TENANT, DEVICE, MODEL = TenantId("acme"), DeviceId("press-1"), ModelName("motion")
BOX, OTHER_BOX = X25519PrivateKey.generate(), X25519PrivateKey.generate()
SIGNING, OTHER_SIGNING = roles.new_signing_key(), roles.new_signing_key()
KEYS: roles.Keys = [roles.signer(SIGNING).public_key]
PRIVATE = BOX.private_bytes_raw()
SAID = Prediction("f" * 32, MODEL, 12.5, "ok", "walk", (0.75, 0.25), ("walk", "run"), "w1", 3)
ONE = Remembered(
    SAID, (4, 2), bytes(range(32)), "run", 13.0, 14.0, Basis("d" * 64, 2, {"machines": Looked(7, bytes(8))})
)
TOLD = Predictions(TENANT, DEVICE, 20.0, "1.0", "x86_64 avx2", 10.0, 15.0, 1.0, 19.0, (ONE,), True, (MODEL,))


def sealed(document: Predictions | Support = TOLD, signing: bytes = SIGNING, fresh: int = 1) -> bytes:
    return answers.seal(document, signing, BOX.public_key().public_bytes_raw(), bytes([fresh]) * 32)


def opened(file: bytes) -> Predictions:
    return answers.unseal(answers.read(file), Predictions, PRIVATE, KEYS)


def told(file: bytes) -> Predictions | str:
    """What is inside, or the code of the refusal."""
    try:
        return opened(file)
    except SyncError as error:
        return error.code


def test_what_was_sealed_comes_back_to_the_last_bit() -> None:
    assert opened(sealed()) == TOLD
    support = Support(TENANT, DEVICE, 1.0, bytes(1000))
    assert answers.unseal(answers.read(sealed(support)), Support, PRIVATE, KEYS) == support


def test_nothing_of_it_can_be_read_on_the_way() -> None:
    file = sealed(replace(TOLD, agent="a-mark-that-is-seen"))
    parts = answers.read(file)
    for content in (file, parts.sealed, base64.b64decode(base64.b64encode(parts.key))):
        assert b"a-mark-that-is-seen" not in content and ONE.window not in content and b"walk" not in content


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_file_that_was_changed_anywhere_is_refused_with_a_code(place: int, flip: int) -> None:
    file = bytearray(sealed())
    file[place % len(file)] ^= flip
    found = told(bytes(file))
    assert found in ("damaged", "malformed", "untrusted", TOLD), "a bit of base64's padding says nothing"


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (sealed(signing=OTHER_SIGNING), Untrusted),
        (codec.encode(replace(answers.read(sealed()), device=DeviceId("press-2"))), Damaged),
        (codec.encode(replace(answers.read(sealed()), tenant=TenantId("other"))), Damaged),
        (codec.encode(replace(answers.read(sealed()), kind=answers.SUPPORT_TYPE)), Malformed),
        (codec.encode(replace(answers.read(sealed()), key=answers.read(sealed(fresh=2)).key)), Damaged),
        (sealed(Support(TENANT, DEVICE, 1.0, b"")), Malformed),
        (b"", Malformed),
        (b"[]", Malformed),
    ],
)
def test_a_file_of_somebody_else_is_refused(file: bytes, error: type[SyncError]) -> None:
    with pytest.raises(error):
        opened(file)


def test_a_device_cannot_speak_for_another() -> None:
    """Sealed and signed by the device itself, but inside it says that it is somebody else."""
    other = replace(TOLD, device=DeviceId("press-2"))
    inside = roles.sign(other, answers.PREDICTIONS_TYPE, SIGNING)
    context = answers._context(answers.PREDICTIONS_TYPE, TENANT, DEVICE)
    key = bytes(32)
    made = answers.SealedFile(
        answers.PREDICTIONS_TYPE, TENANT, DEVICE, sealing.wrap(key, BOX.public_key().public_bytes_raw(), context),
        sealing.seal(inside, key, TENANT, context),
    )  # fmt: skip
    with pytest.raises(Untrusted, match="inside is the word of acme/press-2"):
        opened(codec.encode(made))


@pytest.mark.parametrize(
    ("document", "device", "seq", "since", "says"),
    [
        (replace(TOLD, seq=6), DEVICE, 7, 10.0, "7 was asked, and this answers question 6"),
        (TOLD, DEVICE, 7, 10.0, "beside the box"),
        (replace(TOLD, seq=7), "press-2", 7, 10.0, "press-2 was asked"),
        (replace(TOLD, seq=7), DEVICE, 7, 9.0, "asked was 9.0 to 15.0"),
        (Support(TENANT, DEVICE, 1.0, b"", 6), DEVICE, 7, 10.0, "question 6"),
    ],
)
def test_an_older_answer_is_not_todays(
    document: Predictions | Support, device: str, seq: int, since: float, says: str
) -> None:
    with pytest.raises(Untrusted, match=says):
        answers.check(document, device, seq, AskPredictions(since, 15.0))
    answers.check(document, document.device, document.seq, AskPredictions(10.0, 15.0))
    answers.check(document, document.device, document.seq)


def test_another_tenants_key_does_not_open_it() -> None:
    with pytest.raises(Damaged, match="tenant's key"):
        answers.unseal(answers.read(sealed()), Predictions, OTHER_BOX.private_bytes_raw(), KEYS)


def test_an_answer_of_full_parts_fits_the_records_of_the_outbox() -> None:
    content = base64.b64encode(bytes(PART)).decode()
    body = codec.encode({"seq": 10**18, "part": PARTS, "parts": PARTS, "content": content})
    twice = base64.b64encode(body + bytes(48))  # as `sync.records` seals it
    assert len(twice) < codec.LIMIT - 400


def test_two_cpus_are_alike_by_what_kernels_are_chosen_by() -> None:
    assert cpu_class("x86_64", frozenset({"avx2", "fma", "sse4_2", "rdrand"})) == "x86_64 avx2 fma"
    assert cpu_class("aarch64", frozenset()) == "aarch64"
