"""Evidence by hand and by law; and small seeded trials in which errors come in bursts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import codec
from sync.evidence import (
    BETS,
    BlockCounter,
    Blocks,
    Counters,
    Decision,
    OpenBlock,
    block_length,
    burst_length,
    decide,
    log_harm,
    log_safe,
    pairs_needed,
    pool,
)

counts = st.builds(Counters, *[st.integers(0, 3000)] * 3)
margins = st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.1, 0.4])


# --- blocks -----------------------------------------------------------------------------------------------------


def test_a_block_counts_the_sign_of_its_sum_once() -> None:
    counter = BlockCounter(Blocks(3))
    assert counter.push("a", [1, 1, -1, -1, -1]) == Counters(plus=1)
    assert counter.push("b", [0, 0, 0]) == Counters(plus=1, zero=1)
    assert counter.push("a", [1, 0]) == Counters(plus=1, zero=1, minus=1)
    assert counter.checkpoint().open == {"a": OpenBlock(1, 0)}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from([-1, 0, 1]), max_size=20))), st.integers(1, 9)
)
def test_blocks_do_not_depend_on_how_rows_come_or_on_restarts(parts: list[tuple[str, list[int]]], length: int) -> None:
    whole = BlockCounter(Blocks(length))
    for entity in "ab":
        whole.push(entity, [d for name, rows in parts if name == entity for d in rows])
    counter = BlockCounter(Blocks(length))
    for entity, rows in parts:
        counter.push(entity, rows)
        counter = BlockCounter(codec.decode(Blocks, codec.encode(counter.checkpoint())))
    assert counter.checkpoint() == whole.checkpoint()


def test_what_is_no_outcome_is_refused_and_leaves_the_block_open() -> None:
    counter = BlockCounter(Blocks(3))
    counter.push("a", [1])
    with pytest.raises(ValueError, match="-1, 0 and"):
        counter.push("a", [2])
    assert counter.checkpoint().open == {"a": OpenBlock(1, 1)}
    with pytest.raises(ValueError, match="unfinished"):
        Blocks(3, open={"a": OpenBlock(3, 0)})


@given(counts, counts, counts)
def test_reports_merge_in_any_order_and_repeats_change_nothing(a: Counters, b: Counters, c: Counters) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert pool([a, b]) == pool([b, a])


def test_bursts_are_measured_as_an_error_meets_them() -> None:
    assert burst_length([0, 1, 1, 0, 1, 1, 0]) == 2
    assert burst_length([1] * 9 + [0, 1] * 9) == (81 + 9) / 18
    assert burst_length([0, 0]) == burst_length([]) == 1
    assert block_length(1.0) == 10
    assert block_length(4.01) == 41
    with pytest.raises(ValueError, match="burst"):
        block_length(math.nan)


# --- e-values ---------------------------------------------------------------------------------------------------


def test_the_e_values_by_hand() -> None:
    d = 0.05
    harm = sum((1 + b * (1 - d)) ** 3 * (1 - b * d) ** 4 * (1 - b * (1 + d)) ** 2 for b in BETS) / 7
    safe = sum((1 + b * (1 + d)) ** 2 * (1 + b * d) ** 4 * (1 - b * (1 - d)) ** 3 for b in BETS) / 7
    assert math.exp(log_harm(Counters(3, 4, 2), d)) == pytest.approx(harm)
    assert math.exp(log_safe(Counters(3, 4, 2), d)) == pytest.approx(safe)


@given(margins, st.floats(0, 1))
def test_a_bet_wins_nothing_on_average_at_the_edge_of_its_null(margin: float, disagreement: float) -> None:
    plus = (max(disagreement, margin) + margin) / 2
    minus = plus - margin
    chances = ((Counters(1, 0, 0), plus), (Counters(0, 1, 0), 1 - plus - minus), (Counters(0, 0, 1), minus))
    for log in (log_harm, log_safe):
        assert sum(chance * math.exp(log(c, margin)) for c, chance in chances) == pytest.approx(1)


@given(counts, margins)
def test_more_harm_never_looks_safer(c: Counters, margin: float) -> None:
    worse = Counters(c.plus + 1, c.zero, c.minus)
    assert log_harm(worse, margin) > log_harm(c, margin)
    assert log_safe(worse, margin) < log_safe(c, margin)


@given(counts, counts, margins)
def test_a_replay_of_the_same_counters_decides_the_same(a: Counters, b: Counters, margin: float) -> None:
    order = decide(pool([a, b]), margin), decide(pool([b.merge(b), a]), margin)
    assert order[0] is order[1]


def test_the_three_decisions() -> None:
    assert decide(Counters(), 0.05) is Decision.HOLD
    assert decide(Counters(plus=12), 0.0) is Decision.HARM
    assert decide(Counters(zero=133), 0.05) is Decision.SAFE
    assert decide(Counters(zero=132), 0.05) is Decision.HOLD
    assert decide(Counters(plus=10**7, zero=10**9), 0.001) is Decision.HARM
    assert decide(Counters(minus=10**9), 0.0) is Decision.SAFE


@pytest.mark.parametrize("margin", [-0.01, 0.41, math.nan])
def test_a_margin_that_could_lose_more_than_all_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        decide(Counters(), margin)


@pytest.mark.parametrize("wrong", [{"alpha_harm": 0}, {"alpha_safe": 1.0}])
def test_a_chance_of_being_wrong_lies_between_nought_and_one(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alpha"):
        decide(Counters(zero=1000), 0.1, **wrong)


# --- power ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("margin", "pairs"), [(0.01, 655), (0.05, 133), (0.1, 68)])
def test_pairs_needed_without_disagreement(margin: float, pairs: int) -> None:
    assert pairs_needed(margin) == pairs
    assert decide(Counters(zero=pairs), margin) is Decision.SAFE
    assert decide(Counters(zero=pairs - 1), margin) is Decision.HOLD


def test_disagreement_and_assurance_cost_pairs_and_no_margin_costs_all() -> None:
    needed = [pairs_needed(0.05, q) or 0 for q in (0.0, 0.03, 0.1, 0.3)]
    assert all(a < b for a, b in pairwise(needed))
    assert (pairs_needed(0.05, 0.1, assurance=0.95) or 0) > (pairs_needed(0.05, 0.1, assurance=0.5) or 0)
    assert pairs_needed(0.0) is None
    assert pairs_needed(0.0, 0.5) is None
    with pytest.raises(ValueError, match="assurance"):
        pairs_needed(0.05, 0.1, assurance=1.0)


def test_as_many_pairs_as_promised_suffice_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    needed = pairs_needed(0.05, 0.1) or 0
    drawn = rng.multinomial(needed, [0.05, 0.9, 0.05], 400)
    safe = sum(decide(Counters(*map(int, row)), 0.05) is Decision.SAFE for row in drawn)
    assert 0.7 < safe / 400 < 0.9


# --- bursts, seeded ---------------------------------------------------------------------------------------------


def bursty(rng: np.random.Generator, rows: int, burst: int, harm: float) -> np.ndarray:
    """3 % of the rows disagree, in bursts of one sign, `harm` net."""
    found, at = np.zeros(rows, np.int8), 0
    while at < rows:
        at += int(rng.geometric(0.03 / (burst * 0.97)))
        end = at + int(rng.geometric(1 / burst))
        found[at:end] = 1 if rng.random() < 0.5 * (1 + harm / 0.03) else -1
        at = end
    return found


def rolled_back(length: int, harm: float, runs: int = 60) -> int:
    """Trials of 2 devices x 9,600 rows that end in HARM at one of 12 looks."""
    hits = 0
    for run in range(runs):
        rng = np.random.default_rng([17, run])
        devices = [(BlockCounter(Blocks(length)), bursty(rng, 9600, 10, harm)) for _ in range(2)]
        looks = [pool(c.push("", d[at : at + 800]) for c, d in devices) for at in range(0, 9600, 800)]
        hits += any(decide(look, 0.0) is Decision.HARM for look in looks)
    return hits


def test_blocks_spare_an_equally_good_candidate_that_rows_would_condemn() -> None:
    assert rolled_back(length=1, harm=0.0) > 20
    assert rolled_back(length=block_length(10), harm=0.0) <= 2


def test_blocks_still_catch_a_harmful_candidate() -> None:
    assert rolled_back(length=block_length(10), harm=0.02) > 45
