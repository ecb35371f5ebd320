"""How far apart two sketches are: of counters that lie along the last axis, as `sync.sketch` makes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def distance(counts: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Square root of the Jensen-Shannon divergence (base 2, so from 0 to 1) along the last axis; nan without rows.

    Rounded to 12 places, so that what ties on one CPU ties on every CPU.
    """
    p, q = _shares(counts), _shares(reference)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return np.asarray(np.round(np.sqrt(np.maximum(divergence, 0.0)), 12), np.float64)


def psi(counts: npt.ArrayLike, reference: npt.ArrayLike) -> Floats:
    """Population stability index along the last axis, less what sampling alone gives: PSI - (B-1)(1/n + 1/m).

    B counts the counters in use on either side. Each of them gets half a row on top, so that an empty one does not
    make the index infinite. Negative values mean "less apart than chance"; nan without rows.
    """
    a, b = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(reference, np.float64))
    used = (a + b) > 0
    p, q = _shares(a + 0.5 * used), _shares(b + 0.5 * used)
    ratio = np.where(used, p, 1.0) / np.where(used, q, 1.0)
    index = ((p - q) * np.log(ratio)).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_chance = (used.sum(axis=-1) - 1) * (1 / a.sum(axis=-1) + 1 / b.sum(axis=-1))
        return np.asarray(np.where(np.isfinite(by_chance), index - by_chance, np.nan), np.float64)


def _shares(counts: npt.ArrayLike) -> Floats:
    array = np.asarray(counts, np.float64)
    total = array.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(array, total, out=np.full_like(array, np.nan), where=total > 0)
    return shares


def _relative_entropy(p: Floats, q: Floats) -> Floats:
    """In bits; where p is 0 nothing is added. q is not 0 where p is not."""
    ratio = np.divide(p, q, out=np.ones_like(p + q), where=p > 0)
    total: Floats = (p * np.log2(ratio)).sum(axis=-1)
    return total
