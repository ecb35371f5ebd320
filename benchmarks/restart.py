"""How soon a device answers again after its agent was killed, at any point of an update.

    .venv/bin/python benchmarks/restart.py [--restarts 200] [--cold 20] [--seed 1] [--write]

A real agent process with a real uplink (Mosquitto, TLS 1.3) and its own local broker: it takes release after release,
in turn at once, in shadow, in a split, and one that answers NaN and is reversed, while it is killed with SIGKILL at
random moments. Times are from the start of the new process to the first answer over HTTP, and to that over MQTT to a
program whose session with the local broker outlived the agent; both ask every 5 ms. An answer counts if it is of a
release that was signed. `cold`: agent and local broker are killed, there is no uplink and no core, and the clock stands
at 1970. Needs the development set-up and Mosquitto; takes about eight minutes. Ends 1 where a target is missed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.ground import ASK_S, PATIENCE_S, Ground, answer, ground, program, start
from benchmarks.results import options, tell
from edge.journal import Journal
from sync.messages import Arm, Gates
from sync.topics import local_replies, local_requests
from tests.edge.world import DEVICE, MODEL, Shipped
from tests.faults.box import Box

TITLE = "## Restarts"
TARGET_S = 2.0
EACH = 4  # restarts under each order
SIZE = 500_000  # bytes of a release
WAYS = ("live", "shadow", "split", "bad")  # in which a release comes, in turn
NAN_AT = 2  # the index that a bad release answers with no number
MILD, CAREFUL = Gates(soak_answers=30), Gates(soak_answers=1000)


class Program:
    """A program on the device that asks over MQTT, and whose session with the local broker lasts."""

    def __init__(self, box: Box, port: int) -> None:
        self._place, self._number = f"{local_replies(DEVICE)}/bench", 0
        self._since, self._told = 0, threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "bench")
        self._client.username_pw_set("app", (box.folder.broker / "app.password").read_text().strip())
        self._client.reconnect_delay_set(1, 1)  # seconds; what a program of the field has
        self._client.on_connect = lambda *_: self._client.subscribe(self._place)
        self._client.on_message = self._hear
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def end(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @contextmanager
    def asking(self, seconds: list[float]) -> Iterator[None]:
        """Asks from now until it is answered, also beyond the block's end; how long that took goes into `seconds`."""
        self._told.clear()
        self._since, begun = self._number, time.perf_counter()
        thread = threading.Thread(target=self._ask, args=(begun + PATIENCE_S,))
        thread.start()
        yield
        thread.join()
        if not self._told.is_set():
            raise SystemExit("no answer over MQTT after a start")
        seconds.append(self._when - begun)

    def _ask(self, end: float) -> None:
        while not self._told.wait(ASK_S) and time.perf_counter() < end:
            self._number += 1
            question = {"id": self._number, "reply_to": self._place, "data": [0]}
            self._client.publish(f"{local_requests(DEVICE)}/{MODEL}", json.dumps(question))

    def _hear(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        said = json.loads(message.payload)
        if said["id"] > self._since and said["prediction"]["quality"] == "ok" and not self._told.is_set():
            self._when = time.perf_counter()
            self._told.set()


@dataclass
class Run:
    """What was seen of one series of restarts."""

    http: list[float] = field(default_factory=list)  # seconds
    mqtt: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  # seconds of a processor until then: what a busy machine cannot add
    phases: Counter[str] = field(default_factory=Counter)  # in which it was killed
    ways: Counter[str] = field(default_factory=Counter)  # in which the release under way had come
    answered: Counter[int] = field(default_factory=Counter)  # by which release

    def lines(self, name: str) -> list[str]:
        return [self._line(name, "HTTP", self.http), self._line("the same", "MQTT", self.mqtt)]

    def _line(self, name: str, by: str, seconds: list[float]) -> str:
        p50, p99 = np.percentile(seconds, [50, 99])
        row = [f"{p50:.2f}", f"{p99:.2f}", f"{max(seconds):.2f}", f"{TARGET_S:g}", f"{np.median(self.busy):.2f}"]
        return f"| {name} | {by} | {len(seconds)} | {' | '.join(row)} |"

    @property
    def met(self) -> bool:
        return all(float(np.percentile(seconds, 99)) <= TARGET_S for seconds in (self.http, self.mqtt))


def restart(box: Box, argv: list[str], run: Run, asker: Program) -> int:
    """The release that answered first; how long that took goes into `run`."""
    with asker.asking(run.mqtt):
        number, seconds = start(box, argv)
        assert box.process is not None
        run.busy.append(processor_seconds(box.process.pid))
    run.http.append(seconds)
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
    """Asked now and then, so that a release on trial gets through, or shows what it is."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        answer(box.http_port)
        box.answer(NAN_AT)
        time.sleep(min(0.02, max(0.0, end - time.perf_counter())))


def order(found: Ground, way: str, number: int, live: Shipped) -> Shipped:
    """Ships release `number`, orders it in this way beside `live`, which serves; what serves from then on."""
    core, identity = found.core, found.device.identity
    if way == "bad":
        core.assign(core.ship(number, (number, 0.5, float("nan"))), identity, gates=CAREFUL)
        return live
    new = core.ship_large(number, SIZE)
    if way == "live":
        core.assign(new, identity, gates=MILD)
        return new
    if way == "shadow":
        core.assign(new, identity, mode=way, gates=MILD)
        return live
    own = core.order(new, identity)
    arms = (Arm(own.manifest, number, own.keys, 0, 5000),)
    core.assign(live, identity, mode=way, gates=CAREFUL, arms=arms, seed="s")
    return live


def updates(found: Ground, restarts: int, chance: Random, asker: Program, first: Shipped) -> Run:
    """Kills at random moments, with another order every few."""
    run, box, signed, live, way = Run(), found.box, 1, first, ""
    while len(run.http) < restarts:
        if len(run.http) % EACH == 0:
            way, signed = WAYS[len(run.http) // EACH % len(WAYS)], signed + 1
            live = order(found, way, signed, live)
        lives(box, chance.uniform(0.0, 1.5))
        run.phases[kill(box)] += 1
        run.ways[way] += 1
        if not 1 <= (number := restart(box, program(box), run, asker)) <= signed:
            raise SystemExit(f"release {number} answers, and was never signed")
    return run


def cold(box: Box, restarts: int, asker: Program) -> Run:
    """The machine was off: no broker, no core, the clock at 1970."""
    run, wrong = Run(), box.folder.root.parent / "clock"
    wrong.write_text(str(-time.time()))
    argv = [sys.executable, "-P", "-m", "tests.faults.other_clock", str(wrong), *program(box)[4:]]
    for _ in range(restarts):
        os.kill(int((box.folder.broker / "mosquitto.pid").read_text()), signal.SIGKILL)
        restart(box, argv, run, asker)
        run.phases[kill(box)] += 1
    return run


def measure(folder: Path, restarts: int, colds: int, seed: int) -> tuple[Run, Run]:
    with ground(folder, broker=True) as found:
        box = found.box
        first = found.core.ship_large(1, SIZE)
        found.core.assign(first, found.device.identity, gates=Gates(soak_answers=5))
        start(box, program(box))
        asker = Program(box, found.local_port)
        lives(box, 3.0)
        moving = updates(found, restarts, Random(seed), asker, first)
        kill(box)
    with box.ended():
        still = cold(box, colds, asker)
        start(box, program(box))
        box.end()  # as it is asked to, so that its broker ends with it
        asker.end()
    return moving, still


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--restarts", type=int, default=200, help="at random moments of updates")
    parser.add_argument("--cold", type=int, default=20, help="without a broker, a core or a clock")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory() as place:
        moving, still = measure(Path(place), given.restarts, given.cold, given.seed)
    table = [
        "| start | asked by | restarts | p50 s | p99 s | worst s | target, p99 s | processor s |",
        "|---|---|---|---|---|---|---|---|",
        *moving.lines("killed at a random point of an update"), *still.lines("no broker, no core, clock at 1970"),
    ]  # fmt: skip
    phases, ways = (
        ", ".join(f"{name} {n}" for name, n in found.most_common()) for found in (moving.phases, moving.ways)
    )
    told = f"Killed in: {phases}; of releases that came: {ways}. Releases that answered: {len(moving.answered)}."
    tell(TITLE, "restart.py", [*table, "", told], given)
    return 0 if moving.met and still.met else 1


if __name__ == "__main__":
    sys.exit(main())
