"""Reads what arrives on the uplink: assignments, trust files, chunks, acknowledgements, labels. Nothing of it is
believed before it is checked, and a wrong message changes nothing but leaves an event with a stable code; of many like
it, as many as are worth reading."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from edge import roots
from edge.agent import commands
from edge.agent.house import House
from edge.roots import TRUST_FILE_LIMIT
from sync import codec, roles, topics
from sync.errors import Malformed, SyncError, Untrusted
from sync.link import Message
from sync.messages import ASSIGNMENT_TYPE, Ack, Arm, Assignment, CoreStatus, Labels, ModelOrder, TrustIndex
from sync.names import BadName, ModelName, TrustFile
from sync.topics import Address

TRUST_FILES = 1024  # how many at most are held ...
TRUST_BYTES = 8 * 1024 * 1024  # ... and how much of them: a broker must not fill the memory of a small box


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
        house.complain(now, "unknown-topic", str(error), severity="notice")
    except SyncError as error:
        if address.area == "trust":
            house.refuse_files(error, now, topic=message.topic)
        else:
            house.complain(now, f"refused-{error.code}", str(error), topic=message.topic)


def read_assignment(house: House, payload: bytes) -> Assignment:
    """The assignment in an envelope of the director; raises Untrusted or Malformed."""
    assignment = roles.verify(payload, ASSIGNMENT_TYPE, Assignment, house.directors())
    identity = house.identity
    if (assignment.tenant, assignment.device) != (identity.tenant, identity.device):
        raise Untrusted(f"assignment for {assignment.tenant}/{assignment.device}")
    return assignment


def _desired(house: House, _: Address, payload: bytes, now: float) -> None:
    house.ended = None
    _order(house, payload, now)


def _order(house: House, payload: bytes, now: float) -> None:
    """Signature, addressee, order, expiry; then it is journalled and the models are reconciled with it."""
    if house.void and payload == house.void:
        return  # no attack: the broker has not heard the new director yet
    assignment = read_assignment(house, payload)
    mark = (house.journal.counter("epoch"), house.journal.counter("desired_seq"))
    place = (assignment.epoch, assignment.seq)
    if place == mark and house.assignment is not None:
        return  # the retained copy again; where the journal's cannot be read any more, it is what brings it back
    if place < mark:
        raise Untrusted(f"assignment {place} is older than {mark}: a replay")
    if now > assignment.expires:
        house.ended = payload, assignment.expires
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
    house.waits.hurry()
    if house.clock_is_off(now):
        text = f"assignment {place} is kept, nothing is installed before the clock is right: check this device's time"
        house.event(now, "clock-unset", text, severity="notice")


def _tell_below_floor(house: House, before: Assignment | None, assignment: Assignment, now: float) -> None:
    """A release below the floor that its own order names is not taken up; told once, not with each renewal of it."""
    for model, order in assignment.models.items():
        known = before.models.get(model) if before else None
        told = _below_floor(house, model, known) if known is not None else set()
        for number in sorted(_below_floor(house, model, order) - told):
            text = f"release {number} is ordered, and nothing below {order.floor}: not taken up, what serves goes on"
            house.event(now, "below-floor", text, model, "alarm", number=number, floor=order.floor)


def _below_floor(house: House, model: ModelName, order: ModelOrder) -> set[int]:
    """The numbers that an order names below its own floor, but for what answers already."""
    d = house.deployments.get(model)
    serves = d.serving.release.manifest if d is not None and d.serving is not None else None
    named: tuple[ModelOrder | Arm, ...] = () if order.mode == "off" else (order, *order.arms)
    return {one.number for one in named if one.number < order.floor and one.manifest != serves}


def look_again(house: House, now: float) -> None:
    """An assignment that had ended by a clock that was ahead counts once the clock is right: no session brings it a
    second time."""
    if house.ended is None or now > house.ended[1]:
        return
    envelope, house.ended = house.ended[0], None
    try:
        _order(house, envelope, now)
    except SyncError as error:
        house.event(now, f"refused-{error.code}", str(error), severity="alarm")


def _trust(house: House, address: Address, payload: bytes, now: float) -> None:
    name = str(address.file)
    if name == "index":
        before, house.index = house.index, _index(payload)
        house.news.unread = True
        # It changes with the index; once asked for it is heard, but a broker drops what a slow line holds up.
        if "timestamp.json" not in house.files or house.index != before:
            house.listen(topics.trust(address.tenant, TrustFile("timestamp.json")))
        return
    if len(payload) > TRUST_FILE_LIMIT:
        raise Untrusted(f"trust file {name} has {len(payload)} bytes, {TRUST_FILE_LIMIT} are allowed")
    others = [len(data) for held, data in house.files.items() if held != name]
    if len(others) >= TRUST_FILES or sum(others) + len(payload) > TRUST_BYTES:
        house.files.clear()  # so that a flood does not keep the real ones out for good
        raise Untrusted(f"more than {TRUST_FILES} trust files or {TRUST_BYTES} bytes came; they are asked for again")
    if payload:
        # The timestamp is published after all it stands for: with older files a new root would seem not to fit.
        other = house.files.get(name) != payload
        house.news.unread |= name == "timestamp.json" and other
        house.news.came += other
        house.files[name] = payload
    if name.endswith(".root.json"):
        follow_roots(house, now)
    # The timestamp changes under its name, and the next root is waited for as long as the device lives.
    if name not in ("timestamp.json", roots.next_root(house.root)):
        house.unlisten(topics.trust(address.tenant, address.file))  # type: ignore[arg-type]


def tidy(house: House) -> None:
    """Once the files were read: what neither the index nor an order names is not read again."""
    assignment = house.assignment
    orders = assignment.models.values() if assignment else ()
    manifests = (digest for order in orders for digest in (order.manifest, *(arm.manifest for arm in order.arms)))
    named = {name for name in house.index if not name.endswith(".manifest")}
    named |= {"timestamp.json", roots.next_root(house.root), *(f"{digest}.manifest" for digest in manifests)}
    house.files = {name: data for name, data in house.files.items() if name in named}


def follow_roots(house: House, now: float) -> None:
    """Takes up newer roots as they arrive, with an order or without: the director's key changes with them."""
    try:
        root = roots.newer_root(house.root, house.files)
    except Untrusted:
        house.files.pop(roots.next_root(house.root), None)
        raise
    adopt(house, root, now)


