"""Hears the devices: status, reported state, records. Identity comes from the topic the broker let pass, and a
report counts only with the signature of that device's own certificate key."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from core.catalog import is_hosts
from core.catalog.fleet import DeviceRow
from core.fleet.floods import REPORT, Hearing, words
from core.fleet.renewal import NotRenewed
from core.fleet.reports import standing
from core.ingest.spool import Entry
from core.steward import devices, performance, questions, retained, spooling
from core.steward.house import House
from sync import codec, records, roles, topics
from sync.commands import ANSWER
from sync.errors import Barred, Damaged, Malformed, SyncError, Untrusted
from sync.link import Message
from sync.messages import (
    ALARM,
    CSR,
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
)
from sync.names import BadName, DeviceId, Kind, ModelName
from sync.reports import WhyCard
from sync.topics import Address

REPORT_LIMIT = 256 * 1024
LAST_SEQ = 2**63 - 1  # what the catalog can hold
LONGEST = 8 * 1024  # characters of a text in a report
CARD_LIMIT = 8 * 1024  # bytes of a why card
TEXT, WORD, FACTS = 1000, 200, 32  # characters of an event's text and of its words, and facts, that are kept
NOTHING: frozenset[ModelName] = frozenset()
KINDS = 16  # of records of one device, at most: each is counted for good, and no agent knows half as many


def hear(house: House, message: Message, now: float) -> frozenset[ModelName]:
    """One message from a device; what does not hold is refused with an event and changes nothing else, and so does one
    that our own code breaks on: it comes again, and would stop the core again.

    A host that fails (`core.catalog.is_hosts`) is no fault of the message: that is raised.

    Returns the models of which a rollout may follow from it: the device reports that it stands elsewhere now.
    """
    before = len(house.actions)
    try:
        return _hear(house, message, now)
    except Exception as error:  # a border: reported; further up it would end the process of all devices
        del house.actions[before:]
        if is_hosts(error):
            raise
        house.memory.floods.vain(topics.speaker(message.topic), now)
        _let_go(house, message, error, now)
        return NOTHING


def _let_go(house: House, message: Message, error: Exception, now: float) -> None:
    """Where our code broke on a message, once; not the error's own words: they may quote a payload."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"a message was let go: {type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
    if text not in house.memory.broken:
        with house.catalog.transaction():
            house.event(now, "message-failed", text, severity="alarm", topic=message.topic[:WORD])
        house.memory.broken.add(text)


def _hear(house: House, message: Message, now: float) -> frozenset[ModelName]:
    if not message.payload:
        return NOTHING  # a retained message was cleared, by us as a rule: it says nothing
    speaker = topics.speaker(message.topic)
    if message.retained and message.topic.split("/", 5)[-1] not in topics.DEVICE_RETAINED:
        house.send(message.topic, b"", retain=True)  # read or not, nothing may stay planted on the broker
    if not _may_speak(house, speaker, REPORT if message.topic.endswith("/reported") else 1.0, now):
        return NOTHING
    address = device = None
    try:
        device = house.catalog.fleet.device(DeviceId(speaker))
        address = topics.parse(message.topic)
        if device is None or address.tenant != house.tenant:
            raise Untrusted(f"{message.topic}: no such device")
        if not device.active and message.retained and address.area in topics.DEVICE_RETAINED:
            return NOTHING  # what it said before, as the broker keeps it: no word of now, and no news
        if not device.active:
            raise Barred(f"{message.topic}: {device.device} is {device.state}")
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
        house.memory.floods.vain(speaker, now)
        code = error.code if isinstance(error, SyncError) else "bad-name"
        with house.catalog.transaction():
            source = device.device if device else None
            text = _cut(str(error), TEXT)
            house.event(now, f"refused-{code}", text, severity="notice", source=source, topic=message.topic[:200])
    return NOTHING


def _may_speak(house: House, speaker: str, price: float, now: float) -> bool:
    """Whether this device has not said too much of late (`core.fleet.floods`)."""
    hearing = house.memory.floods.hear(speaker, now, price)
    if hearing is Hearing.TELL:
        with house.catalog.transaction():
            house.event(now, "device-flooding", words(speaker[:WORD]), severity="alarm", device=speaker[:WORD])
    return hearing is Hearing.READ


