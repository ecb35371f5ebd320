"""Reads what arrives on the uplink: assignments, trust files, chunks, acknowledgements, labels. Nothing of it is
believed before it is checked, and a wrong message changes nothing but leaves an event with a stable code; of many like
it, as many as are worth reading."""

from __future__ import annotations

from collections import Counter

from edge.agent import commands, trusting
from edge.agent.house import House
from sync import codec, roles, topics
from sync.errors import SyncError, Untrusted
from sync.link import Message
from sync.messages import ASSIGNMENT_TYPE, Ack, Arm, Assignment, CoreStatus, Labels, ModelOrder
from sync.names import BadName, ModelName
from sync.topics import Address


def take(house: House, message: Message, now: float) -> None:
    """One message of the uplink; refusals end here as an event."""
    try:
        address = topics.parse(message.topic)
        if address.tenant != house.identity.tenant or address.device not in (None, house.identity.device):
            raise Untrusted(f"{message.topic} is not for this device")
        if message.retained and address.area not in _RETAINED:
            raise Untrusted(f"{message.topic}: retained where nothing may be")
        _HANDLERS[address.area](house, address, message.payload, now)
    except BadName as error:
        house.events.complain(now, "unknown-topic", str(error), severity="notice")
    except SyncError as error:
        if address.area == "trust":
            trusting.refuse(house, error, now, topic=message.topic)
        else:
            house.events.complain(now, f"refused-{error.code}", str(error), topic=message.topic)


def read_assignment(house: House, payload: bytes) -> Assignment:
    """The assignment in an envelope of the director; raises Untrusted or Malformed."""
    assignment = roles.verify(payload, ASSIGNMENT_TYPE, Assignment, trusting.directors(house))
    identity = house.identity
    if (assignment.tenant, assignment.device) != (identity.tenant, identity.device):
        raise Untrusted(f"assignment for {assignment.tenant}/{assignment.device}")
    return assignment


def _desired(house: House, _: Address, payload: bytes, now: float) -> None:
    house.trust.ended = None
    _order(house, payload, now)


def _order(house: House, payload: bytes, now: float) -> None:
    """Signature, addressee, order, expiry; then it is journalled and the models are reconciled with it."""
    if house.trust.void and payload == house.trust.void:
        return  # no attack: the broker has not heard the new director yet
    assignment = read_assignment(house, payload)
    mark = (house.journal.counter("epoch"), house.journal.counter("desired_seq"))
    place = (assignment.epoch, assignment.seq)
    if place == mark and house.assignment is not None:
        return  # the retained copy again; where the journal's cannot be read any more, it is what brings it back
    if place < mark:
        raise Untrusted(f"assignment {place} is older than {mark}: a replay")
    if now > assignment.expires:
        house.trust.ended = payload, assignment.expires
        raise Untrusted(f"assignment {place} has expired")
    known = house.assignment.tenant_key if house.assignment else ""
    if known and assignment.tenant_key != known:
        raise Untrusted("the order names another key to seal readings to, which only another director may bring")
    house.journal.take_assignment(payload, *place, assignment.ts)
    before, house.assignment = house.assignment, assignment
    house.outbox.alarms_apart = assignment.alarms
    house.dirty = True
    _tell_below_floor(house, before, assignment, now)
    house.blocked.hurry()  # it may take away what was in the way
    house.pieces.waits.hurry()
    if house.clock_is_off(now):
        text = f"assignment {place} is kept, nothing is installed before the clock is right: check this device's time"
        house.events.report(now, "clock-unset", text, severity="notice")


def _tell_below_floor(house: House, before: Assignment | None, assignment: Assignment, now: float) -> None:
    """A release below the floor that its own order names is not taken up; told once, not with each renewal of it."""
    for model, order in assignment.models.items():
        known = before.models.get(model) if before else None
        told = _below_floor(house, model, known) if known is not None else set()
        for number in sorted(_below_floor(house, model, order) - told):
            text = f"release {number} is ordered, and nothing below {order.floor}: not taken up, what serves goes on"
            house.events.report(now, "below-floor", text, model, "alarm", number=number, floor=order.floor)


def _below_floor(house: House, model: ModelName, order: ModelOrder) -> set[int]:
    """The numbers that an order names below its own floor, but for what answers already."""
    d = house.deployments.get(model)
    serves = d.serving.release.manifest if d is not None and d.serving is not None else None
    named: tuple[ModelOrder | Arm, ...] = () if order.mode == "off" else (order, *order.arms)
    return {one.number for one in named if one.number < order.floor and one.manifest != serves}


def look_again(house: House, now: float) -> None:
    """An assignment that had ended by a clock that was ahead counts once the clock is right: no session brings it a
    second time."""
    if house.trust.ended is None or now > house.trust.ended[1]:
        return
    envelope, house.trust.ended = house.trust.ended[0], None
    try:
        _order(house, envelope, now)
    except SyncError as error:
        house.events.report(now, f"refused-{error.code}", str(error), severity="alarm")


def _blob(house: House, address: Address, payload: bytes, now: float) -> None:
    """A chunk: checked against its own hash before a byte touches the disk."""
    assert address.digest is not None and address.index is not None
    download = house.downloads.get(address.digest)
    if download is None or not payload:
        return
    if not download.arrived(address.index, payload, now):
        if address.index not in download.have and download.first_wrong():
            text = f"chunk {address.index} of {address.digest[:12]} is not what was signed"
            house.events.complain(now, "chunk-damaged", text)
        return
    try:
        house.artifacts.put(download.blob, address.index, payload)
    except OSError as error:
        download.refused(address.index)
        house.events.report(now, "disk-refused", f"chunk not written: {error.strerror}", severity="alarm")
        return
    house.unlisten(topics.blob(address.tenant, address.digest, address.index))


def _ack(house: House, address: Address, payload: bytes, now: float) -> None:
    assert address.kind is not None
    ack = codec.decode(Ack, payload)
    known = house.outbox.last(address.kind)
    if house.outbox.acknowledged(address.kind, ack.epoch, ack.n, ack.boot):
        text = (
            f"the core has records of kind {address.kind} up to {ack.n}, and the outbox, which counted up to "
            f"{known}, did not write them: it lost its end, check the disk; what was written since counts on after them"
        )
        house.events.complain(now, "outbox-cut-short", text)


def _labels(house: House, address: Address, payload: bytes, now: float) -> None:
    """Each label goes to whoever keeps predictions; those refused are told in one event."""
    labels = codec.decode(Labels, payload).labels
    keep = house.evidence.label
    refused = Counter(str(why) for one, label in labels.items() if (why := keep(one, label)) is not None)
    if refused:
        why = ", ".join(f"{n} {code}" for code, n in sorted(refused.items()))
        text = f"{refused.total()} of {len(labels)} labels are not kept: {why}"
        house.events.complain(now, "labels-refused", text, severity="notice")


def _core_status(house: House, _: Address, payload: bytes, now: float) -> None:
    house.core.heard(codec.decode(CoreStatus, payload), house.identity.device, now)


def _ignore(house: House, address: Address, payload: bytes, now: float) -> None:
    """Topics of the protocol that this agent version does not act on."""


_RETAINED = frozenset({"desired", "trust", "blob", "core-status"})  # what a broker may keep for us
_HANDLERS = {
    "desired": _desired,
    "trust": trusting.take,
    "blob": _blob,
    "ack": _ack,
    "labels": _labels,
    "cmd": commands.take,
    "core-status": _core_status,
    "reported": _ignore,
    "status": _ignore,
    "up": _ignore,
}
