"""The scorecard: honest figures of whole graphs, the choice they lead to, golden vectors and a file's facts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from core.handoffs import Score, Split
from core.project import ModelGates
from core.release.calibration import tempered
from core.release.export import INPUT, OUTPUT
from core.release.scorecard import choose, golden, inspect, measure, parity
from sync.golden import decode, encode, unpack
from sync.manifest import Precision

GATES = ModelGates(min_accuracy=0.5, min_rows=10)


def graph_of(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], **more: object) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 4, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 3])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, **more)


def averaging(sign: float = 1.0) -> bytes:
    """A classifier that answers with the channel of the largest mean (or, with sign -1, of the smallest)."""
    nodes = [
        helper.make_node("Mul", [INPUT, "sign"], ["signed"]),
        helper.make_node("ReduceMean", ["signed", "axes"], ["mean"], keepdims=0),
        helper.make_node("Softmax", ["mean"], [OUTPUT], axis=1),
    ]
    weights = [
        numpy_helper.from_array(np.array(sign, np.float32), "sign"),
        numpy_helper.from_array(np.array([1], np.int64), "axes"),
    ]
    return bytes(graph_of(nodes, weights).SerializeToString())


def rows(count: int = 30) -> Split:
    y = np.arange(count) % 3
    x = np.random.default_rng(1).normal(0, 0.01, (count, 4, 3)).astype(np.float32)
    x[np.arange(count), :, y] += 2.0
    return Split(x, y.astype(np.int64), np.array(["e"] * count))


def softmax_of_means(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    means = np.exp(x.mean(axis=1))
    return (means / means.sum(axis=1, keepdims=True)).astype(np.float32)


def ticking(*steps: float) -> Callable[[], float]:
    """A clock under which successive runs take the given times, over and over."""
    now = itertools.accumulate(x for step in itertools.cycle(steps) for x in (0.0, step))
    return lambda: next(now)


def test_figures_are_those_of_the_files_under_the_given_clock() -> None:
    gate = rows()
    models: dict[Precision, bytes] = {"fp32": averaging(), "int8-static": averaging(-1.0)}
    card = measure(models, gate, softmax_of_means(gate.x), GATES, ticking(40e-6, 10e-6), runs=50)
    fp32, int8 = card.scores
    assert (fp32.accuracy, fp32.agreement, int8.accuracy, int8.agreement) == (1.0, 1.0, 0.0, 0.0)
    assert fp32.p50_us == pytest.approx(40) and int8.p99_us == pytest.approx(10)
    assert (fp32.bytes, card.rows) == (len(models["fp32"]), 30)
    assert card.parity < 1e-5
    assert card.chosen == "fp32" and "loses 100.00 points" in card.reason


def test_how_honest_a_file_is_stands_beside_what_it_would_be_without_its_temperature() -> None:
    gate = rows()
    score = measure({"fp32": averaging()}, gate, softmax_of_means(gate.x), GATES, ticking(1e-6), 5, 0.5).scores[0]
    means = gate.x.mean(axis=1)
    assert score.ece == pytest.approx(1 - tempered(means, 1.0).max(axis=1).mean(), abs=1e-5)
    assert score.ece_before == pytest.approx(1 - tempered(means, 2.0).max(axis=1).mean(), abs=1e-5)


def test_answers_that_are_no_numbers_count_as_wrong() -> None:
    gate = rows()
    card = measure({"fp32": averaging(float("inf"))}, gate, softmax_of_means(gate.x), GATES, ticking(1e-6))
    assert card.scores[0].accuracy == 0.0 and card.parity == 1.0
    assert parity(np.array([np.nan], np.float32), np.zeros(1, np.float32)) == 1.0


def test_errors_that_come_in_a_row_are_counted_of_each_entity_for_itself() -> None:
    gate = rows()
    y = gate.y.copy()
    y[[3, 4, 5, 6, 20]] += 1  # four in a row, of two entities that lie one behind the other, and one alone
    entities = np.array(["a"] * 5 + ["b"] * 25)
    card = measure(
        {"fp32": averaging()}, Split(gate.x, y % 3, entities), softmax_of_means(gate.x), GATES, ticking(1e-6), runs=5
    )
    assert card.burst == pytest.approx((2**2 + 2**2 + 1) / 5)
    assert measure({"fp32": averaging()}, gate, softmax_of_means(gate.x), GATES, ticking(1e-6), runs=5).burst == 1.0


def score(precision: Precision, p50: float, accuracy: float) -> Score:
    return Score(precision, accuracy, 1.0, p50, p50 * 2, 1000)


@pytest.mark.parametrize(
    ("others", "chosen", "says"),
    [
        ([], "fp32", "no other candidate"),
        ([score("int8-static", 50.0, 0.96)], "int8-static", "2.00 times as fast and loses 0.00 points"),
        ([score("int8-static", 95.0, 0.96)], "fp32", "wanted are at least 1.10 times"),
        ([score("int8-static", 50.0, 0.95)], "fp32", "loses 1.00 points"),
        ([score("int8-static", 50.0, 0.90), score("int8-dynamic", 60.0, 0.96)], "int8-dynamic", "1.67"),
    ],
)
def test_fp32_wins_unless_int8_is_faster_and_not_worse(others: list[Score], chosen: str, says: str) -> None:
    found, reason = choose((score("fp32", 100.0, 0.96), *others), 300, GATES)
    assert found == chosen
    assert reason.startswith(f"{chosen} ships") and says in reason


def test_few_rows_never_choose_int8() -> None:
    scores = (score("fp32", 100.0, 0.9), score("int8-static", 10.0, 0.9))
    assert choose(scores, 9, GATES)[0] == "fp32"


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 1), st.floats(0, 1))
def test_whatever_is_chosen_keeps_the_projects_figures(a: float, b: float, good: float, bad: float) -> None:
    base, other = score("fp32", a, good), score("int8-static", b, bad)
    chosen, _ = choose((base, other), 300, GATES)
    fits = a / b >= GATES.int8_speedup and good - bad <= GATES.int8_margin
    assert (chosen == "int8-static") == fits


def test_golden_vectors_are_real_rows_of_every_class_with_each_files_answers() -> None:
    gate = rows()
    models: dict[Precision, bytes] = {"int8-static": averaging(-1.0), "fp32": averaging()}
    found = decode(encode(golden(models, gate)))
    x = unpack(found.inputs)[INPUT]
    assert x.shape == (16, 4, 3) and set(found.expected) == {"int8-static", "fp32"}
    assert all((x[i] == gate.x).all(axis=(1, 2)).any() for i in range(16))
    answers = unpack(found.expected["fp32"].outputs)[OUTPUT]
    assert set(answers.argmax(axis=1).tolist()) == {0, 1, 2}
    np.testing.assert_allclose(answers, softmax_of_means(np.asarray(x, np.float32)), atol=1e-5)
    assert found.expected["fp32"].tolerance == 1e-4 < found.expected["int8-static"].tolerance
    assert len(unpack(golden(models, rows(5)).inputs)[INPUT]) == 5


def test_inspection_finds_domains_and_outside_data_wherever_they_hide() -> None:
    facts = inspect("fp32", averaging())
    assert (facts.domains, facts.external, facts.bytes) == (("",), False, len(averaging()))

    outside = numpy_helper.from_array(np.zeros(3, np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "/etc/passwd")
    outside.ClearField("raw_data")
    in_branch = helper.make_graph([helper.make_node("Own", [], [], domain="evil.ops")], "b", [], [], [outside])
    branching = helper.make_node("If", ["c"], ["o"], then_branch=in_branch, else_branch=in_branch)
    found = inspect("fp32", graph_of([branching], []).SerializeToString())
    assert found.external and "evil.ops" in found.domains

    constant = helper.make_node("Constant", [], ["c"], value=outside)
    assert inspect("fp32", graph_of([constant], []).SerializeToString()).external
    function = helper.make_function("own.functions", "F", [], ["c"], [constant], [helper.make_opsetid("", 20)])
    called = inspect("fp32", graph_of([], [], functions=[function]).SerializeToString())
    assert called.external and "own.functions" in called.domains


def test_a_card_survives_its_document() -> None:
    gate = rows()
    card = measure({"fp32": averaging()}, gate, softmax_of_means(gate.x), GATES, ticking(1e-6), runs=5)
    assert msgspec.json.decode(msgspec.json.encode(card), type=type(card)) == card
