"""The journey with real processes: core, agents and brokers as in the field, on made-up recordings; and what is killed
of it with -9: an agent, the whole core, at a moment that can be seen from outside.

`Tap` is a wiretap no device could have: a certificate of the tenant's own CA and a line in the broker's rules. It
hears every payload of the uplink, and can take a chunk away from the broker.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from rich.console import Console

from appliance.core.state import CoreFolder, authority_folder, open_keys
from appliance.demo.field import Watch
from appliance.demo.fleet import Device, Machines
from appliance.demo.recordings import Recording
from appliance.demo.story import MODEL, Act, Cast
from appliance.demo.summary import Story
from core.fleet import enrolment
from edge.states import Deployment
from sync import codec
from sync.link import Message, Publish
from sync.mqtt import Broker, MqttLink, Tls
from sync.names import DEFAULT_TENANT
from sync.topics import tenant_root
from tests.journey.made_up import recordings, windows
from tests.journey.tale import PROJECT
from tests.waiting import eventually

SUBJECTS = (1, 2)
MARK = "falaj-journey-marker-7f3a"


_PROVING = "SELECT 1 FROM deployment WHERE json_extract(document, '$.phase') = 'proving'"
_GIVEN_UP = "SELECT 1 FROM quarantine WHERE manifest = ? AND retry >= ?"


@dataclass
class Tap:
    """Everything that passed the uplink broker."""

    link: MqttLink
    heard: list[tuple[str, bytes]] = field(default_factory=list)

    def take_away(self, topic: str) -> None:
        """Clears a retained message, as a broker that lost it would."""
        self.link.publish(Publish(topic, b"", qos=1, retain=True))


def tap(machines: Machines) -> Tap:
    """Lets the tap into the running broker."""
    place = CoreFolder(machines.core_folder, DEFAULT_TENANT)
    authority = authority_folder(place, open_keys(place)).held()[0]
    key = ec.generate_private_key(ec.SECP256R1())
    san: list[x509.GeneralName] = [x509.UniformResourceIdentifier("falaj:tap")]
    certificate = enrolment._leaf(
        authority, "tap@test", key.public_key(), san, ExtendedKeyUsageOID.CLIENT_AUTH, time.time()
    )
    folder = machines.home / "tap"
    folder.mkdir()
    (folder / "tap.pem").write_bytes(certificate)
    (folder / "tap.key").write_bytes(enrolment._pem(key))
    admit_tap(place)
    tls = Tls(place.pki / "ca.pem", folder / "tap.pem", folder / "tap.key")
    link = MqttLink(Broker("127.0.0.1", machines.ports["uplink"], "tap@test", tls=tls, clean_start=True))
    found = Tap(link)

    def hear(message: Message) -> None:
        found.heard.append((message.topic, message.payload))

    link.subscribe(f"{tenant_root(DEFAULT_TENANT)}/#")
    link.start(hear, lambda up, why: None)
    eventually(lambda: bool(link.listening), "the tap to listen", 10)
    return found


def admit_tap(place: CoreFolder) -> None:
    """Puts the tap into the running broker's rules: a core that starts, or starts its broker, writes them anew."""
    rules, own = place.broker / "acl", f"user tap@test\ntopic readwrite {tenant_root(DEFAULT_TENANT)}/#\n\n"
    if not rules.read_text().startswith(own):
        rules.write_text(own + rules.read_text())
    os.kill(int((place.broker / "mosquitto.pid").read_text()), signal.SIGHUP)


def project(home: Path) -> Path:
    """The demo's project, trained more quickly, with a marker in the graph's metadata; labelled windows go up at any
    time, so that there is something on the uplink to search."""
    text = PROJECT.read_text().replace("epochs = 60", "epochs = 25").replace('when = "alarm"', 'when = "always"')
    path = home / "project.toml"
    path.write_text(text.replace('view = "imu"', f'view = "imu"\nmetadata = {{ note = "{MARK}" }}', 1))
    return path


@dataclass
class Stage:
    """A running tenant after act one."""

    machines: Machines
    act: Act
    tap: Tap
    everything: tuple[Recording, ...]

    def device(self, name: str) -> Device:
        return next(d for d in self.machines.devices if d.name == name)

    def of(self, subject: int) -> tuple[Recording, ...]:
        return tuple(r for r in self.everything if r.subject == subject)


class TappedAct(Act):
    """Act one, with the tap let in as soon as the broker runs."""

    tap: Tap

    def _start_core(self, step: object) -> None:
        super()._start_core(step)  # type: ignore[arg-type]
        self.tap = tap(self.machines)


