"""What travels upstream for retraining: answered predictions with their inputs, sealed to the tenant's key.

A batch is one HPKE message (RFC 9180) to the tenant's X25519 key: the broker and the core's own steward see
ciphertext, only the job that lands the rows opens it. MessagePack keeps the numbers as raw bytes.
"""

from __future__ import annotations

import msgspec

from sync import codec
from sync.errors import Damaged, Malformed
from sync.names import DeviceId, TenantId
from sync.remembered import NO_BASIS, Basis
from sync.sealing import unwrap, wrap


class Sample(msgspec.Struct, frozen=True):
    """One prediction: its input window (float32, little endian, row-major, `shape` rows x channels), what was served,
    and what it really was. `ts` is the event time of the window's last row, `arrived` the device's clock; `basis` is
    what the answer rests on besides, so that it can be made again."""

    id: str
    entity: str
    ts: float
    arrived: float
    release: int
    shape: tuple[int, int]
    window: bytes
    value: str | float | None
    probabilities: tuple[float, ...] = ()
    label: str | None = None
    basis: Basis = NO_BASIS


class Batch(msgspec.Struct, frozen=True):
    """Samples of one model, with the names of the channels that their windows have, in order."""

    model: str
    channels: tuple[str, ...]
    samples: tuple[Sample, ...]
    v: int = 1


def seal(batch: Batch, tenant: TenantId, device: DeviceId, tenant_key: bytes) -> bytes:
    """The batch to the tenant's X25519 public key (32 raw bytes), bound to the device that sends it."""
    return wrap(msgspec.msgpack.encode(batch), tenant_key, _context(tenant, device))


def unseal(sealed: bytes, tenant: TenantId, device: DeviceId, private_key: bytes) -> Batch:
    """The batch; raises Damaged if it does not open with this key for this device, Malformed if it is no batch."""
    try:
        plain = unwrap(sealed, private_key, _context(tenant, device))
    except Damaged as error:
        raise Damaged(f"samples of {device} do not open with the tenant's key") from error
    try:
        batch = msgspec.msgpack.decode(plain, type=Batch)
    except (msgspec.DecodeError, ValueError) as error:
        raise Malformed(f"samples of {device}: {error}") from error
    codec.check_version(batch)
    for sample in batch.samples:
        rows, columns = sample.shape
        if rows < 1 or columns != len(batch.channels) or len(sample.window) != 4 * rows * columns:
            raise Malformed(f"sample {sample.id!r} of {device}: its window does not fit its shape {sample.shape}")
    return batch


def _context(tenant: TenantId, device: DeviceId) -> str:
    return f"falaj/1 samples {tenant} {device}"
