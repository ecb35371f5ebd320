"""The commands as people run them, on a real core and a real agent that reach each other by nothing but a folder."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.demo.fleet import Device, Machines, free_ports
from core.orders import ApplyProject
from sync.names import DeviceId
from tests.appliance.running import falaj
from tests.journey.by_folder import MODEL, FarCore, project
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.slow]
FAR = DeviceId("far-1")


@dataclass
class Sites:
    """The core's site and the box's, and the stick between them."""

    machines: Machines
    box: Device
    stick: Path

    def at_the_core(self, *args: str) -> str:
        return self._run(*args, "--dir", str(self.machines.core_folder))

    def at_the_box(self, *args: str) -> str:
        return self._run(*args, "--dir", str(self.box.folder.root))

    def carry(self) -> Any:
        return json.loads(self.at_the_core("device", "carry", str(self.stick), "--json"))

    def sync(self) -> Any:
        return json.loads(self.at_the_box("edge", "sync", str(self.stick), "--json"))

    def _run(self, *args: str) -> str:
        done = falaj(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """A core with a release whose canary is the box; the address it tells devices leads nowhere."""
    home = tmp_path_factory.mktemp("far")
    made = FarCore(home, float(int(time.time())))
    made.order(ApplyProject(project=project((FAR,)), folder=str(home)))
    made.release(1, (1.0, 1.5, 1.25))
    made.catalog.close()
    machines = Machines(home)
    uplink, enrol, console = free_ports(3)
    text = f'host = "core.invalid"\n[ports]\nuplink = {uplink}\nenrol = {enrol}\nconsole = {console}\n'
    (machines.core_folder / "core.toml").write_text(text)
    box, stick = machines.add_device(FAR), home / "stick"
    stick.mkdir()
    try:
        machines.run_core()
        yield Sites(machines, box, stick)
    finally:
        machines.stop()


def test_a_release_and_its_commit_by_nothing_but_commands(sites: Sites) -> None:
    token = sites.at_the_core("device", "token", FAR, "--minutes", "10080").strip()
    asked = sites.at_the_box("edge", "enrol", token, "--folder", str(sites.stick))
    assert "next: take it to the core, run `falaj device carry FOLDER` there" in asked

    early = falaj("edge", "sync", str(sites.stick), "--dir", str(sites.box.folder.root))
    assert early.returncode == 1 and "has no answer to this box's request yet" in early.stderr

    answered = sites.at_the_core("device", "carry", str(sites.stick))
    assert f"{FAR}: may join; its answer is in the folder" in answered
    assert "next: take it to the devices and run `falaj edge sync FOLDER` there" in answered

    first = sites.sync()  # no agent runs: one is started for this visit
    assert first["joined"] and first["device"] == FAR and not first["lacking"] and not first["refused"]
    told = sites.carry()["devices"][FAR]
    assert told["news"] and told["words"] > 3 and told["models"][MODEL]["number"] == 1

    sites.box.start()
    eventually(lambda: sites.box.folder.door.exists(), "the agent's door")
    taken = sites.sync()  # by the running agent
    assert taken["models"][MODEL]["phase"] == "probation" and not taken["lacking"]
    for index in (0, 1, 2, 0, 1, 2):
        assert _ask(sites.box, index) == (1.0, 1.5, 1.25)[index]
    eventually(lambda: _phase(sites.box) == "steady", "the commit")
    sites.sync()
    told = sites.carry()["devices"][FAR]
    assert told["words"] == 3 and not told["refused"], "status, report and commit; all before is acknowledged"

    listed = json.loads(sites.at_the_core("device", "list", "--json"))
    (row,) = (device for device in listed if device["device"] == FAR)
    assert row["report"]["models"][MODEL]["serving"]["number"] == 1 and row["status"] == "offline"
    rollouts = sites.machines.api.get("/v1/rollouts")["rollouts"]
    assert rollouts[0]["state"] == "complete"
    events = {e["code"] for e in sites.machines.api.get("/v1/events?limit=100")["events"] if e["source"] == FAR}
    assert {"release-offered", "release-proved", "release-committed"} <= events

    sites.sync()
    assert sites.carry()["devices"][FAR]["words"] == 2, "acknowledged"


def test_the_words_on_the_screen(sites: Sites) -> None:
    shown = sites.at_the_box("edge", "sync", str(sites.stick))
    assert f"{MODEL}: steady, serves release 1" in shown
    assert "next: take the folder to the core and run `falaj device carry FOLDER` there" in shown
    (sites.stick / "falaj" / "1" / "default" / "d" / "readme").write_text("not ours")
    shown = sites.at_the_core("device", "carry", str(sites.stick))
    assert f"it is told: {MODEL} 1 (live); to be installed until" in shown
    assert "not taken: d/readme: no name of ours" in shown


def _phase(box: Device) -> str:
    return str(((box.status() or {}).get("models", {}).get(MODEL) or {}).get("phase"))


def _ask(box: Device, index: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", box.http_port, timeout=10)
    body = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}
    connection.request("POST", f"/v2/models/{MODEL}/infer", json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return float(answer["outputs"][0]["data"][0])
