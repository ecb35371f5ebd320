"""Children that never outlive their parent, and ports that are asked before anything starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from appliance.core.job_logs import KEPT, job_log
from appliance.core.jobs import _Progress
from appliance.core.state import CoreFolder
from appliance.demo.fleet import free_ports
from appliance.processes import (
    PortTaken,
    check_port_free,
    last_words,
    launch,
    listens,
    spawn,
    stop,
    tail,
    tell,
    wait_for_port,
)
from sync.names import DEFAULT_TENANT
from tests.waiting import eventually

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_child_gets_its_secret_on_standard_input_and_its_log(tmp_path: Path) -> None:
    child = spawn([sys.executable, "-c", "print(input()[::-1])"], tmp_path / "logs" / "child.log", b"terces")
    assert child.wait(20) == 0
    assert (tmp_path / "logs" / "child.log").read_text() == "secret\n"


def test_stopping_asks_first_and_then_insists(tmp_path: Path) -> None:
    polite = spawn(SLEEP, tmp_path / "polite.log")
    stop(polite)
    assert polite.returncode == -signal.SIGTERM
    stop(polite)  # twice is no harm


def test_a_child_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    parent = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from appliance.processes import spawn
        print(spawn({SLEEP!r}, Path({str(tmp_path / "child.log")!r})).pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        # From here on the kernel watches: setpriv has said so and become the child's own program.
        eventually(lambda: b"setpriv" not in Path(f"/proc/{pid}/cmdline").read_bytes(), "the child itself")
        process.kill()
    eventually(lambda: _gone(pid), "the child to be killed by the kernel")


def test_a_taken_port_is_refused_with_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken) as refused:
            check_port_free("127.0.0.1", port, "ports.uplink in core.toml")
        assert str(refused.value) == (
            f"port {port} on 127.0.0.1 cannot be used (Address already in use): stop what listens there, "
            "or set ports.uplink in core.toml"
        )
        assert listens("127.0.0.1", port)
        assert listens("0.0.0.0", port)
    check_port_free("127.0.0.1", port, "anything")
    assert not listens("127.0.0.1", port)


def test_nobody_waits_for_the_port_of_a_child_that_ended(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    child = spawn([sys.executable, "-c", "raise SystemExit(1)"], tmp_path / "log")
    assert not wait_for_port("127.0.0.1", port, child, patience=60)


def test_a_child_that_listens_and_does_not_heed_a_signal_yet_is_waited_for(tmp_path: Path) -> None:
    """As brokers begin: a word that came in between would end it."""
    (port,), word = free_ports(1), tmp_path / "word"
    program = f"""
        import pathlib, signal, socket, time
        door = socket.create_server(("127.0.0.1", {port}))
        while not pathlib.Path({str(word)!r}).exists():
            time.sleep(0.01)
        signal.signal(signal.SIGHUP, lambda *_: None)
        time.sleep(600)
    """
    child = spawn([sys.executable, "-c", textwrap.dedent(program)], tmp_path / "log")
    try:
        assert wait_for_port("127.0.0.1", port, child, patience=20)
        assert not wait_for_port("127.0.0.1", port, child, patience=0.2, signals=(signal.SIGHUP,))
        word.touch()
        assert wait_for_port("127.0.0.1", port, child, patience=20, signals=(signal.SIGHUP,))
    finally:
        stop(child)


def test_the_end_of_a_log_goes_into_the_message(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"1\n2\n\xff3\n4\n")
    assert tail(tmp_path / "log", 2) == "�3\n4"
    assert tail(tmp_path / "none") == ""


def test_of_a_log_without_bound_its_end_alone_is_looked_at(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.write(b"Error: long ago\n")
        file.truncate(1 << 40)  # a terabyte, of which nothing is on the disk
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast but one\nlast\n")
    assert tail(log, 2) == "last but one\nlast" and last_words(log).endswith("last but one\nlast")


def test_a_child_that_reads_late_keeps_nobody_but_who_tells_it(tmp_path: Path) -> None:
    reader = f"""
        import sys, time
        from pathlib import Path
        while not Path({str(tmp_path / "now")!r}).exists():
            time.sleep(0.01)
        print(len(sys.stdin.buffer.read()))
    """
    child = launch([sys.executable, "-c", textwrap.dedent(reader)], tmp_path / "log", listens=True)
    teller = threading.Thread(target=tell, args=(child, b"x" * 1_000_000))
    teller.start()
    (tmp_path / "now").touch()
    teller.join(20)
    assert child.wait(20) == 0 and (tmp_path / "log").read_text() == "1000000\n"


def test_the_logs_of_old_jobs_go(tmp_path: Path) -> None:
    for job in range(1, 3 * KEPT):
        job_log(tmp_path, job).touch()
    (tmp_path / "job-of-mine.log").touch()
    assert {job_log(tmp_path, 3 * KEPT), *tmp_path.glob("job-[0-9]*.log")} == {
        tmp_path / f"job-{job}.log" for job in range(2 * KEPT + 1, 3 * KEPT + 1)
    }
    assert (tmp_path / "job-of-mine.log").exists()


def test_the_log_of_a_job_that_runs_stays(tmp_path: Path) -> None:
    for job in range(1, 3 * KEPT):
        job_log(tmp_path, job, unfinished=(1, job)).touch()
    assert (tmp_path / "job-1.log").exists() and not (tmp_path / "job-2.log").exists()
    assert len(list(tmp_path.glob("job-*.log"))) == KEPT + 1


def test_a_steward_that_is_away_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    progress = _Progress(CoreFolder(tmp_path, DEFAULT_TENANT), 1)
    for stage in ("rows", "training", "export"):
        progress(stage, 0.5)
    assert len(caplog.messages) == 1 and "nobody hears: no steward at" in caplog.messages[0]


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")


def test_the_last_words_of_a_program_are_its_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == ""
    log.write_text("1\n2\n3\n4\n")
    assert last_words(log) == "2\n3\n4"
    log.write_text("Error: first\nWARNING x\nError: second\n  do this\n")
    assert last_words(log) == "second\n  do this"


def test_a_child_that_ends_before_it_read_its_secret_is_no_error_of_ours(tmp_path: Path) -> None:
    child = spawn(["false"], tmp_path / "log", b"x" * 1_000_000)
    assert child.wait() == 1
