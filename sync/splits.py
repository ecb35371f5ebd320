"""What a split is about, as both sides work it out: a report counts only for the split that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from sync import codec
from sync.names import DeviceId, Digest


class Stake(NamedTuple):
    """An arm, as far as it makes the split another one: its release, generation and places."""

    manifest: Digest
    retry: int
    first: int
    share: int


def seed_of(seed: str, device: DeviceId) -> str:
    """The seed of one device, 32 hex digits, from the one of the rollout: each device draws by a lot of its own, for
    many have the same names for other things ("left", "motor"), and one lot for all would make one key of them."""
    return hashlib.sha256(f"{seed}|{device}".encode()).hexdigest()[:32]


def lot_of(seed: str, told: Mapping[DeviceId, str], device: DeviceId) -> str:
    """The seed that the device was told, or is told if it is told for the first time."""
    return told.get(device) or seed_of(seed, device)


def identity(seed: str, per_key: int, incumbent: Digest, arms: tuple[Stake, ...]) -> Digest:
    """The digest that names a split. Another seed, place, release, retry or number of outcomes to a key is another."""
    told = {"seed": seed, "per_key": per_key, "incumbent": incumbent, "arms": sorted(arms)}
    return Digest(hashlib.sha256(codec.encode(told)).hexdigest())
