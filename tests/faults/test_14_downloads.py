"""Fault 14: a bad line under a download. It ends whole, is proved and committed, and costs what the release weighs."""

from __future__ import annotations

import pytest

from edge.download import START, TOP
from sync.chunks import CHUNK
from tests.edge.world import Shipped
from tests.faults.field import Field, Wired, hurried, size_of
from tests.faults.proxy import Mishaps, Weather
from tests.waiting import eventually

pytestmark = pytest.mark.broker
SIZE = 3_000_000  # bytes of the model: 31 chunks
TENTH = 10 * CHUNK + 20_000  # ten chunks and what is around them: handshake, trust files, headers


def again(device: Wired) -> int:
    """Chunks that came though they had come before."""
    return sum(device.came.values()) - len(device.came)


def pieces(shipped: Shipped) -> int:
    """Chunks of all its blobs."""
    return sum(-(-len(sealed) // CHUNK) for sealed in shipped.sealed.values())


def test_14_cut_every_ten_chunks_it_goes_on(field: Field) -> None:
    shipped = field.core.ship_large(1, SIZE)
    with field.over(Weather(cut_after=TENTH)) as (line, device):
        field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert line.traffic.cuts >= 3 and device.sessions > 3
        assert again(device) <= line.traffic.cuts * TOP, "only what was under way; benchmarks/delivery.py has the share"


def test_14_a_walker_that_lags_behind_its_session_asks_for_nothing_twice(field: Field) -> None:
    """What it decides on words of a session that has ended is void in the next, where it is told to ask anew."""
    shipped = field.core.ship_large(1, SIZE)
    with field.over() as (line, device):
        field.core.assign(shipped, device.identity)
        device.until(lambda: len(device.came) > TOP // 2, "some chunks")
        for session in (2, 3):
            eventually(lambda: device.inbox.qsize() >= 4, "words that wait for the walker")
            line.cut()
            eventually(lambda n=session: device.link.session == n, "the next session")  # type: ignore[misc]
        device.until(lambda: device.has(1), "the release", ask=0)
        assert device.sessions == 3 and again(device) == 0


def test_14_killed_in_between_it_goes_on_from_what_lies_on_the_disk(field: Field) -> None:
    shipped = field.core.ship_large(1, SIZE)
    with field.over(Weather(rate=3_000_000, buffered=CHUNK)) as (_, device):
        field.core.assign(shipped, device.identity)
        for kept in (8, 16):
            device.until(lambda kept=kept: len(device.came) > kept, "some chunks")  # type: ignore[misc]
            device.cut_power()
            device.boot()
        device.until(lambda: device.has(1), "the release", ask=0)
        assert again(device) <= 2 * TOP, "only what was under way"


def test_14_throttled_it_ends_whole(field: Field) -> None:
    """By the agent's clock the line carries 16 kB a second: 6 s a chunk, longer than its first patience."""
    shipped = field.core.ship_large(1, SIZE // 3)
    with field.over(Weather(rate=480_000, buffered=CHUNK // 2)) as (_, device):
        device.clock = hurried(30.0)
        field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert len(device.came) == pieces(shipped)
        assert again(device) <= START, "no more than the first window of what was only slow"


def test_14_frozen_and_thawed_it_goes_on(field: Field) -> None:
    """No end is told: the agent sees silence, asks for one chunk more, and then waits."""
    shipped = field.core.ship_large(1, SIZE)
    with field.over(Weather(rate=2_000_000, buffered=CHUNK)) as (line, device):
        device.clock = hurried(10.0)
        field.core.assign(shipped, device.identity)
        device.until(lambda: len(device.came) > 5, "some chunks")
        line.freeze()
        device.until(lambda: "download-stalled" in device.codes(), "the silence to be told")
        assert not device.has(1)
        line.thaw()
        device.until(lambda: device.has(1), "the release", ask=0)
        assert len(device.came) == pieces(shipped) and device.sessions == 1
        assert again(device) <= START, "one chunk more, and what was lost"


def test_14_far_away_it_ends_whole(field: Field) -> None:
    shipped = field.core.ship_large(1, SIZE)
    with field.over(Weather(delay=0.05)) as (line, device):
        field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert device.chunk_ratio(shipped) <= 1.02
        assert line.traffic.down / size_of(shipped) <= 1.02


def test_14_what_the_line_repeats_and_swaps_is_taken_once(open_field: Field) -> None:
    shipped, mishaps = open_field.core.ship_large(1, SIZE), Mishaps("/blob/", repeat=3, swap=7)
    with open_field.over(packets=mishaps) as (_, device):
        open_field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
        assert "chunk-damaged" not in device.codes()
    assert mishaps.repeated > 5 and mishaps.swapped > 2
    assert sum(device.came.values()) - len(device.came) == mishaps.repeated, "what was asked for came once"


def test_14_what_is_lost_on_a_living_line_is_asked_for_again_alone(open_field: Field) -> None:
    shipped, mishaps = open_field.core.ship_large(1, SIZE), Mishaps("/blob/", drop=9)
    with open_field.over(packets=mishaps) as (_, device):
        device.clock = hurried(10.0)
        open_field.core.assign(shipped, device.identity)
        device.until(lambda: device.has(1), "the release", ask=0)
    assert mishaps.dropped >= 3
    assert sum(device.came.values()) - len(device.came) <= 1, "a chunk to find it out, at most"
