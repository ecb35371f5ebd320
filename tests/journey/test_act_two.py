"""Act two in memory: drift, road, retraining, shadow, a bad release that goes home; and kill -9 in the middle of each.

The real steward, agents, lake, training, TUF, sealing, ONNX Runtime and SQLite; made-up movements, of which the left
wrist is the mirror of the right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.orders import Override, Train
from tests.journey.made_up import recordings
from tests.journey.tale import LEAD, MODEL, Tale, act_one, again
from tests.journey.wearing import Wearing

SUBJECTS = (1, 2, 3)
EVERYTHING = recordings(SUBJECTS, 2400) + recordings(SUBJECTS, 2400, seed=4, side="left")
MOVED = ("watch-1", "watch-2")
REST, AFTER = 13_000, 16_000  # samples


def quicker(text: str) -> str:
    """The demo's project with a shorter baseline, a level of minutes and less training: these movements are easier
    than people's."""
    text = text.replace("baseline = 960, alarm = 10000000.0", "baseline = 240, alarm = 10000.0")
    text = text.replace("epochs = 60", "epochs = 25")
    return text.replace("samples = 1200", "samples = 100")


@pytest.fixture(scope="module")
def after_act_one(shared_ram: Path) -> Path:
    home = shared_ram / "act-one"
    home.mkdir()
    act_one(home, EVERYTHING, quicker)
    return home


def moved(tale: Tale) -> None:
    """Two watches move; exactly their devices alarm."""
    tale.stream(REST)
    assert tale.drifted() == set()
    for name in MOVED:
        tale.people[name].wear("left", "first")
    tale.stream(AFTER)
    assert tale.drifted() == set(MOVED)


@pytest.fixture(scope="module")
def after_the_move(after_act_one: Path, shared_ram: Path) -> Path:
    home = again(after_act_one, shared_ram / "moved")
    tale = Tale(home, EVERYTHING)
    moved(tale)
    tale.learn(2)
    for box in tale.world.boxes.values():
        box.kill()
    tale.world.kill_core()
    return home


def on(tale: Tale) -> Tale:
    """Where the copied folder stood: the moved watches are on the left, in windows no training has seen."""
    for name in MOVED:
        tale.people[name].wear("left", "last")
    return tale


def recovered(tale: Tale) -> None:
    """Release 2 serves everywhere, and is right on either wrist."""
    assert {box.serves() for box in tale.world.boxes.values()} == {2}
    before = {name: len(w.box.answers) for name, w in tale.people.items()}
    tale.stream(3000)
    for name, wearing in tale.people.items():
        answers = wearing.answers(before[name])
        assert {a.release for a in answers} == {2} and wearing.right(answers) >= 0.9, name


def test_from_drift_to_a_release_that_went_home(after_act_one: Path, ram: Path) -> None:
    tale = Tale(again(after_act_one, ram / "home"), EVERYTHING)
    moved(tale)
    tale.learn(2)
    roads = {name: w.box.rooms.road.report(MODEL) for name, w in tale.people.items()}
    assert all(roads[name].sent > 0 for name in MOVED) and roads["watch-3"].sent == 0
    assert tale.world.get("/v1/jobs")["jobs"][0]["kind"] == "train" and "retraining-started" in tale.codes()
    on(tale).approve(2)
    tale.roll(2, "watch-1", "complete")
    assert tale.rollout()["decided"]["watch-1"]["minus"] > 0, "the pairs decided"
    recovered(tale)
    tale.apply(lambda text: text)
    number = tale.bad("watch-3")
    tale.approve(number)
    tale.roll(number, "watch-3", "reversed")
    assert {box.serves() for box in tale.world.boxes.values()} == {2}
    shadow = tale.whys()[0]
    assert (shadow["phase"], shadow["criterion"]) == ("shadow", "worse-than-incumbent")
    assert 3 not in {a.release for a in tale.people["watch-3"].box.answers}, "it never answered"
    tale.force(number)
    tale.roll(number, "watch-3", "reversed")
    card = tale.whys()[0]
    assert (card["phase"], card["new"]["number"], card["old"]["number"]) == ("probation", number, 2)
    assert card["new"]["accuracy"] < 0.5 < card["old"]["accuracy"] and card["log_harm"] >= card["harm_at"]
    assert {box.serves() for box in tale.world.boxes.values()} == {2}
    forced = [a for a in tale.people["watch-3"].answers() if a.release == number]
    assert forced and tale.people["watch-3"].right(forced) <= 0.8
    assert not any(w.box.errors for w in tale.people.values())


