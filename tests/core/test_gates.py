"""The gates: each passes and fails on its own figure, and nothing is accepted that was not judged."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.handoffs import Score, Scorecard, Verdict
from core.project import ModelGates
from core.release.gates import NEEDED, SIZE_LIMIT, Facts, GraphFacts, accepted, judge
from sync.manifest import Precision

GATES = ModelGates(min_accuracy=0.9, min_rows=100)
BLESSED = Verdict("G8", "pass", "the edge's prover takes it")
GOOD_FACTS = Facts((GraphFacts("fp32", 1000, ("",), False),), generated_rows=64, generated_parity=1e-6)


def card(
    accuracy: float = 0.95,
    rows: int = 266,
    parity: float = 1e-6,
    chosen: Precision = "fp32",
    int8: tuple[float, float] = (50.0, 0.95),
) -> Scorecard:
    scores = (
        Score("fp32", accuracy, 1.0, 100.0, 200.0, 1000),
        Score("int8-static", int8[1], 0.99, int8[0], 2 * int8[0], 400),
    )
    return Scorecard(rows, scores, chosen, f"{chosen} ships: because", parity)


def outcomes(scorecard: Scorecard, facts: Facts = GOOD_FACTS) -> dict[str, str]:
    return {verdict.gate: verdict.outcome for verdict in judge(scorecard, GATES, facts)}


def test_a_good_candidate_passes_all_gates_and_is_accepted_with_the_edges_blessing() -> None:
    verdicts = judge(card(), GATES, GOOD_FACTS)
    assert [v.gate for v in verdicts] == ["G2", "G6", "G7", "G9"]
    assert {v.outcome for v in verdicts} == {"pass"}
    assert not accepted(verdicts)
    assert accepted((*verdicts, BLESSED))
    assert not accepted((*verdicts, BLESSED, msgspec.structs.replace(BLESSED, outcome="fail")))
    assert not accepted((*verdicts, msgspec.structs.replace(BLESSED, outcome="inconclusive")))


@pytest.mark.parametrize(
    ("accuracy", "rows", "outcome"),
    [
        (0.9, 100, "pass"),
        (0.899, 1000, "fail"),
        (0.95, 99, "inconclusive"),
        (0.5, 99, "fail"),
        (1.0, 0, "fail"),
    ],
)
def test_quality_has_a_floor_and_few_rows_prove_little(accuracy: float, rows: int, outcome: str) -> None:
    assert outcomes(card(accuracy, rows))["G2"] == outcome


def test_few_rows_are_accepted_with_a_flag_if_parity_on_generated_rows_holds() -> None:
    small = judge(card(rows=20), GATES, GOOD_FACTS)
    assert accepted((*small, BLESSED)) and small[0].outcome == "inconclusive"
    off = msgspec.structs.replace(GOOD_FACTS, generated_parity=0.01)
    assert not accepted((*judge(card(rows=20), GATES, off), BLESSED))


@pytest.mark.parametrize(
    ("parity", "generated", "count", "outcome"),
    [
        (1e-4, 1e-4, 64, "pass"),
        (2e-4, 0.0, 64, "fail"),
        (0.0, 2e-4, 64, "fail"),
        (0.0, 0.0, 0, "fail"),
        (0.0, math.nan, 64, "fail"),
    ],
)
def test_parity_holds_on_gate_and_generated_rows(parity: float, generated: float, count: int, outcome: str) -> None:
    facts = msgspec.structs.replace(GOOD_FACTS, generated_parity=generated, generated_rows=count)
    assert outcomes(card(parity=parity), facts)["G6"] == outcome


@pytest.mark.parametrize(
    ("int8", "rows", "outcome"),
    [((50.0, 0.95), 266, "pass"), ((95.0, 0.95), 266, "fail"), ((50.0, 0.93), 266, "fail"), ((50.0, 0.95), 9, "fail")],
)
def test_an_int8_choice_is_checked_again(int8: tuple[float, float], rows: int, outcome: str) -> None:
    assert outcomes(card(chosen="int8-static", int8=int8, rows=rows))["G7"] == outcome


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (GraphFacts("fp32", 10, ("", "evil.ops"), False), "operators of evil.ops"),
        (GraphFacts("fp32", 10, ("",), True), "data outside its file"),
        (GraphFacts("fp32", SIZE_LIMIT + 1, ("",), False), "the limit is"),
    ],
)
def test_one_unsafe_file_among_good_ones_fails(graph: GraphFacts, says: str) -> None:
    facts = msgspec.structs.replace(GOOD_FACTS, graphs=(*GOOD_FACTS.graphs, graph))
    security = judge(card(), GATES, facts)[-1]
    assert security.outcome == "fail" and says in security.text
    assert outcomes(card(), msgspec.structs.replace(GOOD_FACTS, graphs=()))["G9"] == "fail"


@given(st.lists(st.sampled_from(NEEDED), unique=True), st.data())
def test_acceptance_needs_every_gate_and_no_failure(heard: list[str], data: st.DataObject) -> None:
    verdicts = [Verdict(gate, data.draw(st.sampled_from(("pass", "fail", "inconclusive"))), "t") for gate in heard]
    expected = set(heard) == set(NEEDED) and all(
        v.outcome == "pass" or (v.gate == "G2" and v.outcome == "inconclusive") for v in verdicts
    )
    assert accepted(verdicts) == expected
