"""What owners do at their own desks, for tests: the first root, and signatures under releases."""

from __future__ import annotations

from securesystemslib.signer import Key, Signer

from core.release import checking, metadata, signing
from core.release.layout import Layout, Quorum
from sync.names import ModelName


def single(owner: Signer, snapshot: Key, timestamp: Key, director: Key) -> Layout:
    """Profile `single-owner`."""
    alone = Quorum((owner.public_key,), 1)
    return Layout(alone, alone, {"snapshot": snapshot, "timestamp": timestamp, "director": director})


def begun(owner: Signer, snapshot: Key, timestamp: Key, director: Key, now: float) -> tuple[bytes, bytes]:
    """Root and targets, version 1 each, signed by the one owner."""
    drafts = signing.beginning(single(owner, snapshot, timestamp, director), metadata.later(now, signing.LIFE))
    signed = signing.sign({}, drafts, [owner])
    return signed["root"], signed["targets"]


def approved(
    files: metadata.Files, model: ModelName, number: int, manifest: bytes, owner: Signer, now: float
) -> dict[str, bytes]:
    """The drafts of an approval with this signature; what they extend is checked first, as people do."""
    checking.check_base(files)
    drafts = signing.approval(files, model, number, manifest, metadata.later(now, signing.LIFE))
    return signing.sign(files, drafts, [owner])
