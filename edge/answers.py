"""What a graph's output means: the pure step from numbers to the answer that is published and compared."""

from __future__ import annotations

from edge.runtime import ModelError
from sync.golden import Arrays


class BadOutput(ModelError):
    """The graph's first output is not what the manifest's classes say."""

    code = "bad-output"


def conclude(outputs: Arrays, classes: tuple[str, ...]) -> tuple[str | float, tuple[float, ...]]:
    """(value, probabilities) from a graph's first output: the likeliest class, or without classes the number.

    The probabilities are the output's own float32 numbers, as HTTP shows them. Raises BadOutput.
    """
    first = next(iter(outputs.values()))
    if first.dtype.kind not in "biuf" or first.size != (len(classes) or 1):
        raise BadOutput(f"the first output is {first.dtype}{list(first.shape)} for {len(classes)} classes")
    numbers = list(map(float, first.ravel().tolist()))
    return (classes[numbers.index(max(numbers))], tuple(numbers)) if classes else (numbers[0], ())
