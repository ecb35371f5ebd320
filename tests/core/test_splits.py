"""The statistic of splits: how often it is wrong, at any number of looks, and what it needs to be right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.rollout import splits
from core.rollout.splits import Words

WORSE_AT, BETTER_AT = math.log(100), math.log(20)
cells = st.lists(st.integers(0, 300), min_size=2, max_size=5)


def keys(rng: np.random.Generator, losses: tuple[float, float], chance: float, count: int, per_key: int = 1) -> list:
    """Of `count` keys: (whether it is the arm's, how many of its first outcomes were bad)."""
    arm = rng.random(count) < chance
    bad = rng.binomial(per_key, np.where(arm, losses[1], losses[0]))
    return list(zip(arm.tolist(), bad.tolist(), strict=True))


def words(drawn: list, per_key: int = 1) -> tuple[Words, Words]:
    """(arm, incumbent)."""
    counted = [np.bincount([bad for arm, bad in drawn if arm is who], minlength=per_key + 1) for who in (True, False)]
    return tuple(map(int, counted[0])), tuple(map(int, counted[1]))


def verdict(drawn: list, chance: float, looks: int = 20) -> tuple[str, int]:
    """What is said first, and after how many keys, by whoever looks so often."""
    for at in np.linspace(len(drawn) / looks, len(drawn), looks).astype(int).tolist():
        arm, incumbent = words(drawn[:at])
        if splits.log_worse(arm, incumbent, chance) >= WORSE_AT:
            return "worse", at
        if splits.log_better(arm, incumbent, chance) >= BETTER_AT:
            return "better", at
    return "hold", len(drawn)


@pytest.mark.parametrize(("loss", "chance"), [(0.05, 0.5), (0.05, 0.2), (0.3, 0.1)])
def test_an_equal_arm_is_seldom_called_worse_or_better_however_often_one_looks(loss: float, chance: float) -> None:
    """At most 1 % and 5 % by theory: of 150 splits not more than 7 and 15 but once in a thousand."""
    rng = np.random.default_rng(7)
    said = [verdict(keys(rng, (loss, loss), chance, 2000), chance)[0] for _ in range(150)]
    assert said.count("worse") <= 7 and said.count("better") <= 15


def test_of_several_arms_none_is_called_better_more_often_than_of_one() -> None:
    """Three equal arms with a fifth of the keys each, all compared with one incumbent: 5 % together by theory."""
    rng, at, said = np.random.default_rng(11), splits.decides_at(0.05 / 3), 0
    for _ in range(100):
        who = rng.choice(4, size=1500, p=(0.4, 0.2, 0.2, 0.2))
        bad = rng.random(1500) < 0.1
        for look in range(100, 1501, 200):
            each = [tuple(np.bincount(bad[:look][who[:look] == n].astype(int), minlength=2).tolist()) for n in range(4)]
            if any(splits.log_better(arm, each[0], 1 / 3) >= at for arm in each[1:]):
                said += 1
                break
    assert said <= 12


@pytest.mark.parametrize(
    ("losses", "chance", "expected", "needed"),
    [((0.2, 0.1), 0.5, "better", 1500), ((0.1, 0.2), 0.2, "worse", 2000), ((0.05, 0.02), 0.5, "better", 4000)],
)
def test_a_difference_is_found(losses: tuple[float, float], chance: float, expected: str, needed: int) -> None:
    rng = np.random.default_rng(8)
    found = [verdict(keys(rng, losses, chance, 6000), chance) for _ in range(20)]
    assert [said for said, _ in found].count(expected) >= 19
    assert np.median([at for _, at in found]) <= needed


def test_the_interval_holds_the_difference_at_all_looks() -> None:
    rng, missed = np.random.default_rng(9), 0
    for _ in range(30):
        drawn = keys(rng, (0.3, 0.2), 0.3, 2000, per_key=4)
        spans = [splits.interval(*words(drawn[:at], 4), 0.3, 0.05) for at in (100, 400, 1000, 2000)]
        missed += any(not low <= -0.1 <= high for low, high in spans)
        assert spans[-1][1] - spans[-1][0] < 0.2 < spans[0][1] - spans[0][0]
    assert missed <= 6, "5 % by theory"


@settings(max_examples=100, deadline=None)
@given(arm=cells, chance=st.floats(0.05, 0.95), first=st.floats(-1, 1), second=st.floats(-1, 1))
def test_a_higher_margin_is_harder_to_refute(arm: list[int], chance: float, first: float, second: float) -> None:
    incumbent = tuple(reversed(arm))
    low, high = sorted((first, second))
    assert (
        splits.log_worse(tuple(arm), incumbent, chance, low)
        >= splits.log_worse(tuple(arm), incumbent, chance, high) - 1e-9
    )
    assert (
        splits.log_better(tuple(arm), incumbent, chance, high)
        >= splits.log_better(tuple(arm), incumbent, chance, low) - 1e-9
    )


def test_a_fair_bet_is_fair() -> None:
    """The mean of the wealth after two keys, over all that can happen where both are equally bad, is 1 or less."""
    chance, loss = 0.3, 0.2
    outcomes = [
        ((arm, bad), (chance if arm else 1 - chance) * (loss if bad else 1 - loss))
        for arm in (True, False)
        for bad in (0, 1)
    ]
    mean = sum(
        p * q * math.exp(splits.log_worse(*words([one, other]), chance)) for one, p in outcomes for other, q in outcomes
    )
    assert mean == pytest.approx(1.0)


def test_keys_in_the_wrong_proportion_are_noticed() -> None:
    rng = np.random.default_rng(10)
    fair = [rng.multinomial(5000, (0.8, 0.2)) for _ in range(100)]
    assert max(splits.log_mismatch(list(map(int, one)), (8000, 2000)) for one in fair) < math.log(1000)
    assert splits.log_mismatch((4000, 1000), (8000, 2000)) < 0
    assert splits.log_mismatch((4000, 780), (8000, 2000)) > math.log(1000), "a fifth of the arm's is missing"
    assert splits.log_mismatch((0, 0), (8000, 2000)) == 0.0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="chance"):
        splits.log_worse((1, 0), (1, 0), 1.0)
    with pytest.raises(ValueError, match="alike"):
        splits.log_better((1, 0), (1, 0, 0), 0.5)
    with pytest.raises(ValueError, match="count"):
        splits.log_mismatch((-1, 2), (1, 1))
