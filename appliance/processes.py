"""Child processes that never outlive their parent, and ports that are checked before anything starts."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from appliance.errors import Trouble

STOP_PATIENCE = 5.0  # seconds a child may take to end by itself
TAIL = 64 * 1024  # bytes of a log that are looked at for its last lines


class FolderTaken(Trouble):
    """A state folder that another process of ours holds."""


class PortTaken(Trouble):
    """A port that another program listens on."""


def close_to_others() -> None:
    """From here on every file, folder and socket that this process and its children make is its account's alone."""
    os.umask(0o077)


def spawn(
    argv: Sequence[str], log: Path, secret: bytes | None = None, *, outlive: bool = False
) -> subprocess.Popen[bytes]:
    """Starts a child with its output in `log` and, if given, a secret on its standard input.

    The kernel ends the child when this process dies, however it dies (call it from a thread that lives as long as
    the process: the kernel watches the thread). With `outlive` the child has a session of its own and stays.
    """
    child = launch(argv, log, listens=secret is not None, outlive=outlive)
    if secret is not None:
        tell(child, secret)
    return child


def launch(argv: Sequence[str], log: Path, *, listens: bool, outlive: bool = False) -> subprocess.Popen[bytes]:
    """`spawn` without its words: one that `listens` waits for `tell`. Where `log` is a FIFO the child holds both of
    its ends, and never waits at it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_NONBLOCK if log.is_fifo() else os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with os.fdopen(os.open(log, flags, 0o600), "ab") as output:
        return subprocess.Popen(
            argv if outlive else ["setpriv", "--pdeathsig", "KILL", *argv],
            stdin=subprocess.PIPE if listens else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=outlive,
        )


def tell(child: subprocess.Popen[bytes], words: bytes) -> None:
    """All that the child shall ever hear on its standard input. Beyond the 64 KiB of a pipe this waits until the child
    reads."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # a child that ended at once: its exit code says so
        child.stdin.write(words)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def memory_meter() -> Callable[[], float]:
    """A gauge of the resident memory of this process in MiB, which works also when no file can be opened any more."""
    descriptor = os.open("/proc/self/statm", os.O_RDONLY)
    page = os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
    return lambda: int(os.pread(descriptor, 100, 0).split()[1]) * page


def stop(child: subprocess.Popen[bytes]) -> None:
    """Asks the child to end, then makes it."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def end_stranger(pid: int) -> None:
    """Ends a process that is not our child: asks, waits, makes it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        end = time.monotonic() + STOP_PATIENCE
        while time.monotonic() < end:
            if _ended(pid):
                return
            time.sleep(0.02)


def _ended(pid: int) -> bool:
    """Whether it is gone, or dead and only not yet reaped by its parent: then it has no command line any more."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def check_port_free(host: str, port: int, setting: str) -> None:
    """Raises PortTaken, naming the setting to change, if nobody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} on {host} cannot be used ({error.strerror}): stop what listens there, or set {setting}"
            ) from error


def wait_for_port(
    host: str, port: int, child: subprocess.Popen[bytes], patience: float = 10.0, signals: tuple[int, ...] = ()
) -> bool:
    """Whether the child listens and handles these signals, waiting at most `patience` seconds and not for a child that
    ended."""
    end = time.monotonic() + patience
    while time.monotonic() < end and child.poll() is None:
        if listens(host, port) and all(_handles(child.pid, number) for number in signals):
            return True
        time.sleep(0.05)
    return False


def _handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for the signal (Linux, proc(5): SigCgt): without one most signals end it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:")).split()[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


def hold(folder: Path) -> IO[bytes]:
    """Takes the folder for this process, as long as the returned file is open; raises FolderTaken if another has it.

    On a read-only disk the file that is there does as well: a lock writes nothing.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "lock"
    try:
        file: IO[bytes] = path.open("ab")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        file = path.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise FolderTaken(f"{folder} is in use by another falaj process: stop it, or give another --dir") from error
    return file


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there; a listener on all addresses is asked on loopback."""
    try:
        with socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), 0.5):  # noqa: S104
            return True
    except OSError:
        return False


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message; of its last TAIL bytes alone."""
    return "\n".join(_end(log).splitlines()[-lines:])


def last_words(log: Path) -> str:
    """What a program of ours said last: its `Error: ...` to the end of the log, else the last lines."""
    _, found, said = ("\n" + _end(log)).rpartition("\nError: ")
    return said.strip() if found else tail(log, 3)


def _end(log: Path) -> str:
    """The last TAIL bytes, from the beginning of a line."""
    try:
        with log.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - TAIL)
            file.seek(start)
            end = file.read(TAIL)
    except FileNotFoundError:
        return ""
    return (end.partition(b"\n")[2] if start else end).decode(errors="replace")
