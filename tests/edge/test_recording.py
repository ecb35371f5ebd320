"""What programs were answered: an id for each, a bounded number of rows and predictions between two drains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from edge.recording import LARGEST, ROOM, ROWS, Recorder, stream_rows
from edge.serving import Answer
from edge.telemetry import streams_of
from sync.features import TensorSpec, WindowSpec
from sync.golden import Arrays
from sync.manifest import Manifest
from sync.names import ModelName
from sync.remembered import Basis, Remembered, pack, unpack, window_of
from sync.windows import Rows
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL

BOOT = "0123456789abcdef0123456789abcdef"


class Heard:
    """A recorder and what the detectors saw of it."""

    def __init__(self) -> None:
        self.now, self.rows = 100.0, [np.zeros((0, 2), np.float32)]
        self.recorder = Recorder(BOOT, lambda: self.now, self.observe)

    def observe(self, model: ModelName, ts: float, rows: Rows) -> None:
        assert (model, ts) == (MODEL, self.now)
        self.rows.append(rows)

    def answered(self, rows: int = 1, outputs: Arrays | None = None, inputs: Arrays | None = None) -> str:
        told = outputs or {"probabilities": np.tile(np.array([[0.25, 0.5, 0.25]], np.float32), (rows, 1))}
        return self.recorder.record(inputs or graphs.windows(rows), Answer(told, graphs.slot(7)))


def test_a_prediction_carries_its_id_time_answer_and_window() -> None:
    heard = Heard()
    number = heard.answered()
    (one,) = heard.recorder.drain()
    told = one.prediction
    assert (told.id, told.model, told.ts, told.quality, told.release) == (number, MODEL, 100.0, "ok", 7)
    assert (told.value, told.probabilities, told.classes) == (CLASSES[1], (0.25, 0.5, 0.25), CLASSES)
    window = window_of(one)
    assert window is not None and np.array_equal(window, graphs.windows(1)["window"][0])
    assert (one.basis, one.arrived, one.inputs) == (Basis(graphs.slot(7).release.artifact), 100.0, {})
    assert heard.recorder.drain() == []


def test_ids_are_32_characters_and_never_the_same() -> None:
    heard = Heard()
    numbers = [heard.answered() for _ in range(500)]
    assert len(set(numbers)) == 500 and {len(one) for one in numbers} == {32}
    other = Recorder("f" * 32, lambda: 0.0, lambda *_: None)
    assert other.record(graphs.windows(1), Answer({}, graphs.slot(7))) not in numbers


def test_the_rows_of_a_request_are_predictions_of_their_own() -> None:
    heard = Heard()
    number = heard.answered(rows=3)
    found = heard.recorder.drain()
    assert ids(found) == [f"{number}-0", f"{number}-1", f"{number}-2"]
    assert [one.window for one in found] == [window.tobytes() for window in graphs.windows(3)["window"]]
    assert [(one.basis.row, one.basis.rows) for one in found] == [(0, 3), (1, 3), (2, 3)]


def test_between_two_drains_a_bounded_number_is_kept_and_watched() -> None:
    heard = Heard()
    step = graphs.WINDOW.step
    for _ in range(ROWS):
        heard.answered()
    assert len(heard.recorder.drain()) == ROOM
    assert ROWS <= sum(map(len, heard.rows)) < ROWS + step
    heard.answered()
    assert len(heard.recorder.drain()) == 1 and len(heard.rows[-1]) == step, "there is room again"


@pytest.mark.parametrize("inputs", [
    {"a": np.ones((1, 2), np.float32), "b": np.ones((1, 2), np.float32)},
    {"window": np.ones((1, graphs.SIZE + 1, 2), np.float32)}, {"window": np.ones(2, np.float32)},
    {"image": np.ones((1, 8, 8), np.uint8)}, {"text": np.array(["x"], np.object_)}, {"x": np.array(3.5, np.float64)},
    {"rows": np.ones((3, 2), np.int64), "scale": np.ones(1, np.float32)},
])  # fmt: skip
def test_what_is_no_window_is_kept_by_name_and_not_watched(inputs: Arrays) -> None:
    heard = Heard()
    number = heard.answered(inputs=inputs)
    found = heard.recorder.drain()
    assert len(heard.rows) == 1
    (one,) = found  # of two rows as well, where the answer is not of rows
    assert (one.prediction.id, one.window, one.outputs) == (number, b"", {})
    again = {name: unpack(name, tensor) for name, tensor in one.inputs.items()}
    assert {name: (a.dtype, a.shape, a.tolist()) for name, a in again.items()} == {
        name: (a.dtype, a.shape, a.tolist()) for name, a in inputs.items()
    }


def test_rows_that_all_inputs_share_are_predictions_of_their_own() -> None:
    heard = Heard()
    inputs = {"window": graphs.windows(2)["window"], "who": np.array([["a"], ["b"]], np.object_)}
    number = heard.answered(2, inputs=inputs)
    found = heard.recorder.drain()
    assert ids(found) == [f"{number}-0", f"{number}-1"] and [one.basis.row for one in found] == [0, 1]
    assert [unpack("who", one.inputs["who"]).tolist() for one in found] == [[["a"]], [["b"]]]
    assert [one.inputs["window"].shape for one in found] == [(1, graphs.SIZE, 2)] * 2


def test_an_answer_that_is_no_class_and_no_number_is_kept_as_it_is() -> None:
    heard = Heard()
    said = {"label": np.array(["walk"], np.object_), "odds": np.ones((1, 9), np.float64)}
    heard.answered(outputs=said)
    (one,) = heard.recorder.drain()
    assert (one.prediction.value, one.prediction.classes, one.prediction.quality) == (None, (), "ok")
    assert one.outputs == pack(said) and one.inputs == pack(graphs.windows(1)) and one.window == b""


def test_what_is_large_has_an_id_and_is_not_kept() -> None:
    heard = Heard()
    told = {"probabilities": np.array([[0.25, 0.5, 0.25]], np.float32)}
    for inputs in (
        {"x": np.zeros((1, LARGEST + 1), np.uint8)}, {"x": np.zeros((2, LARGEST // 8 + 1), np.float64)},
        {"x": np.array(["a" * (LARGEST + 1)], np.object_)}, {"x": np.array(["a" * (LARGEST + 9), "b"], np.object_)},
    ):  # fmt: skip
        rows = len(inputs["x"])
        assert len(heard.answered(rows, {"probabilities": np.tile(told["probabilities"], (rows, 1))}, inputs)) == 32
    heard.answered(outputs={"y": np.ones((1, LARGEST), np.float32)})
    assert ids(heard.recorder.drain()) == [f"{BOOT[:20]}{3:012x}-1"], "the second text is small"
    for _ in range(ROOM):
        heard.answered(inputs={"x": np.zeros((1, LARGEST + 1), np.uint8)}, outputs=told)
    heard.answered(inputs={"x": np.zeros((1, LARGEST), np.uint8)}, outputs=told)
    assert len(heard.recorder.drain()) == 1, "what is too large takes no room, nor is it held until then"


def ids(found: Sequence[Remembered]) -> list[str]:
    return [one.prediction.id for one in found]


def of(window: WindowSpec | None, shape: tuple[int, ...]) -> Manifest:
    return replace(graphs.manifest(window=window), inputs=(TensorSpec("x", "FP32", shape),))


def test_of_windows_the_rows_that_are_new_are_watched_else_the_columns_of_the_input() -> None:
    windows = np.arange(2 * 4 * 2, dtype=np.float32).reshape(2, 4, 2)
    spec = WindowSpec(4, 1, 0.1, ("a", "b"))
    assert stream_rows(of(spec, (-1, 4, 2)), windows).tolist() == windows[:, -1].tolist()
    assert streams_of(of(spec, (-1, 4, 2))) == ("a", "b")
    flat = np.ones((3, 5), np.float32)
    assert stream_rows(of(None, (-1, 5)), flat) is flat
    assert streams_of(of(None, (-1, 3))) == ("x[0]", "x[1]", "x[2]")
    assert streams_of(of(None, (-1, 65))) == streams_of(of(None, (-1, -1))) == streams_of(of(None, (-1, 4, 2))) == ()


def test_of_a_request_with_many_rows_only_as_many_are_kept_as_there_is_room() -> None:
    heard = Heard()
    first, second = heard.answered(rows=ROOM - 1), heard.answered(rows=3)
    assert ids(heard.recorder.drain()) == [f"{first}-{row}" for row in range(ROOM - 1)] + [f"{second}-0"]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_output_without_rows_is_that_of_one_row_or_of_none(rows: int, shape: tuple[int, ...]) -> None:
    """A scalar has nothing to cut: it must not end the thread that drains, and the agent with it."""
    heard = Heard()
    number = heard.answered(rows, {"probabilities": np.full(shape, 0.5, np.float32)})
    found = heard.recorder.drain()
    if shape == (3,) and rows == 1:
        assert [one.prediction.value for one in found] == [CLASSES[0]]
    else:
        assert {one.prediction.value for one in found} == {None} and all(one.outputs for one in found)
    assert ids(found) == ([f"{number}-{row}" for row in range(3)] if shape and rows == 3 else [number])
