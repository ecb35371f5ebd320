"""What a steward says goes out in order, and of what a wiped broker lacks a bounded part is in memory at once."""

from __future__ import annotations

import dataclasses
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from appliance.core.outgoing import HELD, Outgoing
from appliance.core.outgoing import WINDOW as WIDE
from core.catalog.pieces import PieceRow
from core.steward import Send, SendBlob
from sync import chunks, topics
from sync.errors import Damaged
from sync.link import Publish
from sync.mqtt import MqttLink
from sync.names import DEFAULT_TENANT, Digest
from tests.appliance.test_certificates import StewardAtWork
from tests.core.world import MODEL, ONE, World
from tests.waiting import eventually, meanwhile

BLOB, OTHER = Digest("a" * 64), Digest("b" * 64)
WINDOW = 4
SMALL = 32  # things at most that a steward says beside the chunks of a blob


class Broker:
    """Takes messages and confirms them when it is told to; counts what it has not."""

    def __init__(self) -> None:
        self.unconfirmed: deque[Publish] = deque()
        self.taken: list[str] = []
        self.most = 0

    def publish(self, message: Publish) -> None:
        self.unconfirmed.append(message)
        self.most = max(self.most, sum(bool(m.payload) for m in self.unconfirmed))

    def confirm(self) -> None:
        self.taken.append(self.unconfirmed.popleft().topic)


class Desk:
    """A queue before such a broker; `read` counts the chunks that were read from the disk."""

    def __init__(self, window: int = WINDOW) -> None:
        self.broker, self.read = Broker(), 0
        self.lost: list[tuple[Digest, str]] = []
        self.queue = Outgoing(
            self.broker.publish, lambda: len(self.broker.unconfirmed), lambda *said: self.lost.append(said), window
        )
        self.queue.link_changed(True)

    def chunks(self, name: str, count: int) -> Iterator[Publish]:
        for index in range(count):
            self.read += 1
            yield Publish(f"{name}/{index}", b"chunk")

    def drain(self) -> list[str]:
        """Confirms one message after the other, until nothing is left; the topics in the order they were taken."""
        self.queue.step()
        while self.broker.unconfirmed:
            self.broker.confirm()
            self.queue.step()
        assert not self.queue.waiting
        return self.broker.taken


def test_no_chunk_is_read_before_its_turn() -> None:
    desk = Desk()
    desk.queue.stream(BLOB, desk.chunks("blob", 1000))
    desk.queue.step()
    desk.queue.step()
    assert desk.read == WINDOW, "the broker has confirmed none"
    desk.broker.confirm()
    desk.queue.step()
    assert desk.read == WINDOW + 1
    assert len(desk.drain()) == 1000 and desk.broker.most == WINDOW


def test_what_is_said_after_a_blob_comes_after_it() -> None:
    desk = Desk()
    desk.queue.say(Publish("before", b"x"))
    desk.queue.stream(BLOB, desk.chunks("blob", 6))
    desk.queue.say(Publish("assignment", b"x"))
    desk.queue.stream(OTHER, desk.chunks("other", 2))
    desk.queue.say(Publish("after", b"x"))
    blob, other = [f"blob/{i}" for i in range(6)], ["other/0", "other/1"]
    assert desk.drain() == ["before", *blob, "assignment", *other, "after"]


def test_a_chunk_that_cannot_be_read_costs_its_blob_alone() -> None:
    desk = Desk()

    def torn() -> Iterator[Publish]:
        yield Publish("blob/0", b"chunk")
        raise Damaged("blob aaaa ends before byte 98304")

    desk.queue.stream(BLOB, torn())
    desk.queue.stream(OTHER, desk.chunks("other", 1))
    assert desk.drain() == ["blob/0", "other/0"]
    assert desk.lost == [(BLOB, "blob aaaa ends before byte 98304")]


def test_in_a_new_session_nothing_of_the_last_one_goes_out() -> None:
    desk = Desk()
    desk.queue.stream(BLOB, desk.chunks("blob", 100))
    desk.queue.step()
    desk.queue.say(Publish("assignment", b"x", retain=True))
    desk.queue.link_changed(True)
    desk.queue.say(Publish("status", b"x"))
    assert desk.drain() == [*(f"blob/{i}" for i in range(WINDOW)), "status"]


def test_what_is_said_once_waits_out_the_end_of_a_session() -> None:
    desk = Desk()
    desk.queue.stream(BLOB, desk.chunks("blob", 100))
    desk.queue.say(Publish("command", b"x"))
    desk.queue.link_changed(False)
    desk.queue.say(Publish("labels", b"x"))
    assert not desk.broker.unconfirmed, "nobody is there to take it"
    desk.queue.link_changed(True)
    assert desk.drain() == ["command", "labels"]


