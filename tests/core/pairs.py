"""Rollouts that pairs decide, for tests of the steward: the project, what devices report, what they are told."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from core import orders
from core.catalog.events import Event
from core.handoffs import Rollout
from core.project import Project
from sync import roles, topics
from sync.messages import ASSIGNMENT_TYPE, Assignment, ModelOrder
from sync.names import DeviceId, Digest
from sync.reports import ModelReport, Release, TrialReport
from tests.core.world import MODEL, ONE, START, TENANT, TWO, Device, World, project, serving

BLOCK = 10


def paired(canary: tuple[DeviceId, ...] = (ONE,), **settings: object) -> Project:
    """The project of the world, its rollouts judged by labels."""
    plain = project(canary)
    rollout = replace(plain.models[MODEL].rollout, **({"evidence": "labels", "margin": 0.1, "block": BLOCK} | settings))
    return replace(plain, models={MODEL: replace(plain.models[MODEL], rollout=rollout)})


def shadowing(new: tuple[int, Digest], old: tuple[int, Digest], retry: int = 0, **counts: int) -> ModelReport:
    """What a device says that runs `new` beside `old`; `counts` are those of its trial."""
    trial = TrialReport(new[1], old[1], retry, "labels", BLOCK, **counts)
    candidate = Release(*new, Digest("3" * 64))
    return ModelReport("shadow", START, Release(*old, Digest("3" * 64)), candidate, trial=trial)


@dataclass
class Fleet:
    """A world in which two watches committed the first release, and labels decide from now on."""

    world: World
    one: Device
    two: Device
    old: tuple[int, Digest]

    def rollout(self) -> Rollout:
        return self.world.catalog.fleet.rollouts()[0][1]

    def told(self, device: DeviceId = ONE) -> ModelOrder:
        return desired(self.world, device).models[MODEL]

    def event(self, code: str) -> Event:
        return next(e for e in self.world.catalog.events.newest() if e.code == code)


def desired(world: World, device: DeviceId) -> Assignment:
    """The newest assignment that was sent, verified as the device would."""
    payload = world.last(topics.desired(TENANT, device))
    assert payload is not None
    key = roles.signer(world.house.keys.director).public_key
    return roles.verify(payload, ASSIGNMENT_TYPE, Assignment, [key])


def begun(world: World, canary: tuple[DeviceId, ...] = (ONE,)) -> Fleet:
    """The first release committed on both watches."""
    world.ready()
    world.must(orders.ApplyProject(project=paired(canary), folder=str(world.folder)))
    one, two = world.enrol(ONE), world.enrol(TWO)
    old = world.release(b"old")
    for device in (one, two):
        world.hear(device.report({MODEL: serving(old[1], old[0])}))
    for device in (one, two):
        world.hear(device.report({MODEL: serving(old[1], old[0])}))
    return Fleet(world, one, two, old)
