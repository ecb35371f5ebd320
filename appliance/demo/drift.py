"""Act two, its first scene: two people move their watch to the other wrist, and exactly those two devices notice.

Nobody tells the devices. Each watches its own inputs against its own first windows after the commit; labels come
later, and show what the alarm was about.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from appliance import clock
from appliance.demo.field import Count, Watch, lengthen
from appliance.demo.fleet import Device, Machines, StoryFailed, wait_until
from appliance.demo.recordings import Recording
from appliance.demo.story import MODEL, Cast
from appliance.demo.summary import Step, Story
from edge.predictions import RECENT

MOVED = (1, 2)  # subjects whose watch changes wrists
AT_REST = 49_000  # samples before: 960 windows of 50 for the baseline, and a little
AFTER = 20_000  # samples after, on either wrist: 400 windows
RATE = 20.0  # batches a second and watch
SEED = 11
STATUS_AGE = 1.0  # seconds: the agent's status is at most a tick old
LEAD = 3600.0  # seconds of event time behind act one, whose readings outran the clock
MOST_WRONG = 0.80  # accuracy of the moved watches must be seen to fall below this


@dataclass(frozen=True)
class Seen:
    """What one device made of its stream."""

    name: str
    moved: bool
    alarmed: bool  # since the move
    streams: tuple[str, ...]
    accuracy: float


class DriftScene:
    """Runs on the machines that act one left behind."""

    def __init__(self, machines: Machines, story: Story, cast: Cast) -> None:
        self.machines, self.story, self.cast = machines, story, cast

    def run(self) -> None:
        """All steps; raises Trouble at the first that fails."""
        self.story.act = "act two, first scene"
        with self.story.step("drift: watches 1 and 2 move to the left wrist") as step:
            self._move(step)

    def _move(self, step: Step) -> None:
        self.story.say("streams lengthened by block bootstrap of stretches that training never saw")
        with ThreadPoolExecutor(len(self.machines.devices)) as pool:
            self._judge(step, list(pool.map(self._watch, self.machines.devices)))

    def _watch(self, device: Device) -> Seen:
        """One watch: at rest until the device's baseline is complete, then on the wrist the story says."""
        subject = int(device.name.removeprefix("watch-"))
        moved = subject in MOVED
        rng = np.random.default_rng((SEED, subject))
        watch = Watch(device, MODEL, ())
        watch.connect()
        ts = watch.stream(clock.now() + LEAD, lengthen(self._of(subject, "right"), AT_REST, rng), RATE)
        self._settle(watch)
        if drift_of(device)["status"] != "quiet":
            raise StoryFailed(f"{device.name} is {drift_of(device)['status']} before anybody moved")
        watch.count = Count()
        watch.stream(ts, lengthen(self._of(subject, "left" if moved else "right"), AFTER, rng), RATE)
        self._settle(watch)
        watch.close()
        after, told = drift_of(device), watch.tell_labels()
        time.sleep(STATUS_AGE)
        labelled = model_of(device)["labelled"]
        if labelled is None or labelled["labels"] != min(told, RECENT):
            raise StoryFailed(f"{device.name} was told {told} labels and counts {labelled}")
        accuracy = labelled["right"] / labelled["labels"]
        return Seen(device.name, moved, after["status"] == "alarm", tuple(after["streams"]), accuracy)

    def _settle(self, watch: Watch) -> None:
        """Every window of this phase was answered once; raises StoryFailed if one was not."""
        watch.settle(30)
        count = watch.count
        if count.lost() or count.twice() or count.other:
            lost, twice, other = len(count.lost()), len(count.twice()), len(count.other)
            raise StoryFailed(f"{watch.device.name}: {lost} windows lost, {twice} answered twice, {other} refused")

    def _judge(self, step: Step, seen: list[Seen]) -> None:
        wrong = [s.name for s in seen if s.alarmed != s.moved]
        here = [s for s in seen if s.moved]
        rest = [s for s in seen if not s.moved]
        names = ", ".join(f"{s.name} ({', '.join(s.streams)})" for s in here if s.alarmed)
        low = sum(s.accuracy for s in here) / max(1, len(here))
        high = sum(s.accuracy for s in rest) / max(1, len(rest))
        step.figure = f"alarms: {names or 'none'}; accuracy by delayed labels {low:.2f} moved, {high:.2f} not moved"
        if wrong:
            raise StoryFailed(f"wrong about the move: {', '.join(wrong)}; {step.figure}")
        if low > MOST_WRONG:
            raise StoryFailed(f"the moved watches are still right in {low:.2f}; {step.figure}")
        told = {d.name for d in self.machines.devices if drift_of(d)["status"] == "alarm"}
        wait_until(lambda: told <= self._known(), 20, "the core to know of the alarms")

    def _known(self) -> set[str]:
        """Devices whose drift alarm the core has committed."""
        events = self.machines.api.get("/v1/events?limit=200")["events"]
        return {str(e["source"]) for e in events if e["code"] == "drift-alarm"}

    def _of(self, subject: int, side: str) -> tuple[Recording, ...]:
        return tuple(r for r in self.cast.recordings if r.subject == subject and r.side == side)


def drift_of(device: Device) -> dict[str, Any]:
    """The device's own word on its drift; raises StoryFailed if it has none."""
    found = model_of(device)["drift"]
    if not found:
        raise StoryFailed(f"{device.name} does not watch for drift; see {device.log}")
    return dict(found)


def model_of(device: Device) -> dict[str, Any]:
    """The device's own word on the model; raises StoryFailed if it does not answer."""
    found = (device.status() or {}).get("models", {}).get(MODEL)
    if not found:
        raise StoryFailed(f"{device.name} does not answer; see {device.log}")
    return dict(found)
