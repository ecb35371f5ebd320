"""The orders by which devices join: requests from the network, and a person's word on those that wait. Whom they need
for it, `inviting` has."""

from __future__ import annotations

from typing import Any

from core import orders
from core.catalog.fleet import ACTIVE
from core.catalog.identities import SiteTokenRow, WaitingRow
from core.fleet import boxes, enrolment, renewal
from core.fleet.enrolment import Applicant, WrongSecret
from core.fleet.guesses import Word
from core.steward import devices, inviting, rounds
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import codec
from sync.enrolment import (
    EnrolAnswer,
    EnrolRequest,
    EnrolWaiting,
    fingerprint,
    hash_secret,
    knows_secret,
    prove_answer,
)
from sync.errors import SyncError
from sync.names import BadName, DeviceId, SiteId

TOKEN_ATTEMPTS = 5  # bad requests of somebody who knows the token
QUOTED = 200  # characters of what a stranger sent that an event may quote


# --- requests from the network ----------------------------------------------------------------------------------


def enrol(house: House, order: orders.Enrol, now: float) -> dict[str, Any]:
    """A newcomer's request. Who does not know the token gets the same answer for every reason, and can use up nothing
    of it: only what the token's holder does counts against it."""
    try:
        asked = enrolment.peek(order.envelope.encode())
    except SyncError as error:  # a name that is none, as a rule; whoever sends it may be told what is wrong with it
        _turned_away(house, order, f"a request that nobody can read: {str(error)[:QUOTED]}", now)
        raise Refusal(error.code, str(error), noted=True) from error
    if asked.site is not None:
        return _enrol_box(house, order, asked, asked.site, now)
    token = house.catalog.fleet.token(asked.device) if asked.device else None
    if asked.device is None or token is None:
        raise _turned_away(house, order, f"for {asked.device}", now)
    if asked.proof and token.used is not None and (again := _same_box(house, order, asked.device, token.secret)):
        return again  # from a folder, where an answer may be lost on its way as well
    if token.used is not None or now > token.expires or token.attempts >= TOKEN_ATTEMPTS:
        raise _turned_away(house, order, f"for {asked.device}: the token is used, expired or tried too often", now)
    try:
        found = enrolment.check(order.envelope.encode(), house.tenant, token.secret)
    except WrongSecret as error:
        raise _turned_away(house, order, f"for {asked.device}: {error}", now) from error
    except SyncError as error:
        if not asked.proof:  # a proof says nothing of who brings it: whoever holds the folder could use the token up
            house.catalog.fleet.token_tried(asked.device)
        raise _turned_away(house, order, f"for {asked.device}: {error}", now) from error
    _check_key(house, asked.device, found.signing_key, now)
    house.catalog.fleet.token_used(asked.device, now)
    return _join(house, asked.device, found.signing_key, found.sealing_key, now)


def enrol_by_folder(house: House, order: orders.EnrolByFolder, now: float) -> dict[str, Any]:
    """A newcomer's request that came in a folder, and the answer that goes back in it."""
    asked = enrolment.peek(order.envelope.encode())
    if not asked.proof or asked.secret:
        text = "a request in a folder proves that it knows the token, and never says it"
        raise Refusal("enrolment-refused", text, "make it with `falaj edge enrol --folder`")
    result = enrol(house, orders.Enrol(actor=order.actor, envelope=order.envelope, source="folder"), now)
    secret = secret_of(house, asked)
    assert secret is not None  # the request was admitted by it
    key = enrolment.check(order.envelope.encode(), house.tenant, secret).signing_key
    answer = codec.encode(prove_answer(codec.encode(result), key, secret)).decode()
    return {"device": result.get("device", ""), "waiting": result.get("waiting", ""), "answer": answer}


