"""What HTTP was answered: an id for each, a bounded number of rows and predictions between two drains."""

from __future__ import annotations

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
from sync.remembered import Basis
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
    ((told, window, basis),) = heard.recorder.drain()
    assert (told.id, told.model, told.ts, told.quality, told.release) == (number, MODEL, 100.0, "ok", 7)
    assert (told.value, told.probabilities, told.classes) == (CLASSES[1], (0.25, 0.5, 0.25), CLASSES)
    assert np.array_equal(window, graphs.windows(1)["window"][0]) and heard.recorder.drain() == []
    assert basis == Basis(graphs.slot(7).release.artifact)


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
    assert [told.id for told, *_ in found] == [f"{number}-0", f"{number}-1", f"{number}-2"]
    assert [window.tolist() for _, window, _ in found] == graphs.windows(3)["window"].tolist()


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
    {"image": np.ones((1, 8, 8), np.uint8)}, {"text": np.array(["x"], np.object_)},
])  # fmt: skip
def test_what_is_no_single_float32_input_has_an_id_and_is_not_kept(inputs: Arrays) -> None:
    heard = Heard()
    assert len(heard.answered(inputs=inputs)) == 32
    assert heard.recorder.drain() == [] and len(heard.rows) == 1


def test_large_inputs_and_answers_that_are_no_class_are_not_kept() -> None:
    heard = Heard()
    large = replace(graphs.manifest(window=None), inputs=(TensorSpec("x", "FP32", (-1, LARGEST + 1)),))
    told = {"probabilities": np.array([[0.25, 0.5, 0.25]], np.float32)}
    heard.recorder.record({"x": np.zeros((1, LARGEST + 1), np.float32)}, Answer(told, graphs.slot(7, of=large)))
    heard.answered(outputs={"y": np.ones((1, 9), np.float32)})
    assert heard.recorder.drain() == []


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
    found = [told.id for told, *_ in heard.recorder.drain()]
    assert found == [f"{first}-{row}" for row in range(ROOM - 1)] + [f"{second}-0"]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_output_without_rows_is_that_of_one_row_or_of_none(rows: int, shape: tuple[int, ...]) -> None:
    """A scalar has nothing to cut: it must not end the thread that drains, and the agent with it."""
    heard = Heard()
    heard.answered(rows, {"probabilities": np.full(shape, 0.5, np.float32)})
    found = heard.recorder.drain()
    kept = shape == (3,) and rows == 1
    assert [told.value for told, *_ in found] == ([CLASSES[0]] if kept else [])
