"""Act one, step by step. Each step checks that it did what it says and raises StoryFailed if it did not.

The demo plays two people: the operator, who runs the core and the devices, and the owner, whose release key signs
what may run. In the field these are two people on two machines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from appliance import clock
from appliance.core import owner
from appliance.core.project_file import read_project
from appliance.demo import recordings as data
from appliance.demo.field import Watch
from appliance.demo.fleet import Device, Machines, StoryFailed, wait_until
from appliance.demo.recordings import Recording
from appliance.demo.summary import Step, Story
from appliance.edge.enrolling import enrol, read_token
from core.orders import ApplyProject, Ingest, IssueToken, Train
from sync.names import DeviceId, ModelName

MODEL = ModelName("exercise")
SUBJECTS = (1, 2, 3, 4, 5, 6)
EXPECTED_WINDOWS = 266  # complete windows in the last quarters of the right wrists of subjects 1 to 6
SOAK_WINDOWS = 20
MIN_ACCURACY = 0.94
PATIENCE = 60.0  # seconds for the fleet to move
ACTOR = "demo"


@dataclass(frozen=True)
class Cast:
    """Who plays: the recordings, the subjects whose right wrists are devices, and what must come out."""

    recordings: tuple[Recording, ...]
    subjects: tuple[int, ...]
    windows: int  # complete windows in the last quarters of those wrists
    min_accuracy: float
    project: Path
    speed: float  # how many times faster than recorded the watches send


def watches(wheel: Path, project: Path, speed: float) -> Cast:
    """The demo's cast: subjects 1 to 6 of the pinned recordings."""
    everything = data.read(wheel)
    chosen = tuple(r for r in everything if r.subject in SUBJECTS)
    return Cast(chosen, SUBJECTS, EXPECTED_WINDOWS, MIN_ACCURACY, project, speed)


