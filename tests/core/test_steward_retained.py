"""What the broker keeps of sealed blobs: what somebody may need, within the cap, and no more."""

from __future__ import annotations

import pytest

from core.catalog.wanted import Wanted
from core.steward import retained, rounds
from core.steward.house import AGAIN, MISSED
from sync import chunks as pieces
from sync.names import Digest, ModelName
from sync.reports import ModelReport, Release
from tests.core.world import DAY, MODEL, ONE, TWO, Device, World, serving


@pytest.fixture
def world(world: World) -> World:
    """Its session with the broker is up."""
    session(world)
    return world


def session(world: World) -> None:
    """A session with the broker comes up."""
    world.take(world.steward.link_changed(True, world.now))


def blobs(world: World, number: int) -> set[Digest]:
    return set(world.catalog.releases.keys(MODEL, number))


def on_broker(world: World) -> set[Digest]:
    """As a broker has it that heard every word: the newest of each chunk's topic, unless it is empty."""
    newest = {m.topic: m.payload for m in world.sent if "/blob/" in m.topic}
    return {Digest(topic.split("/")[4]) for topic, payload in newest.items() if payload}


def said(world: World, number: int, *before: int) -> dict[ModelName, ModelReport]:
    """What a device says that serves release `number` and can go back to those `before`."""
    found = {n: world.catalog.releases.release(MODEL, n) for n in (number, *before)}
    digests = {n: row[0].digest for n, row in found.items() if row is not None}
    previous = tuple(Release(n, digests[n], Digest("3" * 64)) for n in before)
    return {MODEL: serving(digests[number], number, previous=previous)}


def roll(world: World, device: Device, count: int) -> None:
    """Releases 1 to `count` one after the other, each committed; the device keeps two to go back to."""
    for number in range(1, count + 1):
        world.release(b"model %d" % number)
        world.hear(device.report(said(world, number, *range(number - 1, max(0, number - 3), -1))))


def test_what_no_device_needs_any_more_is_cleared_and_told(world: World) -> None:
    one = world.enrol(ONE)
    roll(world, one, 3)
    world.tick()
    assert on_broker(world) == blobs(world, 1) | blobs(world, 2) | blobs(world, 3), "it may go back to both"
    world.release(b"model 4")
    world.hear(one.report(said(world, 4, 3)))
    world.tick()
    assert on_broker(world) == blobs(world, 3) | blobs(world, 4) == world.catalog.retained.here().keys()
    assert world.codes().count("blobs-cleared") == 1


def test_what_a_device_needs_that_was_away_stays(world: World) -> None:
    one, two = world.enrol(ONE), world.enrol(TWO)
    roll(world, one, 1)
    world.hear(two.report(said(world, 1)))
    for number in (2, 3, 4):
        world.release(b"model %d" % number)
        world.hear(one.report(said(world, number)))
    world.tick()
    assert blobs(world, 1) <= on_broker(world), "watch-2 has not been heard of since"


@pytest.fixture
def moved_on(world: World) -> Device:
    """Release 4 serves, nobody needs the ones before it but the one the rollout would return to."""
    one = world.enrol(ONE)
    roll(world, one, 4)
    world.hear(one.report(said(world, 4)))
    world.tick()
    assert on_broker(world) == blobs(world, 3) | blobs(world, 4)
    return one


def test_what_was_cleared_comes_back_when_an_assignment_names_it(world: World, moved_on: Device) -> None:
    gates = world.catalog.fleet.wanted(ONE)[0].gates
    with world.catalog.transaction():
        world.catalog.fleet.want(ONE, Wanted(MODEL, 1, "live", gates, 1))
        rounds.assign(world.house, world.catalog.fleet.devices()[0], world.now)
    world.tick()
    assert blobs(world, 1) <= on_broker(world)


def test_what_is_missing_comes_back_if_anybody_needs_it_and_nothing_else_does(world: World, moved_on: Device) -> None:
    gone, present = min(blobs(world, 1)), min(blobs(world, 4))
    sent = len(world.sent)
    world.hear(moved_on.report(said(world, 4), missing={gone: (0,), present: (0,)}))
    again = {m.topic.split("/")[4] for m in world.sent[sent:] if "/blob/" in m.topic}
    assert again == {present}, "a device cannot have the broker keep all that there ever was"


