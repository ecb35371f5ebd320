"""Samples: what is sealed for the tenant opens for the tenant, from this device, and nowhere else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sync import codec, samples
from sync.errors import Damaged, Malformed
from sync.messages import SampleBatch
from sync.names import DeviceId, ModelName, TenantId
from sync.samples import Batch, Sample
from sync.sealing import wrap

TENANT, DEVICE = TenantId("default"), DeviceId("watch-1")
KEY = X25519PrivateKey.generate()
PRIVATE, PUBLIC = KEY.private_bytes_raw(), KEY.public_key().public_bytes_raw()


def sample(rows: int, columns: int, label: str | None = "row") -> Sample:
    window = np.arange(rows * columns, dtype="<f4").tobytes()
    return Sample("id-1", "left", 12.5, 13.0, 2, (rows, columns), window, "row", (0.25, 0.75), label)


@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from(["row", "", "é", None]))
def test_a_batch_comes_back_as_it_was(rows: int, columns: int, label: str | None) -> None:
    batch = Batch("exercise", tuple(f"c{i}" for i in range(columns)), (sample(rows, columns, label),) * 2)
    sealed = samples.seal(batch, TENANT, DEVICE, PUBLIC)
    assert samples.unseal(sealed, TENANT, DEVICE, PRIVATE) == batch


def test_nothing_of_a_window_can_be_read_in_it() -> None:
    batch = Batch("exercise", ("a", "b"), (sample(50, 2),))
    sealed = samples.seal(batch, TENANT, DEVICE, PUBLIC)
    assert batch.samples[0].window in msgspec.msgpack.encode(batch), "else this test could not fail"
    assert batch.samples[0].window[:16] not in sealed and b"left" not in sealed


@pytest.mark.parametrize(("tenant", "device"), [(TenantId("other"), DEVICE), (TENANT, DeviceId("watch-2"))])
def test_it_is_bound_to_its_tenant_and_device(tenant: TenantId, device: DeviceId) -> None:
    sealed = samples.seal(Batch("exercise", (), ()), TENANT, DEVICE, PUBLIC)
    with pytest.raises(Damaged, match="do not open"):
        samples.unseal(sealed, tenant, device, PRIVATE)


def test_another_key_or_a_flipped_bit_does_not_open_it() -> None:
    sealed = samples.seal(Batch("exercise", (), ()), TENANT, DEVICE, PUBLIC)
    other = X25519PrivateKey.generate().private_bytes_raw()
    for bad, key in ((sealed, other), (sealed[:-1] + bytes([sealed[-1] ^ 1]), PRIVATE), (sealed[:20], PRIVATE)):
        with pytest.raises(Damaged):
            samples.unseal(bad, TENANT, DEVICE, key)


@pytest.mark.parametrize("shape", [(0, 2), (49, 2), (50, 1), (-50, -2), (25, 4)])
def test_a_window_that_does_not_fit_its_shape_is_refused(shape: tuple[int, int]) -> None:
    bad = msgspec.structs.replace(sample(50, 2), shape=shape)
    sealed = samples.seal(Batch("exercise", ("a", "b"), (bad,)), TENANT, DEVICE, PUBLIC)
    with pytest.raises(Malformed, match="does not fit"):
        samples.unseal(sealed, TENANT, DEVICE, PRIVATE)


@given(st.binary(max_size=200))
def test_whatever_else_a_device_seals_is_refused(plain: bytes) -> None:
    sealed = wrap(plain, PUBLIC, "falaj/1 samples default watch-1")
    with pytest.raises(Malformed):
        samples.unseal(sealed, TENANT, DEVICE, PRIVATE)


def test_a_full_batch_is_still_a_document_of_the_wire() -> None:
    """13 windows of 100 x 6 float32, about what a device packs together."""
    batch = Batch("exercise", tuple("abcdef"), tuple(sample(100, 6) for _ in range(13)))
    sealed = samples.seal(batch, TENANT, DEVICE, PUBLIC)
    text = msgspec.json.encode(sealed).decode().strip('"')
    assert len(codec.encode(SampleBatch(ModelName("exercise"), "motion", "AE", text))) < codec.LIMIT
