"""Act two, scene one: two people move their watch to the other wrist, and exactly those two devices notice.

Nobody tells the devices. Each watches its own inputs against its own first windows after the commit; labels come
later, and show what the alarm was about.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.demo.counting import Count
from appliance.demo.fleet import StoryFailed, wait_until
from appliance.demo.people import Wearer
from appliance.demo.stage import Stage
from appliance.demo.summary import Step
from edge.predictions import RECENT

AT_REST = 49_000  # samples before: 960 windows of 50 for the baseline, and a little
AFTER = 20_000  # samples after, on either wrist: 400 windows
AGAIN = 2  # then every stretch so often: what came before the alarm never goes up, yet must be in what is learned
RATE = 20.0  # batches a second and watch
MOST_WRONG = 0.80  # accuracy of the moved watches must be seen to fall below this


@dataclass(frozen=True)
class Seen:
    """What one device made of its stream."""

    name: str
    moved: bool
    alarmed: bool  # since the move
    streams: tuple[str, ...]
    accuracy: float  # by delayed labels, as the device counts it


def play(stage: Stage) -> None:
    """All steps; raises Trouble at the first that fails."""
    stage.story.say("streams lengthened by block bootstrap of stretches that no training has seen")
    with stage.story.step("at rest: each device learns what its own world looks like") as step:
        _at_rest(stage, step)
    with stage.story.step("drift: watches 1 and 2 move to the left wrist") as step:
        _move(stage, step)


def _at_rest(stage: Stage, step: Step) -> None:
    for wearer in stage.people:
        wearer.begin(RATE, samples=AT_REST)
    for wearer in stage.people:
        wearer.finish()
    noisy = {w.name: stage.drift(w)["status"] for w in stage.people if stage.drift(w)["status"] != "quiet"}
    if noisy:
        raise StoryFailed(f"before anybody moved: {noisy}")
    step.figure = f"{len(stage.people)} devices know their own world from {AT_REST:,} readings each; no alarm"


def _move(stage: Stage, step: Step) -> None:
    for wearer in stage.moved:
        wearer.wear("left", "first")  # what is learned from later; the last quarters stay unseen
    counts: dict[str, list[Count]] = {wearer.name: [] for wearer in stage.people}
    for samples, rounds in ((AFTER, None), (None, AGAIN)):
        for wearer in stage.people:
            wearer.begin(RATE, samples=samples, rounds=rounds)
        for wearer in stage.people:
            counts[wearer.name].append(wearer.finish())
    _judge(stage, step, [_seen(stage, wearer, counts[wearer.name]) for wearer in stage.people])


def _seen(stage: Stage, wearer: Wearer, counts: list[Count]) -> Seen:
    """Labels come for everything since the move; what the device makes of them, and of its inputs."""
    told = min(sum(wearer.tell_labels(count) for count in counts), RECENT)

    def counted() -> bool:
        found = stage.model(wearer)["labelled"]
        return bool(found) and found["labels"] == told

    wait_until(counted, 10, f"{wearer.name} to count the {told} labels it was told")
    labelled, found = stage.model(wearer)["labelled"], stage.drift(wearer)
    accuracy = labelled["right"] / labelled["labels"]
    return Seen(wearer.name, wearer in stage.moved, found["status"] == "alarm", tuple(found["streams"]), accuracy)


def _judge(stage: Stage, step: Step, seen: list[Seen]) -> None:
    wrong = [s.name for s in seen if s.alarmed != s.moved]
    here = [s for s in seen if s.moved]
    rest = [s for s in seen if not s.moved]
    names = ", ".join(f"{s.name} (in {', '.join(s.streams)})" for s in seen if s.alarmed)
    low = sum(s.accuracy for s in here) / max(1, len(here))
    high = sum(s.accuracy for s in rest) / max(1, len(rest))
    step.figure = (
        f"drift alarm: {names or 'nobody'}; of the windows labelled later right in {low:.2f} where the watch moved, "
        f"in {high:.2f} elsewhere"
    )
    if wrong:
        raise StoryFailed(f"wrong about the move: {', '.join(wrong)}; {step.figure}")
    if low > MOST_WRONG:
        raise StoryFailed(f"the moved watches are still right in {low:.2f}; {step.figure}")
    told = {w.name for w in stage.moved}
    wait_until(lambda: told <= stage.told("drift-alarm"), 20, "the core to know of the alarms")
