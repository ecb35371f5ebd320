"""What programs were answered over HTTP and MQTT, on its way to the telemetry and into the ring of predictions.

Between two drains the detectors see up to `ROWS` rows and the ring takes up to `room` predictions: whoever asks never
waits for a disk, and however fast it asks, watching costs a hundredth of a core. Beyond that rate both have a sample of
what was asked, spread evenly over time. What is kept is kept with all its inputs as they were; one float32 input that
is a row of streams, or a window of them, is the window of the prediction. A kill costs what was not drained yet.
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
from sync.remembered import Basis, Remembered, of_window, pack, size
from sync.windows import Rows

ROOM = 32  # predictions between two drains: at four a second about 120 predictions a second are kept
ROWS = 1024  # rows of streams between two drains: at four a second about 4,000 rows a second are watched
LARGEST = 64 * 1024  # bytes of a prediction that is kept: of its inputs, and of outputs that are no class and no number

Observe = Callable[[ModelName, float, Rows], None]  # (model, seconds since 1970, rows as `edge.telemetry` wants them)
_FLOAT32 = np.dtype(np.float32)


class _Answered(msgspec.Struct, frozen=True):
    """One request as it was answered: its id, when, and how many rows it has, of which so many are kept."""

    id: str
    ts: float
    inputs: Arrays
    answer: Answer
    rows: int
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
        if self._rows < ROWS:
            rows = _streams(answer.slot.manifest, inputs)
            if rows is not None:
                self._rows += len(rows)
                self._observe(answer.slot.manifest.model, ts, rows)
        if self._kept < self._room:
            height, weight = _extent(inputs)
            if weight <= LARGEST * height:  # of its rows, one with another, which also bounds what waits in memory
                keep = min(height, self._room - self._kept)
                self._kept += keep
                self._waiting.append(_Answered(prediction_id, ts, inputs, answer, height, keep))
        return prediction_id

    def drain(self) -> list[Remembered]:
        """What was answered since the last drain, as far as there was room, each row with its inputs."""
        found: list[Remembered] = []
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


def _streams(manifest: Manifest, inputs: Arrays) -> Rows | None:
    """What a question adds to the streams of its model; nothing unless it is windows of them."""
    windows = _windows(manifest, inputs)
    return None if windows is None else stream_rows(manifest, windows)


def _windows(manifest: Manifest, inputs: Arrays) -> Rows | None:
    """The one input, if it is rows, or windows as the bindings would cut them: others cannot be compared with them."""
    if len(inputs) != 1:
        return None
    (array,) = inputs.values()
    if array.dtype != _FLOAT32 or not array.ndim:
        return None
    spec = manifest.window
    fits = spec is None or array.shape[1:] == (spec.size, len(spec.channels))
    return cast(Rows, array) if fits else None


def _extent(inputs: Arrays) -> tuple[int, int]:
    """How many rows a question has, which is the first dimension that all of its inputs share, else one; and bytes."""
    height, weight = 0, 0
    for array in inputs.values():
        rows = array.shape[0] if array.ndim else 1
        height = rows if height in (0, rows) else 1
        weight += array.nbytes if array.dtype.kind != "O" else size({"": array})
    return height or 1, weight


def _predictions(one: _Answered) -> list[Remembered]:
    """The rows of a request, or the whole where its outputs are not those of its rows."""
    artifact, outputs = one.answer.slot.release.artifact, one.answer.outputs
    if one.rows == 1 or any(array.shape[:1] != (one.rows,) for array in outputs.values()):
        found = [_prediction(one, one.id, one.inputs, outputs, Basis(artifact))]
    else:
        found = [
            _prediction(
                one, f"{one.id}-{row}", _cut(one.inputs, row), _cut(outputs, row),
                Basis(artifact, row=row, rows=one.rows),
            )
            for row in range(one.keep)
        ]  # fmt: skip
    return [told for told in found if told is not None]


def _prediction(one: _Answered, number: str, inputs: Arrays, outputs: Arrays, basis: Basis) -> Remembered | None:
    """One prediction with its inputs; where they are no class and no number, with the outputs. None: too large."""
    manifest = one.answer.slot.manifest
    classes = manifest.classes
    try:
        value, probabilities = conclude(outputs, classes)
        kept = size(inputs)
    except BadOutput:
        value, probabilities, classes = None, (), ()
        kept = size(inputs) + size(outputs)
    if kept > LARGEST:
        return None
    key, release = one.answer.key, one.answer.slot.release.number
    # `key`: in a split, what is known of this answer later counts for whoever was asked for it
    said = Prediction(number, manifest.model, one.ts, "ok", value, probabilities, classes, key, release)
    windows = _windows(manifest, inputs)
    if value is not None and windows is not None and len(windows) == 1:
        return of_window(said, windows[0], one.ts, basis)
    told = pack(outputs) if value is None else {}
    return Remembered(said, (), b"", arrived=one.ts, basis=basis, inputs=pack(inputs), outputs=told)


def _cut(arrays: Arrays, row: int) -> Arrays:
    return {name: array[row : row + 1] for name, array in arrays.items()}
