"""The log of a child that lives for years stays within its bound, and what is said goes on being written."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.broker import Broker
from appliance.child_log import ChildLog
from appliance.demo.fleet import free_ports
from tests.waiting import eventually

MOST = 4096
LINE = len("00000000 a line that a broker says\n")


def grown(path: Path, lines: int, start: int = 0) -> list[str]:
    """Lines as a child appends them: an open file, every line at its end."""
    said = [f"{n:08d} a line that a broker says" for n in range(start, start + lines)]
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in said)
    return said


def test_a_log_below_its_size_is_left_alone_and_so_is_one_that_is_not_there(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "x.log", MOST)
    log.bound()
    said = grown(log.path, 10)
    log.bound()
    assert log.path.read_text().splitlines() == said and not log.before.exists()


def test_the_older_lines_go_whole_under_the_other_name(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "x.log", 100 * LINE)
    said = grown(log.path, 100)
    with log.path.open("a") as child:  # opened before the cut, as the child's is
        log.bound()
        child.write("after\n")
    assert log.path.read_text() == "after\n", "what appends goes on at the beginning"
    assert log.before.read_text().splitlines() == said


def test_of_a_log_that_grew_beyond_all_bounds_the_newest_lines_stay(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "x.log", MOST)
    said = grown(log.path, 5000)
    log.bound()
    kept = log.before.read_text().splitlines()
    assert kept == said[-len(kept) :] and MOST - 100 < log.before.stat().st_size <= MOST
    assert log.path.stat().st_size == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["x.log", "x.log.1"]


def test_where_the_disk_takes_no_copy_the_older_lines_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They must not be what fills it; and what was begun of the copy goes too."""
    log = ChildLog(tmp_path / "x.log", MOST)
    grown(log.path, 200)
    log.before.write_text("older still")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        log.bound()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("x.log", 0)]
    assert "the older lines of" in caplog.text


@pytest.mark.broker
def test_the_log_of_a_running_broker_is_cut_and_goes_on(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    broker = Broker(tmp_path, "127.0.0.1", port, "a test", outlive=False, log_bytes=MOST)
    broker.start(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n")
    log, before = tmp_path / "mosquitto.log", tmp_path / "mosquitto.log.1"
    try:
        sizes = []
        for _ in range(3):
            _say(port, lambda: log.stat().st_size > MOST)
            sizes.append(log.stat().st_size)
            broker.look_after()
            assert log.stat().st_size < MOST and before.stat().st_size <= MOST
        assert min(sizes) > MOST, "each time it had reached its size"
        _say(port, lambda: "New connection" in log.read_text())
        assert b"\0" not in log.read_bytes(), "it goes on at the beginning, not where it was"
        assert broker.alive()
    finally:
        broker.stop()


def _say(port: int, done: Callable[[], bool]) -> None:
    """Strangers come and go, each of whom the broker tells."""

    def once() -> bool:
        with socket.create_connection(("127.0.0.1", port), 5) as stranger:
            stranger.sendall(os.urandom(16))
        return done()

    eventually(once, "the broker's words")
