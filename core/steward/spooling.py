"""Batches of samples on their way from a device into the spool; nobody here can open one. There is room for so much,
and for so much of one device; what finds none is dropped and told."""

from __future__ import annotations

import base64

from core.ingest.spool import Entry
from core.steward.house import House
from sync.errors import Malformed
from sync.messages import SampleBatch
from sync.names import ModelName

SHARE = 4  # of the spool one device may fill one part in so many: it must not take the others' place


def take(house: House, entry: Entry, batch: SampleBatch, now: float) -> None:
    """Into the spool, as it is. The file is on the disk before the record is committed, and a file of a record that was
    not is written anew when the record comes again. In a transaction; raises Malformed."""
    try:
        sealed = base64.b64decode(batch.sealed, validate=True)
    except ValueError as error:  # also what is no base64 because it is no ASCII
        raise Malformed(f"samples of {entry.device}: not base64: {error}") from error
    if not _is_known(house, batch.model):
        _drop(house, entry, batch, "no model of that name was ever declared or released here", now)
        return
    samples = house.catalog.samples
    for filled, room, whose in (
        (samples.spooled(), house.spool_bytes, "all samples"),
        (samples.spooled(entry.device), house.spool_bytes // SHARE, "those of this device"),
    ):
        if filled + len(sealed) > room:
            text = (
                f"{whose} that wait fill their {room >> 20} MiB; have them taken in: run `falaj ingest` on the source "
                "of kind samples"
            )
            _drop(house, entry, batch, text, now)
            return
    try:
        house.spool.put(batch.model, entry, sealed)
    except OSError as error:
        _drop(house, entry, batch, f"the disk does not take them: {error}", now)
        return
    house.memory.dropping.discard(entry.device)
    samples.add(entry.device, entry.epoch, entry.n, batch.model, len(sealed), now)


def _is_known(house: House, model: ModelName) -> bool:
    """Whether a device of ours can have been told to answer with it; names made up by a device get no folder."""
    current = house.catalog.projects.current()
    return (current is not None and model in current[0].models) or house.catalog.releases.next_number(model) > 1


def _drop(house: House, entry: Entry, batch: SampleBatch, why: str, now: float) -> None:
    """The device must not wait for ever for an acknowledgement; a loss is said once, until it has room again."""
    if entry.device in house.memory.dropping:
        return
    house.memory.dropping.add(entry.device)
    # In the device's own room of the events: it could push out what the core has to say of itself.
    house.event(
        now, "samples-dropped", f"newer samples of {entry.device} are dropped: {why}", severity="alarm",
        model=batch.model, source=entry.device, device=entry.device,
    )  # fmt: skip