def _reported(house: House, device: DeviceRow, payload: bytes, now: float) -> frozenset[ModelName]:
    key = roles.public_key_from_raw(device.signing_key)
    report = roles.verify(payload, REPORTED_TYPE, Reported, [key], REPORT_LIMIT)
    if (report.tenant, report.device, report.epoch) != (house.tenant, device.device, device.epoch):
        raise Untrusted(f"report of {report.tenant}/{report.device}, epoch {report.epoch}, from {device.device}")
    if not 0 < report.seq <= LAST_SEQ:
        raise Malformed(f"report of {device.device}: seq {report.seq} is out of range")
    _check(codec.builtins(report), f"report of {device.device}")
    told = frozenset(report.models) | frozenset(device.report.models if device.report else ())
    with house.catalog.transaction():
        if devices.seen_twice(house, device, report, now):
            return told
        fresh = house.catalog.fleet.put_report(report, payload, now)
        if fresh:
            house.catalog.identities.put_boot(device.device, report.epoch, report.boot)
    if fresh:
        retained.missed(house, device.device, report.missing, now)
    moved = fresh and (device.report is None or standing(device.report) != standing(report))
    return told if moved else NOTHING


def _check(plain: Any, what: str) -> None:
    """Raises Malformed for a number or a text that no honest device comes near: whoever reckons with it or shows it
    would stumble, the pages of all devices with it."""
    if isinstance(plain, dict):
        _check((*plain.keys(), *plain.values()), what)
    elif isinstance(plain, list | tuple):
        for part in plain:
            _check(part, what)
    elif isinstance(plain, int) and abs(plain) > LAST_SEQ:
        raise Malformed(f"{what}: a number in it is out of range")
    elif isinstance(plain, str) and len(plain) > LONGEST:
        raise Malformed(f"{what}: a text of {len(plain)} characters, more than the {LONGEST} allowed")


def _record(house: House, device: DeviceRow, address: Address, payload: bytes, now: float) -> None:
    """In order, once: a number that is not the next is not taken in, unless the record says that those between are
    gone; the acknowledgement says where we are. So does the one of a record that nobody can read: its device learns
    that sending it again leads nowhere."""
    kind = address.kind
    assert kind is not None
    _check_kind(house, device, kind)
    try:
        record = _opened(house, device, kind, codec.decode(Record, payload))
    except (Malformed, Damaged):
        house.memory.stuck.add((device.device, kind))
        _acknowledge(house, device, kind, house.catalog.fleet.received(device.device, device.epoch, kind))
        raise
    with house.catalog.transaction():
        known = house.catalog.fleet.received(device.device, record.epoch, kind)
        if record.n == known + 1 or _closes_gap(record, known):
            _take(house, device, kind, record, now)
            known = record.n
            house.catalog.fleet.set_received(device.device, record.epoch, kind, known, record.boot[:WORD])
    _acknowledge(house, device, kind, known)


def _check_kind(house: House, device: DeviceRow, kind: Kind) -> None:
    """Raises Untrusted for one kind more than a device may have, of records taken in and of those nobody could read."""
    if house.catalog.fleet.received(device.device, device.epoch, kind):
        return
    stuck = {k for name, k in house.memory.stuck if name == device.device}
    known = house.catalog.fleet.all_received(device.device, device.epoch).keys() | stuck
    if kind not in known and len(known) >= KINDS:
        raise Untrusted(f"records of {device.device} of a kind more than the {KINDS} it may have")


def _opened(house: House, device: DeviceRow, kind: Kind, record: Record) -> Record:
    """The record as its device wrote it, if it is new; raises Untrusted, Malformed or Damaged."""
    if record.epoch != device.epoch:
        raise Untrusted(f"record of epoch {record.epoch}, {device.device} is in {device.epoch}")
    if not 0 < record.n <= LAST_SEQ:
        raise Malformed(f"record of {device.device}: number {record.n} is out of range")
    if kind == SAMPLE or record.n <= house.catalog.fleet.received(device.device, record.epoch, kind):
        return record
    return records.unseal(record, house.tenant, device.device, kind, house.keys.reports)


