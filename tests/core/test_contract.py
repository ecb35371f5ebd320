"""The contract's check: each rule turns away exactly its rows, with a reason a person can act on."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ingest.contract import ContractError, check
from core.project import Column, Contract

CONTRACT = Contract(
    columns={
        "ts": Column(type="float64"),
        "x": Column(type="float32", min=-1.0, max=0.1),
        "n": Column(type="int64", values=(1, 2), nullable=True),
        "label": Column(type="string", values=("ABD", "PEN")),
    }
)


def table(ts: list[object], x: list[object], n: list[object], label: list[object]) -> pa.Table:
    return pa.table(
        {
            "ts": pa.array(ts, pa.float64()),
            "x": pa.array(x, pa.float32()),
            "n": pa.array(n, pa.int64()),
            "label": pa.array(label, pa.string()),
        }
    )


@pytest.mark.parametrize(
    ("row", "reason", "text"),
    [
        ((None, 0.0, 1, "ABD"), "time", "ts is missing; every row needs its event time"),
        ((math.inf, 0.0, 1, "ABD"), "time", "ts = inf is not finite"),
        ((1e15, 0.0, 1, "ABD"), "time", "outside the years 1 to 9999"),
        ((0.0, None, 1, "ABD"), "null", "x is missing"),
        ((0.0, math.nan, 1, "ABD"), "null", "x is missing"),
        ((0.0, -math.inf, 1, "ABD"), "range", "x = -inf is not finite"),
        ((0.0, 0.2, 1, "ABD"), "range", "is above its max 0.1"),
        ((0.0, -2.0, 1, "ABD"), "range", "x = -2.0 is below its min -1"),
        ((0.0, 0.0, 3, "ABD"), "value", "n = 3 is not one of 1, 2"),
        ((0.0, 0.0, 1, "ABC"), "value", "label = 'ABC' is not one of ABD, PEN"),
        ((0.0, 0.0, 1, ""), "null", "label is missing"),
        ((0.0, 0.0, 1, None), "null", "label is missing"),
    ],
)
def test_only_the_bad_row_is_turned_away(row: tuple[object, ...], reason: str, text: str) -> None:
    good = (5.0, 0.1, None, "PEN")
    rows = table(*([g, r, g] for g, r in zip(good, row, strict=True)))  # type: ignore[arg-type]
    checked = check(rows, CONTRACT, "ts", "a.csv")
    assert checked.good.num_rows == 2
    (rejection,) = checked.rejections
    assert (rejection.origin, rejection.row, rejection.reason) == ("a.csv", 1, reason)
    assert text in rejection.text


def test_a_row_with_many_faults_is_told_once_and_rows_stay_in_order() -> None:
    rows = table([1.0, None, 2.0, 3.0], [9.0, 9.0, 0.0, 9.0], [1, 9, 9, 1], ["ABD"] * 4)
    checked = check(rows, CONTRACT, "ts", "a.csv")
    assert [(r.row, r.reason) for r in checked.rejections] == [
        (0, "range"),
        (1, "time"),
        (2, "value"),
        (3, "range"),
    ]
    assert checked.good.num_rows == 0


def test_time_need_not_rise_and_bounds_belong_to_the_range() -> None:
    rows = table([5.0, 1.0, 1.0], [0.1, -1.0, 0.0], [1, 2, None], ["PEN"] * 3)
    assert check(rows, CONTRACT, "ts", "a.csv").good.equals(rows)


def test_a_contract_that_contradicts_itself_names_the_column() -> None:
    with pytest.raises(ContractError, match="'n': `values` must all be of its type int64"):
        check(
            pa.table({"ts": [1.0], "n": [1]}),
            Contract(columns={"ts": Column(type="float64"), "n": Column(type="int64", values=("one",))}),
            "ts",
            "a.csv",
        )
    with pytest.raises(ContractError, match="must be a number of seconds"):
        check(pa.table({"ts": ["now"]}), Contract(columns={"ts": Column(type="string")}), "ts", "a.csv")


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_every_row_is_either_good_or_rejected_once(values: list[float]) -> None:
    rows = table([0.0] * len(values), values, [1] * len(values), ["ABD"] * len(values))  # type: ignore[arg-type]
    checked = check(rows, CONTRACT, "ts", "a.csv")
    kept = np.asarray(checked.good.column("x"))
    assert len(kept) + len(checked.rejections) == len(values)
    assert len({r.row for r in checked.rejections}) == len(checked.rejections)
    assert ((kept >= -1) & (kept <= np.float32(0.1))).all()
