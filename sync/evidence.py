"""Is the new model worse than the old one? Paired outcomes, blocks, and bets that may be looked at any time.

Theory. Both models see the same input on the same device: D = loss_new - loss_old, one of -1, 0, +1. Errors come in
bursts, so single rows are no independent evidence; the sign of the sum of D over a *block* of fixed length, per
(device, entity), is. A block length is fixed before the trial opens and never changed in it.

The counters (n_plus, n_zero, n_minus) of blocks only grow: of one device, a newer report replaces an older one by
`merge` (max); of several devices they are added by `pool`. An e-value is the wealth of someone who bets against a
hypothesis and cannot win on average if it is true: it reaches 1/alpha with a chance of at most alpha, at any look.
The margin `d` is counted in blocks: H_harm "the candidate is the worse one in at most a share d of the blocks, net",
H_safe "in at least a share d". If it is worse in some blocks and better in none, its rows are worse by d at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

BETS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)  # the grid of stakes, averaged, because the best one is unknown
MAX_MARGIN = 0.4  # above 1/0.7 - 1 a bet could lose more than all
ALPHA_HARM = 0.01
ALPHA_SAFE = 0.05
BURSTS = 10  # a block is at least this many bursts long


class Decision(StrEnum):
    HARM = "harm"
    SAFE = "safe"
    HOLD = "hold"


class Counters(msgspec.Struct, frozen=True):
    """Blocks in which the candidate was worse, equal, better."""

    plus: int = 0
    zero: int = 0
    minus: int = 0

    def __post_init__(self) -> None:
        if min(self.plus, self.zero, self.minus) < 0:
            raise ValueError(f"counters only grow: {self}")

    def merge(self, other: Counters) -> Counters:
        """Two reports of the same (device, release pair, metric, epoch): the newer one. Repeats change nothing."""
        return Counters(max(self.plus, other.plus), max(self.zero, other.zero), max(self.minus, other.minus))


def pool(parts: Iterable[Counters]) -> Counters:
    """The blocks of several devices together; the null must hold on each, so they may differ in all else."""
    kept = tuple(parts)
    return Counters(sum(c.plus for c in kept), sum(c.zero for c in kept), sum(c.minus for c in kept))


# --- blocks -----------------------------------------------------------------------------------------------------


class OpenBlock(msgspec.Struct, frozen=True):
    """The unfinished block of one entity: rows so far, and the sum of their D."""

    rows: int
    total: int


class Blocks(msgspec.Struct, frozen=True):
    """All a block counter remembers: `length` rows a block, finished blocks counted, unfinished ones by entity."""

    length: int
    counters: Counters = Counters()
    open: dict[str, OpenBlock] = {}

    def __post_init__(self) -> None:
        if self.length < 1 or any(not 0 < block.rows < self.length for block in self.open.values()):
            raise ValueError(f"blocks of {self.length} rows: each unfinished one holds from 1 to {self.length - 1}")


class BlockCounter:
    """Turns the rows of one (device, release pair, metric) into blocks per entity. One caller feeds it.

    Rows of an entity come in the order they happened; under `labels` a disagreement keeps the rows behind it waiting
    at the caller until its label is there, since an order that depends on labels is no order.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._length, self._counters, self._open = blocks.length, blocks.counters, dict(blocks.open)

    def push(self, entity: str, rows: npt.ArrayLike) -> Counters:
        """Takes D of consecutive rows of one entity; returns the counters. ValueError if a value is not -1, 0, +1."""
        values = np.asarray(rows, np.int64)
        if values.ndim != 1 or (np.abs(values) > 1).any():
            raise ValueError("outcomes are a row of -1, 0 and +1")
        begun = self._open.pop(entity, OpenBlock(0, 0))
        # Partial sums at the ends of blocks; what was open before counts as rows and sum in front.
        sums = begun.total + np.concatenate(([0], np.cumsum(values)))
        ends = np.arange(self._length - begun.rows, len(values) + 1, self._length)
        totals = np.diff(sums[ends], prepend=0)
        finished = Counters(int((totals > 0).sum()), int((totals == 0).sum()), int((totals < 0).sum()))
        self._counters = pool((self._counters, finished))
        rest = begun.rows + len(values) - len(ends) * self._length
        if rest:
            self._open[entity] = OpenBlock(rest, int(sums[-1] - (sums[ends[-1]] if len(ends) else 0)))
        return self._counters

    def checkpoint(self) -> Blocks:
        return Blocks(self._length, self._counters, dict(self._open))


