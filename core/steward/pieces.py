"""Tables and configs on their way to devices: made into versions, sealed, published, and named in assignments.

A table is read by a job (`falaj ingest NAME`); the same values again only confirm the newest version. A config is made
of the project's variables for each device. Which of them a device is told of follows from its releases, wanted or still
there: the manifest names the tables, and whoever has a model has a config where the project gives one.
"""

from __future__ import annotations

import base64
from typing import Any

from msgspec.structs import replace

from core import orders
from core.catalog.fleet import DeviceRow
from core.catalog.pieces import PieceRow, of_lookup
from core.project import Project
from core.steward import retained
from core.steward.house import House, PersistBroker
from sync import chunks, codec, lookups, sealing
from sync.errors import Damaged
from sync.lookups import Config, Table
from sync.manifest import LIMIT, Manifest
from sync.names import DeviceId, Digest, LookupName
from sync.pieces import Piece


def commit(house: House, order: orders.CommitLookup, now: float) -> dict[str, Any]:
    """A table as its job read it: a new version if it says something new. The first holds from the beginning, each
    later one from now on. In a transaction."""
    name = of_lookup(order.name)
    newest = house.catalog.pieces.newest(name)
    found = lookups.decode(order.content)
    if newest is not None and _same(house, newest, found):
        house.catalog.pieces.confirm(name, newest.version, now)
        return {"lookup": order.name, "version": newest.version, "rows": len(found.keys), "changed": False}
    valid_from = 0.0 if newest is None else now
    retained.check_room(house, more=len(order.content))
    row = _publish(house, name, lookups.encode(replace(found, valid_from=valid_from)), valid_from, now)
    house.event(now, "lookup-published", f"lookup {order.name} {row.version}: {len(found.keys)} rows", name=order.name)
    return {"lookup": order.name, "version": row.version, "rows": len(found.keys), "changed": True}


def versions(house: House, name: LookupName) -> tuple[Digest, ...]:
    """The artifacts of all versions of a table, oldest first."""
    return tuple(row.plain for row in house.catalog.pieces.versions(of_lookup(name)))


def users(house: House, name: LookupName) -> list[DeviceRow]:
    """The devices that are to hold this table now."""
    return [row for row in house.catalog.fleet.devices() if row.active and name in _asked(house, row)]


def for_device(house: House, device: DeviceRow, now: float) -> tuple[dict[LookupName, Piece], Piece | None]:
    """What the next assignment of a device names: its tables, by their newest version, and its config, made into a
    version here if it is another one now. In a transaction."""
    found = {}
    for name in _asked(house, device):
        newest = house.catalog.pieces.newest(of_lookup(name))
        if newest is not None:
            found[name] = _wrapped(house, device, newest)
    wanted, config = _declared(house, device.device, _project(house)), _of_config(device.device)
    if not wanted.variables:
        return found, None
    row = house.catalog.pieces.newest(config)
    if row is None or _decode_config(house, row) != wanted:
        row = _publish(house, config, lookups.encode(wanted), now, now)
    return found, _wrapped(house, device, row)


def reconfigured(house: House, before: Project | None) -> list[DeviceRow]:
    """The devices that have another config by the newest project than by the one before, and were told of theirs."""
    told = house.catalog.fleet.told()
    devices = [row for row in house.catalog.fleet.devices() if row.active and row.device in told]
    now = _project(house)
    return [row for row in devices if _declared(house, row.device, now) != _declared(house, row.device, before)]


def _publish(house: House, name: str, content: bytes, valid_from: float, now: float) -> PieceRow:
    """Sealed under a fresh key, to the disk, then to the catalog, then to the broker."""
    newest = house.catalog.pieces.newest(name)
    version = newest.version + 1 if newest is not None else 1
    plain = house.artifacts.put(content)
    key = house.random(sealing.KEY_BYTES)
    sealed = sealing.seal(content, key, house.tenant, plain)
    row = PieceRow(name, version, plain, valid_from, now, chunks.describe(sealed, plain))
    house.blobs.put(row.blob.sealed, sealed)
    house.catalog.releases.keep_key(row.blob, key, name, version)
    house.catalog.pieces.add(row)
    house.publish_blob(row.blob.sealed)
    house.actions.append(PersistBroker())
    return row


def _project(house: House) -> Project | None:
    current = house.catalog.projects.current()
    return current[0] if current else None


def _declared(house: House, device: DeviceId, project: Project | None) -> Config:
    """The config of a device by a project: what holds for all, for its site, for itself; the narrowest counts."""
    if project is None:
        return Config({})
    config = project.config
    site = house.catalog.identities.site_of(device) if config.sites else None
    here = config.sites.get(site, {}) if site is not None else {}
    return Config({**config.variables, **here, **config.devices.get(device, {})})


def _same(house: House, newest: PieceRow, found: Table) -> bool:
    try:
        known = lookups.decode(house.artifacts.get(newest.plain))
    except Damaged:
        return False
    return replace(known, valid_from=0.0) == replace(found, valid_from=0.0)


def _asked(house: House, device: DeviceRow) -> list[LookupName]:
    """The tables that the releases wanted on a device declare, and those of the same models that it says it still has:
    they serve until the wanted one does, and it goes back to them. Each once."""
    wanted = house.catalog.fleet.wanted(device.device)
    here = {(one.model, number) for one in wanted for number in one.numbers} | retained.held(house, device)
    names: set[LookupName] = set()
    for model, number in here:
        found = house.catalog.releases.release(model, number)
        if found is not None:
            names.update(lookup.name for lookup in codec.decode(Manifest, found[1], LIMIT).lookups)
    return sorted(names)


def _wrapped(house: House, device: DeviceRow, row: PieceRow) -> Piece:
    key = house.catalog.releases.keys(row.name, row.version)[row.blob.sealed]
    context = sealing.wrap_context(house.tenant, device.device, row.blob.sealed)
    wrapped = base64.b64encode(sealing.wrap(key, device.sealing_key, context)).decode()
    return Piece(row.version, row.blob, wrapped, row.as_of)


def _decode_config(house: House, row: PieceRow) -> Config:
    try:
        return lookups.decode_config(house.artifacts.get(row.plain))
    except Damaged:
        return Config({})


def _of_config(device: DeviceId) -> str:
    return f"config/{device}"