def test_a_device_that_says_it_holds_everything_does_not_fill_the_broker(world: World) -> None:
    """Else one liar keeps the next release from being approved: `broker-full`."""
    one, liar = world.enrol(ONE), world.enrol(TWO)
    roll(world, one, 6)
    world.hear(liar.report(said(world, 6, *range(5, 0, -1)), seen=6))
    world.hear(liar.report({ModelName("made-up"): said(world, 1)[MODEL]} | said(world, 6, *range(5, 0, -1)), seen=6))
    assert on_broker(world) - blobs(world, 1) == {d for n in range(2, 7) for d in blobs(world, n)}
    world.take(world.steward.renew(world.now))
    assert on_broker(world) == {digest for number in (4, 5, 6) for digest in blobs(world, number)}


def test_a_device_that_asks_for_everything_gets_a_share_of_it(world: World, moved_on: Device) -> None:
    other, sealed = min(blobs(world, 4)), bytes(96 * 3 * MISSED)
    blob = pieces.describe(sealed, pieces.digest(b"plain"), 96)
    world.house.blobs.put(blob.sealed, sealed)
    with world.catalog.transaction():
        world.catalog.releases.keep_key(blob, bytes(32), MODEL, 4)
    for _ in range(3):
        sent = len(world.sent)
        for asked in range(0, 3 * MISSED, MISSED):
            missing = {blob.sealed: tuple(range(asked, asked + MISSED)), other: (0,)}
            world.hear(moved_on.report(said(world, 4), missing=missing))
        assert len([m for m in world.sent[sent:] if "/blob/" in m.topic]) == MISSED
        assert len(world.house.memory.resent) == MISSED, "and what was long ago is forgotten"
        world.now += AGAIN


def test_a_blob_that_this_disk_did_not_keep_is_told_once_and_costs_the_device_nothing(
    world: World, moved_on: Device
) -> None:
    digest = min(blobs(world, 4))
    (world.folder / "blobs" / digest).write_bytes(b"rot")
    for _ in range(3):
        world.hear(moved_on.report(said(world, 4), missing={digest: (0,)}))
        world.now += AGAIN
    assert world.codes().count("blob-damaged") == 1 and not [c for c in world.codes() if c.startswith("refused-")]


def test_a_clearing_that_a_lost_session_took_is_said_again_for_a_day(world: World, moved_on: Device) -> None:
    sent = len(world.sent)
    session(world)
    cleared = {m.topic.split("/")[4] for m in world.sent[sent:] if "/blob/" in m.topic and not m.payload}
    assert cleared == blobs(world, 1) | blobs(world, 2)
    world.tick(2 * DAY)
    assert world.catalog.retained.clearing() == ()


def test_while_there_is_no_session_nothing_is_taken_for_cleared(world: World) -> None:
    one = world.enrol(ONE)
    roll(world, one, 4)
    world.hear(one.report(said(world, 4)))
    world.take(world.steward.link_changed(False, world.now))
    world.tick()
    assert world.catalog.retained.clearing() == () and "blobs-cleared" not in world.codes()


def test_a_release_beyond_the_cap_is_refused_and_changes_nothing(world: World) -> None:
    roll(world, world.enrol(ONE), 1)
    before = on_broker(world)
    world.house.retained_bytes = sum(world.catalog.retained.here().values()) + 10
    number = world.stage(b"model 2")
    answer = world.order(world.approval(number))
    assert not answer.ok and answer.code == "broker-full" and "retained_bytes" in answer.hint
    found = world.catalog.releases.release(MODEL, number)
    assert found is not None and found[0].state == "staged" and on_broker(world) == before


def test_what_there_is_no_room_for_waits_and_is_told_once(world: World, moved_on: Device) -> None:
    world.house.retained_bytes = sum(world.catalog.retained.here().values())
    with world.catalog.transaction():
        for number in (1, 2):
            retained.provide(world.house, blobs(world, number), world.now)
    assert world.codes().count("broker-full") == 1
    assert world.catalog.retained.here().keys() == blobs(world, 3) | blobs(world, 4)


def test_a_broker_that_takes_no_chunk_is_sent_none_and_told_of(world: World) -> None:
    roll(world, world.enrol(ONE), 1)
    sent = len(world.sent)
    world.take(world.steward.link_changed(True, world.now, limit=64 * 1024))
    assert not any("/blob/" in m.topic for m in world.sent[sent:]) and world.codes().count("packet-too-large") == 1
    answer = world.order(world.approval(world.stage(b"model 2")))
    assert not answer.ok and answer.code == "packet-too-large"
