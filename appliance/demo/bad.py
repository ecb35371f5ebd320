"""Act two, scene three: a release that should never have been made, and the three places that stop it.

Somebody narrows the training to the newest samples, all of left wrists. The gate refuses the candidate; it is
overridden. In shadow on a right wrist the device refuses it; it is forced to serve. Then the device that serves it
goes back by itself, within the first blocks, and the rollout is reversed. Every override is on record, and a why card
says what happened.
"""

from __future__ import annotations

from typing import Any

from appliance.demo.counting import Count
from appliance.demo.fleet import StoryFailed, wait_until
from appliance.demo.learning import PATIENCE, RATE, SLOW, share, still
from appliance.demo.stage import Stage, replaced
from appliance.demo.story import ACTOR, MODEL
from appliance.demo.summary import Step
from core.orders import Force, Override, Train

CANARY = "watch-3"  # a right wrist
MOST = 0.80  # accuracy of what the bad release served on right wrists must be seen to stay below this
REASON = "the newest samples must go live today"


def play(stage: Stage, good: int) -> None:
    """All steps; `good` is the release that serves. Raises Trouble at the first that fails."""
    story = stage.story
    with story.step("bad release: trained on left wrists only, refused by the gate, overridden") as step:
        number = _override(stage, step)
    with story.step(f"shadow: release {number} beside the good one on {CANARY}, a right wrist") as step:
        _refused(stage, step, number, good)
    with story.step(f"forced: release {number} serves on {CANARY}, and goes home by itself") as step:
        _forced(stage, step, number, good)


def _override(stage: Stage, step: Step) -> int:
    stage.apply(_narrowed)
    api = stage.machines.api
    job = api.order(Train(actor=ACTOR, model=MODEL))["job"]
    found = api.wait_for_job(job, lambda stage_, done: None)
    if found["accepted"]:
        raise StoryFailed("the gate let a model of left wrists pass")
    result = api.order(Override(actor=ACTOR, candidate=found["candidate"], reason=REASON))
    number = int(result["number"])
    reason = found["reasons"].partition(";")[0]  # the rest says what to do about it
    step.figure = f"refused: {reason}; overridden by {ACTOR}, which the manifest of release {number} says for good"
    if ACTOR not in api.get(f"/v1/releases/{MODEL}/{number}")["manifest"]["lineage"]["override"]:
        raise StoryFailed(f"release {number} does not say who overrode the gate")
    return number


def _refused(stage: Stage, step: Step, number: int, good: int) -> None:
    stage.approve(number)
    counts = _stream(stage)
    stage.await_rollout(number, ("reversed",), PATIENCE)
    still(stage.people)
    if any(count.of_release(number) for count in counts.values()):
        raise StoryFailed(f"release {number} answered while it was in shadow")
    card = _card(stage, number, "shadow")
    if any(w.name == CANARY and stage.model(w)["serving"]["number"] != good for w in stage.people):
        raise StoryFailed(f"{CANARY} does not serve release {good} any more")
    step.figure = f"refused by {CANARY} itself, {_told(card)}; it never answered anybody"


def _forced(stage: Stage, step: Step, number: int, good: int) -> None:
    stage.machines.api.order(Force(actor=ACTOR, model=MODEL, number=number, reason=REASON))
    counts = _stream(stage)
    stage.await_rollout(number, ("reversed",), PATIENCE)
    canary = stage.person(CANARY)
    wait_until(lambda: stage.model(canary)["phase"] == "steady", PATIENCE, f"{CANARY} to be steady again")
    still(stage.people)
    card = _card(stage, number, "probation")
    model = stage.model(canary)
    if model["serving"]["number"] != good or card["new"]["manifest"] not in model["quarantined"]:
        raise StoryFailed(f"{CANARY} serves release {model['serving']['number']}, quarantined {model['quarantined']}")
    served = counts[CANARY].of_release(number)
    right = sum(ok for ok in served) / max(1, len(served))
    step.figure = (
        f"it served {len(served)} windows, right in {right:.2f}; given up by {CANARY} itself, {_told(card)}; "
        f"release {good} answers again"
    )
    if not served or right > MOST:
        raise StoryFailed(f"the bad release was right in {right:.2f} of {len(served)} windows")


def _stream(stage: Stage) -> dict[str, Count]:
    """Everybody goes on; the canary's labels come as it goes."""
    for wearer in stage.people:
        here = wearer.name == CANARY
        wearer.begin(RATE if here else SLOW, labels=here)
    return {wearer.name: wearer.count for wearer in stage.people}


def _card(stage: Stage, number: int, phase: str) -> dict[str, Any]:
    """The why card of the canary as the core has it."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        cards = stage.machines.api.get(f"/v1/why?model={MODEL}")["whys"]
        found[:] = [c for c in cards if c["device"] == CANARY and c["new"]["number"] == number and c["phase"] == phase]
        return bool(found)

    wait_until(there, PATIENCE, f"the why card of {CANARY}")
    return found[0]


def _told(card: dict[str, Any]) -> str:
    """The card in a sentence."""
    trial = card["trial"]
    blocks = trial["plus"] + trial["zero"] + trial["minus"]
    return (
        f"{card['criterion']}: worse in {trial['plus']} of {blocks} blocks, right in "
        f"{share(trial['right'], trial['labels'])} of labelled windows, the good one in "
        f"{share(trial['right_before'], trial['labels'])}; evidence (log E) {card['log_harm']:.1f}, "
        f"{card['harm_at']:.1f} is enough"
    )


def _narrowed(text: str) -> str:
    """The mistake, as an edit of the project file."""
    text = replaced(text, r'^samples = "add"$', 'samples = "only"')
    return replaced(text, r'^canary = \["watch-1"\]$', f'canary = ["{CANARY}"]')
