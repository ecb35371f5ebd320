"""An A/B from the first report to its end: what the keys of all devices say, whom they convince, and what pauses it."""

from __future__ import annotations

from msgspec.structs import replace

from core.handoffs import Rollout, SplitPlan
from core.handoffs import RolloutState as State
from core.rollout.arms import compare, name_of
from core.rollout.controller import Decision, decide
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName
from sync.reports import ArmReport, ModelReport, Release, SplitReport

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
ONE, TWO, THREE = (DeviceId(name) for name in ("one", "two", "three"))
NOW, DAY = 1000.0, 86_400.0
Words = tuple[int, int]  # keys whose first outcome was good, bad

ROLLOUT = Rollout(
    ModelName("motion"), 2, NEW, (ONE,), Gates(margin=0.02), State.SPLIT, NOW, 1, assigned=(ONE,),
    split=SplitPlan("seed", 5000, OLD), days=10.0,
)  # fmt: skip
FAR = replace(ROLLOUT, canary=(ONE, TWO, THREE), assigned=(ONE, TWO, THREE))
WON, LOST, EVEN = ((100, 300), (300, 100)), ((300, 100), (100, 300)), ((90, 10), (90, 10))


def says(old: Words, new: Words, rollout: Rollout = ROLLOUT, *, fallen: bool = False) -> ModelReport:
    name = name_of(rollout)
    assert name is not None
    arms = (
        ArmReport(1, OLD, 0, 5000, keys=sum(old), losses=old),
        ArmReport(2, NEW, 0, 5000, keys=sum(new), losses=new, fallen=fallen),
    )
    return ModelReport("live_split", NOW, Release(1, OLD, OLD), split=SplitReport(name, 1, arms))


def test_it_begins_as_a_split_on_the_canary_devices() -> None:
    begun = decide(replace(ROLLOUT, state=State.APPROVED, assigned=()), {ONE: None, TWO: None}, NOW)
    assert (begun.rollout.state, begun.assign, begun.mode) == (State.SPLIT, (ONE,), "split")
    assert "50 %" in begun.rollout.reason
    alone = decide(replace(ROLLOUT, state=State.APPROVED, assigned=(), previous=None), {ONE: None}, NOW)
    assert (alone.rollout.state, alone.mode) == (State.CANARY, "live"), "a first release has nothing beside it"
    forced = decide(replace(ROLLOUT, state=State.APPROVED, assigned=(), forced="me: now"), {ONE: None}, NOW)
    assert (forced.rollout.state, forced.mode) == (State.CANARY, "live")


def test_better_goes_on_worse_goes_back_and_the_rest_waits() -> None:
    won = decide(ROLLOUT, {ONE: says(*WON), TWO: None}, NOW)
    assert (won.rollout.state, won.assign, won.mode) == (State.CANARY, (ONE,), "live")
    assert won.heard == (ONE,) and won.comparison is not None and won.comparison.decision == "better"
    assert "does better than release 1" in won.rollout.reason and won.rollout.compared[ONE].arms[1].losses == (300, 100)
    lost = decide(ROLLOUT, {ONE: says(*LOST)}, NOW)
    assert (lost.rollout.state, lost.take_back) == (State.REVERSING, (ONE,))
    assert decide(ROLLOUT, {ONE: says(*EVEN)}, NOW) == Decision(ROLLOUT)
    assert decide(ROLLOUT, {ONE: None}, NOW) == Decision(ROLLOUT)


def test_an_interval_is_told_with_the_rates() -> None:
    found = compare(ROLLOUT, {ONE: says(*WON)})
    assert found.losses == (0.75, 0.25) and found.low < -0.5 < found.high < 0
    assert "bad in 25.0% of 400 keys, the incumbent in 75.0% of 400" in found.text
    assert "no word yet" in compare(ROLLOUT, {}).text


def test_it_is_paused_when_its_days_are_over_and_the_devices_are_free() -> None:
    late = decide(ROLLOUT, {ONE: says(*EVEN)}, NOW + 10 * DAY)
    assert (late.rollout.state, late.take_back) == (State.PAUSED, (ONE,))
    assert late.rollout.reason.startswith("split decided nothing in 10 days; bad in 10.0%")
    assert decide(late.rollout, {ONE: says(*WON)}, NOW + 99 * DAY) == Decision(late.rollout), "a person decides"
    assert decide(replace(ROLLOUT, days=0.0), {ONE: says(*EVEN)}, NOW + 999 * DAY).rollout.state is State.SPLIT


def test_a_shadow_is_paused_as_well() -> None:
    shadow = replace(ROLLOUT, state=State.SHADOW, split=None, gates=Gates("labels", margin=0.1), days=3.0)
    assert decide(shadow, {ONE: None}, NOW + 2.9 * DAY) == Decision(shadow)
    late = decide(shadow, {ONE: None}, NOW + 3 * DAY)
    assert (late.rollout.state, late.take_back) == (State.PAUSED, (ONE,))
    assert late.rollout.reason == "shadow decided nothing in 3 days"


def test_missing_keys_or_words_pause_it_instead_of_deciding() -> None:
    biased = says((400, 0), (150, 0))  # many of the arm's keys never came to a word
    found = decide(ROLLOUT, {ONE: biased}, NOW)
    assert found.rollout.state is State.PAUSED and "words are missing for a reason" in found.rollout.reason


def test_of_three_devices_none_decides_alone() -> None:
    liar: dict[DeviceId, ModelReport | None] = {ONE: says(*WON, FAR), TWO: says(*EVEN, FAR), THREE: says(*EVEN, FAR)}
    assert compare(FAR, liar).decision == "hold"
    assert compare(FAR, liar | {TWO: says(*WON, FAR), THREE: says(*WON, FAR)}).decision == "better"
    odd: dict[DeviceId, ModelReport | None] = {**liar, ONE: says((4000, 0), (1, 0), FAR)}
    assert compare(FAR, odd).decision == "hold", "nor stops it"


def test_what_is_of_another_split_or_no_counts_is_not_counted() -> None:
    retried = replace(ROLLOUT, retry=1)
    assert compare(retried, {ONE: says(*WON)}).words == (0, 0)
    reshared = replace(ROLLOUT, split=SplitPlan("seed", 4000, OLD))
    assert compare(reshared, {ONE: says(*WON)}).words == (0, 0)
    for wrong in ((1 << 60, 0), (-1, 5), (1, 2, 3)):
        assert compare(ROLLOUT, {ONE: says(wrong, (300, 100))}).words == (0, 0)  # type: ignore[arg-type]
    assert compare(ROLLOUT, {ONE: says(*WON, fallen=True)}).words == (0, 0), "the device has its own verdict on it"


def test_a_verdict_of_a_device_reverses_it() -> None:
    refused = replace(says(*EVEN), quarantined={NEW: 0}, reason="7 failed answers")
    found = decide(ROLLOUT, {ONE: refused}, NOW)
    assert found.rollout.state is State.REVERSING and "7 failed answers" in found.rollout.reason


def test_it_is_reversed_once_no_device_runs_the_arm() -> None:
    turning = replace(ROLLOUT, state=State.REVERSING)
    assert decide(turning, {ONE: says(*EVEN)}, NOW).rollout.state is State.REVERSING
    back = ModelReport("steady", NOW, Release(1, OLD, OLD))
    assert decide(turning, {ONE: back}, NOW).rollout.state is State.REVERSED
