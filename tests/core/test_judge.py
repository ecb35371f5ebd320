"""The judge of pairs: only reports about just this trial count, and neither order nor repetition matters."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.handoffs import Rollout
from core.rollout.judge import HARM_AT, SAFE_AT, judge
from core.rollout.power import needs
from sync import codec, evidence
from sync.evidence import Counters, Decision
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName
from sync.reports import ModelReport, TrialReport

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
CANARY = tuple(DeviceId(f"d{i}") for i in range(4))
GATES = Gates("labels", margin=0.1, block=10)
ROLLOUT = Rollout(ModelName("motion"), 2, NEW, CANARY, GATES, previous=1, retry=3)
PAIR = replace(ROLLOUT, canary=CANARY[:2])  # too few to outvote a liar: either may decide
MINE = TrialReport(NEW, OLD, 3, "labels", 10, plus=1, zero=70, minus=2, pairs=740)

counts = st.integers(0, 200)
trials = st.builds(lambda p, z, m: replace(MINE, plus=p, zero=z, minus=m), counts, counts, counts)
said = st.one_of(
    st.none(), st.just(ModelReport("shadow", 0.0)), trials.map(lambda t: ModelReport("shadow", 0.0, trial=t))
)
fleets = st.dictionaries(st.sampled_from((*CANARY, DeviceId("other"))), said)


def told(trial: TrialReport) -> ModelReport:
    return ModelReport("shadow", 0.0, trial=trial)


@given(fleets, st.randoms(use_true_random=False))
def test_order_means_nothing_and_all_that_was_heard_is_told(
    fleet: dict[DeviceId, ModelReport | None], chance: object
) -> None:
    found = judge(ROLLOUT, fleet)
    shuffled = sorted(fleet.items(), key=lambda _: chance.random())  # type: ignore[attr-defined]
    other_way = replace(ROLLOUT, canary=tuple(reversed(CANARY)))
    assert found == judge(ROLLOUT, dict(shuffled)) == judge(other_way, fleet)
    heard = [r.trial for d, r in fleet.items() if d in CANARY and r is not None and r.trial is not None]
    assert found.pooled == Counters(sum(t.plus for t in heard), sum(t.zero for t in heard), sum(t.minus for t in heard))
    assert (found.decision is Decision.HARM) == (found.log_harm >= HARM_AT)
    assert found.decision is not Decision.SAFE or found.log_safe >= SAFE_AT


@given(fleets)
def test_in_a_trial_of_two_the_word_is_that_of_the_pooled_counters(fleet: dict[DeviceId, ModelReport | None]) -> None:
    found = judge(PAIR, fleet)
    assert found.decision is evidence.decide(found.pooled, GATES.margin) and found.least == found.pooled


wild = st.integers(0, 1 << 40)


@settings(max_examples=400)
@given(st.lists(trials, min_size=3, max_size=3), st.tuples(wild, wild, wild), st.booleans())
def test_no_device_moves_the_word_of_three_others(
    honest: list[TrialReport], lie: tuple[int, ...], silent: bool
) -> None:
    """Whatever it says, or if it says nothing: the decision is the one of the others' blocks, or there is none yet."""
    liar = None if silent else told(replace(MINE, plus=lie[0], zero=lie[1], minus=lie[2]))
    others = {device: told(trial) for device, trial in zip(CANARY, honest, strict=False)}
    found = judge(ROLLOUT, {**others, CANARY[3]: liar})
    pooled = evidence.pool(Counters(t.plus, t.zero, t.minus) for t in honest)
    assert found.decision in (Decision.HOLD, evidence.decide(pooled, GATES.margin))


def test_what_three_honest_devices_bring_decides_without_the_loudest() -> None:
    """The power that it costs: half as much again of three, a quarter of five; `needs` says so beforehand."""
    share = replace(MINE, plus=0, zero=35, minus=0)
    trio = replace(ROLLOUT, canary=CANARY[:3])
    assert judge(trio, dict.fromkeys(CANARY[:3], told(share))).decision is Decision.SAFE
    assert judge(trio, dict.fromkeys(CANARY[:2], told(share))).decision is Decision.HOLD
    lone = judge(trio, {CANARY[0]: told(replace(MINE, plus=0, zero=500, minus=0))})
    assert lone.decision is Decision.HOLD and "one device alone would decide it" in lone.text
    assert (lone.least, lone.pooled) == (Counters(), Counters(0, 500, 0))
    bad = dict.fromkeys(CANARY[:3], told(replace(MINE, plus=8, zero=0, minus=0)))
    assert judge(trio, bad).decision is Decision.HARM


def test_a_plan_says_what_a_quorum_costs() -> None:
    one, three = needs(GATES, 1), needs(GATES, 3)
    assert one is not None and three is not None
    assert (one.blocks, needs(GATES, 2), three.blocks) == (68, one, 102)


