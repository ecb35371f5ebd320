"""The certificate of this device is renewed before it ends: asked for in a record that the present key signs, answered
in the signed assignment, kept by whoever carries out `Install`. The one before holds to its own end, so nothing is
lost wherever this is cut."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Literal

import msgspec

from edge.agent.house import House, Identity
from edge.states import CLOCK_FLOOR, Install
from sync import roles
from sync.enrolment import RENEWAL_TYPE, RenewalRequest
from sync.messages import CSR

SHARE = 1 / 3  # of its life that is left when it is asked for
AGAIN = 6 * 3600.0  # seconds before it is asked for once more

State = Literal["valid", "ends-soon", "ended"]


def state(own: Identity, now: float) -> State:
    """How the certificate stands; one whose end nobody knows is valid."""
    if now >= own.ends:
        return "ended"
    return "ends-soon" if own.ends - now < (own.ends - own.begins) * SHARE else "valid"


def words(own: Identity, now: float) -> str:
    """For people: until when, and what to do once it has ended."""
    if own.ends == float("inf"):
        return "its end is not known"
    until = datetime.fromtimestamp(own.ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if state(own, now) != "ended":
        return f"valid until {until}"
    return (
        f"ended on {until}: this device serves, but the core is not heard any more. On the core run `falaj device "
        f"replace {own.device}`, here `falaj edge enrol TOKEN --again`"
    )


def look_after(house: House, now: float) -> None:
    """Installs what came, asks for what is due, tells once that it is too late. Nothing while the clock is unset."""
    own = house.identity
    if now < CLOCK_FLOOR or not own.certificate:
        return
    if (told := house.assignment) is not None:
        came = told.certificate or own.certificate, told.authorities or own.authorities
        over = came == house.renewal.tried and not AGAIN <= abs(now - house.renewal.put_off) < math.inf
        if came != (own.certificate, own.authorities) and not over:
            house.renewal.tried, house.renewal.put_off = came, -math.inf
            house.actions.append(Install(*came))
            return
    standing = state(own, now)
    if standing == "ended" and not house.renewal.told:
        house.renewal.told = house.events.report(now, "certificate-ended", words(own, now), severity="alarm")
    if standing == "ends-soon" and house.outside.csr is not None and abs(now - house.renewal.asked) >= AGAIN:
        _ask(house, house.outside.csr(), now)


def _ask(house: House, csr: str, now: float) -> None:
    own = house.identity
    if house.outbox.waiting(CSR):
        return  # it is on its way since before this start
    request = RenewalRequest(own.tenant, own.device, own.epoch, csr)
    envelope = roles.sign(request, RENEWAL_TYPE, own.signing_key)
    if house.outbox.add(CSR, msgspec.Raw(envelope), now):
        house.renewal.asked = now


def refused(house: House, why: str, now: float, *, again: bool = False) -> None:
    """The certificate that came is not kept; the one before holds. `again`: nothing is wrong with it, and it is tried
    once more in some hours: the core sends no other."""
    if again:
        house.renewal.put_off = now
    house.events.report(now, "certificate-refused", why, severity="alarm")


def installed(house: House, identity: Identity, now: float) -> None:
    """The new certificate and authorities are on the disk; the identity is the same but for them."""
    before, house.identity = house.identity, identity
    house.renewal.told = False
    house.dirty = True
    if identity.authorities != before.authorities:
        count = len(identity.authorities)
        house.events.report(now, "authorities-installed", f"{count} may be the broker's from now on", severity="notice")
    if identity.certificate != before.certificate:
        house.events.report(now, "certificate-installed", words(identity, now))
