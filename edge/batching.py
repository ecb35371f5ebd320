"""Several questions as one run of the graph: which fit together, their stack, and each one's share of the answer.

Theory. A free first dimension does not say that rows stand alone: a graph may normalise over them, dynamic quantization
takes its scale from all of them, and a kernel for many rows may round otherwise than the one for a single row. So
stacking is allowed to a session only where it has shown, on real rows and for every height up to `MOST`, that each row
is answered as it is alone, bit by bit. Which kernel runs depends on shapes alone, so what held for these rows holds for
all of that height.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.runtime import ModelError, Session
from sync.golden import Arrays

MOST = 16  # rows of one run: beyond it a small network gains little, and the first asker waits for the last

Signature = tuple[tuple[str, np.dtype[np.generic], tuple[int, ...]], ...]


def height(session: Session, rows: Arrays) -> int:
    """How many rows may go as one run: `MOST` if stacks of `rows` (of each input at least two) are answered as the rows
    alone are, bit by bit; else 1."""
    counts = {len(array) if array.ndim else 0 for array in rows.values()}
    if len(counts) != 1 or counts.pop() < 2 or any(spec.shape[:1] != (-1,) for spec in session.inputs):
        return 1
    picked = {name: np.resize(array, (MOST, *array.shape[1:])) for name, array in rows.items()}
    try:
        alone = [session.run(_cut(picked, at, at + 1)) for at in range(MOST)]
        together = (session.run(_cut(picked, 0, size)) for size in range(2, MOST + 1))
        return MOST if all(_same(alone, outputs) for outputs in together) else 1
    except ModelError:
        return 1


def signature(inputs: Arrays) -> Signature:
    """What two questions must have in common to be stacked: names, dtypes, and shapes but for the first dimension."""
    return tuple([(name, array.dtype, array.shape[1:]) for name, array in inputs.items()])


def stacks(questions: Sequence[Arrays], most: int) -> list[list[int]]:
    """The questions, by number and in order, in groups that may go as one run of at most `most` rows."""
    groups: list[list[int]] = []
    open_groups: dict[Signature, tuple[list[int], int]] = {}
    for number, inputs in enumerate(questions):
        lengths = {len(array) if array.ndim else 0 for array in inputs.values()}
        # Inputs of different lengths may be what a graph takes (it broadcasts), yet in a stack the rows of one question
        # would stand beside those of another.
        rows = lengths.pop() or most if len(lengths) == 1 else most
        key = signature(inputs)
        group, held = open_groups.get(key, ([], most))
        if held + rows > most:
            group, held = [], 0
            groups.append(group)
        group.append(number)
        open_groups[key] = group, held + rows
    return groups


def stack(questions: Sequence[Arrays]) -> Arrays:
    """Questions of one signature as one, their rows in order."""
    return {name: np.concatenate([inputs[name] for inputs in questions]) for name in questions[0]}


def unstack(outputs: Arrays, questions: Sequence[Arrays]) -> list[Arrays] | None:
    """Each question's rows of what the stack was answered; None if it has not one answer for each row: how many there
    are may depend on what the rows hold."""
    rows = sum(len(next(iter(inputs.values()))) for inputs in questions)
    if any(array.shape[:1] != (rows,) for array in outputs.values()):
        return None
    answers, at = [], 0
    for inputs in questions:
        end = at + len(next(iter(inputs.values())))
        answers.append(_cut(outputs, at, end))
        at = end
    return answers


def _cut(arrays: Arrays, start: int, end: int) -> Arrays:
    return {name: array[start:end] for name, array in arrays.items()}


def _same(alone: Sequence[Arrays], outputs: Arrays) -> bool:
    """Whether the stack's rows are those of the first questions alone, to the bit."""
    for name, array in outputs.items():
        singles = [one[name] for one in alone]
        if not array.ndim or any(one.shape != (1, *array.shape[1:]) for one in singles):
            return False
        wanted = np.concatenate(singles[: len(array)])
        same = (wanted == array).all() if array.dtype.kind == "O" else wanted.tobytes() == array.tobytes()
        if not same or len(wanted) != len(array):
            return False
    return True