@contextmanager
def play(home: Path) -> Iterator[Stage]:
    """Act one on two devices; raises what the demo would raise. All of it ends with the block."""
    everything = recordings((*SUBJECTS, 3), samples=1800)
    cast_recordings = tuple(r for r in everything if r.subject in SUBJECTS)
    cast = Cast(cast_recordings, SUBJECTS, windows(cast_recordings), 0.9, project(home), speed=8.0)
    machines = Machines(home)
    act = TappedAct(machines, Story(Console(quiet=True)), cast)
    try:
        act.run()
        yield Stage(machines, act, act.tap, everything)
        act.tap.link.stop()
    finally:
        machines.stop()


@contextmanager
def act_one(home: Path, everything: tuple[Recording, ...], project_text: str) -> Iterator[Act]:
    """Act one on a device for each person of `everything`, who wear right wrists; all of it ends with the block."""
    path = home / "project.toml"
    path.write_text(project_text)
    subjects = tuple(dict.fromkeys(r.subject for r in everything))
    right = tuple(r for r in everything if r.side == "right")
    machines = Machines(home)
    act = Act(machines, Story(Console(quiet=True)), Cast(everything, subjects, windows(right), 0.9, path, speed=8.0))
    try:
        act.run()
        yield act
    finally:
        machines.stop()


def kill(device: Device) -> None:
    """kill -9; nobody is asked."""
    assert device.process is not None
    device.process.kill()
    device.process.wait()


def kill_core(machines: Machines) -> set[str]:
    """kill -9 of the supervisor and of all that stands below it; only the tenant's broker stays (ADR 0011).

    Returns what was killed, by the words behind `falaj core`.
    """
    assert machines.core is not None
    broker = int((CoreFolder(machines.core_folder, DEFAULT_TENANT).broker / "mosquitto.pid").read_text())
    found = {pid: _called(pid) for pid in (machines.core.pid, *_below(machines.core.pid)) if pid != broker}
    for pid in found:
        with suppress(ProcessLookupError):  # whoever started it is dead already, and the kernel was quicker
            os.kill(pid, signal.SIGKILL)
    machines.core.wait()
    eventually(lambda: not any(_called(pid) for pid in found), "all of the core to be dead", 10)
    assert _called(broker), "the broker has outlived it"
    return set(found.values())


def _below(pid: int) -> list[int]:
    """Children of a process, and theirs."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in _below(child)]


def _called(pid: int) -> str:
    """What a process runs: its command line from `core` to its folder; empty once it is dead."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return " ".join(words[words.index("core") + 1 : words.index("--dir")]) if "core" in words else " ".join(words)


def model(device: Device) -> dict[str, Any]:
    """The device's own word on the model; empty while it is away."""
    return dict((device.status() or {}).get("models", {}).get(MODEL) or {})


def phase(device: Device) -> str:
    return str(model(device).get("phase", ""))


def kill_proving(device: Device, patience: float) -> str:
    """kill -9 as soon as the journal says that a proof begins; returns the phase that it was left in."""
    return _kill_when(device, _PROVING, (), patience, "proof")


def kill_reverting(device: Device, manifest: str, retry: int, patience: float) -> str:
    """kill -9 as soon as the journal says that this release is given up, in this retry generation; returns the phase
    that it was left in."""
    return _kill_when(device, _GIVEN_UP, (manifest, retry), patience, "verdict")


def _kill_when(device: Device, written: str, of: tuple[str | int, ...], patience: float, what: str) -> str:
    """Between that write and the next there may be a few milliseconds, and the status is a picture of every second:
    the journal is looked at far more often."""
    with _journal(device) as db:
        end = time.monotonic() + patience
        while not db.execute(written, of).fetchone():
            assert time.monotonic() < end, f"waited {patience} s for the {what} of {device.name}"
            time.sleep(0.0002)
        kill(device)
    return left_in(device)


def left_in(device: Device) -> str:
    """The phase that a dead agent's journal says."""
    with _journal(device) as db:
        (document,) = db.execute("SELECT document FROM deployment WHERE model = ?", (MODEL,)).fetchone()
    return codec.decode(Deployment, bytes(document), 1 << 24).phase.value


def _journal(device: Device) -> closing[sqlite3.Connection]:
    """Looked at from outside, read only; closed with the block."""
    return closing(sqlite3.connect(f"file:{device.folder.journal}?mode=ro", uri=True))


__all__ = [
    "MARK", "MODEL", "Stage", "Watch", "act_one", "admit_tap", "kill", "kill_core", "kill_proving", "kill_reverting",
    "left_in", "model", "phase", "play",
]  # fmt: skip