def test_without_a_broker_nothing_piles_up() -> None:
    desk = Desk()
    desk.queue.link_changed(False)
    for number in range(HELD + 10):
        desk.queue.stream(BLOB, desk.chunks("blob", 1))
        desk.queue.say(Publish(f"assignment/{number}", b"x", retain=True))
    assert not desk.queue.waiting, "what a broker keeps is said to it anew"
    for number in range(HELD + 10):
        desk.queue.say(Publish(f"command/{number}", b"x"))
    desk.queue.link_changed(True)
    assert desk.drain() == [f"command/{number}" for number in range(10, HELD + 10)]


def test_a_wiped_broker_is_filled_with_a_window_of_chunks_in_memory(tmp_path: Path) -> None:
    """The whole way: what the steward wants said holds no chunk, and all chunks come out of it."""
    world = World(tmp_path).ready()
    world.enrol(ONE)
    world.take(world.steward.link_changed(True, world.now))
    sizes = {}
    for content in (world.rng.randbytes(900_000), world.rng.randbytes(500_000)):
        number, _ = world.release(content)
        sizes |= {d: world.catalog.releases.blob_size(d) for d in world.catalog.releases.keys(MODEL, number)}
    world.reopen()
    actions = world.steward.link_changed(True, world.now)
    held = [a for a in actions if isinstance(a, Send) and "/blob/" in a.message.topic and a.message.payload]
    assert held == [], "a chunk in an action is a chunk in memory"
    desk = Desk()
    for action in actions:
        if isinstance(action, SendBlob):
            desk.queue.stream(action.digest, world.house.chunks(action))
    taken = desk.drain()
    assert len(taken) == sum(size.chunks for size in sizes.values() if size) > 2 * WINDOW
    assert desk.broker.most == WINDOW
    world.catalog.close()


@pytest.mark.broker
def test_a_real_broker_that_lost_its_store_has_every_chunk_again(tmp_path: Path) -> None:
    """Three times the window, through the real link."""
    at_work = StewardAtWork(tmp_path)
    try:
        topics_of = keep(at_work, Random(7).randbytes(20_000_000))
        assert len(topics_of) > 3 * WIDE
        broker, steward = at_work.node.broker, at_work.steward
        broker.stop()
        shutil.rmtree(broker.folder / "store")
        seen = [0]

        def done() -> bool:
            return max(seen) > SMALL and not steward.outgoing.waiting and not steward.link.unconfirmed

        with meanwhile(lambda: seen.append(steward.link.unconfirmed), 0.001):  # from before it begins: it may be quick
            at_work.node._start_broker()
            eventually(lambda: at_work.sessions() == 2, "the second session")
            eventually(done, "the last chunk", 60)
        assert max(seen) <= WIDE + SMALL
        steward.link.stop()
        found: set[str] = set()
        witness = MqttLink(dataclasses.replace(steward._address(), clean_start=True))
        witness.start(lambda message: found.add(message.topic), lambda up, reason: None)
        eventually(lambda: witness.wait_until_up(0), "the session of the witness")
        for topic in sorted(topics_of):
            witness.subscribe(topic)
            eventually(lambda: topic in found, topic)  # noqa: B023 - waited for here
        witness.stop()
    finally:
        at_work.end()


def keep(at_work: StewardAtWork, sealed: bytes) -> set[str]:
    """A sealed blob of this content that devices need, in the steward's store; the topics of its chunks."""
    house, blob = at_work.steward.steward.house, chunks.describe(sealed, Digest("4" * 64))

    def work() -> None:
        house.blobs.put(blob.sealed, sealed)
        with house.catalog.transaction():
            house.catalog.releases.keep_key(blob, bytes(32), "lookup/large", 1)
            house.catalog.pieces.add(PieceRow("lookup/large", 1, blob.plain, 0.0, 0.0, blob))

    at_work.steward.pump.submit(work).result()
    return {topics.blob(DEFAULT_TENANT, blob.sealed, index) for index in range(len(blob.hashes))}


def test_a_blob_that_went_meanwhile_is_told_once(tmp_path: Path) -> None:
    world = World(tmp_path).ready()
    world.enrol(ONE)
    number, _ = world.release(world.rng.randbytes(300_000))
    gone = max(world.catalog.releases.keys(MODEL, number), key=world.catalog.releases.blob_length)
    actions = world.steward.link_changed(True, world.now)
    world.house.blobs.remove(gone)
    desk = Desk()
    for action in actions:
        if isinstance(action, SendBlob):
            desk.queue.stream(action.digest, world.house.chunks(action))
    desk.drain()
    assert [digest for digest, _ in desk.lost] == [gone]
    for digest, why in desk.lost * 2:
        world.take(world.steward.unreadable(digest, why, world.now))
    assert world.codes().count("blob-damaged") == 1
    world.catalog.close()
