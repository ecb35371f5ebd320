"""What HTTP was answered, on its way to the telemetry and into the ring of predictions.

Between two drains the detectors see up to `ROWS` rows and the ring takes up to `room` predictions: whoever asks never
waits for a disk, and however fast it asks, watching costs a hundredth of a core. Beyond that rate both have a sample of
what was asked, spread evenly over time. A kill costs what was not drained yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import cast

import msgspec
import numpy as np

from edge.answers import BadOutput, conclude
from edge.serving import Answer
from sync.golden import Arrays
from sync.manifest import Manifest
from sync.messages import Prediction
from sync.names import ModelName
from sync.remembered import Basis
from sync.windows import Rows

ROOM = 32  # predictions between two drains: at four a second about 120 predictions a second are kept
ROWS = 1024  # rows of streams between two drains: at four a second about 4,000 rows a second are watched
LARGEST = 16_384  # numbers of a row that is kept; larger ones (images) are not

Recorded = tuple[Prediction, Rows, Basis]  # (an answered prediction, its input, what else it rests on)
Observe = Callable[[ModelName, float, Rows], None]  # (model, seconds since 1970, rows as `edge.telemetry` wants them)


class _Answered(msgspec.Struct, frozen=True):
    """One request as it was answered: its id, when, the one input, the answer, and how many of its rows are kept."""

    id: str
    ts: float
    window: Rows
    answer: Answer
    keep: int


class Recorder:
    """Gives every prediction its id. `record` may be called from any thread, `drain` as well.

    `boot` makes the ids unique: at least 20 characters that no other start of any agent has. `now` is the device's
    clock (seconds since 1970).
    """

    def __init__(self, boot: str, now: Callable[[], float], observe: Observe, room: int = ROOM) -> None:
        self._boot, self._now, self._observe, self._room = boot[:20], now, observe, room
        self._numbers = count()
        self._rows = self._kept = 0  # shown to the detectors, and kept for the ring, since the last drain
        self._waiting: deque[_Answered] = deque()

    def record(self, inputs: Arrays, answer: Answer) -> str:
        """The id of an answered request, 32 characters. Of several rows, row i is the prediction `{id}-{i}`."""
        prediction_id, ts = f"{self._boot}{next(self._numbers):012x}", self._now()
        if self._rows >= ROWS and self._kept >= self._room:
            return prediction_id
        manifest, array = answer.slot.manifest, next(iter(inputs.values()))
        if len(inputs) != 1 or array.dtype != np.float32 or not _fits(manifest, array.shape):
            return prediction_id
        window = cast(Rows, array)
        if self._rows < ROWS:
            rows = stream_rows(manifest, window)
            self._rows += len(rows)
            self._observe(manifest.model, ts, rows)
        if self._kept < self._room and array[:1].size <= LARGEST:
            keep = min(len(window), self._room - self._kept)
            self._kept += keep
            self._waiting.append(_Answered(prediction_id, ts, window, answer, keep))
        return prediction_id

    def drain(self) -> list[Recorded]:
        """What was answered since the last drain, as far as there was room, each row with its input."""
        found: list[Recorded] = []
        self._rows = self._kept = 0
        for _ in range(len(self._waiting)):
            try:
                found += _predictions(self._waiting.popleft())
            except IndexError:  # another thread drains too
                break
        return found


def stream_rows(manifest: Manifest, array: Rows) -> Rows:
    """The rows (n, streams) that an input adds to the streams of its model: of windows those that are new in each, as
    the kernel would cut them; else the input's own."""
    if manifest.window is None:
        return array
    return array[:, -manifest.window.step :].reshape(-1, array.shape[-1])


def _fits(manifest: Manifest, shape: tuple[int, ...]) -> bool:
    """Whether these are rows, or the windows that the bindings would cut: others cannot be compared with them."""
    spec = manifest.window
    return len(shape) > 0 if spec is None else shape[1:] == (spec.size, len(spec.channels))


def _predictions(one: _Answered) -> list[Recorded]:
    """The rows of a request; none where the answer is no class and no number."""
    manifest, basis = one.answer.slot.manifest, Basis(one.answer.slot.release.artifact)
    found: list[Recorded] = []
    for row in range(one.keep):
        try:
            value, probabilities = conclude(_share(one, row), manifest.classes)
        except BadOutput:
            return []
        number = one.id if len(one.window) == 1 else f"{one.id}-{row}"
        classes, release = manifest.classes, one.answer.slot.release.number
        key = one.answer.key  # of a split: what is known of this answer later counts for whoever was asked for it
        told = Prediction(number, manifest.model, one.ts, "ok", value, probabilities, classes, key, release)
        found.append((told, one.window[row], basis))
    return found


def _share(one: _Answered, row: int) -> Arrays:
    """What was said of one row; a graph that says one thing of several rows says nothing of each."""
    rows = len(one.window)
    if rows == 1:
        return one.answer.outputs
    if any(array.shape[:1] != (rows,) for array in one.answer.outputs.values()):
        raise BadOutput(f"the outputs are not those of {rows} rows")
    return {name: array[row : row + 1] for name, array in one.answer.outputs.items()}
