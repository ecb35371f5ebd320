"""The core as processes: one clear message or all of it, whoever dies comes back, nobody is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import clock
from appliance.api import CoreAway
from appliance.core import owner
from appliance.core.node import LONGEST, RESTARTS, CoreFailed, CoreNode, pause
from appliance.core.state import CoreFolder, catalog_key, open_keys
from appliance.demo.fleet import Machines, free_ports
from appliance.edge.enrolling import enrol, read_token
from appliance.edge.state import EdgeFolder
from appliance.keys import KeyUnsafe
from appliance.processes import PortTaken
from appliance.settings import CoreSettings, Ports
from core.orders import ApplyProject, IssueToken, TrustKeys
from core.project import Project
from sync import topics
from sync.link import Publish
from sync.mqtt import Broker, MqttLink
from sync.names import DEFAULT_TENANT, DeviceId
from tests.appliance.running import RunningCore, falaj
from tests.journey.real import kill_core
from tests.waiting import eventually

pytestmark = pytest.mark.broker


def family(pid: int) -> dict[int, str]:
    """Process id -> command line of everything below a process; one that ends while it is looked at is none."""
    found: dict[int, str] = {}
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, path.read_text().split()):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
                found |= family(child)
    return found


def left_behind(folder: Path) -> list[str]:
    """Command lines of our children that speak of a folder."""
    return [line for line in family(os.getpid()).values() if str(folder) in line]


def part(pid: int, name: str) -> int:
    """The process id of one of the core's direct children."""
    words = {"broker": "mosquitto.conf"}.get(name, f"core {name}")
    return min((p for p, line in family(pid).items() if words in line), default=0)


def answers(machines: Machines) -> bool:
    """Whether console and steward both do their work."""
    try:
        machines.api.get("/v1/status")
        machines.api.order(TrustKeys(actor="test"))
    except (CoreAway, owner.Trouble):
        return False
    return True


