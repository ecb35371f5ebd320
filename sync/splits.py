"""What a split is about, as both sides work it out: a report counts only for the split that it names."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from sync import codec
from sync.names import Digest


class Stake(NamedTuple):
    """An arm, as far as it makes the split another one: its release, generation and places."""

    manifest: Digest
    retry: int
    first: int
    share: int


def identity(seed: str, per_key: int, incumbent: Digest, arms: tuple[Stake, ...]) -> Digest:
    """The digest that names a split. Another seed, place, release, retry or number of outcomes to a key is another."""
    told = {"seed": seed, "per_key": per_key, "incumbent": incumbent, "arms": sorted(arms)}
    return Digest(hashlib.sha256(codec.encode(told)).hexdigest())
