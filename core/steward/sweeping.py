"""What leaves the core's disk: sealed blobs that nobody will be given again. Every fact about them stays, and so do the
artifacts: trainings learn from every version of a table, and what a revoked release said can be made again.

These are old versions of tables and configs, and the blobs of revoked releases: what was revoked is never signed again.
Each was sealed under a key of its own, so that no other release has the same. One goes only when the broker let go of
it a day ago (`core.steward.retained`), which it does not while a device says that it serves, tries or goes back to it,
and while no assignment names it, also of a device that may not speak now and will again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import msgspec

from core.catalog.fleet import GONE
from core.steward.house import House
from sync import codec, roles
from sync.messages import ModelOrder
from sync.names import Digest, LookupName, ModelName
from sync.pieces import Piece

_KEPT = 16 * 1024 * 1024  # bytes of an assignment in the catalog: the wire's limit is not the catalog's


def sweep(house: House, now: float) -> None:
    """Removes what can go now; to be called now and then."""
    outdated, revoked = house.catalog.pieces.outdated(), house.catalog.releases.revoked_blobs()
    told = _told(house) if outdated or revoked else set()
    versions = [row.blob for row in outdated if row.blob.sealed not in told]
    blobs = [row for row in revoked if row.sealed not in told]
    gone = [*(blob.sealed for blob in versions), *(row.sealed for row in blobs)]
    if not gone:
        return
    for sealed in gone:
        house.blobs.remove(sealed)  # before its row goes: cut between, it is found here again
    with house.catalog.transaction():
        for sealed in gone:
            house.catalog.releases.drop_key(sealed)
        if versions:
            size = _megabytes(blob.length for blob in versions)
            text = f"{len(versions)} sealed old versions of tables and configs ({size}) left the disk"
            house.event(now, "versions-removed", text)
        for (model, number), those in groupby(blobs, lambda row: (row.model, row.number)):
            lengths = [row.length for row in those]
            size = _megabytes(lengths)
            text = f"release {number} was revoked: its {len(lengths)} sealed blobs ({size}) left the disk"
            house.event(now, "blobs-removed", text, model=model, number=str(number))


def _megabytes(lengths: Iterable[int]) -> str:
    return f"{sum(lengths) / 1e6:.1f} MB"


class _Named(msgspec.Struct, frozen=True):
    """The part of an assignment that is looked at."""

    models: dict[ModelName, ModelOrder] = {}
    lookups: dict[LookupName, Piece] = {}
    config: Piece | None = None


def _told(house: House) -> set[Digest]:
    """Sealed digests of what the newest assignments name, of devices too that may not speak now and will again."""
    found: set[Digest] = set()
    for device in house.catalog.fleet.devices():
        old = house.catalog.fleet.assignment(device.device) if device.state not in GONE else None
        if old is not None:
            named = codec.decode(_Named, roles.peek(old[3], _KEPT), _KEPT)
            pieces = [*named.lookups.values(), *((named.config,) if named.config else ())]
            found |= {piece.blob.sealed for piece in pieces}
            found |= {sealed for order in named.models.values() for sealed in order.all_keys()}
    return found
