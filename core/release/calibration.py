"""Temperature scaling: one number that divides a classifier's scores, so that its probabilities are as honest as they
sound. Which class is the most likely stays as it was.

Theory (Guo et al. 2017, "On Calibration of Modern Neural Networks"). T minimises the negative log-likelihood of rows
that neither trained nor judge; it is convex in 1/T, so its minimum is where its slope changes sign. It is kept only if
the expected calibration error falls on each of three parts of these rows when T is found on the other two: parts that
lie apart, for neighbouring windows resemble each other. One number that is found on a handful of errors says more of
these errors than of the model, so without `LEAST_ERRORS` nothing is done, and the reason says so. Pure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.handoffs import Calibration

Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

LEAST_ERRORS = 10  # the usual ten events for one number that is fitted
PARTS = 3
BINS = 15  # of equal width, as in Guo et al.
NARROWEST, WIDEST = 0.25, 10.0  # temperatures: beyond them rows say that there is no best one

_HALVINGS = 50
_Doubles = npt.NDArray[np.float64]


def decide(scores: Floats, classes: Classes, least_rows: int) -> Calibration:
    """From scores before the Softmax (n, classes) of held-out rows, in order of stream and time, and what they were."""
    rows, wrong = len(classes), int((scores.argmax(axis=1) != classes).sum())
    if rows < least_rows:
        return Calibration(1.0, rows, f"not calibrated: {rows} rows are held out for it, {least_rows} are needed")
    if wrong < LEAST_ERRORS:
        text = f"{wrong} of {rows} rows are wrong, {LEAST_ERRORS} errors are needed"
        return Calibration(1.0, rows, f"not calibrated: {text}")
    worse = sum(not _improves(scores, classes, part) for part in np.array_split(np.arange(rows), PARTS))
    found = temperature(scores, classes)
    if worse or found is None:
        text = f"it would not be more honest on {worse} of {PARTS} parts of {rows} held-out rows"
        return Calibration(1.0, rows, f"not calibrated: {text}")
    return Calibration(found, rows, f"calibrated: temperature {found:.3f}, more honest on {PARTS} parts of {rows} rows")


def temperature(scores: Floats, classes: Classes) -> float | None:
    """The one that makes these rows most likely, as a float32; None if it is none between NARROWEST and WIDEST."""
    given = scores.astype(np.float64)
    low, high = 1 / WIDEST, 1 / NARROWEST  # of 1/T
    if not _slope(given, classes, low) < 0 < _slope(given, classes, high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _slope(given, classes, middle) > 0 else (middle, high)
    return float(np.float32(2 / (low + high)))


def expected_error(probabilities: Floats, classes: Classes) -> float:
    """The expected calibration error (ECE) of the most likely class: how far confidence and accuracy lie apart, over
    BINS bins of confidence by their share of the rows. Rows that are not finite count as sure and wrong."""
    if not len(classes):
        return 0.0
    finite = np.isfinite(probabilities).all(axis=1)
    sure = np.where(finite, probabilities.max(axis=1), 1.0).astype(np.float64)
    right = finite & (probabilities.argmax(axis=1) == classes)
    place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    apart = np.bincount(place, right - sure, BINS)
    return float(np.abs(apart).sum() / len(classes))


def tempered(scores: Floats, by: float) -> Floats:
    """Probabilities of scores that are divided `by` a temperature. Logarithms of probabilities are scores, too."""
    return _softmax(scores.astype(np.float64) / by).astype(np.float32)


def undone(probabilities: Floats, by: float) -> Floats:
    """What the same graph would say without its temperature."""
    if by == 1:
        return probabilities
    with np.errstate(divide="ignore"):
        return tempered(np.maximum(np.log(probabilities), np.log(np.finfo(np.float32).tiny)), 1 / by)


def _improves(scores: Floats, classes: Classes, part: npt.NDArray[np.int64]) -> bool:
    """Whether a temperature of the other rows makes this part more honest."""
    others = np.setdiff1d(np.arange(len(classes)), part)
    found = temperature(scores[others], classes[others])
    if found is None:
        return False
    before, after = (expected_error(tempered(scores[part], by), classes[part]) for by in (1.0, found))
    return after < before


def _slope(scores: _Doubles, classes: Classes, by: float) -> float:
    """Of the mean negative log-likelihood in 1/T; it only rises."""
    expected = (_softmax(scores * by) * scores).sum(axis=1)
    return float((expected - scores[np.arange(len(classes)), classes]).mean())


def _softmax(scores: _Doubles) -> _Doubles:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: _Doubles = raised / raised.sum(axis=1, keepdims=True)
    return found
