"""Fault 8: the disk is full. Whoever asks is answered, the agent's process stays, and what was kept is kept."""

from __future__ import annotations

from tests.faults.box import Box


def test_a_disk_that_fills_up_under_a_running_agent_changes_no_answer(box: Box) -> None:
    before = box.waiting()
    box.start()
    box.disk.fill()
    for _ in range(200):
        assert box.answer() == 1.0
    box.end(killed=True)
    box.disk.free()
    assert box.committed() and box.waiting() == before, "nothing that waits for the core was lost"


def test_an_agent_that_starts_on_a_full_disk_serves_and_goes_on_when_there_is_room(box: Box) -> None:
    before = box.waiting()
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
    assert told == (1, 1) and box.committed() and set(box.waiting()) > set(before)
