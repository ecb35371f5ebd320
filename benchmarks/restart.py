"""How soon a device answers again after its agent was killed, at any point of an update.

    python benchmarks/restart.py [--restarts 200] [--cold 20] [--seed 1] [--write]

A real agent process with a real uplink (Mosquitto, TLS 1.3): it fetches, proves in its child, tries and commits release
after release while it is killed with SIGKILL at random moments. Time is from the start of the new process to the first
HTTP answer, asked for every 5 ms; an answer counts if it is of a release that this device verified. `cold`: the same
with no broker, no core and the clock at 1970. Needs the development set-up. Ends 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from appliance.demo.fleet import free_ports
from core.fleet import enrolment
from edge.journal import Journal
from sync import topics
from sync.messages import Gates
from sync.mqtt import Broker as At
from tests.attacks.ground import open_ground
from tests.edge.device import Device
from tests.edge.world import MODEL, new_identity
from tests.faults.box import Box, move_in
from tests.faults.field import WiredCore
from tests.faults.small_disk import SmallDisk

RESULTS = Path(__file__).parent / "RESULTS.md"
TARGET_S, PATIENCE_S, ASK_S = 2.0, 30.0, 0.005
EACH = 4  # restarts under each release
SIZE = 500_000  # bytes of a release
QUESTION = json.dumps({"inputs": [{"name": "i", "shape": [1], "datatype": "INT64", "data": [0]}]})


@dataclass
class Run:
    """What was seen of one series of restarts."""

    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  # seconds of a processor until then: what a busy machine cannot add
    phases: Counter[str] = field(default_factory=Counter)  # in which it was killed
    answered: Counter[int] = field(default_factory=Counter)  # by which release

    def line(self, name: str) -> str:
        p50, p99 = np.percentile(self.seconds, [50, 99])
        row = [f"{p50:.2f}", f"{p99:.2f}", f"{max(self.seconds):.2f}", f"{TARGET_S:g}", f"{np.median(self.busy):.2f}"]
        return f"| {name} | {len(self.seconds)} | {' | '.join(row)} |"

    @property
    def met(self) -> bool:
        return float(np.percentile(self.seconds, 99)) <= TARGET_S


def answer(port: int) -> int | None:
    """The number of the release that answers now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", f"/v2/models/{MODEL}/infer", QUESTION)
        said = json.loads(connection.getresponse().read())
        return int(said["model_version"]) if "outputs" in said else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def start(box: Box, argv: list[str], run: Run | None = None) -> int:
    """The release that answered first; how long that took goes into `run`."""
    begun = time.perf_counter()
    with box.log.open("ab") as log:
        box.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    while (number := answer(box.http_port)) is None:
        if box.process.poll() is not None or time.perf_counter() - begun > PATIENCE_S:
            raise SystemExit(f"no answer after a restart:\n{box.said()}")
        time.sleep(ASK_S)
    if run is not None:
        run.seconds.append(time.perf_counter() - begun)
        run.busy.append(processor_seconds(box.process.pid))
        run.answered[number] += 1
    return number


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kill(box: Box) -> str:
    """The phase it was killed in, as its journal says."""
    assert box.process is not None
    box.process.kill()
    box.process.wait()
    journal = Journal.open(box.folder.journal)
    found = journal.deployments().get(MODEL)
    journal.close()
    return found.phase.name if found else "none"


def lives(box: Box, seconds: float) -> None:
    """Asked now and then, so that a release on trial gets through."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        answer(box.http_port)
        time.sleep(min(0.02, max(0.0, end - time.perf_counter())))


def updates(core: WiredCore, device: Device, box: Box, restarts: int, chance: Random) -> Run:
    """Kills at random moments, with a new release every few."""
    run, argv, shipped = Run(), program(box), {1}
    while len(run.seconds) < restarts:
        if len(run.seconds) % EACH == 0:
            number = len(shipped) + 1
            shipped.add(number)
            core.assign(core.ship_large(number, SIZE), device.identity, gates=Gates(soak_answers=30))
        lives(box, chance.uniform(0.0, 1.5))
        run.phases[kill(box)] += 1
        if (number := start(box, argv, run)) not in shipped:
            raise SystemExit(f"release {number} answers, and was never signed")
    return run


def cold(box: Box, restarts: int) -> Run:
    """No broker, no core, the clock at 1970."""
    run, wrong = Run(), box.folder.root.parent / "clock"
    wrong.write_text(str(-time.time()))
    argv = [sys.executable, "-P", "-m", "tests.faults.other_clock", str(wrong), *program(box)[4:]]
    for _ in range(restarts):
        start(box, argv, run)
        run.phases[kill(box)] += 1
    return run


def program(box: Box) -> list[str]:
    return [sys.executable, "-P", "-m", "appliance.cli", "edge", "run", "--dir", str(box.folder.root)]


def measure(folder: Path, restarts: int, colds: int, seed: int) -> tuple[Run, Run]:
    ground = open_ground(folder / "uplink")
    pair = enrolment.issue_core(ground.authority, ground.now)
    core = WiredCore().connect(
        At("127.0.0.1", ground.broker.port, topics.CORE_NAME, ground.tls(pair.certificate, pair.key))
    )
    device = Device(core, folder / "device", new_identity(core.root))
    device.folder.mkdir()
    web, local = free_ports(2)
    box = move_in(device, ground.authority, SmallDisk(folder), folder, (web, ground.broker.port, local))
    core.assign(core.ship_large(1, SIZE), device.identity, gates=Gates(soak_answers=5))
    try:
        start(box, program(box))
        lives(box, 3.0)
        moving = updates(core, device, box, restarts, Random(seed))
        kill(box)
    finally:
        core.link.stop()
        ground.broker.stop()
    with box.ended():
        return moving, cold(box, colds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=200)
    parser.add_argument("--cold", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as place:
        moving, still = measure(Path(place), given.restarts, given.cold, given.seed)
    table = "\n".join([
        "| start | restarts | p50 s | p99 s | worst s | target, p99 s | processor s |", "|---|---|---|---|---|---|---|",
        moving.line("killed at a random point of an update"), still.line("no broker, no core, clock at 1970"),
    ])  # fmt: skip
    phases = ", ".join(f"{name} {n}" for name, n in moving.phases.most_common())
    text = f"{table}\n\nKilled in: {phases}. Releases that answered: {len(moving.answered)}.\n"
    print(text)
    if given.write:
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        title = f"## Restarts (`python benchmarks/restart.py`), {day}, {os.cpu_count()}-core {platform.machine()}"
        with RESULTS.open("a", encoding="utf-8") as results:
            results.write(f"\n{title}\n\n{text}")
    return 0 if moving.met and still.met else 1


if __name__ == "__main__":
    sys.exit(main())
