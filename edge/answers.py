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
    numbers = list(map(float, first.ravel().tolist())) if first.dtype.kind in "biuf" else []
    if classes and len(numbers) == len(classes):
        return classes[numbers.index(max(numbers))], tuple(numbers)
    if not classes and len(numbers) == 1:
        return numbers[0], ()
    raise BadOutput(f"the first output is {first.dtype}{list(first.shape)} for {len(classes)} classes")
