"""Temperature scaling: found where it is, kept only where it helps, and never the most likely class changed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from core.release import calibration as cal
from core.release.tempering import ends_in_softmax, temper

Floats = npt.NDArray[np.float32]


def drawn(count: int, seed: int = 1, times: float = 1.0) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Scores that are `times` as large as honest ones would be, and classes drawn as the honest ones say."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 1.5, (count, 4)).astype(np.float32)
    chance = cal.tempered(honest, 1.0).astype(np.float64).cumsum(axis=1)
    return honest * np.float32(times), (rng.random((count, 1)) > chance / chance[:, -1:]).sum(axis=1)


@pytest.mark.parametrize("times", [0.5, 2.0, 4.0])
def test_scores_too_large_or_small_are_divided_by_as_much(times: float) -> None:
    scores, classes = drawn(3000, times=times)
    found = cal.decide(scores, classes, 100)
    assert found.temperature == pytest.approx(times, rel=0.1) and found.rows == 3000
    assert found.reason.startswith("calibrated: temperature")
    fresh, truth = drawn(3000, seed=2, times=times)
    before, after = (cal.expected_error(cal.tempered(fresh, by), truth) for by in (1.0, found.temperature))
    assert after < 0.03 < before
    np.testing.assert_array_equal(cal.tempered(fresh, found.temperature).argmax(axis=1), fresh.argmax(axis=1))


def test_what_is_honest_already_is_left_as_it_is() -> None:
    found = cal.decide(*drawn(1000), 100)
    assert found.temperature == 1 and "of 3 parts of 1000 held-out rows" in found.reason


def test_a_part_that_becomes_less_honest_keeps_it_from_all() -> None:
    (loud, said), (quiet, told) = drawn(400, times=3.0), drawn(200, seed=2, times=0.5)
    scores, classes = np.concatenate((loud, quiet)), np.concatenate((said, told))
    assert cal.temperature(scores, classes) is not None
    found = cal.decide(scores, classes, 100)
    assert found.temperature == 1 and found.reason == (
        "not calibrated: it would not be more honest on 1 of 3 parts of 600 held-out rows"
    )


def test_few_rows_and_few_errors_say_too_little() -> None:
    scores, classes = drawn(99, times=3.0)
    assert cal.decide(scores, classes, 100).reason == "not calibrated: 99 rows are held out for it, 100 are needed"
    many, _ = drawn(900, times=3.0)
    right = many.argmax(axis=1)
    right[::100] = (right[::100] + 1) % 4
    found = cal.decide(many, right, 100)
    assert (found.temperature, found.reason) == (1.0, "not calibrated: 9 of 900 rows are wrong, 10 errors are needed")


def test_rows_that_have_no_best_temperature_give_none() -> None:
    scores, _ = drawn(50)
    assert cal.temperature(scores, scores.argmax(axis=1)) is None, "all right: ever colder is ever likelier"
    assert cal.temperature(scores, scores.argmin(axis=1)) is None, "all wrong: ever hotter"


def test_the_error_is_how_far_confidence_and_accuracy_lie_apart() -> None:
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], np.float32)
    classes = np.array([0, 1, 1, 1])
    assert cal.expected_error(sure, classes) == pytest.approx((abs(1 - 1.8) + abs(2 - 1.2)) / 4)
    assert cal.expected_error(np.full((3, 2), np.nan, np.float32), np.zeros(3, np.int64)) == 1.0
    assert cal.expected_error(np.empty((0, 2), np.float32), np.empty(0, np.int64)) == 0.0
    assert cal.expected_error(np.array([[1.0, 0.0]], np.float32), np.array([0])) == 0.0


@given(st.integers(0, 10_000), st.floats(0.3, 8.0))
def test_no_other_temperature_makes_the_rows_likelier(seed: int, times: float) -> None:
    scores, classes = drawn(60, seed, times)
    found = cal.temperature(scores, classes)
    if found is None:
        return

    def unlikely(by: float) -> float:
        said = cal.tempered(scores, by)[np.arange(len(classes)), classes].astype(np.float64)
        return float(-np.log(np.maximum(said, 1e-300)).mean())

    assert all(unlikely(found) <= unlikely(found * by) + 1e-6 for by in (0.8, 0.95, 1.05, 1.25))


@given(st.integers(0, 10_000), st.floats(cal.NARROWEST, cal.WIDEST))
def test_what_a_temperature_did_can_be_undone(seed: int, by: float) -> None:
    scores, _ = drawn(20, seed)
    np.testing.assert_allclose(cal.undone(cal.tempered(scores, by), by), cal.tempered(scores, 1.0), atol=1e-4)


def test_a_graph_that_ends_in_no_softmax_gets_none() -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    softmax = helper.make_node("Softmax", ["x"], ["soft"])
    graph = helper.make_graph([softmax, helper.make_node("Relu", ["soft"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert not ends_in_softmax(model.SerializeToString())
    with pytest.raises(ValueError, match="does not end in a Softmax"):
        temper(model.graph, 2.0)
    del model.graph.node[1]
    model.graph.node[0].output[0] = "y"
    onnx.checker.check_model(model)
    assert ends_in_softmax(model.SerializeToString())
