"""Mosquitto, configured and watched: one per tenant on the core, one small one beside each agent.

What the configuration must say is written here with its reason; the access rules come from `sync.topics`, so that
broker, in-memory twin and documentation cannot differ.
"""

from __future__ import annotations

import base64
import dataclasses
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.broker_words import BrokerWords, Denied
from appliance.child_log import MOST, ChildLog
from appliance.errors import Trouble
from appliance.processes import check_port_free, end_stranger, spawn, stop, tail, wait_for_port
from sync.durable import write_private
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink, Tls
from sync.names import DeviceId, TenantId
from sync.topics import CORE_NAME, DEVICE_RULES, ROOT, tenant_root


class NoBroker(Trouble):
    """Mosquitto is missing, or does not start; the message says what to do."""

    exit_code = 3


@dataclass(frozen=True)
class BrokerFiles:
    """Certificates of a tenant's broker, all PEM."""

    ca: Path
    certificate: Path
    key: Path
    revocations: Path


ROOM = 512 << 20  # bytes of the broker's memory beside the blobs: sessions, queues, trust files, reports
TAKE_OVER = 10.0  # seconds until it is given up to end a session
SBIN = ("/usr/sbin", "/usr/local/sbin")  # where Debian keeps servers; not on every PATH


def find(program: str = "mosquitto", more: tuple[str, ...] = SBIN) -> str:
    """The path of a program of Mosquitto's package, on PATH or in `more`; raises NoBroker."""
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *more)))
    if found is None:
        raise NoBroker(
            f"{program} is not installed: run `sudo apt-get install mosquitto` (or `make demo`, which asks first)"
        )
    return found


def uplink_acl(tenant: TenantId, denied: Iterable[DeviceId] = ()) -> str:
    """The access rules of a tenant's broker: the core may do all below its root, a device what the table says, one that
    is denied nothing. A section that is missing takes no right away, and a revocation list ends no session: only
    `deny` silences who is connected already."""
    lines = [f"user {CORE_NAME}", f"topic readwrite {tenant_root(tenant)}/#", ""]
    lines += [
        f"pattern {action} {tenant_root(tenant)}/{pattern.format(device='%u')}" for action, pattern in DEVICE_RULES
    ]
    for device in denied:
        lines += ["", f"user {device}", f"topic deny {ROOT}/#"]
    return "\n".join(lines) + "\n"


def write_access(folder: Path, tenant: TenantId, denied: Iterable[DeviceId] | None = None) -> None:
    """Writes a broker's access rules; who is denied is kept beside them, and stays so where nothing is said of it."""
    path = folder / "denied"
    if denied is None:
        kept = path.read_text().split() if path.exists() else []
        denied = [DeviceId(name) for name in kept]
    names = tuple(denied)
    write_private(path, "\n".join(names).encode())
    write_private(folder / "acl", uplink_acl(tenant, names).encode())


def end_session(at: At, ca: Path, certificate: bytes, key: bytes, folder: Path) -> bool:
    """Ends the session of the name that this pair (PEM) bears, by taking it over and leaving at once; whatever waited
    in it goes. Whether the broker let us. `folder` is private, for files that go again."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        tls = Tls(ca, Path(place) / "cert.pem", Path(place) / "key.pem")
        write_private(tls.key, key)
        write_private(tls.certificate, certificate)
        link = MqttLink(dataclasses.replace(at, tls=tls, clean_start=True, session_expiry=0))
        link.start(lambda message: None, lambda up, reason: None)
        done = link.wait_until_up(TAKE_OVER)
        link.stop()
    return done


def uplink_config(folder: Path, listen: str, port: int, files: BrokerFiles, retained: int = 1 << 30) -> str:
    """A tenant's broker: TLS 1.3 with client certificates; the certificate's name is user and client id. `retained` is
    what it may keep of blobs (bytes): with ROOM for all else beside it is its memory."""
    return f"""\
per_listener_settings false
user {getpass.getuser()}
listener {port} {listen}
cafile {files.ca}
certfile {files.certificate}
keyfile {files.key}
crlfile {files.revocations}
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
# Otherwise another valid certificate could take a session over by its client id.
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/acl
# Without it a QoS 1 exchange waits for delayed acknowledgements.
set_tcp_nodelay true
max_keepalive 120
max_packet_size 2097152
message_size_limit 1048576
# What waits for one client, and all together: a device that does not read, or many, must not fill the machine.
max_queued_messages 4096
max_queued_bytes 33554432
memory_limit {retained + ROOM}
persistent_client_expiration 30d
persistence true
persistence_location {folder}/store/
# The store is written on SIGUSR1 after each release; the interval is for the rest.
autosave_interval 300
log_dest stderr
log_type error
log_type warning
log_type notice
"""


SIFTED = """\
# A denied publish is told here alone; the lines of each packet that come with it are not kept.
log_type debug
# Who asked to hear what: it grants everything, and delivers what the rules allow.
log_type subscribe
"""


def local_config(folder: Path, port: int) -> str:
    """An agent's own broker: loopback, user and password, what field devices speak (3.1.1 and 5)."""
    return f"""\
per_listener_settings false
user {getpass.getuser()}
listener {port} 127.0.0.1
allow_anonymous false
password_file {folder}/passwords
set_tcp_nodelay true
# The agent acknowledges readings when they are checkpointed; nothing may be dropped while it restarts.
max_inflight_messages 64
max_queued_messages 0
max_queued_bytes 67108864
persistent_client_expiration 7d
# Readings never lie readable on this device's disk: what waits for the agent waits in memory, while it restarts.
persistence false
log_dest stderr
log_type error
log_type warning
"""