def _acknowledge(house: House, device: DeviceRow, kind: Kind, known: int) -> None:
    boot = house.catalog.fleet.written_by(device.device, device.epoch, kind)
    ack = codec.encode(Ack(device.epoch, known, boot))
    house.send(topics.ack(house.tenant, device.device, kind), ack, expiry=3600)


def _closes_gap(record: Record, known: int) -> bool:
    """Whether it stands for all numbers from the next one to its own: the device gave them up (`edge.outbox`)."""
    body = bytes(record.body)
    first = codec.decode(DeviceEvent, body).facts.get("first") if _is_gap(body) else None
    return record.n > known and isinstance(first, int) and first <= known + 1


def _take(house: House, sender: DeviceRow, kind: Kind, record: Record, now: float) -> None:
    """A record that cannot be read is kept as an event, so that the queue behind it moves on."""
    device = sender.device
    facts: dict[str, Any] = {"n": record.n, "device_ts": record.ts}
    body = bytes(record.body)
    try:
        if kind in (EVENT, ALARM) or _is_gap(body):
            event = codec.decode(DeviceEvent, body)
            _event(house, device, event, facts, now)
            questions.heard(house, device, event)
        elif kind == SAMPLE:
            spooling.take(house, Entry(device, record.epoch, record.n), codec.decode(SampleBatch, body), now)
        elif kind == WHY:
            _why(house, device, codec.decode(WhyCard, body), facts, now)
        elif kind == ANSWER:
            questions.take_part(house, device, record.epoch, body, now)
        elif kind == CSR:
            _renewal(house, sender, body, facts, now)
        elif kind == performance.KIND:
            performance.take(house, sender, body, now)
        else:
            house.catalog.events.add(now, device, f"record-{kind}", f"{len(body)} bytes", facts=facts)
    except Malformed as error:
        text = _cut(str(error), TEXT)
        house.catalog.events.add(now, device, "record-malformed", text, severity="notice", facts=facts)


def _renewal(house: House, device: DeviceRow, body: bytes, facts: dict[str, Any], now: float) -> None:
    try:
        devices.renew(house, device, body, now)
    except (NotRenewed, Untrusted) as error:
        text = _cut(str(error), TEXT)
        house.catalog.events.add(now, device.device, "renewal-refused", text, severity="notice", facts=facts)


def _event(house: House, device: DeviceId, event: DeviceEvent, facts: dict[str, Any], now: float) -> None:
    """Cut to a size of which a table full of them stays small: what is longer was written to fill a disk."""
    told = {_cut(name, WORD): _bounded(fact) for name, fact in list(event.facts.items())[:FACTS]}
    house.catalog.events.add(
        now, device, _cut(event.code, WORD), _cut(event.text, TEXT), severity=event.severity, model=event.model,
        facts=told | facts,
    )  # fmt: skip


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _bounded(fact: str | int | float) -> str | int | float:
    if isinstance(fact, str):
        return _cut(fact, WORD)
    return fact if isinstance(fact, float) or abs(fact) <= LAST_SEQ else float("inf" if fact > 0 else "-inf")


def _why(house: House, device: DeviceId, card: WhyCard, facts: dict[str, Any], now: float) -> None:
    """Kept whole, and told: the device gave a verdict against a release."""
    size = len(codec.encode(card))
    if size > CARD_LIMIT:
        raise Malformed(f"why card of {device}: {size} bytes, more than the {CARD_LIMIT} allowed")
    _check(codec.builtins(card), f"why card of {device}")
    if card.new.number < 1:
        raise Malformed(f"why card of {device}: there is no release {card.new.number}")
    house.catalog.fleet.add_why(device, card, now)
    told = {"criterion": _cut(card.criterion, WORD), "phase": _cut(card.phase, WORD), "number": card.new.number}
    text = f"release {card.new.number} refused in {told['phase']}: {card.text}"
    house.catalog.events.add(
        now, device, "release-refused", _cut(text, TEXT), severity="alarm", model=card.model, facts=facts | told
    )


def _is_gap(body: bytes) -> bool:
    try:
        return codec.decode(DeviceEvent, body).code == topics.GAP
    except Malformed:
        return False