class Act:
    """Act one on a set of machines."""

    def __init__(self, machines: Machines, story: Story, cast: Cast) -> None:
        self.machines, self.story, self.cast = machines, story, cast
        self.number = 0
        self.watches: dict[str, Watch] = {}
        self._replays: list[threading.Thread] = []

    def run(self) -> None:
        """All steps; raises Trouble at the first that fails."""
        self._step("recordings: three quarters of each right wrist written as CSV", self._write_recordings)
        self._step("core: broker, steward, console, enrolment listener", self._start_core)
        self._step("trust: the owner makes the release key and signs the root", self._trust)
        self._step("devices: the agents make their keys, enrol and start", self._devices)
        self._step("ingest: CSV files into the encrypted lake", self._ingest)
        self._step("train: 1D-CNN, export, fp32 against int8, gates", self._train)
        self._step("approve: the owner signs, the core publishes", self._approve)
        self._step("canary: watch-1 proves, serves on trial, commits", self._canary)
        self._step("fleet: the others prove, serve, commit", self._fleet)
        self._step("live: what training never saw, answered by the devices", self._live)

    def _step(self, name: str, work: Callable[[Step], None]) -> None:
        with self.story.step(name) as step:
            work(step)

    def _write_recordings(self, step: Step) -> None:
        right = tuple(r for r in self.cast.recordings if r.side == "right")
        rows = data.write_csv(right, self.machines.home / "recordings")
        step.figure = f"{len(right)} files of right wrists, {rows:,} rows; last quarters and left wrists stay outside"

    def _start_core(self, step: Step) -> None:
        self.machines.start_core()
        ports = self.machines.ports
        step.figure = f"uplink :{ports['uplink']} (TLS 1.3), enrolment :{ports['enrol']}, console :{ports['console']}"

    def _trust(self, step: Step) -> None:
        keys = self.machines.home / "owner-keys"
        result = owner.init(self.machines.api, keys, ACTOR, clock.now())
        step.figure = f"profile {result['profile']}, release key is the owner's file; the core never sees it"

    def _devices(self, step: Step) -> None:
        for subject in self.cast.subjects:
            device = self.machines.add_device(f"watch-{subject}")
            order = IssueToken(actor=ACTOR, device=DeviceId(device.name))
            token = self.machines.api.order(order)["token"]
            enrol(device.folder, read_token(token), clock.now())
            device.start()
        step.figure = f"{len(self.machines.devices)} enrolled by single-use tokens, each with its own broker"

    def _ingest(self, step: Step) -> None:
        home = self.machines.home
        project_file = home / "falaj.toml"
        project_file.write_text(self.cast.project.read_text())
        project = read_project(project_file)
        self.machines.api.order(ApplyProject(actor=ACTOR, project=project, folder=str(home)))
        result = self._job(Ingest(actor=ACTOR, source="watches"))
        if result["rejections"]:
            raise StoryFailed(f"{result['rejections']} rows or files of the recordings were rejected")
        step.figure = f"{result['rows']:,} rows, 0 rejected"

    def _train(self, step: Step) -> None:
        result = self._job(Train(actor=ACTOR, model=MODEL))
        if not result["accepted"]:
            raise StoryFailed(f"the candidate was refused: {result['reasons']}")
        self.number = result["number"]
        step.figure = (
            f"release {self.number}: accuracy {result['accuracy']:.3f} on {int(result['rows'])} held-out windows"
        )

    def _approve(self, step: Step) -> None:
        keys = self.machines.home / "owner-keys"
        signed = owner.approve(self.machines.api, keys, MODEL, self.number, ACTOR, clock.now())
        step.figure = f"manifest {signed.digest[:12]} signed by key {signed.key[:8]}"

    def _canary(self, step: Step) -> None:
        (canary,) = (d for d in self.machines.devices if d.name == "watch-1")
        self._serve_on_trial([canary])
        wait_until(lambda: self._phase(canary) == "steady", PATIENCE, f"{canary.name} to commit; see {canary.log}")
        windows = self.watches[canary.name].count.answered()
        if windows < SOAK_WINDOWS:
            raise StoryFailed(f"{canary.name} committed after {windows} answered windows, {SOAK_WINDOWS} are the soak")
        step.figure = f"{canary.name} committed release {self.number} after {windows} answered windows"

    def _fleet(self, step: Step) -> None:
        others = [d for d in self.machines.devices if d.name != "watch-1"]
        self._serve_on_trial(others)
        for device in others:
            wait_until(partial(self._committed, device), PATIENCE, f"{device.name} to commit; see {device.log}")
        wait_until(lambda: self._rollout() == "complete", PATIENCE, "the rollout to complete")
        step.figure = f"{len(others)} committed; rollout complete"

    def _live(self, step: Step) -> None:
        for replay in self._replays:
            replay.join()
        counts = []
        for watch in self.watches.values():
            watch.settle(5.0)
            watch.close()
            counts.append(watch.count)
        windows = sum(len(c.expected) for c in counts)
        lost, twice = sum(len(c.lost()) for c in counts), sum(len(c.twice()) for c in counts)
        errors, other = sum(len(c.http_errors) for c in counts), sum(len(c.other) for c in counts)
        same = sum(len(c.http) for c in counts) - sum(len(c.differing()) for c in counts)
        accuracy = sum(c.right() for c in counts) / max(1, windows)
        step.figure = (
            f"{windows} windows, {lost} lost, {errors + other} failed; accuracy {accuracy:.3f}; "
            f"MQTT = HTTP on {same} of {windows}"
        )
        if windows != self.cast.windows or lost or twice or errors or other or same != windows:
            raise StoryFailed(step.figure)
        if accuracy < self.cast.min_accuracy:
            raise StoryFailed(f"accuracy {accuracy:.3f} is below {self.cast.min_accuracy}")

    def _serve_on_trial(self, devices: list[Device]) -> None:
        """Has each device's watch begin as the device enters probation: earlier there is nobody to answer."""
        with ThreadPoolExecutor(len(devices)) as pool:
            list(pool.map(self._begin, devices))

    def _begin(self, device: Device) -> None:
        wait_until(
            lambda: self._phase(device) in ("probation", "steady"),
            PATIENCE,
            f"{device.name} to serve; see {device.log}",
        )
        subject = int(device.name.removeprefix("watch-"))
        own = tuple(r for r in self.cast.recordings if r.subject == subject and r.side == "right")
        watch = self.watches[device.name] = Watch(device, MODEL, own)
        watch.connect()
        replay = threading.Thread(
            target=watch.replay, args=(clock.now(), self.cast.speed), name=f"replay-{device.name}", daemon=True
        )
        self._replays.append(replay)
        replay.start()

    def _committed(self, device: Device) -> bool:
        return self._phase(device) == "steady"

    def _phase(self, device: Device) -> str:
        status = device.status() or {}
        model = status.get("models", {}).get(MODEL)
        listening = "watch/+/imu" in status.get("listening", ())
        return str(model["phase"]) if model and listening else ""

    def _rollout(self) -> str:
        rollouts = self.machines.api.get("/v1/rollouts")["rollouts"]
        return str(rollouts[0]["state"]) if rollouts else ""

    def _job(self, order: Any) -> dict[str, Any]:
        job = self.machines.api.order(order)["job"]
        seen: set[str] = set()

        def watch(stage: str, done: float) -> None:
            if stage and stage not in seen:
                seen.add(stage)
                self.story.say(stage)

        return self.machines.api.wait_for_job(job, watch)
