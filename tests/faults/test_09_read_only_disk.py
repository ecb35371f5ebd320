"""Fault 9: the disk is read-only: the agent starts all the same, serves from what it reads, and installs nothing. Or it
is slow, and takes five seconds to say that something is written: nobody who asks waits for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.outbox import Outbox
from tests.edge.world import EPOCH
from tests.faults.box import Box
from tests.faults.nth import preload

SLOW = Path(__file__).with_name("slow.c")


def test_an_agent_starts_on_a_read_only_disk_and_goes_on_when_it_can_write(box: Box) -> None:
    before = box.waiting()
    box.start()
    box.end(killed=True)
    box.disk.read_only(True)
    box.start()
    box.until(lambda: box.disk_says() not in ("", "works"), "the disk's refusal to be shown")
    assert box.answer() == 1.0 and box.status()["models"]["motion"]["phase"] == "steady"
    box.disk.read_only(False)
    box.until(lambda: box.disk_says() == "works", "the disk to work again")
    assert box.answer() == 1.0
    box.end()
    assert box.committed() and set(box.waiting()) > set(before)


def test_no_second_agent_starts_in_a_folder_that_is_read_only(box: Box) -> None:
    box.start()
    box.end()
    box.disk.read_only(True)
    box.start()
    second = Box(box.disk, 1, box.log.with_name("second.log"))
    with pytest.raises(AssertionError, match="in use by another falaj process"):
        second.start()
    assert box.answer() == 1.0


@pytest.mark.slow
def test_an_agent_whose_journal_cannot_be_read_starts_on_a_read_only_disk_and_says_why(box: Box) -> None:
    box.start()
    box.end()
    box.folder.journal.write_bytes(b"rust" * 5000)
    box.disk.read_only(True)
    box.start(answering=False)
    box.until(lambda: "Read-only" in box.disk_says(), "the disk's refusal to be shown")
    assert box.answer() is None and box.status()["models"] == {}
    box.disk.read_only(False)
    box.until(lambda: box.disk_says() == "works", "the disk to work again")
    box.end()
    outbox = Outbox(box.folder.outbox, EPOCH, "test")
    assert any(b"journal-unreadable" in document for _, _, document in outbox.pending(1000))
    outbox.close()


@pytest.mark.slow
@pytest.mark.parametrize("box", [64 * 1024], indirect=True)
def test_a_disk_whose_syncs_take_five_seconds_keeps_no_answer_waiting(box: Box, tmp_path: Path) -> None:
    """The order is what counts: a sync was under way before each of these answers, and the same one after it. What is
    answered is synced when its log has grown to 4 MiB, so it is asked for as often as it takes."""
    syncs = tmp_path / "syncs"
    box.start(environment=preload(tmp_path, SLOW) | {"SLOW_SYNC": str(syncs)})
    syncs.touch()

    def answered_meanwhile() -> bool:
        before = syncs.read_text()
        assert {box.answer() for _ in range(20)} == {1.0} and box.status() != {}
        return before == syncs.read_text() and before.count("b") > before.count("e")

    for _ in range(5):
        box.until(answered_meanwhile, "an answer while a sync is under way")
    syncs.unlink()
    box.until(lambda: box.disk_says() == "works", "the disk to be what it was")
    box.end()
    assert box.committed()
