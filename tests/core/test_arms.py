"""An A/B from the first report to its end: what the keys of all devices say, whom they convince, and what pauses it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from msgspec.structs import replace

from core.handoffs import Rollout, SplitPlan
from core.handoffs import RolloutState as State
from core.rollout.arms import compare, name_of
from core.rollout.controller import Decision, decide
from edge.routing import Routes, Stretch
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName
from sync.reports import ArmReport, ModelReport, Release, SplitReport
from sync.splits import seed_of

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
ONE, TWO, THREE = (DeviceId(name) for name in ("one", "two", "three"))
NOW, DAY = 1000.0, 86_400.0
Words = tuple[int, int]  # keys whose first outcome was good, bad
Fleet = dict[DeviceId, ModelReport | None]

ROLLOUT = Rollout(
    ModelName("motion"), 2, NEW, (ONE,), Gates(margin=0.02), State.SPLIT, NOW, 1, assigned=(ONE,),
    split=SplitPlan("seed", 5000, OLD), days=10.0,
)  # fmt: skip
FAR = replace(ROLLOUT, canary=(ONE, TWO, THREE), assigned=(ONE, TWO, THREE))
WON, LOST, EVEN = ((100, 300), (300, 100)), ((300, 100), (100, 300)), ((90, 10), (90, 10))


def says(
    old: Words, new: Words, rollout: Rollout = ROLLOUT, *, device: DeviceId = ONE, fallen: bool = False
) -> ModelReport:
    name = name_of(rollout, device)
    assert name is not None
    arms = (
        ArmReport(1, OLD, 0, 5000, keys=sum(old), losses=old),
        ArmReport(2, NEW, 0, 5000, keys=sum(new), losses=new, fallen=fallen),
    )
    return ModelReport("live_split", NOW, Release(1, OLD, OLD), split=SplitReport(name, 1, arms))


def fleet(said: tuple[tuple[Words, Words], ...]) -> Fleet:
    """What the three devices of `FAR` say."""
    return {name: says(old, new, FAR, device=name) for name, (old, new) in zip((ONE, TWO, THREE), said, strict=True)}


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
    liar = fleet((WON, EVEN, EVEN))
    assert compare(FAR, liar).decision == "hold"
    assert compare(FAR, fleet((WON, WON, WON))).decision == "better"
    odd = liar | {ONE: says((4000, 0), (1, 0), FAR)}
    assert compare(FAR, odd).decision == "hold", "nor stops it"


def test_a_device_that_was_set_aside_does_not_count() -> None:
    apart = replace(FAR, aside=(ONE,))
    alike = fleet((LOST, EVEN, EVEN))
    assert compare(apart, alike).words == (200, 200) and set(compare(apart, alike).devices) == {TWO, THREE}
    assert compare(apart, fleet((LOST, LOST, LOST))).decision == "worse"


@pytest.mark.parametrize("said", [LOST, EVEN])
def test_a_verdict_that_stands_alone_stops_neither_the_comparison_nor_the_days(said: tuple[Words, Words]) -> None:
    refused = replace(says(*said, FAR), quarantined={NEW: 0}, reason="7 failed answers")
    alike = fleet((said, said, said)) | {ONE: refused}
    if said is EVEN:
        held = decide(FAR, alike, NOW).rollout
        assert (held.state, held.held) == (State.SPLIT, (ONE,)) and held.reason.startswith("held for a person")
        assert decide(held, alike, NOW + 9 * DAY) == Decision(held)
        late = decide(held, alike, NOW + 10 * DAY)
        assert (late.rollout.state, late.take_back, late.rollout.held) == (State.PAUSED, FAR.assigned, ())
    else:
        lost = decide(FAR, alike, NOW)
        assert (lost.rollout.state, lost.take_back, lost.rollout.held) == (State.REVERSING, FAR.assigned, ())
        assert set(lost.heard) == {ONE, TWO, THREE}, "the verdict that stood alone is kept too"
    won = fleet((WON, WON, WON)) | {ONE: replace(says(*WON, FAR), quarantined={NEW: 0})}
    waits = decide(FAR, won, NOW)
    assert (waits.rollout.state, waits.assign) == (State.SPLIT, ()), "over a verdict nothing goes on by itself"


def test_a_shadow_that_is_held_is_paused_as_well() -> None:
    shadow = replace(FAR, state=State.SHADOW, split=None, gates=Gates("labels", margin=0.1), days=3.0, held=(ONE,))
    alike: Fleet = {ONE: None, TWO: None, THREE: None}
    assert decide(shadow, alike, NOW + 2.9 * DAY).rollout.state is State.SHADOW
    late = decide(shadow, alike, NOW + 3 * DAY)
    assert (late.rollout.state, late.take_back) == (State.PAUSED, FAR.assigned)


def test_an_equal_arm_is_seldom_decided_on_where_all_devices_use_the_same_names() -> None:
    """Twenty devices with a good "left" and a bad "motor" each. With one lot for all of them, "motor" would be the
    arm's everywhere in a quarter of the fleets. By theory at most 1 % are called worse, 5 % better."""
    losses, per_key = {"left": 0.02, "motor": 0.4}, 4
    names = tuple(DeviceId(f"press-{n}") for n in range(20))
    told = replace(ROLLOUT, canary=names, assigned=names, gates=Gates(margin=0.02, per_key=per_key))
    rng, decided = np.random.default_rng(12), Counter[str]()
    for fleet_seed in range(60):
        plan = SplitPlan(str(fleet_seed), 5000, OLD)
        rollout, reports = replace(told, split=plan), {}
        for name in names:
            routes = Routes(told.model, seed_of(plan.seed, name), 1, (Stretch(0, plan.share, 2),))
            counts = {release: [0] * (per_key + 1) for release in (1, 2)}
            for key, loss in losses.items():
                counts[routes.release(key)][rng.binomial(per_key, loss)] += 1
            arms = tuple(
                ArmReport(number, manifest, 0, 5000, keys=sum(counts[number]), losses=tuple(counts[number]))
                for number, manifest in ((1, OLD), (2, NEW))
            )
            split = SplitReport(name_of(rollout, name) or OLD, per_key, arms)
            reports[name] = ModelReport("live_split", NOW, Release(1, OLD, OLD), split=split)
        found = compare(rollout, reports)
        assert sum(found.keys) == 2 * len(names)
        decided[found.decision] += 1
    assert decided["worse"] <= 3 and decided["better"] <= 8 and decided["mismatch"] == 0


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
