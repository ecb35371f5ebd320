"""The core's supervisor: prepares the folder, starts broker, steward, console and enrolment listener, and keeps
them. Each is a process of its own with only the secrets it needs; whoever dies is started anew."""

from __future__ import annotations

import logging
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import IO

from appliance import clock
from appliance.broker import Broker, uplink_config, write_access
from appliance.broker_words import Denied
from appliance.child_log import ChildLog
from appliance.core.authorities import certificates
from appliance.core.orders_socket import ask
from appliance.core.state import (
    CoreFolder,
    authority_folder,
    catalog_key,
    open_keys,
    prepare,
    renew_servers,
    servers_hold_until,
)
from appliance.core.troubles import DENIALS, Troubles
from appliance.errors import Trouble
from appliance.notify import notify
from appliance.processes import check_port_free, hold, last_words, listens, spawn, stop, tail
from appliance.settings import CoreSettings
from core.orders import BrokerDenied, Order, PartsFailing
from sync.durable import write_private

log = logging.getLogger("falaj.core")

SOCKET_PATH = 107  # bytes of a Unix socket's path on Linux
RENEW = 6 * 3600.0  # seconds between two looks at the certificates
RESTARTS, WITHIN = 5, 600.0  # from so many ends of a child in so many seconds on, each next start waits for longer ...
LONGEST = 60.0  # ... up to so many seconds
HEARING = 2.0  # seconds that the steward has for a word of the supervisor, who looks after nobody meanwhile
OVERHEARD = 5.0  # seconds between two words to it of what the broker denied


class CoreFailed(Trouble):
    """The core does not start; the message carries the last lines of the log."""


