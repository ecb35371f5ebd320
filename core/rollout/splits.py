"""Does an arm of a split do better or worse than the incumbent? A two-sample e-process on the sticky split. Pure.

Theory. What is drawn by lot is the key, so a key is one observation: its loss y, from 0 to 1, is the share of bad ones
among its first outcomes. Of the keys of an arm and the incumbent a chance p went to the arm, known beforehand, so that
Z = (y - b) (1{arm} / p - 1{incumbent} / (1 - p)) has the mean loss_arm - loss_incumbent whatever b is, and whatever
else is true of keys and devices. Who bets a stake on Z - d, against "the arm's loss is higher by d at most", cannot win
on average if that holds: the wealth reaches 1/alpha with a chance of at most alpha, at any look (`sync.evidence`).
Stakes and b are averaged over a grid fixed beforehand, because the best are unknown. Only how many keys had which loss
counts, not in which order, so devices' counts are added.

Several arms: each is compared with the incumbent at alpha divided by their number, which holds whatever they have in
common. A sample-ratio mismatch (keys, or keys with a word, not in the proportion of their places) means that words are
missing for a reason: then nothing is concluded. Its test, a Dirichlet mixture of multinomials, holds at any look too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sync.evidence import BETS

Words = tuple[int, ...]  # keys by how many of their first outcomes were bad: 0, 1, ... per_key

BASELINES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # losses around which the spread of Z is small
CONCENTRATION = 100.0  # of the mixture: how near to the planned shares it looks first
_STEPS = 40  # of the bisection: an interval is exact to 1e-12


def decides_at(alpha: float) -> float:
    """Natural logarithm of the wealth at which it is decided: wrongly with a chance of at most `alpha`."""
    return -math.log(alpha)


def log_worse(arm: Words, incumbent: Words, chance: float, margin: float = 0.0) -> float:
    """Natural logarithm of the wealth against "the arm's loss is higher by `margin` (-1 to 1) at most". `chance`: the
    arm's share of the places of both. Raises ValueError for counts or a chance that cannot be."""
    return _log_wealth(arm, incumbent, chance, margin, 1.0)


def log_better(arm: Words, incumbent: Words, chance: float, margin: float = 0.0) -> float:
    """Natural logarithm of the wealth against "the arm's loss is higher by `margin` (-1 to 1) at least"."""
    return _log_wealth(arm, incumbent, chance, margin, -1.0)


def interval(arm: Words, incumbent: Words, chance: float, alpha: float) -> tuple[float, float]:
    """loss_arm - loss_incumbent lies in here, at all looks together, but with a chance of at most `alpha`."""
    at = math.log(2 / alpha)
    low = _crossing(lambda margin: log_worse(arm, incumbent, chance, margin) >= at)
    high = -_crossing(lambda margin: log_better(arm, incumbent, chance, -margin) >= at)
    return low, high


def log_mismatch(counts: Sequence[int], shares: Sequence[int]) -> float:
    """Natural logarithm of the evidence that `counts` were not drawn in the proportion of `shares`; 0 without any."""
    total, places = sum(counts), sum(shares)
    if len(counts) != len(shares) or min(counts, default=0) < 0 or min(shares, default=0) <= 0:
        raise ValueError("a count from 0 on and a share above 0 for each release")
    found = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + total)
    for count, share in zip(counts, shares, strict=True):
        prior = CONCENTRATION * share / places
        found += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share / places)
    return found


def loss(words: Words) -> float | None:
    """The mean loss of keys, from 0 to 1; None without any."""
    keys, most = sum(words), len(words) - 1
    return sum(bad * n for bad, n in enumerate(words)) / (keys * most) if keys else None


def add(parts: Sequence[Words], per_key: int) -> Words:
    """The words of several devices together."""
    return tuple(sum(part[bad] for part in parts) for bad in range(per_key + 1))


def _log_wealth(arm: Words, incumbent: Words, chance: float, margin: float, sign: float) -> float:
    if not 0 < chance < 1 or not -1 <= margin <= 1:
        raise ValueError(f"a chance of {chance} or a margin of {margin}: it is between 0 and 1, or from -1 to 1")
    if len(arm) != len(incumbent) or len(arm) < 2 or min(*arm, *incumbent) < 0:
        raise ValueError("keys by the number of their bad outcomes, of both releases alike")
    losses = np.linspace(0.0, 1.0, len(arm))
    base = np.array(BASELINES)[:, None]
    gain = sign * np.concatenate(((losses - base) / chance, -(losses - base) / (1 - chance)), axis=1) - sign * margin
    # The largest stake that cannot lose all at any margin, so that the wealth falls as the margin grows.
    most = 1 / (1 + np.maximum(np.maximum(base, 1 - base) / chance, np.maximum(base, 1 - base) / (1 - chance)))
    stakes = most[:, :, None] * np.array(BETS)[None, :, None]
    counts = np.array((*arm, *incumbent), np.float64)
    logs: npt.NDArray[np.float64] = (np.log1p(stakes * gain[:, None, :]) * counts).sum(axis=2)
    return float(np.logaddexp.reduce(logs.ravel()) - math.log(logs.size))


def _crossing(refuted: Callable[[float], bool]) -> float:
    """The largest margin of -1 to 1 that is refuted, if any is: whatever lies below one that is, is too."""
    low, high = -1.0, 1.0
    if not refuted(low):
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
