"""What happens by itself: rollouts advance, assignments and online signatures are renewed before they expire."""

from __future__ import annotations

import base64

from core.catalog.fleet import ALL, DeviceRow, Wanted
from core.handoffs import Rollout
from core.release import publish
from core.rollout.controller import decide
from core.steward.house import House
from sync import roles, sealing, topics
from sync.errors import Damaged
from sync.messages import ASSIGNMENT_TYPE, Assignment, Gates, ModelOrder
from sync.names import DeviceId, Digest, ModelName

ASSIGNMENT_LIFE = 7 * 86400.0  # seconds; renewed at half of it


def walk(house: House, now: float) -> None:
    """One round over the rollouts."""
    rollouts = house.catalog.fleet.rollouts(limit=ALL)
    devices = {d.device: d for d in house.catalog.fleet.devices()} if rollouts else {}
    for key, rollout in rollouts:
        _advance(house, key, rollout, devices, now)


def renew(house: House, now: float) -> None:
    """Assignments and online signatures of which half the life is over are signed anew."""
    for device in house.catalog.fleet.devices():
        _renew_assignment(house, device, now)
    _renew_trust(house, now)


def _advance(house: House, key: int, rollout: Rollout, devices: dict[DeviceId, DeviceRow], now: float) -> None:
    reports = {name: row.report.models.get(rollout.model) if row.report else None for name, row in devices.items()}
    decision = decide(rollout, reports, now)
    if decision.rollout == rollout:
        return
    with house.catalog.transaction():
        house.catalog.fleet.put_rollout(key, decision.rollout)
        if decision.rollout.state != rollout.state:
            text = f"release {rollout.number} is {decision.rollout.state.value}: {decision.rollout.reason}"
            severity = "alarm" if decision.take_back else "info"
            code = f"rollout-{decision.rollout.state.value}"
            house.event(now, code, text, model=rollout.model, severity=severity)
        for name in decision.assign:
            _want(house, name, rollout.model, rollout.number, "live", rollout.gates)
        for name in decision.take_back:
            back = rollout.previous
            _want(house, name, rollout.model, back or rollout.number, "live" if back else "off", rollout.gates)
        for name in (*decision.assign, *decision.take_back):
            assign(house, devices[name], now)


def assign(house: House, device: DeviceRow, now: float) -> None:
    """Signs the whole desired state of one device, with the next seq, and publishes it. In a transaction."""
    old = house.catalog.fleet.assignment(device.device)
    seq = old[1] + 1 if old and old[0] == device.epoch else 1
    assignment = Assignment(
        tenant=house.tenant, device=device.device, epoch=device.epoch, seq=seq, ts=now,
        expires=now + ASSIGNMENT_LIFE,
        models={w.model: _order(house, device, w) for w in house.catalog.fleet.wanted(device.device)},
    )  # fmt: skip
    envelope = roles.sign(assignment, ASSIGNMENT_TYPE, house.keys.director)
    house.catalog.fleet.put_assignment(device.device, device.epoch, seq, assignment.expires, envelope)
    house.send(topics.desired(house.tenant, device.device), envelope, retain=True)


def _order(house: House, device: DeviceRow, wanted: Wanted) -> ModelOrder:
    """One model's part: the manifest by digest, and the keys of its blobs wrapped to this device alone."""
    found = house.catalog.releases.release(wanted.model, wanted.number)
    if found is None:
        raise RuntimeError(f"release {wanted.number} of {wanted.model} is wanted and not there")
    row, _ = found
    keys = {
        digest: _wrapped(house, device, digest, key)
        for digest, key in house.catalog.releases.keys(wanted.model, wanted.number).items()
    }
    return ModelOrder(
        manifest=row.digest,
        number=row.number,
        keys=keys,
        mode=wanted.mode,
        gates=wanted.gates,
        retry=wanted.retry,
    )


def _wrapped(house: House, device: DeviceRow, digest: Digest, key: bytes) -> str:
    context = sealing.wrap_context(house.tenant, device.device, digest)
    return base64.b64encode(sealing.wrap(key, device.sealing_key, context)).decode()


def _want(house: House, device: DeviceId, model: ModelName, number: int, mode: str, gates: Gates) -> None:
    live = "off" if mode == "off" else "live"
    house.catalog.fleet.want(device, Wanted(model, number, live, gates, 0))  # type: ignore[arg-type]


def _renew_assignment(house: House, device: DeviceRow, now: float) -> None:
    old = house.catalog.fleet.assignment(device.device)
    if old is None:
        return
    another_box = old[0] != device.epoch  # enrolled anew: its keys differ, so all is wrapped and signed again
    if another_box or old[2] - now < ASSIGNMENT_LIFE / 2:
        with house.catalog.transaction():
            assign(house, device, now)


def _renew_trust(house: House, now: float) -> None:
    files = house.catalog.releases.trust()
    if not publish.renewal_due(files, now):
        return
    signers = publish.OnlineSigners(roles.signer(house.keys.snapshot), roles.signer(house.keys.timestamp))
    with house.catalog.transaction():
        house.catalog.releases.put_trust(publish.renew(files, signers, now))
        house.event(now, "trust-renewed", "snapshot and timestamp signed anew")
    house.publish_trust(house.catalog.releases.trust())


def restore_broker(house: House, now: float) -> None:
    """Publishes again all that must be retained: the broker is never the store of record."""
    house.publish_trust(house.catalog.releases.trust())
    for manifest, _ in house.catalog.releases.manifests("approved"):
        for digest in house.catalog.releases.keys(manifest.model, manifest.number):
            try:
                house.publish_blob(digest)
            except Damaged as error:  # the broker may still have it, and all else must go out
                with house.catalog.transaction():
                    house.event(now, "blob-damaged", str(error), severity="alarm", model=manifest.model)
    for device in house.catalog.fleet.devices():
        old = house.catalog.fleet.assignment(device.device)
        if old is not None and old[0] == device.epoch:
            house.send(topics.desired(house.tenant, device.device), old[3], retain=True)
