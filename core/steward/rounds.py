"""What happens by itself: rollouts advance, assignments and online signatures are renewed before they expire."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from core.catalog.fleet import ALL, GONE, DeviceRow
from core.catalog.wanted import Wanted, WantedSplit
from core.fleet.reports import reports_of
from core.handoffs import Rollout, RolloutState
from core.release import publish
from core.rollout.controller import Decision, decide, spoken
from core.rollout.plans import generation
from core.rollout.waiting import waits_for
from core.steward import retained
from core.steward.assigning import ASSIGNMENT_LIFE, assign
from core.steward.house import House
from sync import codec, roles, topics
from sync.errors import Untrusted
from sync.names import DeviceId, ModelName

UNDECIDED = (
    RolloutState.APPROVED, RolloutState.SHADOW, RolloutState.SPLIT, RolloutState.PAUSED, RolloutState.CANARY,
    RolloutState.REVERSING,
)  # fmt: skip
_KEPT = 16 * 1024 * 1024  # bytes of an assignment in the catalog: the wire's limit is not the catalog's


def walk(house: House, now: float, models: Collection[ModelName] | None = None) -> None:
    """One round over the rollouts, or over those of some models."""
    rollouts = [(k, r) for k, r in house.catalog.fleet.rollouts(limit=ALL) if models is None or r.model in models]
    if not rollouts:
        return
    devices, told = {d.device: d for d in house.catalog.fleet.devices()}, house.catalog.fleet.told()
    behind = frozenset(name for name, row in devices.items() if row.active and _is_behind(row, told.get(name)))
    for key, rollout in rollouts:
        _advance(house, key, rollout, devices, behind, now)


def renew(house: House, now: float) -> None:
    """Assignments and online signatures of which half the life is over are signed anew, and assignments that do not
    name the tenant's sealing keys of now (devices could send nothing that opens) or its authorities of now."""
    for device in house.catalog.fleet.devices():
        if device.active and (news := _due(house, device, now)) is not None:
            with house.catalog.transaction():
                assign(house, device, now, news=news)
    renew_trust(house, now)


def follow(house: House, name: DeviceId, now: float) -> None:
    """A device that may speak from now on is told what it shall run, if that must be signed anew. In a transaction."""
    device = house.catalog.fleet.device(name)
    if device is not None and (news := _due(house, device, now)) is not None:
        assign(house, device, now, news=news)


def _advance(
    house: House, key: int, rollout: Rollout, devices: dict[DeviceId, DeviceRow], behind: frozenset[DeviceId],
    now: float,
) -> None:  # fmt: skip
    decision = decide(rollout, reports_of(rollout.model, devices.values()), now, behind)
    if decision.rollout != rollout:
        with house.catalog.transaction():
            carry_out(house, key, rollout, decision, devices, now)
    if decision.rollout.state in UNDECIDED and rollout.previous is not None:
        without = (devices.get(name) for name in house.catalog.fleet.without(rollout.model))
        new = [row for row in without if row is not None and row.active]
        if new:  # who enrols while a rollout is open serves what the others serve
            with house.catalog.transaction():
                take_back(house, decision.rollout, new, now)


def carry_out(
    house: House, key: int, rollout: Rollout, decision: Decision, devices: dict[DeviceId, DeviceRow], now: float
) -> None:
    """Writes a decision on `rollout` down, tells it, and tells the devices. In a transaction."""
    house.catalog.fleet.put_rollout(key, decision.rollout)
    if decision.rollout.state != rollout.state:
        _tell(house, decision, devices, now)
        house.catalog.decisions.keep(key, decision.heard, now)
    elif set(decision.rollout.held) - set(rollout.held):
        text = f"release {rollout.number} is {decision.rollout.reason}"
        house.event(now, "rollout-held", text, model=rollout.model, severity="alarm", number=str(rollout.number))
    elif new := [device for device in decision.barred if device not in rollout.barred]:
        text = f"release {rollout.number} {waits_for(new)}"
        house.event(now, "rollout-held", text, model=rollout.model, severity="alarm", number=str(rollout.number))
    _want(house, _wanted(house, rollout, decision), [devices[name] for name in decision.assign if name in devices], now)
    take_back(house, decision.rollout, [devices[name] for name in decision.take_back if name in devices], now)


def _wanted(house: House, rollout: Rollout, decision: Decision) -> Wanted:
    """What the devices assigned by a decision shall do: run the release, or in a split the one before it, and the
    release as its arm."""
    if decision.mode != "split" or rollout.split is None or rollout.previous is None:
        return Wanted(rollout.model, rollout.number, decision.mode, decision.gates, rollout.retry)
    plan = rollout.split
    split = WantedSplit(rollout.number, rollout.retry, plan.share, plan.seed, plan.seeds)
    return Wanted(rollout.model, rollout.previous, "split", decision.gates, _generation(house, rollout), split)


def _generation(house: House, rollout: Rollout) -> int:
    """The generation of the release before: a lower one would not lift a verdict that a retry of it lifted."""
    past = (r for _, r in house.catalog.fleet.rollouts(active=False, limit=ALL) if r.model == rollout.model)
    return 0 if rollout.previous is None else max(0, generation(rollout.previous, past))