def write_passwords(folder: Path, users: tuple[str, ...]) -> None:
    """A password for each user in `{user}.password` (kept if there) and the broker's file of their hashes."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lines = []
    for user in users:
        path = folder / f"{user}.password"
        if not path.exists():
            write_private(path, base64.urlsafe_b64encode(os.urandom(24)))
        lines.append(f"{user}:{path.read_text()}")
    # mosquitto_passwd hashes a file in place, so that no password is ever on a command line. Until it has, the file
    # bears another name: with plain ones, left by a kill, the broker would let nobody in.
    hashed = folder / "passwords.new"
    write_private(hashed, ("\n".join(lines) + "\n").encode())
    done = subprocess.run([find("mosquitto_passwd"), "-U", str(hashed)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoBroker(f"mosquitto_passwd: {done.stderr.strip() or done.stdout.strip()}")
    write_private(folder / "passwords", hashed.read_bytes())
    hashed.unlink()


class Broker:
    """A Mosquitto process in its folder. It outlives whoever started it, however that ends: applications and devices
    keep their sessions while an agent or a core restarts, and `start` takes a running one over. Only `stop` ends it,
    or, where it shall not `outlive` it, the end of the process that started it.
    """

    def __init__(
        self, folder: Path, host: str, port: int, setting: str, *, outlive: bool = True, log_bytes: int = MOST,
        tenant: TenantId | None = None,
    ) -> None:  # fmt: skip
        """`log_bytes` is when its log is cut (`look_after`). With a `tenant` its words are sifted, and whom it
        turned down is handed over (`denials`)."""
        self.folder, self.host, self.port, self._setting = folder, host, port, setting
        self._log = ChildLog(folder / "mosquitto.log", log_bytes)
        self._words = BrokerWords(folder / "mosquitto.fifo", self._log.path, tenant) if tenant is not None else None
        self._outlive = outlive
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, config: str) -> None:
        """Takes over the one that runs with this very configuration, else starts one and waits until it listens.

        Raises PortTaken or NoBroker with the last lines of its log.
        """
        program, path = find(), self.folder / "mosquitto.conf"
        if self._words is not None:
            config += SIFTED
        if self.pid is not None and path.exists() and path.read_text() == config and self._hears():
            self.reload()
            return
        self.stop()
        check_port_free(self.host, self.port, self._setting)
        (self.folder / "store").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, config.encode())
        output = self._log.path
        if self._words is not None:
            self._words.create()
            self._words.listen()
            output = self._words.path
        self._child = spawn([program, "-c", str(path)], output, outlive=self._outlive)
        write_private(self._pid_file, str(self._child.pid).encode())
        # It listens before it handles signals, and one to reload that came in between would end it.
        if not wait_for_port(self.host, self.port, self._child, signals=(signal.SIGHUP, signal.SIGUSR1)):
            self.stop()
            raise NoBroker(f"Mosquitto does not start:\n{tail(self._log.path)}")

    @property
    def pid(self) -> int | None:
        """Its process id if it runs. The command line is compared: ids are used again."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.folder / "mosquitto.conf").encode() in command.split(b"\0") else None

    def alive(self) -> bool:
        if self._child is not None:
            self._child.poll()  # a child that ended is reaped, or it would look alive
        return self.pid is not None

    def look_after(self) -> None:
        """Keeps its log within its bound; to be called every second or so while it runs."""
        self._log.bound()

    def denials(self, tell: Callable[[Denied], None]) -> None:
        """Hands over whom it turned down since the last time; where `tell` raises it is kept for the next."""
        if self._words is not None:
            self._words.hand_over(tell)

    def _hears(self) -> bool:
        """Whether the words of the one that runs can be read, if they shall be."""
        try:
            if self._words is not None:
                self._words.listen()
        except OSError:
            return False  # somebody took its FIFO away, or it is one of before there was one
        return True

    def reload(self) -> None:
        """Has it read its access rules, revocations and certificates anew; sessions stay."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGHUP)

    def persist(self) -> None:
        """Has it write its store now."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGUSR1)

    def stop(self) -> None:
        """Ends it, if it runs; it writes its store on the way."""
        if self._child is not None:
            stop(self._child)
            self._child = None
        pid = self.pid
        if pid is not None:
            end_stranger(pid)
        self._pid_file.unlink(missing_ok=True)
        if self._words is not None:
            self._words.end()

    @property
    def _pid_file(self) -> Path:
        return self.folder / "mosquitto.pid"
