"""Splits that an older version of this core began: the lot that each device was told holds, however this version draws.

What a device counts belongs to one split, and a split is named by its seed among others. A core that worked out another
seed for a split that runs would have every device begin anew and every key change its release. So the seeds are fixed
with the plan; a plan without them is of a version that worked them out each time, and is given those in force.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from core.catalog.fleet import ALL, DeviceRow
from core.steward.house import House
from sync import codec, roles
from sync.names import Digest, ModelName

_KEPT = 16 * 1024 * 1024  # bytes of an assignment in the catalog: the wire's limit is not the catalog's


class _Arm(msgspec.Struct, frozen=True):
    manifest: Digest
    retry: int = 0


class _Order(msgspec.Struct, frozen=True):
    seed: str = ""
    arms: tuple[_Arm, ...] = ()


class _Told(msgspec.Struct, frozen=True):
    """The part of an assignment that is looked at."""

    models: dict[ModelName, _Order] = {}


def keep(house: House) -> None:
    """At the start: whatever splits lack seeds of their devices are given those that the devices were told."""
    rollouts = [(key, r) for key, r in house.catalog.fleet.rollouts(limit=ALL) if r.split and not r.split.seeds]
    devices = house.catalog.fleet.devices()
    with house.catalog.transaction():
        for key, rollout in rollouts:
            found = {d.device: _seed(house, d, rollout.model, rollout.manifest, rollout.retry) for d in devices}
            seeds = {name: found[name] for name in rollout.canary if found.get(name)}
            if seeds and rollout.split is not None:
                house.catalog.fleet.put_rollout(key, replace(rollout, split=replace(rollout.split, seeds=seeds)))
        for device in devices:
            _keep_wanted(house, device)


def _keep_wanted(house: House, device: DeviceRow) -> None:
    for wanted in house.catalog.fleet.wanted(device.device):
        split = wanted.split
        arm = house.catalog.releases.release(wanted.model, split.number) if split and not split.seeds else None
        if split is None or arm is None:
            continue
        if seed := _seed(house, device, wanted.model, arm[0].digest, split.retry):
            kept = replace(split, seeds={device.device: seed})
            house.catalog.fleet.want(device.device, replace(wanted, split=kept))


def _seed(house: House, device: DeviceRow, model: ModelName, manifest: Digest, retry: int) -> str:
    """What the device was told to draw by in a split with this arm; empty if it was told of none."""
    old = house.catalog.fleet.assignment(device.device)
    if old is None or old[0] != device.epoch:
        return ""
    told = codec.decode(_Told, roles.peek(old[3], _KEPT), _KEPT).models.get(model)
    return told.seed if told is not None and _Arm(manifest, retry) in told.arms else ""