def _want(house: House, wanted: Wanted, devices: Iterable[DeviceRow], now: float, *, back: bool = False) -> None:
    """Also of devices that may not speak now: it is what they get when they come back. What is too much for a device is
    not wanted of it, so that what it is told next still fits; a way `back` is wanted all the same."""
    for device in devices:
        before = house.catalog.fleet.wanted(device.device)
        house.catalog.fleet.want(device.device, wanted)
        if device.active and not assign(house, device, now) and not back:
            house.catalog.fleet.want_again(device.device, wanted.model, before)


def _is_behind(device: DeviceRow, told: tuple[int, int] | None) -> bool:
    """Whether what the device said last is older than what it was told last: it speaks of an earlier order."""
    report = device.report
    return told is not None and (report is None or (report.epoch, report.seen) < told)


def _tell(house: House, decision: Decision, devices: dict[DeviceId, DeviceRow], now: float) -> None:
    """Who reads the event can work the decision out again: its facts have all that went into it."""
    rollout = decision.rollout
    text = f"release {rollout.number} is {rollout.state.value}: {rollout.reason}"
    severity = "alarm" if decision.take_back else "info"
    facts: dict[str, Any] = {"number": rollout.number, "retry": rollout.retry}
    if (found := decision.judgement) is not None:
        facts |= {"decision": found.decision.value, "plus": found.pooled.plus, "zero": found.pooled.zero,
                  "minus": found.pooled.minus, "margin": found.margin, "log_harm": found.log_harm,
                  "harm_at": found.harm_at, "log_safe": found.log_safe, "safe_at": found.safe_at}  # fmt: skip
        facts["devices"] = {
            name: {"plus": trial.plus, "zero": trial.zero, "minus": trial.minus, **_report_number(devices[name])}
            for name, trial in found.devices.items()
        }
    code = f"rollout-{rollout.state.value}"
    house.catalog.events.add(now, "core", code, text, severity=severity, model=rollout.model, facts=facts)


def _report_number(device: DeviceRow) -> dict[str, int]:
    return {"epoch": device.report.epoch, "seq": device.report.seq} if device.report else {}


def take_back(house: House, rollout: Rollout, devices: Iterable[DeviceRow], now: float) -> None:
    """To the release before, in the generation it was rolled out with. Without one the model is switched off. In a
    transaction."""
    gates = spoken(rollout)
    if rollout.previous is None:
        wanted = Wanted(rollout.model, rollout.number, "off", gates, rollout.retry)
    else:
        wanted = Wanted(rollout.model, rollout.previous, "live", gates, _generation(house, rollout))
    _want(house, wanted, devices, now, back=True)


def _due(house: House, device: DeviceRow, now: float) -> bool | None:
    """Whether it is news what an assignment says that is to be signed anew; None if none is."""
    old = house.catalog.fleet.assignment(device.device)
    if old is None:
        return None if house.successor is None else False  # who has nothing to run follows the next authority
    another_box = old[0] != device.epoch  # enrolled anew: its keys differ, so all is wrapped and signed again
    ahead = ASSIGNMENT_LIFE + publish.AHEAD.total_seconds()  # by more it was signed by a wrong clock
    due = not ASSIGNMENT_LIFE / 2 <= old[2] - now <= ahead
    return another_box if another_box or due or not _is_current(house, old[3]) else None


class _Tenant(msgspec.Struct, frozen=True):
    """The part of an assignment that is looked at in each round; one of an older core has none."""

    tenant_key: str = ""
    reports_key: str = ""
    authorities: tuple[str, ...] = ()


def _is_current(house: House, envelope: bytes) -> bool:
    """Whether an assignment of our own, as it lies in the catalog, names the tenant's keys and authorities of now."""
    found = codec.decode(_Tenant, roles.peek(envelope, _KEPT), _KEPT)
    return found == _Tenant(house.tenant_key, house.reports_key, house.trusted)


def renew_trust(house: House, now: float, left: float = publish.ONLINE_LIFE.total_seconds() / 2) -> None:
    """Signs snapshot and timestamp anew if less than `left` seconds of their life are left."""
    files = house.catalog.releases.trust()
    if not publish.renewal_due(files, now, left):
        return
    signers = publish.OnlineSigners(roles.signer(house.keys.snapshot), roles.signer(house.keys.timestamp))
    fresh = publish.renew(files, signers, now)
    try:
        publish.check_online(files | fresh)
    except Untrusted:
        return  # a key of ours is not here, which was told at the start; what there is holds to its end
    with house.catalog.transaction():
        house.catalog.releases.put_trust(fresh)
        house.event(now, "trust-renewed", "snapshot and timestamp signed anew")
    house.publish_trust(house.catalog.releases.trust())


def restore_broker(house: House, now: float) -> None:
    """Publishes again all that must be retained, and clears again what must not be: the broker is never the store of
    record, and the core may have been killed between its commit and its word."""
    house.publish_trust(house.catalog.releases.trust())
    retained.restore(house, now)
    for device in house.catalog.fleet.devices():
        if device.state in GONE:
            withdraw(house, device.device)
        old = house.catalog.fleet.assignment(device.device)
        if old is not None and old[0] == device.epoch and device.active:
            house.send(topics.desired(house.tenant, device.device), old[3], retain=True)


def withdraw(house: House, device: DeviceId) -> None:
    """Nothing of a device that is gone is left on the broker."""
    for topic in (topics.desired, topics.reported, topics.status):
        house.send(topic(house.tenant, device), b"", retain=True)
