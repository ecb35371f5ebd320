"""A disk that refuses, at every write of a story and at a start: somebody answers all the while, what the journal says
is true, and when the disk works the story comes to the same end, told once."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.agent.disk import LONGEST, Disk
from edge.journal import Journal
from edge.states import Phase
from sync import codec, topics
from sync.link import Message, Publish
from sync.messages import Status
from tests.edge.device import Device, committed
from tests.edge.refusal import Refusal
from tests.edge.stage import Stage, outcome
from tests.edge.world import DEVICE, TENANT
from tests.faults.small_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 1024) as found:
        yield found


def heard(device: Device) -> Counter[str]:
    return Counter(code for code in device.codes() if code != "disk-works-again")


def always_answered(device: Device, seconds: int) -> None:
    """Lets time pass; whoever asks at any moment is answered."""
    for _ in range(seconds):
        device.settle(1, ask=0)
        assert device.answering is not None


@pytest.mark.parametrize("number", [2, 4], ids=["a good release", "one that fails its trial"])
def test_a_journal_that_refuses_at_any_write_only_delays_the_story(stage: Stage, ram: Path, number: int) -> None:
    plain = stage.device(ram / "plain").boot()
    stage.core.assign(stage.shipped[number], plain.identity)
    plain.settle(12, ask=2)
    expected, told = outcome(plain), heard(plain)
    plain.cut_power()
    for n in count(1):
        device, refusal = stage.device(ram / str(n)), Refusal(n)
        device.journal_kind = refusal.journal()
        device.boot()
        stage.core.assign(stage.shipped[number], device.identity)
        for _ in range(9):
            device.settle(1, ask=2)
            assert device.answering is not None
        refused = refusal.now
        on_disk = Journal.open(device.folder / "journal.db")
        assert on_disk.deployments() == device.house.deployments, "what is not journalled did not happen"
        on_disk.close()
        refusal.heal()
        for _ in range(2):
            device.now += LONGEST
            device.settle(9, ask=2)
        assert outcome(device) == expected, n
        assert device.codes().count("disk-works-again") == int(refused), n
        assert heard(device) == told, n
        assert device.house.disk.reason == ""
        device.cut_power()
        if not refused:
            break
    assert n > 8, "it has been tried at several writes"


def test_an_outbox_that_refuses_costs_events_and_nothing_else(stage: Stage, ram: Path) -> None:
    device, refusal = stage.device(ram / "d"), Refusal(1)
    device.outbox_kind = refusal.outbox()
    before = device.boot().codes()
    stage.core.assign(stage.shipped[4], device.identity)
    device.settle(12, ask=2)
    assert device.state.phase is Phase.STEADY and device.answering == 1
    assert device.codes() == before and device.cards() == []
    refusal.heal()
    device.now += LONGEST
    device.settle(2)
    assert len(device.cards()) == 1, "why it was refused is told later"
    assert {"release-offered", "release-proved", "probation-begun", "returned"} <= set(device.codes()), "and the rest"


def test_nothing_is_told_of_what_could_not_be_journalled(stage: Stage, ram: Path) -> None:
    device, refusal = stage.device(ram / "d"), Refusal()
    device.journal_kind = refusal.journal()
    device.boot()
    before = device.reported()
    refusal.now = True
    stage.core.assign(stage.shipped[2], device.identity)
    always_answered(device, 4)
    assert device.reported() == before and device.house.assignment is not None
    assert device.house.assignment.seq == before.seen, "an assignment that is not kept is not taken in"
    shown = device.agent.overview()
    assert "readonly" in str(shown["disk"]) and shown["models"]
    refusal.heal()
    device.now += LONGEST
    device.settle(9, ask=0)
    assert committed(device, 2) and device.agent.overview()["disk"] == "works"
    assert device.reported().seq > before.seq


def test_a_session_that_opened_while_the_disk_refused_is_announced_afterwards(stage: Stage, ram: Path) -> None:
    device, refusal = stage.device(ram / "d"), Refusal()
    device.journal_kind = refusal.journal()
    device.boot(link=False)
    status = topics.status(TENANT, DEVICE)
    stage.core.link.publish(Publish(status, codec.encode(Status("offline", 0.0, "", 0)), retain=True))
    stage.core.hub.run()
    refusal.now = True
    device.connect()
    always_answered(device, 2)
    assert codec.decode(Status, stage.core.hub.retained[status]).state == "offline"
    refusal.heal()
    device.now += LONGEST
    device.settle(1)
    assert codec.decode(Status, stage.core.hub.retained[status]).state == "online"


def test_an_order_said_again_while_the_disk_refuses_displaces_no_newer_one(stage: Stage, ram: Path) -> None:
    """A broker delivers at least once, and what it says again may come after what it said last."""
    device, refusal = stage.device(ram / "d"), Refusal()
    device.journal_kind = refusal.journal()
    device.boot()
    stage.core.assign(stage.shipped[1], device.identity)
    device.settle(12, ask=2)
    place = topics.desired(TENANT, DEVICE)
    older = stage.core.hub.retained[place]
    refusal.now = True
    stage.core.assign(stage.shipped[2], device.identity)
    always_answered(device, 2)
    device.carry_out(device.agent.handle(Message(place, older), device.now))
    refusal.heal()
    device.now += LONGEST
    device.settle(12, ask=2)
    assert committed(device, 2)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_start_on_a_disk_that_takes_nothing_serves_what_was_committed(
    stage: Stage, disk: SmallDisk, how: str
) -> None:
    device = stage.device(disk.folder / "d")
    disk.fill() if how == "full" else disk.read_only(True)
    device.boot()
    stage.core.assign(stage.shipped[2], device.identity)
    always_answered(device, 4)
    assert device.answering == 1 and device.house.disk.reason
    assert device.house.artifacts.have() and device.codes()[-1] == "release-committed", "what lies there can be read"
    disk.free() if how == "full" else disk.read_only(False)
    device.now += LONGEST
    device.settle(9, ask=0)
    assert committed(device, 2) and device.codes().count("disk-works-again") == 1
    device.cut_power()


def test_what_is_on_trial_does_not_answer_before_its_start_can_be_counted(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    stage.core.assign(stage.shipped[2], device.identity)
    device.settle(5)
    assert device.state.phase is Phase.PROBATION and device.answering == 2
    device.cut_power()
    refusal = Refusal(1)
    device.journal_kind = refusal.journal()
    device.boot()
    always_answered(device, 3)
    assert device.answering == 1 and device.state.starts == 0
    refusal.heal()
    device.now += LONGEST
    device.settle(1)
    assert device.answering == 2 and device.state.starts == 1
    device.settle(6, ask=0)
    assert committed(device, 2)


def test_a_release_on_trial_stands_back_while_no_verdict_on_it_could_be_kept(stage: Stage, ram: Path) -> None:
    device, refusal = stage.device(ram / "d"), Refusal()
    device.journal_kind = refusal.journal()
    device.boot()
    stage.core.assign(stage.shipped[4], device.identity)
    device.settle(5)
    assert device.state.phase is Phase.PROBATION and device.answering == 4
    refusal.now = True
    for _ in range(4):
        device.settle(1, ask=2)  # where release 4 breaks
        assert device.answering in (1, 4)
    assert device.answering == 1 and device.state.phase is Phase.PROBATION
    refusal.heal()
    device.now += LONGEST
    device.settle(9, ask=2)
    assert device.answering == 1 and device.state.phase is Phase.STEADY and len(device.cards()) == 1


def test_a_disk_that_fills_up_in_the_middle_of_a_download_gets_there_when_there_is_room(
    stage: Stage, disk: SmallDisk
) -> None:
    device = stage.device(disk.folder / "d").boot()
    before = device.codes()
    shipped = stage.core.ship(6, (6.0, *map(float, range(20_000))))
    stage.core.assign(shipped, device.identity)
    while not (chunks := sum(path.stat().st_size for path in device.folder.glob("artifacts/*.part"))):
        assert stage.core.hub.deliver(1), "it never began"
    assert chunks < max(map(len, shipped.sealed.values())), "it is in the middle"
    disk.fill()
    always_answered(device, 6)
    assert device.answering == 1 and device.state.phase is Phase.FETCHING
    assert device.house.disk.reason or "disk-refused" in device.codes()[len(before) :]
    disk.free()
    device.now += LONGEST
    device.settle(20, ask=0)
    assert committed(device, 6)
    device.cut_power()


def test_an_error_that_is_not_the_hosts_doing_still_ends_the_agent(stage: Stage, ram: Path) -> None:
    device = stage.device(ram / "d").boot()
    broken = sqlite3.connect(device.folder / "journal.db")
    broken.execute("DROP TABLE quarantine")
    broken.close()
    stage.core.assign(stage.shipped[2], device.identity)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        device.settle(2)


def test_it_is_tried_again_ever_more_seldom_whatever_the_clock_does() -> None:
    disk, error = Disk(), OSError("full")
    now, pauses = 100.0, []
    for _ in range(7):
        disk.refused(error, now)
        disk.refused(error, now)  # while it waits nothing is counted
        start = now
        while disk.waits(now):
            now += 0.5
        pauses.append(now - start)
    assert pauses == [1, 2, 4, 8, 16, 30, 30] and disk.since == 100.0
    disk.refused(error, now)
    assert disk.waits(now) and not disk.waits(now - 1e6) and not disk.waits(now + 1e6)
    disk.works()
    assert not disk.reason and not disk.waits(now)


def test_while_the_disk_refuses_nobody_answers_who_lies_below_the_floor(stage: Stage, ram: Path) -> None:
    """What lies below it was revoked: also where what serves does not load any more and no word of it can be kept."""
    device, refusal = stage.device(ram / "d"), Refusal()
    device.boot()
    stage.core.assign(stage.shipped[2], device.identity)
    device.settle(8, ask=2)
    assert committed(device, 2)
    d = device.state
    assert d.serving is not None and d.order is not None and [slot.release.number for slot in d.previous] == [1]
    device.house.write(replace(d, order=replace(d.order, floor=2)))
    for blob in (d.serving.manifest.golden, *(variant.blob for variant in d.serving.manifest.variants)):
        device.house.artifacts.discard(blob)
    device.cut_power()
    refusal.now = True
    device.journal_kind = refusal.journal()
    device.boot(link=False)
    device.settle(3)
    assert device.house.disk.reason and device.answering is None
