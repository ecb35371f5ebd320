"""What one device can be told has a bound: nothing beyond it is sent, and what was told before stays in force."""

from __future__ import annotations

import msgspec

from core import orders
from core.catalog.wanted import Wanted
from core.handoffs import RolloutState as State
from core.project import Config, Word
from core.steward import assigning, rounds
from sync import codec, roles, topics
from sync.chunks import digest
from sync.manifest import LIMIT, Manifest
from sync.messages import ASSIGNMENT_TYPE, Assignment, Gates
from sync.names import DeviceId, ModelName
from tests.core.world import DAY, MODEL, ONE, TENANT, TWO, Device, World, project, serving


def told(world: World, device: DeviceId) -> bytes:
    """The assignment on the broker, which a device must be able to read."""
    payload = world.last(topics.desired(TENANT, device))
    assert payload is not None
    key = roles.signer(world.house.keys.director).public_key
    roles.verify(payload, ASSIGNMENT_TYPE, Assignment, [key])
    return payload


def fill(world: World, device: DeviceId, number: int, left: int) -> list[ModelName]:
    """Further models, switched off, until no more than `left` bytes can be said to a device; which."""
    found = world.catalog.releases.release(MODEL, number)
    assert found is not None
    manifest, models = codec.decode(Manifest, found[1], LIMIT), []
    (row,) = [row for row in world.catalog.fleet.devices() if row.device == device]
    size = 0
    while size <= codec.LIMIT - left:
        model = ModelName(f"another-{len(models)}")
        other = msgspec.structs.replace(manifest, model=model)
        payload = codec.encode(other)
        with world.catalog.transaction():
            world.catalog.releases.stage(other, payload, digest(payload), 1, world.now)
            world.catalog.fleet.want(device, Wanted(model, number, "off", Gates(), 0))
            assert assigning.assign(world.house, row, world.now)
        models.append(model)
        kept = world.catalog.fleet.assignment(device)
        assert kept is not None
        size = len(kept[3])
    world.tick()
    return models


def filled(world: World, device: DeviceId, number: int, left: int) -> bytes:
    fill(world, device, number, left)
    return told(world, device)


def test_an_approval_that_would_make_it_too_large_is_refused_and_changes_nothing(world: World) -> None:
    world.enrol(ONE)
    number = world.stage()
    before = filled(world, ONE, number, assigning.SPARE)
    answer = world.order(world.approval(number))
    assert (answer.ok, answer.code) == (False, "assignment-too-large")
    assert str(ONE) in answer.error and "fewer models" in answer.hint
    assert world.catalog.fleet.rollouts() == [] and told(world, ONE) == before
    assert MODEL not in [w.model for w in world.catalog.fleet.wanted(ONE)]


def ramped(world: World) -> tuple[Device, bytes]:
    """The canary committed, and the other device has no room for the release: it, and what it was told before."""
    one, two = world.enrol(ONE), world.enrol(TWO)
    number, manifest = world.release()
    before = filled(world, TWO, number, 300)
    world.hear(one.report({MODEL: serving(manifest)}))
    return two, before


def test_a_device_without_room_keeps_what_it_was_told_and_that_is_told_once(world: World) -> None:
    _, before = ramped(world)
    world.tick(60.0)
    assert world.catalog.fleet.rollouts()[0][1].state is State.RAMP, "it waits for that device"
    assert told(world, TWO) == before and world.codes().count("assignment-too-large") == 1
    alarm = next(e for e in world.catalog.events.newest() if e.code == "assignment-too-large")
    assert alarm.severity == "alarm" and str(TWO) in alarm.text and "stays in force" in alarm.text
    assert MODEL not in [w.model for w in world.catalog.fleet.wanted(TWO)]


def test_what_a_device_was_told_is_renewed_although_a_rollout_found_no_room(world: World) -> None:
    _, before = ramped(world)
    world.tick(4 * DAY)
    rounds.renew(world.house, world.now)
    kept = world.catalog.fleet.assignment(TWO)
    assert kept is not None and kept[3] != before and len(kept[3]) <= codec.LIMIT
    assert kept[2] > world.now + 6 * DAY, "signed anew for its whole life"


def test_what_is_wanted_again_is_what_was_wanted_before(world: World) -> None:
    fleet, (one, two) = world.catalog.fleet, (Wanted(MODEL, n, "live", Gates(), n) for n in (1, 2))
    world.enrol(ONE)
    fleet.want(ONE, one)
    before = fleet.wanted(ONE)
    fleet.want(ONE, two)
    fleet.want_again(ONE, MODEL, before)
    assert fleet.wanted(ONE) == before
    fleet.want_again(ONE, MODEL, ())
    assert fleet.wanted(ONE) == ()


def test_a_config_that_a_device_could_not_be_told_is_refused_with_its_project(world: World) -> None:
    world.enrol(ONE)
    before, plain = filled(world, ONE, world.stage(), 400), project()
    variables = {"line": Word(default="b")}
    asks = msgspec.structs.replace(plain.models[MODEL], variables=variables)
    wanted = msgspec.structs.replace(plain, models={MODEL: asks}, config=Config(variables={"line": "a"}))
    answer = world.order(orders.ApplyProject(project=wanted, folder=str(world.folder)))
    assert (answer.ok, answer.code) == (False, "assignment-too-large")
    current = world.catalog.projects.current()
    assert current is not None and current[0] == plain and told(world, ONE) == before