def burst_length(wrong: npt.ArrayLike) -> float:
    """How long the incumbent's bursts are: the mean length of a run of errors *as an error meets it*, in rows.

    Sum of squared run lengths over the number of errors. Weighting by length keeps many single errors from hiding
    few long bursts. 1.0 if there is no error.
    """
    flags = np.concatenate(([False], np.asarray(wrong, bool), [False])).astype(np.int8)
    steps = np.diff(flags)
    runs = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    return float((runs**2).sum() / runs.sum()) if len(runs) else 1.0


def block_length(burst: float) -> int:
    """Rows of a block for bursts of `burst` rows: ten times as many. Fixed before the trial opens."""
    if not math.isfinite(burst) or burst < 1:
        raise ValueError(f"a burst of {burst} rows; measure it on the incumbent, it is 1 or more")
    return math.ceil(BURSTS * burst)


# --- e-values ---------------------------------------------------------------------------------------------------


def log_harm(counters: Counters, margin: float = 0.0) -> float:
    """Natural logarithm of E_harm against "net share of worse blocks <= margin"."""
    _check_margin(margin)
    return _log_wealth(counters.plus, counters.zero, counters.minus, -margin)


def log_safe(counters: Counters, margin: float) -> float:
    """Natural logarithm of E_safe against "net share of worse blocks >= margin"."""
    _check_margin(margin)
    return _log_wealth(counters.minus, counters.zero, counters.plus, margin)


def _check_margin(margin: float) -> None:
    if not 0 <= margin <= MAX_MARGIN:
        raise ValueError(f"the margin is {margin}; it is a share of blocks from 0 to {MAX_MARGIN}")


def _log_wealth(won: float, drawn: float, lost: float, shift: float) -> float:
    """The bettor gains `shift` + 1, `shift`, `shift` - 1 times the stake on a won, drawn, lost block."""
    logs = [
        won * math.log1p(bet * (shift + 1)) + drawn * math.log1p(bet * shift) + lost * math.log1p(bet * (shift - 1))
        for bet in BETS
    ]
    return _log_sum(logs) - math.log(len(logs))


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs))


def decide(
    counters: Counters, margin: float, alpha_harm: float = ALPHA_HARM, alpha_safe: float = ALPHA_SAFE
) -> Decision:
    """HARM rolls back, SAFE advances, HOLD waits; false with a chance of at most `alpha_*`, at any number of looks.

    With counters signed by their devices the decision can be replayed. Raises ValueError for a margin outside 0..0.4.
    """
    if not 0 < alpha_harm < 1 or not 0 < alpha_safe < 1:
        raise ValueError("alpha is a chance of being wrong, between 0 and 1")
    if log_harm(counters, margin) >= -math.log(alpha_harm):
        return Decision.HARM
    return Decision.SAFE if log_safe(counters, margin) >= -math.log(alpha_safe) else Decision.HOLD


def pairs_needed(
    margin: float, disagreement: float = 0.0, alpha_safe: float = ALPHA_SAFE, assurance: float = 0.8
) -> int | None:
    """Blocks, over all devices, by which an equally good candidate is called safe with a chance of `assurance`.

    `disagreement` is the share of blocks that are not equal. None if no number suffices (margin too small for it).
    Raises ValueError for a margin outside 0..0.4, a disagreement outside 0..1 or an assurance outside 0.5..1.
    """
    _check_margin(margin)
    if not 0 <= disagreement <= 1 or not 0.5 <= assurance < 1:
        raise ValueError("disagreement is from 0 to 1, assurance from 0.5 to below 1")
    from statistics import NormalDist  # only whoever plans a rollout needs it, no device

    luck = NormalDist().inv_cdf(assurance) / 2

    def enough(n: int) -> bool:
        unequal, unlucky = disagreement * n, luck * math.sqrt(disagreement * n)
        worse, better = unequal / 2 + unlucky, max(0.0, unequal / 2 - unlucky)
        return _log_wealth(better, n - worse - better, worse, margin) >= -math.log(alpha_safe)

    high = 1
    while not enough(high):
        high *= 2
        if high > 1 << 40:
            return None
    low = high // 2  # not enough; the logarithm is convex in n and starts at 0, so it crosses once
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