def adopt(house: House, root: bytes, now: float) -> None:
    """A root that was verified: journalled with the mark under it, then in force."""
    if root == house.root:
        return
    lost = house.lacks_roots()
    replaced = roots.director_replaced(house.root, root) and not lost  # else that was done when it was trusted first
    if replaced:
        house.void = house.journal.assignment() or b""
    house.journal.adopt(root, roots.settled(house.journal.high_water(), house.root, root), orders_void=replaced)
    house.root = root
    house.dirty = True
    house.listen(topics.trust(house.identity.tenant, roots.next_root(root)))
    if replaced or lost:
        house.listen(topics.desired(house.identity.tenant, house.identity.device))  # sent anew, and read by the new key
    if replaced:
        house.assignment = None
        house.event(now, "director-replaced", "a new root names another director; its orders count", severity="notice")


def known_root(house: House) -> bytes:
    """The newest root that this device trusted. Where the journal's cannot be read: the newest that a release held here
    was accepted under, else the enrolment's."""
    kept, found = house.journal.root(), [house.identity.root]
    if kept is not None:
        try:
            roots.trusted(kept)
            return kept
        except Untrusted as error:
            house.journal.lose_root(str(error))
    if not house.journal.high_water():
        return house.identity.root
    for root in house.journal.accepted_roots():
        with suppress(Untrusted):
            roots.trusted(root)
            found.append(root)
    return max(found, key=lambda root: roots.trusted(root).version)


def _index(payload: bytes) -> tuple[str, ...]:
    """The hint is unsigned: a name in it that is no file name must not get any further."""
    files = codec.decode(TrustIndex, payload).files[:TRUST_FILES]
    try:
        return tuple(TrustFile(name) for name in files)
    except BadName as error:
        raise Malformed(f"trust index: {error}") from error


def _blob(house: House, address: Address, payload: bytes, now: float) -> None:
    """A chunk: checked against its own hash before a byte touches the disk."""
    assert address.digest is not None and address.index is not None
    download = house.downloads.get(address.digest)
    if download is None or not payload:
        return
    if not download.arrived(address.index, payload, now):
        if address.index not in download.have and download.first_wrong():
            text = f"chunk {address.index} of {address.digest[:12]} is not what was signed"
            house.complain(now, "chunk-damaged", text)
        return
    try:
        house.artifacts.put(download.blob, address.index, payload)
    except OSError as error:
        download.refused(address.index)
        house.event(now, "disk-refused", f"chunk not written: {error.strerror}", severity="alarm")
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
        house.complain(now, "outbox-cut-short", text)


def _labels(house: House, address: Address, payload: bytes, now: float) -> None:
    """Each label goes to whoever keeps predictions; those refused are told in one event."""
    labels = codec.decode(Labels, payload).labels
    refused = Counter(str(why) for one, label in labels.items() if (why := house.label(one, label)) is not None)
    if refused:
        why = ", ".join(f"{n} {code}" for code, n in sorted(refused.items()))
        text = f"{refused.total()} of {len(labels)} labels are not kept: {why}"
        house.complain(now, "labels-refused", text, severity="notice")


def _core_status(house: House, _: Address, payload: bytes, now: float) -> None:
    house.core.heard(codec.decode(CoreStatus, payload), house.identity.device, now)


def _ignore(house: House, address: Address, payload: bytes, now: float) -> None:
    """Topics of the protocol that this agent version does not act on."""


_RETAINED = frozenset({"desired", "trust", "blob", "core-status"})  # what a broker may keep for us
_HANDLERS = {
    "desired": _desired,
    "trust": _trust,
    "blob": _blob,
    "ack": _ack,
    "labels": _labels,
    "cmd": commands.take,
    "core-status": _core_status,
    "reported": _ignore,
    "status": _ignore,
    "up": _ignore,
}