def parts(machines: Machines) -> list[dict[str, Any]]:
    """The events about the core's own certificates, newest first."""
    events = machines.api.get("/v1/events")["events"]
    return [e for e in events if e["code"].startswith("part-") and e["facts"]["part"] == "certificates"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A core whose parts may be killed."""
    machines = Machines(tmp_path_factory.mktemp("own"))
    try:
        machines.start_core()
        owner.init(machines.api, machines.home / "owner", "test", clock.now())
        yield machines
    finally:
        machines.stop()


def test_no_secret_stands_in_a_command_line_or_an_environment(own: Machines) -> None:
    assert own.core is not None
    folder = CoreFolder(own.core_folder, DEFAULT_TENANT)
    keys = open_keys(folder)
    secrets = [catalog_key(keys).hex(), (folder.root / "kek").read_text(), folder.console_token.read_text()]
    secrets += [keys.read_secret(folder.home / "keys" / name).decode()[30:70] for name in ("director", "ca")]
    processes = family(own.core.pid)
    assert len(processes) >= 4, "broker, steward, console, enrolment listener"
    for pid, line in processes.items():
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        for secret in secrets:
            assert secret not in line
            assert secret not in environment


def test_only_the_owner_may_enter_the_folder_of_the_core(own: Machines) -> None:
    for path in own.core_folder.rglob("*"):
        if path.is_dir() and path.parent == own.core_folder and path.name != "logs":
            assert path.stat().st_mode & 0o077 == 0, path
    for name in ("kek", "run/console.token", "run/api.sock", "run/steward.sock", "tenants/default/tenant.key"):
        assert (own.core_folder / name).stat().st_mode & 0o077 == 0, name


@pytest.mark.parametrize("name", ["steward", "console", "enrolment", "broker"])
def test_a_part_that_is_killed_comes_back(own: Machines, name: str) -> None:
    assert own.core is not None
    before = part(own.core.pid, name)
    assert before
    os.kill(before, signal.SIGKILL)
    eventually(lambda: part(own.core.pid, name) not in (0, before), f"another {name}")  # type: ignore[union-attr]
    eventually(lambda: answers(own), "the core to answer again")
    assert own.core.poll() is None


def test_what_was_committed_survives_a_killed_steward(own: Machines) -> None:
    assert own.core is not None
    version = own.api.order(ApplyProject(actor="test", project=Project(), folder="/"))["version"]
    os.kill(before := part(own.core.pid, "steward"), signal.SIGKILL)
    eventually(lambda: part(own.core.pid, "steward") not in (0, before), "another steward")  # type: ignore[union-attr]
    eventually(lambda: answers(own), "the core to answer again")
    assert own.api.order(ApplyProject(actor="test", project=Project(), folder="/x"))["version"] == version + 1


def test_a_part_that_does_not_stay_up_is_waited_for_longer_each_time_and_never_given_up() -> None:
    pauses = [pause(ends) for ends in range(1, 40)]
    assert pauses[: RESTARTS - 1] == [0.0] * (RESTARTS - 1)
    assert pauses == sorted(pauses) and pauses[RESTARTS - 1] == 1.0 and pauses[-1] == LONGEST


@pytest.mark.slow
def test_while_the_steward_cannot_start_the_broker_stays_and_it_comes_back_by_itself(own: Machines) -> None:
    assert own.core is not None
    broker, key = part(own.core.pid, "broker"), own.core_folder / "kek"
    assert broker
    key.chmod(0o644)  # which it refuses to start with
    os.kill(part(own.core.pid, "steward"), signal.SIGKILL)
    log = own.core_folder.parent / "core.log"
    eventually(lambda: "steward does not stay up:" in log.read_text(), "the core to say so")
    assert own.core.poll() is None and part(own.core.pid, "broker") == broker
    assert "steward fails: it is not there" in falaj("status", "--dir", str(own.core_folder)).stdout
    key.chmod(0o600)
    eventually(lambda: answers(own), "the steward to be back")
    eventually(lambda: own.api.get("/v1/status")["failing"] != [], "it to be told that it did not stay up")
    (row,) = own.api.get("/v1/status")["failing"]
    assert row["part"] == "steward" and "chmod" in row["text"]
    assert re.search(r"it ended \d+ times in 10 minutes", row["text"])


def test_keys_that_cannot_be_read_keep_no_other_part_from_going_on(own: Machines) -> None:
    assert own.core is not None
    folder, log = CoreFolder(own.core_folder, DEFAULT_TENANT), own.core_folder.parent / "core.log"
    wrapped, said = folder.home / "tenant.key", len(log.read_bytes())
    before = (own.core.pid, part(own.core.pid, "broker"), part(own.core.pid, "steward"))
    kept, trusted = wrapped.read_bytes(), folder.trusted.read_bytes()
    wrapped.write_bytes(b"{")
    folder.trusted.write_bytes(trusted + b"\n")  # as if there were another authority: certificates are looked at anew
    eventually(lambda: b"certificates: " in log.read_bytes()[said:], "the core to say what is in the way")
    eventually(lambda: parts(own), "the steward to be told of it")
    (failing,) = parts(own)
    assert failing["code"] == "part-failing" and failing["severity"] == "alarm"
    assert "cannot be renewed" in failing["text"] and " UTC, and then devices are kept out" in failing["text"]
    assert "tenant.key does not open" in failing["text"]
    shown = falaj("status", "--dir", str(own.core_folder)).stdout
    assert shown.index("needs you") < shown.index("the core, certificates began to fail") < shown.index("devices: ")
    os.kill(part(own.core.pid, "console"), signal.SIGKILL)
    eventually(lambda: answers(own), "the core to keep its other parts up")
    assert (own.core.pid, part(own.core.pid, "broker"), part(own.core.pid, "steward")) == before
    assert own.core.poll() is None
    wrapped.write_bytes(kept)
    eventually(lambda: folder.trusted.read_bytes() == trusted, "the certificates to be put right by themselves")
    eventually(lambda: answers(own), "the core to answer again")
    eventually(lambda: len(parts(own)) == 2, "the steward to be told that it is over")
    assert [event["code"] for event in parts(own)] == ["part-works-again", "part-failing"], "each once"
    assert "certificates" not in [row["part"] for row in own.api.get("/v1/status")["failing"]]


def test_what_the_broker_denies_a_device_is_told_also_what_it_denied_while_no_core_ran(
    own: Machines, tmp_path: Path
) -> None:
    assert own.core is not None
    folder, speaker = EdgeFolder(tmp_path / "edge"), DeviceId("speaker")
    given = read_token(own.api.order(IssueToken(actor="test", device=speaker, minutes=60))["token"])
    joined = enrol(folder, given, clock.now())
    link = MqttLink(Broker(joined.uplink_host, joined.uplink_port, speaker, tls=folder.tls()))
    link.start(lambda message: None, lambda up, reason: None)
    assert link.wait_until_up(20)

    def told() -> list[tuple[str, str, str]]:
        events = own.api.get("/v1/events")["events"]
        return [(e["source"], e["severity"], e["facts"]["topic"]) for e in events if e["code"] == "publish-denied"]

    link.publish(Publish(topics.core_status(DEFAULT_TENANT), b"forged"))
    eventually(lambda: told() == [("speaker", "alarm", topics.core_status(DEFAULT_TENANT))], "the event")
    broker = part(own.core.pid, "broker")
    kill_core(own)  # waits until its children are dead, too: they hold its ports
    link.publish(Publish("while/no/core/ran", b"forged"))
    own.run_core()
    eventually(lambda: answers(own) and len(told()) == 2, "the event of what was said meanwhile")
    assert told()[0] == ("speaker", "alarm", "while/no/core/ran")
    assert Path(f"/proc/{broker}").exists() and link.wait_until_up(0), "the broker outlived it, the session stands"
    link.stop()
    assert not [row["part"] for row in own.api.get("/v1/status")["failing"]]


def test_a_second_core_in_the_same_folder_is_refused_and_harms_nothing(own: Machines) -> None:
    done = falaj("core", "run", "--dir", str(own.core_folder))
    assert done.returncode == 1
    assert "is in use by another falaj process: stop it, or give another --dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert answers(own)


def test_sigterm_ends_all_of_it_and_the_next_start_finds_everything(own: Machines) -> None:
    assert own.core is not None
    before = own.api.get("/v1/status")["trust"]
    children = family(own.core.pid)
    own.core.terminate()
    assert own.core.wait(20) == 0
    for pid, line in children.items():
        eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), line)  # type: ignore[misc]
    assert not (own.core_folder / "run" / "ready").exists()
    node = CoreNode(CoreFolder(own.core_folder, DEFAULT_TENANT), CoreSettings(ports=Ports(**own.ports)))
    node.start()
    try:
        assert own.api.get("/v1/status")["trust"] == before
    finally:
        node.stop()
    assert not left_behind(own.core_folder)


@pytest.mark.parametrize("taken", ["uplink", "enrol", "console"])
def test_a_taken_port_is_one_message_and_nothing_starts(tmp_path: Path, taken: str) -> None:
    names = ("uplink", "enrol", "console")
    ports = dict(zip(names, free_ports(3), strict=True))
    with socket.create_server(("127.0.0.1", ports[taken])):
        node = CoreNode(CoreFolder(tmp_path / "core", DEFAULT_TENANT), CoreSettings(ports=Ports(**ports)))
        with pytest.raises(PortTaken, match=rf"port {ports[taken]} .* or set ports\.{taken} in core\.toml"):
            node.start()
    assert not left_behind(tmp_path)
    assert not (tmp_path / "core" / "run" / "ready").exists()


def test_a_part_that_does_not_start_is_one_message_and_nothing_is_left(tmp_path: Path) -> None:
    folder = CoreFolder(tmp_path, DEFAULT_TENANT)
    folder.home.mkdir(parents=True)
    folder.catalog.write_bytes(b"not a catalog" * 400)
    uplink, enrol, console = free_ports(3)
    node = CoreNode(folder, CoreSettings(ports=Ports(uplink=uplink, enrol=enrol, console=console)))
    with pytest.raises(CoreFailed, match=r"(?s)^steward does not start:\n.*catalog"):
        node.start()
    assert not left_behind(tmp_path)
    assert not folder.ready.exists()


def test_open_keys_are_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = CoreFolder(tmp_path, DEFAULT_TENANT)
    open_keys(folder)
    (tmp_path / "kek").chmod(0o644)
    uplink, enrol, console = free_ports(3)
    node = CoreNode(folder, CoreSettings(ports=Ports(uplink=uplink, enrol=enrol, console=console)))
    with pytest.raises(KeyUnsafe, match="chmod 600"):
        node.start()
    assert not left_behind(tmp_path)


def test_a_path_too_long_for_sockets_is_one_message(tmp_path: Path) -> None:
    folder = CoreFolder(tmp_path / ("x" * 100), DEFAULT_TENANT)
    with pytest.raises(CoreFailed, match="too long a path for Unix sockets: give a shorter --dir"):
        CoreNode(folder, CoreSettings()).start()
    assert not folder.root.exists()


def test_the_shared_core_says_who_it_is(core: RunningCore) -> None:
    status = core.api.get("/v1/status")
    assert status["tenant"] == "default"
    assert status["trust"]["profile"] == "single-owner"
