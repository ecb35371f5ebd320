"""Views: windows by the one kernel, split in time, never across an entity, a label or a hole; and reproducible."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.features.views import TooFewRows, ViewError, build, columns, view_hash
from core.handoffs import Dataset
from core.project import Column, Contract, Model, ModelGates, Rollout, Source, Value, View
from sync.features import WindowSpec
from sync.windows import cut

SPEC = WindowSpec(size=4, step=2, period=1.0, channels=("x", "y"), max_gap=2.5)
VIEW = View(source="watch", entity="who", label="what", window=SPEC)
SOURCE = Source(kind="files", path="*.csv", contract="watch", time="ts")
CONTRACT = Contract(
    columns={
        "ts": Column(type="float64"),
        "x": Column(type="float32"),
        "y": Column(type="float32"),
        "who": Column(type="string"),
        "side": Column(type="int64"),
        "what": Column(type="string"),
    }
)


def model(where: dict[str, Value | tuple[Value, ...]] | None = None, **more: object) -> Model:
    made = Model(view="v", where=where or {}, gates=ModelGates(min_accuracy=0.5), rollout=Rollout(canary=()))
    return msgspec.structs.replace(made, **{"fit": (0.0, 0.5), "gate": (0.5, 1.0), **more})


def recording(who: str, what: str, n: int = 40, side: int = 1, start: float = 0.0) -> pa.Table:
    ts = start + np.arange(n, dtype=np.float64)
    code = float(ord(who[0]) * 1000 + ord(what[0]))
    return pa.table(
        {
            "ts": ts,
            "x": (ts + code).astype(np.float32),
            "y": (-ts).astype(np.float32),
            "who": [who] * n,
            "side": [side] * n,
            "what": [what] * n,
        }
    )


def see(table: pa.Table, of: Model | None = None, view: View = VIEW) -> Dataset:
    return build(view, "hash", "snapshot", table, of or model(), "ts")


def test_windows_are_those_of_the_kernel_in_time_order() -> None:
    one, two = recording("a", "push"), recording("b", "rest")
    both = pa.concat_tables([two, one])
    backwards = both.take(pa.array(range(both.num_rows)[::-1]))
    dataset = see(backwards)
    assert dataset.classes == ("push", "rest")
    half = one.slice(0, 20)
    values = np.stack([np.asarray(half.column("x")), np.asarray(half.column("y"))], axis=1)
    wanted = np.stack([w.values for w in cut(SPEC, np.arange(20.0), values)])
    np.testing.assert_array_equal(dataset.fit.x[dataset.fit.entity == "a"], wanted)
    assert dataset.fit.x.dtype == np.float32 and dataset.fit.x.shape == (18, 4, 2)
    assert set(dataset.fit.y[dataset.fit.entity == "b"].tolist()) == {1}
    assert see(both).digest == dataset.digest


def test_fit_and_gate_share_no_row() -> None:
    dataset = see(pa.concat_tables([recording("a", "push", 41), recording("b", "rest", 37)]))
    fit, gate = set(dataset.fit.x[..., 0].ravel().tolist()), set(dataset.gate.x[..., 0].ravel().tolist())
    assert fit and gate and not fit & gate


def test_rows_to_calibrate_by_are_neither_learned_from_nor_judged_by() -> None:
    table = pa.concat_tables([recording("a", "push", 60), recording("b", "rest", 60)])
    stretches = {"fit": (0.0, 0.4), "gate": (0.7, 1.0)}
    whole, held = (see(table, model(**stretches, **more)) for more in ({}, {"calibrate": (0.4, 0.7)}))
    assert whole.calibrate is None and held.calibrate is not None
    parts = [set(one.x[..., 0].ravel().tolist()) for one in (held.fit, held.calibrate, held.gate)]
    assert all(parts) and sum(map(len, parts)) == len(set().union(*parts))
    np.testing.assert_array_equal(held.fit.x, whole.fit.x)
    np.testing.assert_array_equal(held.gate.x, whole.gate.x)
    assert held.digest != whole.digest


def test_where_takes_one_value_or_any_of_several() -> None:
    table = pa.concat_tables(
        [recording("a", "push", side=1), recording("b", "rest", side=0), recording("c", "rest", side=1)]
    )
    assert set(see(table, model({"side": 1})).fit.entity.tolist()) == {"a", "c"}
    assert set(see(table, model({"who": ("a", "b")})).fit.entity.tolist()) == {"a", "b"}
    with pytest.raises(ViewError, match=r"where\.side"):
        see(table, model({"side": "left"}))


def test_holes_and_values_that_are_no_numbers_are_dropped() -> None:
    table = pa.concat_tables([recording("a", "push"), recording("b", "rest")])
    x = np.asarray(table.column("x")).copy()
    x[5] = math.nan
    spoiled = table.set_column(1, "x", pa.array(x, pa.float32()))
    holed = pa.concat_tables([spoiled.slice(0, 30), spoiled.slice(31)])
    dataset = see(holed)
    assert np.isfinite(dataset.fit.x).all() and np.isfinite(dataset.gate.x).all()
    whole = see(table)
    assert (dataset.fit.entity == "a").sum() == 6 and (whole.fit.entity == "a").sum() == 9
    assert len(dataset.gate.x) < len(whole.gate.x)


def test_no_window_spans_a_change_of_label_or_a_row_without_one() -> None:
    changing = pa.concat_tables([recording("a", "push", 10), recording("a", "rest", 10, start=10.0)] * 2).set_column(
        0, "ts", pa.array(np.arange(40.0))
    )
    dataset = see(changing)
    assert dataset.classes == ("push", "rest")
    change = float(np.asarray(changing.column("x"))[10])
    rest = dataset.fit.x[dataset.fit.y == 1][..., 0]
    assert rest.min() >= change - 0.5
    unlabelled = changing.set_column(5, "what", pa.array([None] * 10 + changing.column("what").to_pylist()[10:]))
    assert len(see(unlabelled).fit.x) < len(dataset.fit.x) + len(dataset.gate.x)


def test_numeric_labels_sort_by_size() -> None:
    parts = [recording(who, "x") for who in "abc"]
    table = pa.concat_tables(parts)
    labels = pa.array([10] * 40 + [9] * 40 + [1] * 40, pa.int64())
    assert see(table.set_column(5, "what", labels)).classes == ("1", "9", "10")


def test_too_few_rows_say_which_class_lacks_what() -> None:
    table = pa.concat_tables([recording("a", "push"), recording("b", "rest", 6)])
    with pytest.raises(TooFewRows, match=r"class rest in `fit` = \[0, 0.5\]"):
        see(table)
    with pytest.raises(TooFewRows, match="1 classes"):
        see(recording("a", "push"))
    with pytest.raises(TooFewRows, match="0 classes"):
        see(table, model({"who": "nobody"}))


def test_columns_are_named_once_and_misspelt_ones_refused() -> None:
    assert columns(VIEW, SOURCE, CONTRACT, model({"side": 1, "who": "a"})) == (
        "ts",
        "who",
        "what",
        "x",
        "y",
        "side",
    )
    with pytest.raises(ViewError, match="'sides' is not in contract 'watch'; did you mean 'side'"):
        columns(VIEW, SOURCE, CONTRACT, model({"sides": 1}))


def test_a_view_hash_changes_with_its_meaning_only() -> None:
    base = view_hash(VIEW, SOURCE, CONTRACT)
    assert len(base) == 64
    assert view_hash(VIEW, msgspec.structs.replace(SOURCE, path="elsewhere/*.csv"), CONTRACT) == base
    wider = msgspec.structs.replace(SPEC, size=8)
    tighter = Contract(columns={**CONTRACT.columns, "x": Column(type="float32", max=1.0)})
    others = [
        view_hash(msgspec.structs.replace(VIEW, window=wider), SOURCE, CONTRACT),
        view_hash(msgspec.structs.replace(VIEW, label="who"), SOURCE, CONTRACT),
        view_hash(VIEW, msgspec.structs.replace(SOURCE, time="x"), CONTRACT),
        view_hash(VIEW, SOURCE, tighter),
    ]
    assert len({base, *others}) == 5


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_same_rows_in_any_order_are_the_same_dataset(chance: object) -> None:
    table = pa.concat_tables([recording("a", "push"), recording("b", "rest")])
    order = list(range(table.num_rows))
    chance.shuffle(order)  # type: ignore[attr-defined]
    assert see(table.take(pa.array(order))).digest == see(table).digest
