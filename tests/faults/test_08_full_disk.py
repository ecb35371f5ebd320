"""Fault 8: the disk is full. Whoever asks is answered, the agent's process stays, and what was kept is kept."""

from __future__ import annotations

import time

from edge.journal import Journal
from edge.outbox import Outbox
from edge.states import Phase
from sync.messages import EVENT
from tests.edge.world import EPOCH, MODEL
from tests.faults.box import Box


def events(box: Box) -> list[int]:
    """The numbers of all records that wait for the core, read while no agent has the file."""
    found = Outbox(box.folder.outbox, EPOCH, "test")
    numbers = [n for kind, n, _ in found.pending(1000) if kind == EVENT]
    found.close()
    return numbers


def committed(box: Box) -> bool:
    journal = Journal.open(box.folder.journal)
    state = journal.deployments()[MODEL]
    journal.close()
    return state.phase is Phase.STEADY and state.serving is not None and state.serving.release.number == 1


def test_a_disk_that_fills_up_under_a_running_agent_changes_no_answer(box: Box) -> None:
    before = events(box)
    box.start()
    box.disk.fill()
    for _ in range(10):
        assert box.answer() == 1.0
        time.sleep(0.1)
    box.end(killed=True)
    box.disk.free()
    assert committed(box) and events(box) == before, "nothing that waits for the core was lost"


def test_an_agent_that_starts_on_a_full_disk_serves_and_goes_on_when_there_is_room(box: Box) -> None:
    before = events(box)
    box.start()
    box.disk.fill()
    box.end(killed=True)
    box.disk.fill()
    box.start()
    assert box.answer() == 1.0
    box.until(lambda: box.disk_says() not in ("", "works"), "the disk's refusal to be shown")
    for _ in range(10):
        assert box.answer() == 1.0
    box.disk.free()
    box.until(lambda: box.disk_says() == "works", "the disk to work again")
    assert box.answer() == 1.0
    box.end()
    told = box.said().count("the disk refuses"), box.said().count("the disk works again")
    assert told == (1, 1) and committed(box) and set(events(box)) > set(before)