@dataclass
class _Kept:
    """A child, how to start it, and when it ended lately."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    child: subprocess.Popen[bytes]
    log: ChildLog
    ends: list[float] = field(default_factory=list)
    due: float | None = None  # when it is started anew; None while it runs


def pause(ends: int) -> float:
    """Seconds before a child that ended so often lately is started anew. It is never given up: a disk that was full
    takes writes again one day, and until then the broker has what the devices need."""
    return 0.0 if ends < RESTARTS else min(LONGEST, 2.0 ** (ends - RESTARTS))


class CoreNode:
    """One core with one tenant."""

    def __init__(self, folder: CoreFolder, settings: CoreSettings) -> None:
        self.folder, self.settings = folder, settings
        self.broker = Broker(
            folder.broker, settings.listen, settings.ports.uplink, "ports.uplink in core.toml", tenant=folder.tenant
        )  # fmt: skip
        self._kept: list[_Kept] = []
        self._ended = threading.Event()
        self._renewed, self._overheard = clock.elapsed(), clock.ticks()
        self._troubles = Troubles(self._words, self._tell)
        self._lock: IO[bytes] | None = None

    def start(self) -> None:
        """Starts everything; raises PortTaken, NoBroker, KeyUnsafe or CoreFailed with nothing left running."""
        ports = self.settings.ports
        if len(str(self.folder.steward_socket).encode()) > SOCKET_PATH:
            raise CoreFailed(f"{self.folder.root} is too long a path for Unix sockets: give a shorter --dir")
        self._lock = hold(self.folder.root)
        try:
            check_port_free(self.settings.listen, ports.enrol, "ports.enrol in core.toml")
            check_port_free("127.0.0.1", ports.console, "ports.console in core.toml")
            keys = open_keys(self.folder)
            prepare(self.folder, self.settings, keys, clock.now())
            write_private(self.folder.console_token, secrets.token_urlsafe(24).encode())
            for left in (self.folder.ready, self.folder.steward_socket, self.folder.api_socket):
                left.unlink(missing_ok=True)  # of an earlier run that was killed
            self._start_broker()
            self._keep("steward")
            self._wait(lambda: self.folder.steward_socket.exists(), "steward")
            self._keep("console", catalog_key(keys).hex().encode())
            self._keep("enrolment")
            self._wait(lambda: self.folder.api_socket.exists(), "console")
            self._wait(lambda: listens(self.settings.listen, ports.enrol), "enrolment")
            self.folder.ready.touch()
        except BaseException:
            self.stop()
            raise

    def run(self) -> None:
        """Keeps the children until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())
        notify("READY=1")
        try:
            while not self._ended.wait(0.5):
                self._look_after()
        finally:
            notify("STOPPING=1")
            self.stop()

    def stop(self) -> None:
        """Ends all children, the broker last."""
        self.folder.ready.unlink(missing_ok=True)
        for kept in reversed(self._kept):
            stop(kept.child)
        self._kept.clear()
        self.broker.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _start_broker(self) -> None:
        write_access(self.folder.broker, self.folder.tenant)
        config = uplink_config(
            self.folder.broker, self.settings.listen, self.settings.ports.uplink, self.folder.broker_files(),
            self.settings.broker.retained_bytes,
        )  # fmt: skip
        self.broker.start(config)

    def _keep(self, name: str, secret: bytes | None = None) -> None:
        argv = [sys.executable, "-P", "-m", "appliance.cli", "core", name, "--dir", str(self.folder.root)]
        output = self.folder.logs / f"{name}.log"

        def start() -> subprocess.Popen[bytes]:
            return spawn(argv, output, secret)

        self._kept.append(_Kept(name, start, start(), ChildLog(output)))

    def _follow_authorities(self) -> None:
        """The steward brought a next authority, or put it in force. A broker adds whom it trusts when it is told, and
        forgets nobody until it starts anew; the devices' sessions and what is retained outlast that."""
        told = b"".join(certificates(self.folder.pki))
        if told == self.folder.trusted.read_bytes():
            return
        self._renew()
        self.broker.stop()
        write_private(self.folder.trusted, told)  # last but the start: cut before it, the next look does all again
        self._start_broker()
        log.warning("the broker was started anew: the tenant's authorities have changed")

    def _renew(self) -> None:
        """Certificates of the core's own servers, before they end. The steward finds its own by itself."""
        authority, _ = authority_folder(self.folder, open_keys(self.folder)).held()
        for name in renew_servers(self.folder, self.settings, authority, clock.now()):
            log.warning("the certificate %s was renewed", name)
            if name == "broker":
                self.broker.reload()
            for kept in (k for k in self._kept if k.name == "enrolment" and name == "enrol"):
                stop(kept.child)  # it reads its certificate when it starts
                kept.child, kept.due = kept.start(), None
        self._renewed = clock.elapsed()  # a certificate grows old also while the machine sleeps

    def _look_after(self) -> None:
        """Each part for itself: one that cannot be put right now keeps no other from it."""
        self._troubles.attempt("certificates", self._certify)
        self._troubles.attempt("broker", self._tend_broker)
        for kept in self._kept:
            self._troubles.attempt(kept.name, partial(self._keep_up, kept, clock.ticks()))
        self._troubles.tell()
        if clock.ticks() - self._overheard > OVERHEARD:
            self._overheard = clock.ticks()
            self._troubles.attempt(DENIALS, partial(self.broker.denials, self._denied))

    def _tell(self, failing: dict[str, str]) -> None:
        self._say(PartsFailing(actor="supervisor", parts=failing))

    def _denied(self, found: Denied) -> None:
        said = BrokerDenied(
            actor="supervisor", words=dict(found.words), filters=dict(found.filters), handshakes=found.handshakes
        )
        self._say(said)

    def _say(self, order: Order) -> None:
        answer = ask(self.folder.steward_socket, order, HEARING)
        if not answer.ok:
            raise Trouble(f"the steward refused to hear it: {answer.error}")

    def _words(self, part: str, text: str) -> str:
        """What follows from it, and what to do, on one line."""
        again, text = "it is tried again by itself", " ".join(text.split())
        if part == "certificates":
            return f"the core's own cannot be renewed. {self._until()}. Put right what is in the way, {again}: {text}"
        if part == "broker":
            log_file = self.folder.broker / "mosquitto.log"
            return f"it is not kept up. Devices serve and keep what they say. See {log_file}, {again}: {text}"
        return f"it is not kept up. See {self.folder.logs / part}.log, {again}: {text}"

    def _until(self) -> str:
        try:
            ends = datetime.fromtimestamp(servers_hold_until(self.folder), UTC)
        except (OSError, ValueError) as error:
            return f"Nor can they be read ({error})"
        return f"The first of them ends on {ends:%Y-%m-%d %H:%M} UTC, and then devices are kept out"

    def _certify(self) -> None:
        if clock.elapsed() - self._renewed > RENEW:
            self._renew()
        self._follow_authorities()

    def _tend_broker(self) -> None:
        if not self.broker.alive():
            log.warning("the broker ended; starting it anew")
            self._start_broker()
        self.broker.look_after()

    def _keep_up(self, kept: _Kept, now: float) -> None:
        kept.log.bound()
        code = kept.child.poll()
        kept.ends = [t for t in kept.ends if now - t < WITHIN]
        if code is None:
            if len(kept.ends) < RESTARTS:
                self._troubles.ends(kept.name, "")
            return
        if kept.due is None:
            kept.ends.append(now)
            kept.due = now + pause(len(kept.ends))
            log.warning("%s ended (%s); starting it anew in %.0f s", kept.name, code, kept.due - now)
            if len(kept.ends) >= RESTARTS:
                self._does_not_stay(kept)
        if now >= kept.due:
            kept.child, kept.due = kept.start(), None

    def _does_not_stay(self, kept: _Kept) -> None:
        output = self.folder.logs / f"{kept.name}.log"
        if len(kept.ends) == RESTARTS:
            log.error("%s does not stay up:\n%s", kept.name, tail(output))
        said = f"it ended {len(kept.ends)} times in {WITHIN / 60:.0f} minutes, at last with: {last_words(output)}"
        self._troubles.ends(kept.name, said)

    def _wait(self, ready: Callable[[], bool], name: str, patience: float = 20.0) -> None:
        end = clock.ticks() + patience
        child = self._kept[-1].child if self._kept else None
        while not ready():
            if clock.ticks() > end or (child is not None and child.poll() is not None):
                raise CoreFailed(f"{name} does not start:\n{tail(self.folder.logs / f'{name}.log', 12)}")
            time.sleep(0.05)
