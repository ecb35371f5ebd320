"""What becomes of a device's identity: renewed, revoked, handed on to another box, stopped when it is seen twice.

Whoever may not speak is stopped three times: no new session (the revocation list), no word in the one it has (the
broker's rules), and that one is ended (the core takes it over). Its documents are refused besides (`ears`).
"""

from __future__ import annotations

from typing import Any

from core import orders
from core.catalog.fleet import ACTIVE, DeviceRow
from core.fleet import enrolment, renewal
from core.steward import assigning, certificates, rounds
from core.steward.house import Access, Cut, House
from core.steward.refusals import Refusal
from sync.messages import Reported
from sync.names import DeviceId

ONCE_A = 86_400.0  # seconds in which a device that asks again is answered with the certificate it was given


def revoke(house: House, order: orders.Revoke, now: float) -> dict[str, Any]:
    """The device is no part of the fleet any more; a box that only waits is sent away."""
    reason = " ".join(order.reason.split())
    if not reason:
        raise Refusal("no-reason", "who ends an identity says why", "give the reason: --reason TEXT")
    device, waiting = house.catalog.fleet.device(order.device), house.catalog.identities.waiting(order.device)
    if device is None and waiting is None:
        raise Refusal("no-such-device", f"no device {order.device} is enrolled here", "`falaj device list` has them")
    if device is not None and device.state == "revoked":
        raise Refusal("revoked-already", f"{order.device} is revoked already", "`falaj device list` shows its state")
    house.catalog.identities.drop_waiting(order.device)
    ended = _bar(house, device, "revoked", reason, now) if device is not None else 0
    house.event(
        now, "device-revoked", f"{order.device} by {order.actor}: {reason}", severity="alarm", device=order.device,
        actor=order.actor, reason=reason,
    )  # fmt: skip
    return {"device": order.device, "certificates": ended}


def replace(house: House, order: orders.Replace, now: float) -> None:
    """The old box may not speak any more; name, models and settings wait for the new one."""
    device = house.catalog.fleet.device(order.device)
    if device is None:
        hint = f"`falaj device token {order.device}` lets a first box join"
        raise Refusal("no-such-device", f"no device {order.device} is enrolled here", hint)
    _bar(house, device, "replaced", f"replaced by {order.actor}", now)
    house.event(now, "device-replaced", f"{order.device} by {order.actor}: the name waits for another box")


def renew(house: House, device: DeviceRow, body: bytes, now: float) -> None:
    """A device asks for its next certificate; the answer stands in its assignment. The one it has holds to its end."""
    fleet = house.catalog.fleet
    who = (house.tenant, device.device, device.epoch)
    certificate = renewal.renewed(house.issuing, body, who, device.signing_key, now, house.longevity)
    newest = renewal.life(fleet.certificate(device.device))
    if not newest.due(now) and now - newest.begins < enrolment.BACKDATE.total_seconds() + ONCE_A:
        assigning.assign(house, device, now, news=False)  # it was given one, and has not heard of it
        return
    given = certificates.keep(house, device, certificate)
    days = (given.ends - now) / 86_400
    house.event(now, "certificate-renewed", f"{device.device}, for {days:.0f} days", device=device.device)
    assigning.assign(house, device, now, news=False)


def seen_twice(house: House, device: DeviceRow, report: Reported, now: float) -> bool:
    """Whether this signed report and the newest before it cannot come from one box; then the device is stopped.

    A box counts its reports on its disk and signs none twice, and an agent that was started anew is never heard of
    again. Two boxes with one identity count the same numbers, or come back after each other.
    """
    last = device.report
    if last is None or last.epoch != report.epoch or not _forked(house, last, report):
        return False
    house.catalog.fleet.set_state(device.device, "cloned")
    cut(house, device.device, now)
    house.event(
        now, "device-cloned", f"{device.device} speaks from two places and is stopped: `falaj device replace "
        f"{device.device}`, or `falaj device accept {device.device}` if there is one box only", severity="alarm",
        device=device.device, boots=f"{last.boot[:40]} {report.boot[:40]}", seqs=f"{last.seq} {report.seq}",
    )  # fmt: skip
    return True


def _forked(house: House, last: Reported, report: Reported) -> bool:
    if report.seq == last.seq:
        return report != last
    if report.boot == last.boot:
        return False
    heard_before = house.catalog.identities.seen_boot(report.device, report.epoch, report.boot)
    if report.seq > last.seq:
        return heard_before
    # A lower number at a later time, from a start nobody has heard of. Of one that was heard it is a word that took
    # longer than the next start, whose clock may have been set back.
    return report.ts > last.ts and not heard_before


def lift(house: House, device: DeviceRow, actor: str, now: float) -> None:
    """A person says that a device that seemed to be two is one."""
    house.catalog.fleet.set_state(device.device, ACTIVE)
    house.catalog.identities.forget_boots(device.device)
    house.catalog.fleet.forget_report(device.device)
    access(house, now)
    rounds.follow(house, device.device, now)
    house.event(now, "device-accepted", f"{device.device} may speak again, by {actor}", severity="notice")


def _bar(house: House, device: DeviceRow, state: str, reason: str, now: float) -> int:
    """The device may not speak any more; nothing of its is left on the broker. How many certificates ended."""
    ended = end_certificates(house, device, reason, now)
    house.catalog.fleet.set_state(device.device, state)
    house.catalog.fleet.token_used(device.device, now)
    rounds.withdraw(house, device.device)
    cut(house, device.device, now)
    return ended


def end_certificates(house: House, device: DeviceRow, reason: str, now: float) -> int:
    """Revokes all that were issued for this name; how many there were."""
    life = renewal.life(house.catalog.fleet.certificate(device.device))
    house.catalog.identities.add_certificate(life.serial, device.device, device.epoch, life.ends)
    return house.catalog.identities.revoke(device.device, reason, now)


def access(house: House, now: float) -> None:
    """Has the broker take in who may not speak, as the catalog knows it now."""
    shelf = house.catalog.identities
    revoked, number = tuple(shelf.revoked(now)), shelf.revocation_number()
    trusted = [pair for pair in (house.authority, house.successor) if pair is not None]
    lists = b"".join(enrolment.revocations(pair, revoked, number, now) for pair in trusted)
    house.actions.append(Access(lists, house.catalog.fleet.barred()))


def cut(house: House, device: DeviceId, now: float) -> None:
    """Has the session of this name ended, after the broker knows that it is over."""
    access(house, now)
    house.actions.append(Cut(device, enrolment.issue_successor(house.authority, device, now)))
