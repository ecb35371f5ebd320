"""What broker and disk keep of sealed blobs: the broker what somebody may need, within the cap, and no more; the disk
all but what nobody will ever be given again."""

from __future__ import annotations

import pytest

from core import orders
from core.catalog.pieces import PieceRow
from core.catalog.wanted import Wanted
from core.steward import assigning, retained
from core.steward.house import AGAIN, MISSED
from sync import chunks as pieces
from sync import codec, roles, topics
from sync.messages import Assignment
from sync.names import Digest, ModelName
from sync.reports import ModelReport, Release
from tests.core.world import DAY, MODEL, ONE, TENANT, TWO, Device, World, serving


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
        assigning.assign(world.house, world.catalog.fleet.devices()[0], world.now)
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
        world.catalog.releases.keep_key(blob, bytes(32), "lookup/large", 1)
        world.catalog.pieces.add(PieceRow("lookup/large", 1, blob.plain, 0.0, world.now, blob))
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


def test_what_is_missed_is_read_alone_and_held_against_what_was_signed(world: World, moved_on: Device) -> None:
    """Else a device that misses one chunk after the other has the core read the whole blob each time."""
    sealed = b"".join(bytes([n]) * 96 for n in range(3))
    blob = pieces.describe(sealed, pieces.digest(b"plain"), 96)
    path = world.folder / "blobs" / blob.sealed
    with world.catalog.transaction():
        world.catalog.releases.keep_key(blob, bytes(32), "lookup/large", 1)
        world.catalog.pieces.add(PieceRow("lookup/large", 1, blob.plain, 0.0, world.now, blob))
    path.write_bytes(sealed[:96] + b"rot" + sealed[99:])
    sent = len(world.sent)
    for index in (0, 1, 2, 3):
        world.now += AGAIN
        world.hear(moved_on.report(said(world, 4), missing={blob.sealed: (index,)}))
    assert [m.payload for m in world.sent[sent:] if "/blob/" in m.topic] == [sealed[:96], sealed[-96:]]
    told = [e.text for e in world.catalog.events.newest(100) if e.code == "blob-damaged"]
    assert len(told) == 1 and told[0].endswith("changed on disk, in chunk 1")


def test_a_chunk_of_a_release_is_held_against_its_manifest(world: World, moved_on: Device) -> None:
    for digest in blobs(world, 4):
        found = world.catalog.releases.described(digest)
        assert found is not None and found.sealed == digest
        world.house.blobs.check_chunk(found, 0)
    assert world.catalog.releases.described(Digest("0" * 64)) is None


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


# --- the disk ---------------------------------------------------------------------------------------------------


def on_disk(world: World) -> set[Digest]:
    return {Digest(path.name) for path in (world.folder / "blobs").iterdir()}


def days_later(world: World, *words: Device) -> None:
    """Time for all that is cleared after a day; the devices say meanwhile that they serve release 1."""
    for device in words:
        world.hear(device.report(said(world, 1)))
    for _ in range(3):
        world.tick(2 * DAY)


@pytest.fixture
def two_alike(world: World) -> Device:
    """Releases 1 and 2 of the very same model, one after the other on one device."""
    one = world.enrol(ONE)
    for number in (1, 2):
        world.release(b"the same")
        world.hear(one.report(said(world, number, *range(1, number))))
    return one


def test_the_blobs_of_a_revoked_release_leave_broker_and_disk_and_its_record_stays(
    world: World, two_alike: Device
) -> None:
    first, second = blobs(world, 1), blobs(world, 2)
    assert on_disk(world) == first | second and not first & second, "each is sealed under a key of its own"
    before = world.catalog.releases.release(MODEL, 2)
    world.must(world.revocation(2))
    world.hear(two_alike.report(said(world, 1)))
    world.tick()
    assert on_broker(world) == first and on_disk(world) == first | second, "a lost session may have lost the clearing"
    days_later(world)
    assert on_disk(world) == first and world.codes(500).count("blobs-removed") == 1
    for digest in first:
        world.house.blobs.check(digest)
    found = world.catalog.releases.release(MODEL, 2)
    assert before is not None and found is not None and (found[0].state, found[1]) == ("revoked", before[1])
    candidate = world.catalog.releases.candidate(found[0].candidate)
    assert candidate is not None and world.house.artifacts.get(candidate.artifacts[0].plain) == b"the same"
    assert "release-revoked" in world.codes(500)
    world.reopen()
    session(world)
    days_later(world, two_alike)
    assert on_broker(world) == first == on_disk(world) and "blob-damaged" not in world.codes(500)
    answer = world.order(orders.Approve(model=MODEL, number=2, metadata={}))
    assert (answer.ok, answer.code) == (False, "release-revoked")


@pytest.mark.parametrize("still", ["serves", "goes back to"])
def test_a_revoked_release_that_a_device_says_it_has_stays_until_it_has_it_no_more(
    world: World, two_alike: Device, still: str
) -> None:
    second = blobs(world, 2)
    world.must(world.revocation(2))
    world.hear(two_alike.report(said(world, 2) if still == "serves" else said(world, 1, 2)))
    days_later(world)
    assert second <= on_disk(world) and second <= on_broker(world)
    days_later(world, two_alike)
    assert not second & (on_disk(world) | on_broker(world))


def test_a_revoked_release_that_the_order_of_a_silenced_device_names_stays(world: World, two_alike: Device) -> None:
    two = world.enrol(TWO)
    world.tick()
    second = blobs(world, 2)
    assert second <= named(world, two)
    world.catalog.fleet.set_state(TWO, "cloned")
    world.must(world.revocation(2))
    days_later(world, two_alike)
    assert second <= on_disk(world) and not second & on_broker(world)
    world.catalog.fleet.set_state(TWO, "revoked")
    world.tick()
    assert not second & on_disk(world)


def named(world: World, device: Device) -> set[Digest]:
    """What the newest order of a device opens."""
    envelope = world.last(topics.desired(TENANT, device.name))
    assert envelope is not None
    return set(codec.decode(Assignment, roles.peek(envelope)).models[MODEL].keys)


def test_releases_that_may_serve_again_stay_on_the_disk(world: World) -> None:
    """Not approved yet, replaced long ago, taken back: each may be approved, or approved once more."""
    one = world.enrol(ONE)
    roll(world, one, 4)
    staged = world.stage(b"model 5")
    world.must(orders.Reverse(model=MODEL, number=4, reason="a test"))
    everything = on_disk(world)
    for _ in range(3):
        world.tick(2 * DAY)
    assert on_disk(world) == everything == {d for number in range(1, staged + 1) for d in blobs(world, number)}
