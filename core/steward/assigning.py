"""What a device is told to run: its whole desired state in one signed document, which every device must be able to
read. One that would be larger than a device takes is never sent; the one before stays in force."""

from __future__ import annotations

import base64

from core.catalog.fleet import DeviceRow
from core.catalog.wanted import Wanted, WantedSplit
from core.handoffs import Rollout
from core.steward import certificates, pieces, retained
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import codec, roles, sealing, topics
from sync.messages import ASSIGNMENT_TYPE, Arm, Assignment, ModelOrder
from sync.names import DeviceId, Digest, ModelName
from sync.splits import lot_of

ASSIGNMENT_LIFE = 7 * 86400.0  # seconds; renewed at half of it
SPARE = 2048  # bytes that no rollout takes: certificates, keys and the release to go back to may be a little larger
_HINT = "run fewer models on it, releases with fewer variants, or let a site's boxes share the models"


def assign(house: House, device: DeviceRow, now: float, *, news: bool = True) -> bool:
    """As `issue`; where that refuses, it is told once, the assignment before stays in force, and it is False."""
    try:
        issue(house, device, now, news=news)
    except Refusal as refusal:
        if device.device not in house.memory.overfull:
            house.memory.overfull.add(device.device)
            text = f"{refusal}; what it was told before stays in force: {refusal.hint}"
            house.event(now, "assignment-too-large", text, severity="alarm", device=device.device)
        return False
    house.memory.overfull.discard(device.device)
    return True


def issue(house: House, device: DeviceRow, now: float, *, news: bool = True) -> None:
    """Signs the whole desired state of one device, with the next seq, and publishes it. In a transaction; raises
    Refusal where it is larger than the device takes, and then nothing is published.

    Without `news` it is what the device was told before, signed anew: nobody waits for its answer, which of one without
    a network comes weeks later.
    """
    assignment, envelope = _written(house, device, now)
    if len(envelope) > codec.LIMIT:
        raise _too_large(device.device, len(assignment.models), len(envelope), codec.LIMIT)
    named = {digest for order in assignment.models.values() if order.mode != "off" for digest in order.all_keys()}
    retained.provide(house, named, now)
    house.catalog.fleet.put_assignment(
        device.device, device.epoch, assignment.seq, assignment.expires, envelope, news=news
    )
    house.send(topics.desired(house.tenant, device.device), envelope, retain=True)


def check_room(house: House, rollout: Rollout, now: float) -> None:
    """Raises Refusal if a canary device could not be told of the release beside what it is told already. In a
    transaction; leaves what is wanted as it is."""
    wanted, fleet = _foreseen(rollout), house.catalog.fleet
    for name in rollout.canary:
        device = fleet.device(name)
        if device is None or not device.active:
            continue
        before = fleet.wanted(name)
        fleet.want(name, wanted)
        assignment, envelope = _written(house, device, now)
        fleet.want_again(name, rollout.model, before)
        if len(envelope) > codec.LIMIT - SPARE:
            raise _too_large(name, len(assignment.models), len(envelope), codec.LIMIT - SPARE)


def _foreseen(rollout: Rollout) -> Wanted:
    """The most that a rollout will say to a device: in an A/B both releases."""
    if rollout.split is None or rollout.previous is None:
        return Wanted(rollout.model, rollout.number, "live", rollout.gates, rollout.retry)
    plan = rollout.split
    split = WantedSplit(rollout.number, rollout.retry, plan.share, plan.seed, plan.seeds)
    return Wanted(rollout.model, rollout.previous, "split", rollout.gates, rollout.retry, split)


def _too_large(device: DeviceId, models: int, size: int, limit: int) -> Refusal:
    text = f"what {device} would be told, {models} models, has {size} bytes, and {limit} may be said to a device"
    return Refusal("assignment-too-large", text, _HINT)


def _written(house: House, device: DeviceRow, now: float) -> tuple[Assignment, bytes]:
    """What is wanted of a device now, and the same signed."""
    old = house.catalog.fleet.assignment(device.device)
    seq = old[1] + 1 if old and old[0] == device.epoch else 1
    tables, config = pieces.for_device(house, device, now)
    assignment = Assignment(
        tenant=house.tenant, device=device.device, epoch=device.epoch, seq=seq, ts=now,
        expires=now + ASSIGNMENT_LIFE,
        models={w.model: _order(house, device, w) for w in house.catalog.fleet.wanted(device.device)},
        tenant_key=house.tenant_key,
        reports_key=house.reports_key,
        lookups=tables,
        config=config,
        alarms=True,
        certificate=certificates.newest(house, device, now).decode(),
        authorities=house.trusted,
    )  # fmt: skip
    return assignment, roles.sign(assignment, ASSIGNMENT_TYPE, house.keys.director)


def _order(house: House, device: DeviceRow, wanted: Wanted) -> ModelOrder:
    """One model's part: the manifest by digest, and the keys of its blobs wrapped to this device alone."""
    digest, keys = _named(house, device, wanted.model, wanted.number)
    arms: tuple[Arm, ...] = ()
    if (split := wanted.split) is not None:
        manifest, opens = _named(house, device, wanted.model, split.number)
        arms = (Arm(manifest, split.number, opens, 0, split.share, split.retry),)
    return ModelOrder(
        manifest=digest,
        number=wanted.number,
        keys=keys if wanted.mode != "off" else {},  # who may not run it gets no key either
        floor=house.catalog.releases.floor(wanted.model),
        mode=wanted.mode,
        gates=wanted.gates,
        retry=wanted.retry,
        arms=arms,
        seed=lot_of(split.seed, split.seeds, device.device) if split is not None else "",
    )


def _named(house: House, device: DeviceRow, model: ModelName, number: int) -> tuple[Digest, dict[Digest, str]]:
    """A release's manifest, and the keys of its blobs for this device."""
    found = house.catalog.releases.release(model, number)
    if found is None:
        raise RuntimeError(f"release {number} of {model} is wanted and not there")
    keys = house.catalog.releases.keys(model, number).items()
    return found[0].digest, {digest: _wrapped(house, device, digest, key) for digest, key in keys}


def _wrapped(house: House, device: DeviceRow, digest: Digest, key: bytes) -> str:
    context = sealing.wrap_context(house.tenant, device.device, digest)
    return base64.b64encode(sealing.wrap(key, device.sealing_key, context)).decode()