@given(fleets)
def test_what_it_counted_is_enough_to_replay_it(fleet: dict[DeviceId, ModelReport | None]) -> None:
    """As the catalog keeps it: encoded, decoded, and judged again."""
    found = judge(ROLLOUT, fleet)
    kept = codec.decode(Rollout, codec.encode(replace(ROLLOUT, decided=found.devices)))
    assert judge(ROLLOUT, {device: told(trial) for device, trial in kept.decided.items()}) == found


@given(st.lists(trials, min_size=1, max_size=6), trials)
def test_a_devices_report_counts_once_however_often_it_comes(history: list[TrialReport], newest: TrialReport) -> None:
    """A fleet keeps each device's newest word: reports that come again, or came before, leave nothing behind."""
    fleet: dict[DeviceId, ModelReport | None] = {}
    for trial in (*history, newest, newest, newest):
        fleet[CANARY[0]] = told(trial)
    assert judge(ROLLOUT, fleet).pooled == Counters(newest.plus, newest.zero, newest.minus)


@pytest.mark.parametrize(
    "other",
    [
        replace(MINE, manifest=OLD),
        replace(MINE, retry=2),
        replace(MINE, retry=4),
        replace(MINE, metric="agreement"),
        replace(MINE, block=11),
        replace(MINE, plus=-1),
        replace(MINE, zero=10**400),
    ],
    ids=["manifest", "older", "newer", "metric", "block", "negative", "absurd"],
)
def test_reports_about_something_else_count_for_nothing(other: TrialReport) -> None:
    found = judge(ROLLOUT, {CANARY[0]: told(other), CANARY[1]: told(MINE)})
    assert found == judge(ROLLOUT, {CANARY[1]: told(MINE)})
    assert list(found.devices) == [CANARY[1]]


def test_devices_outside_the_canary_and_offline_ones_add_nothing() -> None:
    fleet = {DeviceId("other"): told(MINE), CANARY[0]: None, CANARY[1]: ModelReport("no_model", 0.0)}
    found = judge(ROLLOUT, fleet)
    assert (found.decision, found.devices, found.pooled) == (Decision.HOLD, {}, Counters())
    assert found.text == "no block of pairs yet; safe at 3.00, harm at 4.61"


def test_whom_a_person_set_aside_has_no_word_by_its_pairs_either() -> None:
    """Of two, a broken one alone would take the release from everybody, which is what was set aside."""
    fleet = {PAIR.canary[0]: told(replace(MINE, plus=90, zero=0, minus=0)), PAIR.canary[1]: told(MINE)}
    assert judge(PAIR, fleet).decision is Decision.HARM
    found = judge(replace(PAIR, aside=PAIR.canary[:1]), fleet)
    assert found.decision is not Decision.HARM and list(found.devices) == [PAIR.canary[1]]


def test_under_guardrails_no_pair_counts() -> None:
    trial = replace(MINE, metric="guardrails", plus=1000)
    found = judge(replace(ROLLOUT, gates=replace(GATES, evidence="guardrails")), {CANARY[0]: told(trial)})
    assert (found.decision, found.devices) == (Decision.HOLD, {})


def test_it_says_counts_and_threshold_in_words() -> None:
    safe = judge(PAIR, {CANARY[0]: told(replace(MINE, plus=0, zero=61, minus=12))})
    assert safe.decision is Decision.SAFE
    assert safe.text.startswith("worse in 0, equal in 61, better in 12 of 73 blocks; safe at 3.00, stands at ")
    harm = judge(PAIR, {CANARY[0]: told(replace(MINE, plus=30, zero=3, minus=0))})
    assert harm.decision is Decision.HARM and "of 33 blocks; harm at 4.61, stands at " in harm.text
    assert (safe.harm_at, safe.safe_at) == pytest.approx((math.log(100), math.log(20)))


def test_disagreements_that_wait_keep_it_from_being_safe() -> None:
    """A device whose labels do not come must not be taken for one where both releases agree."""
    counted = replace(MINE, plus=0, zero=80, minus=0)
    assert judge(PAIR, {CANARY[0]: told(counted)}).decision is Decision.SAFE
    waits = replace(counted, waiting=20, worst=(2, 80, 0))
    found = judge(PAIR, {CANARY[0]: told(waits)})
    assert found.decision is Decision.HOLD and found.log_safe < found.safe_at
    late = replace(counted, zero=160, waiting=20, worst=(2, 160, 0))
    assert judge(PAIR, {CANARY[0]: told(late)}).decision is Decision.SAFE, "they are outweighed in the end"


def test_harm_is_counted_on_labels_that_came_only() -> None:
    waits = replace(MINE, plus=0, zero=5, minus=0, waiting=400, worst=(40, 5, 0))
    assert judge(ROLLOUT, {CANARY[0]: told(waits)}).decision is Decision.HOLD
