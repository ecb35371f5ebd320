"""Act two, scene two: what the moved watches saw goes upstream, the core learns from it, and the fleet recovers.

Nobody starts the training and no file is read for it: the devices that alarmed send labelled windows, sealed, within
their budget, and the core trains when it has enough of them. The new release is believed only after it ran beside the
old one on the same inputs of a moved watch, and the pairs have decided.
"""

from __future__ import annotations

from typing import Any

from appliance.demo.counting import Count
from appliance.demo.fleet import StoryFailed, wait_until
from appliance.demo.people import Wearer
from appliance.demo.stage import Stage
from appliance.demo.story import MODEL
from appliance.demo.summary import Step

RATE, SLOW = 20.0, 2.0  # batches a second and watch: where it counts, and where it only must go on
LEFT_AFTER, RIGHT_AFTER = 0.90, 0.94  # accuracy that must be seen again
PATIENCE = 60.0


def play(stage: Stage) -> int:
    """All steps; returns the number of the release that serves at the end. Raises Trouble at the first that fails."""
    story = stage.story
    with story.step("road: labelled windows of the devices that alarmed go upstream, sealed") as step:
        _road(stage, step)
    with story.step("retraining: the core trains by itself, on both wrists") as step:
        number = _retraining(stage, step)
    with story.step(f"shadow: release {number} beside the old one on watch-1, which has moved") as step:
        _shadow(stage, step, number)
    with story.step(f"fleet: release {number} on trial, then committed by every device") as step:
        _fleet(stage, step, number)
    with story.step("recovered: windows that no training has seen, on either wrist") as step:
        _recovered(stage, step, number)
    return number


def _road(stage: Stage, step: Step) -> None:
    """Watches go on meanwhile, slowly: serving never waits for learning."""
    for wearer in stage.people:
        wearer.begin(SLOW)

    def roads() -> dict[str, dict[str, Any]]:
        return {w.name: stage.model(w)["road"] or {} for w in stage.people}

    def landed() -> bool:
        rows = stage.machines.api.get("/v1/status")["sources"].get("field", {}).get("rows", 0)
        return bool(rows) and all(roads()[w.name].get("sent") for w in stage.moved)

    wait_until(landed, PATIENCE, "samples of the moved watches to land in the lake")
    sent = {name: road["sent"] for name, road in roads().items() if road.get("sent")}
    size = sum(road.get("bytes_today", 0) for road in roads().values())
    who = ", ".join(f"{name} {n} windows" for name, n in sent.items())
    step.figure = f"{who}, the others none; {size / 1024:,.0f} KiB so far, which only the core can open"
    if set(sent) != {w.name for w in stage.moved}:
        raise StoryFailed(f"only devices with a drift alarm send rows upstream, yet {sent} were sent")


def _retraining(stage: Stage, step: Step) -> int:
    job = _job(stage)
    found = stage.machines.api.wait_for_job(job["id"], lambda stage_, done: None)
    if not found["accepted"]:
        raise StoryFailed(f"the candidate was refused: {found['reasons']}")
    step.figure = (
        f"release {found['number']}, nobody asked for it; accuracy {found['accuracy']:.3f} on "
        f"{int(found['rows'])} held-out windows of both wrists"
    )
    return int(found["number"])


def _job(stage: Stage) -> dict[str, Any]:
    """The training that the core started."""
    found: list[dict[str, Any]] = []

    def started() -> bool:
        jobs = stage.machines.api.get("/v1/jobs")["jobs"]
        found[:] = [j for j in jobs if j["kind"] == "train" and j["subject"] == MODEL]
        return len(found) > 1

    wait_until(started, PATIENCE, "the core to start a training by itself; see `falaj status`")
    return found[0]


def _shadow(stage: Stage, step: Step, number: int) -> None:
    """The canary's labels come as it goes; the others only go on."""
    canary = stage.person("watch-1")
    for wearer in stage.people:
        wearer.end()
    for wearer in stage.moved:
        wearer.wear("left", "last")  # from here on windows that no training has seen
    stage.approve(number)
    for wearer in stage.people:
        wearer.begin(RATE if wearer is canary else SLOW, labels=wearer is canary)
    rollout = stage.await_rollout(number, ("canary", "ramp", "complete"), PATIENCE)
    trial = rollout["decided"][canary.name]
    if rollout["forced"] or not trial:
        raise StoryFailed(f"release {number} was let through without a word of the pairs")
    blocks = trial["plus"] + trial["zero"] + trial["minus"]
    step.figure = (
        f"safe: better in {trial['minus']} of {blocks} blocks, equal in {trial['zero']}, worse in {trial['plus']}; "
        f"right in {share(trial['right'], trial['labels'])} of labelled windows, "
        f"the old one in {share(trial['right_before'], trial['labels'])}"
    )


def _fleet(stage: Stage, step: Step, number: int) -> None:
    stage.await_rollout(number, ("complete",), PATIENCE)
    for wearer in stage.people:
        wearer.end()
    serving = {w.name: stage.model(w)["serving"]["number"] for w in stage.people}
    if set(serving.values()) != {number}:
        raise StoryFailed(f"not all serve release {number}: {serving}")
    step.figure = f"{len(serving)} devices committed release {number}; rollout complete"


def _recovered(stage: Stage, step: Step, number: int) -> None:
    for wearer in stage.people:
        wearer.begin(RATE, rounds=1)  # every held-out window once: none counts twice because it was drawn twice
    counts = {wearer.name: wearer.finish() for wearer in stage.people}
    left = accuracy([counts[w.name] for w in stage.moved])
    right = accuracy([counts[w.name] for w in stage.people if w not in stage.moved])
    step.figure = f"accuracy of what was served: {left:.3f} on left wrists, {right:.3f} on right ones"
    if left < LEFT_AFTER or right < RIGHT_AFTER:
        raise StoryFailed(f"{step.figure}; left {LEFT_AFTER} and right {RIGHT_AFTER} were to be seen")


def accuracy(counts: list[Count]) -> float:
    """Share of served windows whose class was the true one."""
    return sum(c.right() for c in counts) / max(1, sum(len(c.expected) for c in counts))


def share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "unknown"


def still(people: tuple[Wearer, ...]) -> None:
    """Ends the phase of everybody."""
    for wearer in people:
        wearer.end()