def secret_of(house: House, asked: EnrolRequest) -> str | None:
    """The hash of the secret that this request speaks of: of a box of a site that says one, of that one, whether or not
    it was ever issued; else of the one that the request knows, None if it knows none that was issued."""
    if asked.site is not None and not asked.proof:
        return hash_secret(asked.secret)
    if asked.site is not None:
        hashes: tuple[str, ...] = house.catalog.identities.site_secrets(asked.site)
    else:
        token = house.catalog.fleet.token(asked.device) if asked.device else None
        hashes = (token.secret,) if token else ()
    return next((one for one in hashes if knows_secret(asked, one)), None)


def _same_box(house: House, order: orders.Enrol, name: DeviceId, secret: str) -> dict[str, Any] | None:
    """The answer that a device was given before, to the holder of the same keys and of its token."""
    device = house.catalog.fleet.device(name)
    try:
        found = enrolment.check(order.envelope.encode(), house.tenant, secret)
    except SyncError:
        return None
    if device is None or (device.state, device.signing_key) != (ACTIVE, found.signing_key):
        return None
    return _answer(house, name, device.epoch)


def _enrol_box(house: House, order: orders.Enrol, asked: EnrolRequest, site: SiteId, now: float) -> dict[str, Any]:
    """A box of a site. It may ask again with the same keys as often as it likes: an answer can be lost on its way."""
    secret = secret_of(house, asked) or ""
    token = house.catalog.identities.site_token(secret)
    if token is None or token.site != site:
        raise _turned_away(house, order, f"for {asked.serial} of {site}", now)
    try:
        found = enrolment.check(order.envelope.encode(), house.tenant, secret)
    except SyncError as error:
        raise _turned_away(house, order, f"for {asked.serial} of {site}: {error}", now) from error
    name = _name(house, token, found, now)
    device, waiting = house.catalog.fleet.device(name), house.catalog.identities.waiting(name)
    if device is not None and (device.state, device.signing_key) == (ACTIVE, found.signing_key):
        return _answer(house, name, device.epoch)
    if device is None and waiting is not None and waiting.signing_key == found.signing_key:
        return _waits(name, found.signing_key)
    if device is not None or waiting is not None:
        raise _taken(house, found, name, now)
    _check_key(house, name, found.signing_key, now)
    if now > token.expires or token.used >= token.uses:
        raise _turned_away(house, order, f"for {asked.serial} of {site}: the token is used up or expired", now)
    house.catalog.identities.site_token_used(secret)
    if not token.approve:
        return _join(house, name, found.signing_key, found.sealing_key, now)
    assert asked.serial is not None
    row = WaitingRow(name, asked.serial, site, now, found.signing_key, found.sealing_key)
    house.catalog.identities.put_waiting(row)
    told = fingerprint(found.signing_key)
    house.event(
        now, "device-waiting", f"{name}, serial number {asked.serial} at {site}, fingerprint {told}: "
        f"`falaj device accept {name}` admits it", severity="notice",
    )  # fmt: skip
    return _waits(name, found.signing_key)


def _name(house: House, token: SiteTokenRow, found: Applicant, now: float) -> DeviceId:
    """What this box is called: as it was imported for this site, else, where a person looks at each, by its number."""
    serial = found.request.serial
    box = house.catalog.identities.box(serial) if serial is not None else None
    try:
        if box is not None and box.site == token.site:
            return box.name
        if serial is not None and box is None and token.approve:
            return boxes.proposed(serial)
    except BadName as error:
        text = f"no name follows from the serial number {serial}: {error}"
        raise _say(house, "serial-unknown", text, "import the box under a name, then try again", now) from error
    text = f"no box with the serial number {serial} is expected at {token.site}"
    raise _say(house, "serial-unknown", text, "add it to the list and import it: `falaj device import`", now)


def _taken(house: House, found: Applicant, name: DeviceId, now: float) -> Refusal:
    text = f"a box with other keys says that it is {found.request.serial}, and {name} is enrolled or waits already"
    hint = f"is it the same box made anew, `falaj device replace {name}`; if not, find out who holds the site's token"
    return _say(house, "serial-taken", text, hint, now, "alarm")


