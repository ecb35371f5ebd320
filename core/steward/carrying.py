"""Devices without a network: what they said in a folder is heard as from the line, and what they shall be told goes
back in it. Each message is committed by itself, as on the line, so nothing here runs in one transaction."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from core import orders
from core.catalog.fleet import DeviceRow
from core.release import publish
from core.steward import assigning, ears, rounds
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import carried, codec, roles, topics
from sync.carried import Word
from sync.errors import SyncError, Untrusted
from sync.link import Message
from sync.messages import Ack, Assignment, TrustIndex
from sync.names import DeviceId, Digest

FRESH = 3600.0  # seconds: what was signed no longer ago goes along as it is
_HINT = "`falaj device list` shows its state"


def take_in(house: House, order: orders.CarryIn, now: float) -> dict[str, Any]:
    """Hears one bundle of a device: records, reports and, if they are news, its status."""
    device = _device(house, order.device)
    keys: list[roles.Key] = [roles.public_key_from_raw(device.signing_key)]
    try:
        bundle = carried.opened(order.bundle.encode(), house.tenant, device.device, keys, "up")
        if bundle.epoch != device.epoch:
            raise Untrusted(f"bundle of epoch {bundle.epoch}, {device.device} is in {device.epoch}")
    except SyncError as error:
        with house.catalog.transaction():
            text = f"in a folder: {error}"[: ears.TEXT]
            house.event(now, f"refused-{error.code}", text, severity="alarm", source=device.device)
        raise
    before, late = _said(device), []
    for word in bundle.words:
        retained = word.topic in topics.DEVICE_RETAINED
        message = Message(carried.topic_of(bundle, word), bytes(word.payload), 1, retained=retained)
        if word.topic == "status":
            late.append(message)
        else:
            ears.hear(house, message, now)
    after = _device(house, order.device)
    if _said(after) > before:
        for message in late:
            ears.hear(house, message, now)
    return {"words": len(bundle.words), "made": bundle.ts, "news": _said(after) > before}


def take_out(house: House, order: orders.CarryOut, now: float) -> dict[str, Any]:
    """Assignment, trust files and acknowledgements of one device, and which blobs it needs: digest -> bytes a chunk."""
    device = _device(house, order.device)
    rounds.renew_trust(house, now, publish.ONLINE_LIFE.total_seconds() - FRESH)
    envelope = _assignment(house, device, now)
    assignment = codec.decode(Assignment, roles.peek(envelope))
    words = [Word(f"ack/{kind}", msgspec.Raw(codec.encode(ack))) for kind, ack in _acks(house, device).items()]
    stuck = {(name, kind) for name, kind in house.memory.stuck if name == device.device}
    house.memory.stuck -= stuck
    kinds = tuple(sorted(kind for _, kind in stuck))
    down = carried.bundles(house.tenant, device.device, device.epoch, now, words, house.keys.director, kinds)
    return {
        "device": device.device,
        "desired": envelope.decode(),
        "down": down[0].decode(),
        "trust": {name: base64.b64encode(data).decode() for name, data in _trust(house, assignment).items()},
        "blobs": _blobs(house, assignment),
        "expires": assignment.expires,
        "models": {str(name): {"number": one.number, "mode": one.mode} for name, one in assignment.models.items()},
    }


def _acks(house: House, device: DeviceRow) -> dict[str, Ack]:
    fleet = house.catalog.fleet
    known = fleet.all_received(device.device, device.epoch)
    return {k: Ack(device.epoch, n, fleet.written_by(device.device, device.epoch, k)) for k, n in known.items()}


def _device(house: House, name: DeviceId) -> DeviceRow:
    device = house.catalog.fleet.device(name)
    if device is None:
        raise Refusal("no-such-device", f"no device {name} is enrolled here", "`falaj device token NAME` lets it join")
    if not device.active:
        raise Refusal("barred", f"{name} is {device.state}: nothing is heard of it or told to it", _HINT)
    return device


def _said(device: DeviceRow) -> tuple[int, int]:
    return (device.report.epoch, device.report.seq) if device.report else (0, 0)


def _assignment(house: House, device: DeviceRow, now: float) -> bytes:
    """Its newest, signed within the last hour, also where nothing is wanted yet: it brings the time, too."""
    old = house.catalog.fleet.assignment(device.device)
    other = old is None or old[0] != device.epoch
    if old is None or other or not 0 <= now - (old[2] - assigning.ASSIGNMENT_LIFE) < FRESH:
        with house.catalog.transaction():
            assigning.assign(house, device, now, news=other)
        old = house.catalog.fleet.assignment(device.device)
        assert old is not None
    return old[3]


def _trust(house: House, assignment: Assignment) -> dict[str, bytes]:
    """All metadata, the manifests this device was told of, and the index that names the metadata."""
    files = house.catalog.releases.trust()
    told = {one.manifest for one in assignment.models.values()}
    told |= {arm.manifest for one in assignment.models.values() for arm in one.arms}
    ours = {f"{manifest}.manifest" for manifest in told}
    names = [name for name in publish.current(files) if not name.endswith(".manifest") or name in ours]
    index = TrustIndex(tuple(name for name in names if not name.endswith(".manifest")))
    return {name: files[name] for name in names} | {"index": codec.encode(index)}


def _blobs(house: House, assignment: Assignment) -> dict[Digest, int]:
    """What the keys in the assignment open; of a model that is off nothing is needed."""
    needed = [digest for order in assignment.models.values() if order.mode != "off" for digest in order.all_keys()]
    sizes = {digest: house.catalog.releases.blob_size(digest) for digest in needed}
    pieces = [*assignment.lookups.values(), *((assignment.config,) if assignment.config else ())]
    chunks = {digest: size.chunk for digest, size in sizes.items() if size is not None}
    return chunks | {piece.blob.sealed: piece.blob.chunk for piece in pieces}
