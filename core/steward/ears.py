"""Hears the devices: status, reported state, records. Identity comes from the topic the broker let pass, and a
report counts only with the signature of that device's own certificate key."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from core.catalog.fleet import DeviceRow
from core.ingest.spool import Entry
from core.steward.house import House
from sync import codec, roles, topics
from sync.errors import Malformed, SyncError, Untrusted
from sync.link import Message
from sync.messages import (
    EVENT,
    REPORTED_TYPE,
    SAMPLE,
    WHY,
    Ack,
    DeviceEvent,
    Record,
    Reported,
    SampleBatch,
    Status,
    WhyCard,
)
from sync.names import BadName, DeviceId, Kind
from sync.topics import Address

REPORT_LIMIT = 256 * 1024
LAST_SEQ = 2**63 - 1  # what the catalog can hold


def hear(house: House, message: Message, now: float) -> bool:
    """One message from a device; what does not hold is refused with an event and changes nothing else.

    True if the device's reported state is another now: only that can move a rollout.
    """
    if not message.payload:
        return False  # a retained message was cleared, by us as a rule: it says nothing
    address = device = None
    try:
        address = topics.parse(message.topic)
        device = house.catalog.fleet.device(address.device) if address.device else None
        if device is None or address.tenant != house.tenant:
            raise Untrusted(f"{message.topic}: no such device")
        if message.retained and address.area not in topics.DEVICE_RETAINED:
            raise Untrusted(f"{message.topic}: retained where nothing may be")
        match address.area:
            case "reported":
                return _reported(house, device, message.payload, now)
            case "status":
                status = codec.decode(Status, message.payload)
                with house.catalog.transaction():
                    house.catalog.fleet.put_status(device.device, status, now)
            case "up":
                _record(house, device, address, message.payload, now)
    except (BadName, SyncError) as error:
        code = error.code if isinstance(error, SyncError) else "bad-name"
        if message.retained and (address is None or address.area not in topics.DEVICE_RETAINED):
            house.send(message.topic, b"", retain=True)  # nothing may stay planted on the broker
        with house.catalog.transaction():
            source = device.device if device else None
            house.event(now, f"refused-{code}", str(error), severity="notice", source=source, topic=message.topic[:200])
    return False


def _reported(house: House, device: DeviceRow, payload: bytes, now: float) -> bool:
    key = roles.public_key_from_raw(device.signing_key)
    report = roles.verify(payload, REPORTED_TYPE, Reported, [key], REPORT_LIMIT)
    if (report.tenant, report.device, report.epoch) != (house.tenant, device.device, device.epoch):
        raise Untrusted(f"report of {report.tenant}/{report.device}, epoch {report.epoch}, from {device.device}")
    if not 0 < report.seq <= LAST_SEQ:
        raise Malformed(f"report of {device.device}: seq {report.seq} is out of range")
    with house.catalog.transaction():
        fresh = house.catalog.fleet.put_report(report, payload, now)
    if fresh:
        for digest, indices in report.missing.items():
            house.publish_missing(digest, indices, now)
    return fresh


def _record(house: House, device: DeviceRow, address: Address, payload: bytes, now: float) -> None:
    """In order, once: a number that is not the next is not taken in, unless the record says that those between are
    gone; the acknowledgement says where we are."""
    record = codec.decode(Record, payload)
    kind = address.kind
    assert kind is not None
    if record.epoch != device.epoch:
        raise Untrusted(f"record of epoch {record.epoch}, {device.device} is in {device.epoch}")
    if not 0 < record.n <= LAST_SEQ:
        raise Malformed(f"record of {device.device}: number {record.n} is out of range")
    with house.catalog.transaction():
        known = house.catalog.fleet.received(device.device, record.epoch, kind)
        if record.n == known + 1 or _closes_gap(record, known):
            _take(house, device.device, kind, record, now)
            known = record.n
            house.catalog.fleet.set_received(device.device, record.epoch, kind, known)
    ack = codec.encode(Ack(record.epoch, known))
    house.send(topics.ack(house.tenant, device.device, kind), ack, expiry=3600)


def _closes_gap(record: Record, known: int) -> bool:
    """Whether it stands for all numbers from the next one to its own: the device gave them up (`edge.outbox`)."""
    body = bytes(record.body)
    first = codec.decode(DeviceEvent, body).facts.get("first") if _is_gap(body) else None
    return record.n > known and isinstance(first, int) and first <= known + 1


def _take(house: House, device: DeviceId, kind: Kind, record: Record, now: float) -> None:
    """A record that cannot be read is kept as an event, so that the queue behind it moves on."""
    facts: dict[str, Any] = {"n": record.n, "device_ts": record.ts}
    body = bytes(record.body)
    try:
        if kind == EVENT or (kind in (SAMPLE, WHY) and _is_gap(body)):
            _event(house, device, codec.decode(DeviceEvent, body), facts, now)
        elif kind == SAMPLE:
            _samples(house, Entry(device, record.epoch, record.n), codec.decode(SampleBatch, body), now)
        elif kind == WHY:
            _why(house, device, codec.decode(WhyCard, body), facts, now)
        else:
            house.catalog.events.add(now, device, f"record-{kind}", f"{len(body)} bytes", facts=facts)
    except Malformed as error:
        house.catalog.events.add(now, device, "record-malformed", str(error), severity="notice", facts=facts)


def _event(house: House, device: DeviceId, event: DeviceEvent, facts: dict[str, Any], now: float) -> None:
    house.catalog.events.add(
        now, device, event.code, event.text, severity=event.severity, model=event.model, facts=facts | event.facts
    )


def _samples(house: House, entry: Entry, batch: SampleBatch, now: float) -> None:
    """Into the spool, as it is: nobody here can open it. The file is on the disk before the record is committed, and a
    file of a record that was not is written anew when the record comes again."""
    try:
        sealed = base64.b64decode(batch.sealed, validate=True)
    except binascii.Error as error:
        raise Malformed(f"samples of {entry.device}: not base64: {error}") from error
    if house.catalog.samples.spooled() + len(sealed) > house.spool_bytes:
        _drop(house, entry, batch, f"they fill their {house.spool_bytes >> 20} MiB", now)
        return
    try:
        house.spool.put(batch.model, entry, sealed)
    except OSError as error:
        _drop(house, entry, batch, f"the disk does not take them: {error}", now)
        return
    house.spool_full = False
    house.catalog.samples.add(entry.device, entry.epoch, entry.n, batch.model, len(sealed), now)


def _drop(house: House, entry: Entry, batch: SampleBatch, why: str, now: float) -> None:
    """The device must not wait for ever for an acknowledgement; a loss is said once, until there is room again."""
    if house.spool_full:
        return
    house.spool_full = True
    text = (
        f"newer samples are dropped, {why}; have those that wait taken in: run `falaj ingest` on the source of kind "
        "samples"
    )
    house.event(now, "samples-dropped", text, severity="alarm", model=batch.model, device=entry.device)


def _why(house: House, device: DeviceId, card: WhyCard, facts: dict[str, Any], now: float) -> None:
    """Kept whole, and told: the device gave a verdict against a release."""
    house.catalog.fleet.add_why(device, card, now)
    told = {"criterion": card.criterion, "phase": card.phase, "number": card.new.number}
    text = f"release {card.new.number} refused in {card.phase}: {card.text}"
    house.catalog.events.add(
        now, device, "release-refused", text, severity="alarm", model=card.model, facts=facts | told
    )


def _is_gap(body: bytes) -> bool:
    try:
        return codec.decode(DeviceEvent, body).code == topics.GAP
    except Malformed:
        return False
