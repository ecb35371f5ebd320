"""What a tenant's broker says, sifted while it runs: its log without a line a packet, and whom it turned down.

Mosquitto tells a denied publish to its debug log alone, where each packet has lines of its own; a subscription, which
it grants whatever it is, in one line with the name of who asked. So it writes into a FIFO of which it holds both ends
itself: it never waits, whoever reads slowly, is stopped or gone, for what has no room is dropped; and it never meets a
closed end. A core that begins anew reads on where the one before it stopped.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from appliance import clock
from sync.names import DeviceId, TenantId
from sync.topics import CORE_NAME, device_may

log = logging.getLogger("falaj.log")

PIPE = 1 << 20  # bytes that wait in the FIFO, where the kernel grants them: 2,600 messages
PACE = 0.1  # seconds between two looks; nobody waits at the FIFO, so a line wakes nobody
NAMES = 64  # of each kind that are kept apart between two words to the steward, and in the log in a minute
LINE = 4096  # bytes of one that has not ended; Mosquitto's have 1,000 at most
TOPIC = 200  # characters that are kept of one, or of a filter
AGAIN = 60.0  # seconds until the log has another denied word, or filter, of the same name
_PACKET = re.compile(rb"\d+: (?:Sending |Received |\t|No will message |Will message )")
# Anchored: the name comes before all that its bearer can choose, and no topic has a line break (Mosquitto refuses
# control characters). What is longer than a line of the log lacks its end.
_NAME = rb"([a-z0-9][a-z0-9-]{0,62})"
_WORD = re.compile(
    rb"\d+: Denied PUBLISH from " + _NAME + rb" \(d\d, q\d, r\d, m\d+, '(.*?)(?:', \.\.\. \(\d+ bytes\)\))?"
)
_FILTER = re.compile(rb"\d+: " + _NAME + rb" \d{1,3} (.+)")
_OTHERS = re.compile(rb"\d+: (?:Denied PUBLISH |" + re.escape(CORE_NAME.encode()) + rb" \d{1,3} )")
# OpenSSL's reason, which is from a table of its own; of the errors of one handshake the first.
_HANDSHAKE = re.compile(
    rb"\d+: (?:Client connection from \S+ failed|OpenSSL Error\[0\]): "
    rb"error:[0-9A-F]+:SSL routines:[^:]*:([a-z0-9 ]+)\.?"
)
_LOOKED = "unexpected eof while reading"  # whether somebody listens, as the core's own supervisor does

Verb = Literal["read", "write"]


class Denial(NamedTuple):
    """What one device said, or asked to hear, where it may not: the first topic or filter, and how many there were."""

    topic: str
    times: int


@dataclass
class Denied:
    """Whom a broker turned down. Beyond NAMES of a kind others are not kept apart, and come again."""

    words: dict[DeviceId, Denial] = field(default_factory=dict)
    filters: dict[DeviceId, Denial] = field(default_factory=dict)
    handshakes: dict[str, int] = field(default_factory=dict)  # by OpenSSL's reason; who it was nobody knows

    def __bool__(self) -> bool:
        return bool(self.words or self.filters or self.handshakes)

    def count(self, verb: Verb, device: DeviceId, more: Denial) -> None:
        kept = self.words if verb == "write" else self.filters
        before = kept.get(device)
        if before is not None:
            kept[device] = Denial(before.topic, before.times + more.times)
        elif len(kept) < NAMES:
            kept[device] = more

    def count_handshakes(self, reason: str, more: int) -> None:
        if reason in self.handshakes or len(self.handshakes) < NAMES:
            self.handshakes[reason] = self.handshakes.get(reason, 0) + more

    def add(self, later: Denied) -> None:
        for device, more in later.words.items():
            self.count("write", device, more)
        for device, more in later.filters.items():
            self.count("read", device, more)
        for reason, times in later.handshakes.items():
            self.count_handshakes(reason, times)


class Sieve:
    """Keeps of a broker's lines what belongs into a log, and counts what was turned down; used by one thread at a time.

    A word on a topic that the device may write by the table is no such thing: only the steward itself denies it that,
    and then it has said so.
    """

    def __init__(self, tenant: TenantId) -> None:
        self._tenant = tenant
        self._rest = b""
        self._logged: dict[tuple[Verb, DeviceId], float] = {}
        self.denied = Denied()

    def take(self, words: bytes, now: float) -> bytes:
        """The lines to be kept of these bytes and of what was left of those before; a line that has not ended waits."""
        *lines, rest = (self._rest + words).split(b"\n")
        self._rest = rest[:LINE]  # its beginning: what is cut off must never look like one
        return b"".join(line + b"\n" for line in lines if self._keep(line, now))

    def _keep(self, line: bytes, now: float) -> bool:
        """Counts what the line says of whom was turned down; whether the log has it."""
        if _PACKET.match(line):
            return False
        if found := _WORD.fullmatch(line):
            return self._denied("write", found, now)
        if found := _FILTER.fullmatch(line):
            return self._denied("read", found, now)
        if (found := _HANDSHAKE.fullmatch(line)) and (reason := found[1].decode()) != _LOOKED:
            self.denied.count_handshakes(reason, 1)
        return not _OTHERS.match(line)

    def _denied(self, verb: Verb, found: re.Match[bytes], now: float) -> bool:
        device, topic = DeviceId(found[1].decode()), found[2].decode(errors="replace")
        if device_may(verb, self._tenant, device, topic):
            return False
        self.denied.count(verb, device, Denial(topic[:TOPIC], 1))
        if len(self._logged) >= NAMES:
            self._logged = {name: at for name, at in self._logged.items() if now - at < AGAIN}
        if now - self._logged.get((verb, device), float("-inf")) < AGAIN or len(self._logged) >= NAMES:
            return False
        self._logged[verb, device] = now
        return True


class BrokerWords:
    """The FIFO of one broker and the thread that reads it into `log`."""

    def __init__(self, path: Path, output: Path, tenant: TenantId) -> None:
        """`path` is where the FIFO lies; `output` the log, which somebody else may cut meanwhile (`ChildLog`)."""
        self.path, self._output = path, output
        self._sieve = Sieve(tenant)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = ""  # what the disk said last

    def create(self) -> None:
        """An empty FIFO, and a log, for a broker that is about to start."""
        self.end()
        os.mkfifo(self.path, 0o600)
        self._output.touch(0o600)

    def listen(self) -> None:
        """Reads from now on; raises FileNotFoundError where there is no FIFO. Once it listens this does nothing."""
        if self._thread is not None:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(OSError):  # an account has so much of it and no more: less room does as well
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)
        self._ended.clear()
        self._thread = threading.Thread(target=self._run, args=(descriptor,), name="broker-words", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Reads what there is, and then no more; the FIFO stays, for the broker goes on."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def end(self) -> None:
        """Reads what there is of a broker that has ended. No FIFO stays: a copy of the folder would wait at it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def hand_over(self, tell: Callable[[Denied], None]) -> None:
        """What was denied since the last time, if anything; where `tell` raises it is kept for the next."""
        with self._lock:
            found, self._sieve.denied = self._sieve.denied, Denied()
        if not found:
            return
        try:
            tell(found)
        except BaseException:
            with self._lock:
                since, self._sieve.denied = self._sieve.denied, found
                found.add(since)
            raise

    def _run(self, descriptor: int) -> None:
        try:
            while not self._ended.wait(PACE):
                self._read(descriptor)
            self._read(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            words = os.read(descriptor, PIPE)
        except BlockingIOError:
            return  # it has said nothing
        with self._lock:
            kept = self._sieve.take(words, clock.ticks())
        if not kept:
            return
        try:
            with os.fdopen(os.open(self._output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "ab") as file:
                file.write(kept)
            self._refused = ""
        except OSError as error:  # a full disk: the words are lost, the denials are not
            if self._refused != str(error):
                self._refused = str(error)
                log.error("%s lacks what the broker says: %s", self._output, error)
