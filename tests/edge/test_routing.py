"""Who answers for a key: by lot, always the same, whatever becomes of the other arms, and other in every split."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.routing import Routes, Stretch
from sync.messages import SHARES
from sync.names import ModelName

MODEL = ModelName("motion")
PLACES = [6592, 1336, 7715]
KEYS = [f"machine-{n}" for n in range(4_000)]
HALF = SHARES // 2


def split(seed: str = "s", *shares: int, model: ModelName = MODEL) -> Routes:
    """Release 1 and arms 2, 3, ... with these shares, each from the beginning of its own half of the places on."""
    stretches = tuple(Stretch(n * HALF, n * HALF + share, n + 2) for n, share in enumerate(shares) if share)
    return Routes(model, seed, 1, stretches)


@settings(max_examples=60, deadline=None)
@given(seed=st.text(max_size=20), share=st.integers(0, HALF), other=st.integers(0, HALF))
def test_each_arm_gets_its_share_of_the_keys(seed: str, share: int, other: int) -> None:
    """Within six standard deviations: a correct hash leaves them once in 10^8 times."""
    routes = split(seed, share, other)
    got = [routes.release(key) for key in KEYS]
    for arm, wanted in ((2, share / SHARES), (3, other / SHARES)):
        bound = 6 * math.sqrt(len(KEYS) * wanted * (1 - wanted)) + 1
        assert abs(got.count(arm) - len(KEYS) * wanted) <= bound


@given(seed=st.text(max_size=20), key=st.text(min_size=1), share=st.integers(0, HALF), other=st.integers(0, HALF))
def test_a_key_always_has_the_same_release(seed: str, key: str, share: int, other: int) -> None:
    assert split(seed, share, other).release(key) == split(seed, share, other).release(key)


@given(
    key=st.text(min_size=1),
    share=st.integers(0, HALF),
    more=st.integers(0, HALF),
    other=st.integers(0, HALF),
    changed=st.integers(0, HALF),
)
def test_growing_an_arm_moves_nobody_who_is_in_one(key: str, share: int, more: int, other: int, changed: int) -> None:
    small, large = sorted((share, more))
    before, grown = split("s", small, other).release(key), split("s", large, other).release(key)
    assert grown == before or (before, grown) == (1, 2), "whoever moves comes from the incumbent"
    elsewhere = split("s", small, changed).release(key)
    assert (before == 2) == (elsewhere == 2), "what another arm is given changes nothing for this one"


def test_splits_are_independent_of_each_other() -> None:
    """Of the keys that one split gives to its arm, another split gives a half to its own."""
    first = [key for key in KEYS if split("one", HALF).release(key) == 2]
    for other in (split("two", HALF), split("one", HALF, model=ModelName("other"))):
        both = sum(other.release(key) == 2 for key in first)
        assert abs(both - len(first) / 2) <= 6 * math.sqrt(len(first) / 4)


def test_without_a_key_the_incumbent_answers() -> None:
    assert split("s", HALF, HALF).release("") == 1


def test_the_places_do_not_depend_on_the_process() -> None:
    """Written down once: sticky over restarts and machines means just these."""
    routes = split("seed", HALF)
    assert [routes.mark(key) % SHARES for key in ("w1", "w2", "ü")] == PLACES
