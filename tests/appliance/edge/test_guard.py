"""What a crash leaves behind, who may write there, and what a clean end takes away."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from appliance.edge.guard import Guard, crash_folder
from appliance.edge.state import EdgeFolder
from sync.chunks import digest
from tests.edge.device import new_device
from tests.edge.world import Core

ARTIFACT = digest(b"a model")


def left_by_a_crash(root: Path, memory: Path, words: bytes = b"Fatal Python error: Floating-point exception") -> None:
    """One process that was asking a model, and then was no more."""
    guard = Guard(EdgeFolder(root), memory)
    guard.deadlines._marks.begin(ARTIFACT.encode())
    (crash_folder(root, memory) / "died").write_bytes(words)


def test_a_crash_names_who_was_asked_once(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path / "edge", tmp_path)
    guard = Guard(EdgeFolder(tmp_path / "edge"), tmp_path)
    assert guard.crashed and guard.blamed == {ARTIFACT}
    again = Guard(EdgeFolder(tmp_path / "edge"), tmp_path)
    assert not again.crashed and again.blamed == frozenset()


def test_a_process_that_was_killed_from_outside_did_not_crash(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path / "edge", tmp_path, words=b"")
    assert not Guard(EdgeFolder(tmp_path / "edge"), tmp_path).crashed


def test_two_agents_of_one_machine_have_places_of_their_own(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path / "one", tmp_path)
    assert not Guard(EdgeFolder(tmp_path / "two"), tmp_path).crashed


@pytest.mark.parametrize("trap", ["link", "open to others", "a file", "no memory"])
def test_a_place_that_is_not_ours_alone_is_not_used_and_nothing_fails(tmp_path: Path, trap: str) -> None:
    place = crash_folder(tmp_path / "edge", tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if trap == "link":
        place.symlink_to(elsewhere)
    elif trap == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif trap == "a file":
        place.touch()
    memory = tmp_path / "none" if trap == "no memory" else tmp_path
    guard = Guard(EdgeFolder(tmp_path / "edge"), memory)
    assert not guard.crashed and not list(elsewhere.iterdir())
    assert guard.deadlines._marks.begin(ARTIFACT.encode()) >= 0


def test_what_a_fault_says_of_its_thread_tells_who_is_to_blame(tmp_path: Path) -> None:
    """An incumbent that is being asked all the time stands there too, whenever a release beside it crashes."""
    innocent, mine = digest(b"another model"), threading.get_ident()
    for thread, blamed in ((mine, {ARTIFACT}), (mine + 1, set()), (None, {ARTIFACT, innocent})):
        guard = Guard(EdgeFolder(tmp_path / "edge"), tmp_path)
        guard.deadlines._marks.begin(ARTIFACT.encode())
        other = threading.Thread(target=guard.deadlines._marks.begin, args=(innocent.encode(),))
        other.start()
        other.join()
        said = f"Current thread 0x{thread:016x} (most recent call first):\n  <no Python frame>" if thread else ""
        (crash_folder(tmp_path / "edge", tmp_path) / "died").write_text(f"Fatal Python error: Aborted\n\n{said}")
        after = Guard(EdgeFolder(tmp_path / "edge"), tmp_path)
        assert after.crashed and after.blamed == blamed


def test_what_killed_agents_left_goes_when_their_folder_is_gone(tmp_path: Path) -> None:
    memory, stranger = tmp_path / "memory", tmp_path / "memory" / "falaj-stranger"
    stranger.mkdir(parents=True)
    for name in ("gone", "there"):
        (tmp_path / name).mkdir()
        Guard(EdgeFolder(tmp_path / name), memory)
    (tmp_path / "gone").rmdir()
    Guard(EdgeFolder(tmp_path / "new"), memory)
    left = {crash_folder(tmp_path / name, memory) for name in ("there", "new")} | {stranger}
    assert set(memory.iterdir()) == left, "of a folder that does not say whose it is nobody knows"


def test_the_watchdog_is_fed_while_we_answer_whether_or_not_the_walker_walks(
    tmp_path: Path, manager: socket.socket
) -> None:
    """A walker that loads a large model or waits for a slow disk is no reason to end who answers."""
    guard, answering = Guard(EdgeFolder(tmp_path / "edge"), tmp_path), threading.Event()
    guard.watch(new_device(Core(), tmp_path / "device").boot().house, 100, lambda within_s: answering.is_set())
    guard.start()
    manager.setblocking(False)
    for _ in range(5):
        guard._sweep()
    with pytest.raises(BlockingIOError):
        manager.recv(64)
    answering.set()
    manager.settimeout(30)
    assert [manager.recv(64) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    guard.stop()