def _check_key(house: House, name: DeviceId, key: bytes, now: float) -> None:
    """Raises Refusal where the key is another device's: two that share one are no two that speak for themselves, and
    each can take the other's place."""
    bearer = house.catalog.identities.bearer(key)
    if bearer not in (None, name):
        text = f"a box that asks to join as {name} has the key of {bearer}"
        hint = f"was its disk copied from {bearer}'s? Enrol it from an empty folder; if that one is gone, revoke it"
        raise _say(house, "key-taken", text, hint, now, "alarm")


def _say(house: House, code: str, text: str, hint: str, now: float, severity: str = "notice") -> Refusal:
    """For somebody who knows the token: what is wrong may be said. Repeated tries are counted like guesses."""
    if house.memory.guesses.wrong(code, now) is Word.TELL:
        house.event(now, code, text, severity=severity, source="enrolment")
    return Refusal(code, text, hint, noted=True)


def _turned_away(house: House, order: orders.Enrol, text: str, now: float) -> Refusal:
    match house.memory.guesses.wrong(order.source, now):
        case Word.TELL:
            house.event(now, "enrolment-refused", text, severity="notice", source="enrolment", origin=order.source)
        case Word.FLOOD:
            flood = f"more of these from {order.source or 'one address'} are not told for an hour: {text}"
            house.event(now, "enrolment-flood", flood, severity="alarm", source="enrolment", origin=order.source)
    hint = "ask for a new one: `falaj device token NAME`"
    return Refusal("enrolment-refused", "the token does not hold", hint, noted=True)


# --- admitted ---------------------------------------------------------------------------------------------------


def accept(house: House, order: orders.Accept, now: float) -> dict[str, Any]:
    """Boxes that wait get their certificates; a device that was seen twice, and was not, may speak again."""
    named = order.devices or tuple(row.device for row in house.catalog.identities.all_waiting())
    for name in named:
        waiting, device = house.catalog.identities.waiting(name), house.catalog.fleet.device(name)
        if waiting is not None and device is None:
            _check_key(house, name, waiting.signing_key, now)
            _join(house, name, waiting.signing_key, waiting.sealing_key, now)
        elif device is not None and device.state == "cloned":
            devices.lift(house, device, order.actor, now)
        else:
            raise Refusal("not-waiting", f"no box waits as {name}", "`falaj device list` shows who waits")
    return {"accepted": list(named)}


def _join(house: House, device: DeviceId, signing: bytes, sealing: bytes, now: float) -> dict[str, Any]:
    """The device under its next epoch. What bore its name before cannot speak any more."""
    fleet, before = house.catalog.fleet, house.catalog.fleet.device(device)
    if before is not None:
        devices.end_certificates(house, before, "another box has the name", now)
    certificate = enrolment.certify(house.issuing, house.tenant, device, signing, now, house.longevity)
    epoch = fleet.next_epoch(device)
    fleet.put_device(device, epoch, certificate, signing, sealing, now)
    life = renewal.life(certificate)
    house.catalog.identities.add_certificate(life.serial, device, epoch, life.ends)
    house.catalog.identities.drop_waiting(device)
    house.event(now, "device-enrolled", f"{device}, epoch {epoch}")
    if before is not None:
        devices.cut(house, device, now)
    rounds.follow(house, device, now)
    return _answer(house, device, epoch)


def _answer(house: House, device: DeviceId, epoch: int) -> dict[str, Any]:
    host, port = house.uplink
    return dict(codec.builtins(EnrolAnswer(
        house.tenant, device, epoch, house.catalog.fleet.certificate(device).decode(),
        "".join(house.trusted), inviting.root(house).decode(), host, port,
        house.reports_key, house.catalog.identities.labels_of(device),
    )))  # fmt: skip


def _waits(name: DeviceId, signing: bytes) -> dict[str, Any]:
    return dict(codec.builtins(EnrolWaiting(name, fingerprint(signing))))
