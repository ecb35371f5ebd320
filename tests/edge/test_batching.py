"""Stacked questions: only where rows stand alone, bit by bit; every asker gets the answer it would have had alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge import batching
from edge.batching import MOST, height
from edge.runtime import BadInput, Overdue, Session, load
from edge.serving import Answer, Loaded, NoModel, NotFinite, Serving
from edge.states import Health
from sync.golden import Arrays
from tests.edge import graphs
from tests.edge.graphs import MODEL


def centred() -> bytes:
    """Takes the mean over the rows away: none of them stands alone."""
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"]), helper.make_node("Sub", ["x", "m"], ["y"])]
    return graphs.finish(nodes, [graphs.value("x", ["n", 2])], [graphs.value("y", ["n", 2])], [axes])


def dynamic() -> bytes:
    """Dynamic quantization: the scale is taken from all rows of a run."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    return graphs.finish(nodes, [graphs.value("x", ["n", 2])], [graphs.value("y", ["n", 2])])


def summed() -> bytes:
    """One number for all rows together."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    return graphs.finish([node], [graphs.value("x", ["n", 2])], [graphs.value("y", [])])


def pairs(rows: int = 5) -> Arrays:
    return {"x": np.random.default_rng(3).normal(size=(rows, 2)).astype(np.float32)}


def serving(model: bytes, rows: Arrays, number: int = 7) -> Serving:
    found, session = Serving(), load(model)
    found.put(MODEL, Loaded(session, graphs.slot(number), height(session, rows)))
    return found


def test_a_network_whose_rows_stand_alone_may_be_stacked() -> None:
    session = load(graphs.classifier())
    assert height(session, graphs.windows(4)) == MOST
    assert height(session, graphs.windows(1)) == 1, "one row shows nothing"


@pytest.mark.parametrize("model", [centred(), dynamic(), summed()], ids=["centred", "dynamic", "summed"])
def test_rows_that_look_at_each_other_are_never_stacked(model: bytes) -> None:
    assert height(load(model), pairs()) == 1


def test_a_fixed_first_dimension_is_never_stacked() -> None:
    fixed = [graphs.value("x", [2, 2])], [graphs.value("y", [2, 2])]
    session = load(graphs.finish([helper.make_node("Identity", ["x"], ["y"])], *fixed))
    assert height(session, pairs(2)) == 1


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([2, 3])), max_size=40), st.integers(1, 16))
def test_every_question_is_in_one_stack_of_its_own_kind_in_order(asked: list[tuple[int, int]], most: int) -> None:
    questions: list[Arrays] = [{"x": np.zeros((rows, width), np.float32)} for rows, width in asked]
    groups = batching.stacks(questions, most)
    assert sorted(number for group in groups for number in group) == list(range(len(asked)))
    for group in groups:
        assert group == sorted(group) and len({asked[number][1] for number in group}) == 1
        assert len(group) == 1 or sum(asked[number][0] for number in group) <= most


def test_each_asker_gets_the_answer_it_would_have_had_alone_bit_by_bit() -> None:
    found = serving(graphs.classifier(), graphs.windows(4))
    questions = [graphs.windows(1 + seed % 3, seed) for seed in range(40)]
    alone = [found.predict(MODEL, inputs).outputs["probabilities"] for inputs in questions]
    together = found.predict_each(MODEL, questions)
    for one, answer in zip(alone, together, strict=True):
        assert isinstance(answer, Answer) and answer.outputs["probabilities"].tobytes() == one.tobytes()
    assert found.health(MODEL).answers == 80


def test_a_stack_is_one_run_and_counts_for_each() -> None:
    seen: list[tuple[object, ...]] = []
    session = load(graphs.classifier())
    found = Serving(lambda model, number, seconds, answers: seen.append((model, number, answers)))
    found.put(MODEL, Loaded(session, graphs.slot(7), MOST))
    found.predict_each(MODEL, [graphs.windows(1, seed) for seed in range(20)])
    assert seen == [(MODEL, 7, 16), (MODEL, 7, 4)]


def test_one_bad_question_among_good_ones_is_told_so_and_the_others_are_answered() -> None:
    found = serving(graphs.log_of_input(), {"x": np.array([[1, 2], [3, 4]], np.float32)})
    good, nan, none, short = (
        {"x": np.array([row], np.float32)} for row in ([1.0, 2.0], [np.nan, 1.0], [0.0, 1.0], [1.0, 2.0, 3.0])
    )
    answers = found.predict_each(MODEL, [good, nan, none, short, good])
    assert [type(one) for one in answers] == [Answer, BadInput, NotFinite, BadInput, Answer]
    assert found.health(MODEL) == Health(2, 1, 1), "what the askers did wrong is not held against the release"


def test_all_are_answered_by_the_release_that_was_asked_for() -> None:
    found = serving(graphs.classifier(), graphs.windows(4))
    with pytest.raises(NoModel):
        found.predict_each(MODEL, [graphs.windows(1)] * 2, release=6)


def test_a_model_of_texts_is_stacked_as_well() -> None:
    words = {"x": np.array(["a", "b", "c"], np.object_)}
    found = serving(graphs.echo(TensorProto.STRING), words)
    answers = found.predict_each(MODEL, [{"x": np.array([word], np.object_)} for word in "xyz"])
    assert [one.outputs["y"].tolist() for one in answers if isinstance(one, Answer)] == [["x"], ["y"], ["z"]]


def added() -> bytes:
    """x + y, whose first dimensions are free each by itself: one row of either goes with all of the other."""
    node = helper.make_node("Add", ["x", "y"], ["z"])
    inputs = [graphs.value("x", ["n", 2]), graphs.value("y", ["m", 2])]
    return graphs.finish([node], inputs, [graphs.value("z", ["k", 2])])


def test_rows_of_one_asker_never_meet_those_of_another() -> None:
    """Together each input has four rows: stacked, the second asker's x would stand beside the first one's y."""

    def asked(x: float, xs: int, y: float, ys: int) -> Arrays:
        return {"x": np.full((xs, 2), x, np.float32), "y": np.full((ys, 2), y, np.float32)}

    rows = {"x": pairs()["x"], "y": pairs()["x"]}
    found, questions = serving(added(), rows), [asked(1, 2, 10, 1), asked(2, 1, 20, 1), asked(3, 1, 30, 2)]
    assert height(load(added()), rows) == MOST
    told = found.predict_each(MODEL, questions)
    sums = [one.outputs["z"].tolist() for one in told if isinstance(one, Answer)]
    assert sums == [[[11.0, 11.0]] * 2, [[22.0, 22.0]], [[33.0, 33.0]] * 2]


def positive() -> bytes:
    """The rows that begin with a number above nought: how many there are only the rows can tell."""
    constants = [
        numpy_helper.from_array(np.array(0, np.int64), "first"),
        numpy_helper.from_array(np.array(0, np.float32), "nought"),
    ]
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["head"], axis=1),
        helper.make_node("Greater", ["head", "nought"], ["kept"]),
        helper.make_node("Compress", ["x", "kept"], ["y"], axis=0),
    ]
    return graphs.finish(nodes, [graphs.value("x", ["n", 2])], [graphs.value("y", ["k", 2])], constants)


def test_where_the_number_of_answers_depends_on_the_rows_each_is_asked_alone() -> None:
    found = serving(positive(), {"x": np.abs(pairs()["x"])})
    questions: list[Arrays] = [{"x": np.array([[n, n]], np.float32)} for n in (-1, 2, 3)]
    told = found.predict_each(MODEL, questions)
    assert [one.outputs["y"].tolist() for one in told if isinstance(one, Answer)] == [[], [[2.0, 2.0]], [[3.0, 3.0]]]
    assert found.health(MODEL).answers == 3


class Hangs(Session):
    """A session whose every run is stopped at its deadline; it counts them."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, inputs: Arrays) -> Arrays:
        self.runs += 1
        raise Overdue("no answer after 1 s; the model was stopped")

    def late(self) -> int:
        return 0


@pytest.mark.parametrize(("rows", "runs"), [(1, 1), (MOST, 2)])
def test_what_came_with_a_question_that_hangs_is_not_waited_for_one_by_one(rows: int, runs: int) -> None:
    """The run of all, where there is one, and that of the first; then nobody stands still for the others."""
    found, session = Serving(), Hangs()
    found.put(MODEL, Loaded(session, graphs.slot(7), rows))
    answers = found.predict_each(MODEL, [pairs(1) for _ in range(20)])
    assert len(answers) == 20 and all(isinstance(one, Overdue) for one in answers)
    assert session.runs == runs
    found.predict_each(MODEL, [pairs(1)])
    assert session.runs == runs + 1, "who asks later is tried anew"