@pytest.mark.parametrize("phase", ["shadow", "probation"])
def test_an_agent_killed_in_the_middle_of_its_trial_comes_to_the_same_end(
    after_the_move: Path, ram: Path, phase: str
) -> None:
    tale = on(Tale(again(after_the_move, ram / "home"), EVERYTHING))
    tale.approve(2)
    killed: list[int | None] = []

    def kill() -> None:
        tale.kill("watch-1")
        killed.append(tale.world.boxes["watch-1"].serves())

    tale.roll(2, "watch-1", "complete", kill, phase)
    assert killed == [1 if phase == "shadow" else 2], "it served a verified model at once"
    recovered(tale)


@pytest.mark.parametrize("state", ["shadow", "canary", "ramp"])
def test_the_core_killed_in_the_middle_of_a_rollout_brings_it_to_the_same_end(
    after_the_move: Path, ram: Path, state: str
) -> None:
    tale = on(Tale(again(after_the_move, ram / "home"), EVERYTHING))
    tale.approve(2)
    seen: list[str] = []

    def kill() -> None:
        seen.append(tale.rollout()["state"])
        tale.kill_core()

    where = {"shadow": ("watch-1", "shadow"), "canary": ("watch-1", "probation"), "ramp": ("watch-1", "steady")}
    tale.roll(2, "watch-1", "complete", _when(tale, state, kill), where[state][1])
    assert seen == [state]
    recovered(tale)


def _when(tale: Tale, state: str, kill: Callable[[], None]) -> Callable[[], None]:
    """`kill`, once the rollout is in this state: a canary that has committed is seen a moment before its ramp."""

    def wait() -> None:
        for _ in range(20):
            if tale.rollout()["state"] == state:
                break
            tale.world.settle(1)
        kill()

    return wait


def test_the_core_killed_in_its_own_training_starts_it_again(after_act_one: Path, ram: Path) -> None:
    tale = Tale(again(after_act_one, ram / "home"), EVERYTHING)
    moved(tale)
    tale.world.held = []
    lost: list[str] = []

    def kill() -> None:
        for _ in range(20):
            if tale.world.held:
                break
            tale.world.now += 2.0
            tale.world.settle(2)
        lost.extend(spec.kind for spec in tale.world.held or ())
        tale.kill_core()
        tale.world.held = None

    tale.learn(2, kill)
    assert lost and "job-lost" in tale.codes()
    on(tale).approve(2)
    tale.roll(2, "watch-1", "complete")
    recovered(tale)


def test_a_release_that_was_hardly_trained_loses_its_a_b(after_act_one: Path, ram: Path) -> None:
    """A hundred wrists at one device, each with its release of two, over a restart as well; labels say who is worse."""
    tale = Tale(again(after_act_one, ram / "home"), EVERYTHING)
    settings = 'kind = "ab"\nshare = 0.5\nevidence = "guardrails"'
    tale.apply(lambda text: text.replace("epochs = 25", "epochs = 1, learning_rate = 1e-9"))
    tale.apply(lambda text: text.replace('evidence = "labels"', settings))
    job = tale.world.order(Train(model=MODEL))["job"]
    found = tale.world.get(f"/v1/jobs/{job}")["result"]
    assert not found["accepted"]
    tale.world.order(Override(candidate=found["candidate"], reason="a test"))
    tale.approve(2)
    box = tale.world.boxes["watch-1"]
    for _ in range(20):
        tale.world.settle(2)
        if box.phase() == "live_split":
            break
    tale.world.settle(4)
    recorded, begin = tale.people["watch-1"].recordings, tale.world.now + LEAD
    wrists = tuple(Wearing(box, recorded, begin, n, f"wrist-{n}") for n in range(100))
    for wrist in wrists:
        wrist.stream(150)
    who = {answer.entity: answer.release for answer in box.answers if answer.entity.startswith("wrist")}
    assert set(who.values()) == {1, 2}
    tale.kill("watch-1")
    answered = len(box.answers)
    for wrist in wrists:
        wrist.stream(150)
        wrist.label()
    assert {a.entity: a.release for a in box.answers[answered:] if a.quality == "ok"} == who, "sticky"
    for _ in range(20):
        tale.world.settle(4)
        if tale.rollout()["state"] == "reversed":
            break
    told = tale.rollout()
    assert told["state"] == "reversed" and "it does worse than release 1" in told["reason"], told["comparison"]["text"]
    assert {box.serves() for box in tale.world.boxes.values()} == {1} and box.phase() == "steady"
