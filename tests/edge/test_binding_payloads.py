"""Payloads of sensors: every form gives the same readings, units are applied once, and no bytes do harm."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bindings.payloads import LARGEST, BadReading, check_gaps, read, timed
from sync.arrays import in_units
from sync.bindings import Binding, Format
from sync.features import Unit, WindowSpec
from sync.windows import WindowKernel

XY = ("x", "y")
SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)
TIMES = st.floats(0, 4e9)
ROWS = st.lists(st.tuples(TIMES, SINGLE, SINGLE), min_size=1, max_size=20)
UNITS = {"x": Unit(9.80665, -1.5), "y": Unit(-0.001)}


def binding(form: Format = "json", **more: object) -> Binding:
    return Binding("site/{entity}/accel", "site/{entity}/motion", format=form, **more)  # type: ignore[arg-type]


def rows_of(payload: bytes, of: Binding, channels: tuple[str, ...] = XY) -> list[list[float]]:
    return np.asarray(read(payload, of, channels).rows, np.float32).tolist()  # type: ignore[no-any-return]


def in_each_form(taken: list[tuple[float, float, float]]) -> dict[str, tuple[bytes, Binding]]:
    objects = [{"ts": t, "x": x, "y": y} for t, x, y in taken]
    nested = [{"meta": {"at": t}, "accel": {"x": x, "y": y}} for t, x, y in taken]
    where = {"ts": "meta.at", "x": "accel.x", "y": "accel.y"}
    swapped = [[y, "skip", t, x] for t, x, y in taken]
    return {
        "list of objects": (json.dumps(objects).encode(), binding()),
        "nested objects": (json.dumps(nested).encode(), binding(fields=where)),
        "rows": (json.dumps([list(row) for row in taken]).encode(), binding("rows")),
        "rows in another order": (
            json.dumps(swapped).encode(), binding("rows", columns=("y", "", "ts", "x")),
        ),
        "csv": ("\n".join(f"{t!r},{x!r},{y!r}" for t, x, y in taken).encode(), binding("csv")),
        "csv as machines write it": (
            "".join(f" {y!r} ,7,{t!r},{x!r}\r\n" for t, x, y in taken).encode(),
            binding("csv", columns=("y", "", "ts", "x")),
        ),
    }  # fmt: skip


@given(ROWS)
def test_every_form_of_a_batch_gives_the_same_readings(taken: list[tuple[float, float, float]]) -> None:
    for name, (payload, of) in in_each_form(taken).items():
        readings = read(payload, of, XY)
        assert list(readings.ts or ()) == [t for t, _, _ in taken], name
        assert rows_of(payload, of) == [[x, y] for _, x, y in taken], name


@given(ROWS)
def test_raw_numbers_are_the_same_readings_without_a_time(taken: list[tuple[float, float, float]]) -> None:
    plain = np.array([[x, y] for _, x, y in taken], "<f4")
    assert read(plain.tobytes(), binding("float32"), XY).ts is None
    assert rows_of(plain.tobytes(), binding("float32")) == plain.tolist()
    wide = np.column_stack((plain[:, 1], np.full(len(plain), 7), plain[:, 0])).astype("<f4")
    assert rows_of(wide.tobytes(), binding("float32", columns=("y", "", "x"))) == plain.tolist()


@given(ROWS)
def test_units_are_applied_alike_however_a_number_came(taken: list[tuple[float, float, float]]) -> None:
    """And by the line of code that training uses."""
    plain = np.array([[x, y] for _, x, y in taken], np.float32)
    expected = in_units(plain, XY, UNITS)
    forms = {name: (payload, of) for name, (payload, of) in in_each_form(taken).items()}
    forms["raw"] = (plain.astype("<f4").tobytes(), binding("float32"))
    for name, (payload, of) in forms.items():
        scaled = binding(of.format, fields=of.fields, columns=of.columns, units=UNITS)
        if not np.isfinite(expected).all():
            with pytest.raises(BadReading, match="model's units"):
                read(payload, scaled, XY)
        else:
            assert rows_of(payload, scaled) == expected.tolist(), name


def test_a_units_scale_and_offset_in_that_order_and_a_time_in_milliseconds() -> None:
    of = binding(units={"x": Unit(2.0, 1.0), "ts": Unit(0.001)})
    readings = read(b'{"ts": 1700000000250, "x": 10, "y": 3}', of, XY)
    assert readings.ts == [1_700_000_000.25] and np.asarray(readings.rows).tolist() == [[21.0, 3.0]]


def test_a_scalar_is_one_number_of_the_only_channel() -> None:
    for payload in (b"23.5", b" 23.5\n", b"2.35e1"):
        readings = read(payload, binding("scalar"), ("t",))
        assert (readings.ts, readings.rows) == (None, [(23.5,)])


def test_a_channel_with_a_dot_in_its_name_is_meant_literally() -> None:
    assert rows_of(b'{"ts": 1, "accel.x": 2, "accel": {"x": 3}}', binding(), ("accel.x",)) == [[2.0]]
    assert rows_of(b'{"ts": 1, "accel.x": 2, "accel": {"x": 3}}', binding(fields={"x": "accel.x"}), ("x",)) == [[3.0]]


@pytest.mark.parametrize(
    ("form", "payload", "says"),
    [
        ("json", b'{"ts": 1, "x": 1, "y": 1e39}', "'y' is beyond"),
        ("json", b"[" * 60_000, "not JSON"),
        ("json", b'{"ts": 1e308, "x": 1, "y": 1}', "'ts' is not a finite number in seconds"),
        ("rows", b"{}", "not a JSON list"),
        ("rows", b"[[1, 2, 3], [1, 2]]", "2 numbers in a row that has 3: ts, x, y"),
        ("rows", b"[[1, 2, 3], 4]", "0 numbers in a row"),
        ("rows", b"[]", "0 numbers in a row"),
        ("rows", b'[1, 2, "3"]', "'y' is not a finite number"),
        ("csv", b"", "0 readings"),
        ("csv", b"1,2\n", "2 numbers in a row that has 3"),
        ("csv", b"1,2,x\n", "'y' is missing"),
        ("csv", b"1,2,1_0\n", "'y' is missing"),
        ("csv", b"1,2,nan\n", "'y' is not a finite number"),
        ("csv", b"\xff,2,3", "not text"),
        ("csv", b"1,2,3\n" * 1001, "1 to 1000"),
        ("float32", b"\0" * 12, "no whole rows of 2"),
        ("float32", b"", "0 readings"),
        ("float32", b"\0" * 8 * 1001, "1 to 1000"),
        ("float32", np.array([1, math.nan], "<f4").tobytes(), "not finite"),
        ("float32", b"\0" * (LARGEST + 8), "more than the"),
    ],
)
def test_what_is_wrong_is_said_by_its_name_and_never_quoted(form: Format, payload: bytes, says: str) -> None:
    units = {"ts": Unit(1000.0)} if form == "json" else {}
    with pytest.raises(BadReading) as refused:
        read(payload, binding(form, units=units), XY)
    assert says in str(refused.value) and len(str(refused.value)) < 200


@pytest.mark.parametrize("form", ["json", "rows", "csv", "scalar", "float32"])
@given(payload=st.binary(max_size=200) | st.text(alphabet='0123456789.,-+eE[]{}":txy \n', max_size=200).map(str.encode))
def test_any_bytes_are_readings_or_refused(form: Format, payload: bytes) -> None:
    channels = ("x",) if form == "scalar" else XY
    try:
        readings = read(payload, binding(form, units={"x": Unit(3.0)}), channels)
    except BadReading:
        return
    rows = np.asarray(readings.rows, np.float32)
    assert rows.shape[1] == len(channels) and 1 <= len(rows) <= 1000 and np.isfinite(rows).all()
    assert readings.ts is None or all(map(math.isfinite, readings.ts))


SPEC = WindowSpec(4, 2, 0.02, XY, 1.0)


@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 0.5)), min_size=2, max_size=20))
def test_readings_without_a_time_stand_a_period_apart_however_the_network_delivers(
    batches: list[tuple[int, float]],
) -> None:
    sampled, last, times = 1_000_000.0, None, []
    for count, delay in batches:
        sampled += count * SPEC.period  # when the last of them was taken
        times += timed(count, last, sampled + delay, SPEC)
        last = times[-1]
    assert np.allclose(np.diff(times), SPEC.period, atol=1e-6)
    assert abs(times[-1] - sampled) <= 2 * SPEC.max_gap


def test_a_binding_that_does_not_fit_its_model_refuses_what_comes_and_breaks_nothing() -> None:
    for of, payload, says in (
        (binding("scalar"), b"1", "2 channels"),
        (binding("csv", columns=("ts", "x")), b"1,2", "columns lack y"),
        (binding("csv", columns=("x", "y")), b"1,2", "columns lack ts"),
        (binding("float32", columns=("y",)), b"\0" * 8, "columns lack x"),
    ):
        with pytest.raises(BadReading, match=says):
            read(payload, of, XY)


def test_after_a_pause_the_arrival_counts_again() -> None:
    first = timed(3, None, 100.0, SPEC)
    assert first == pytest.approx([99.96, 99.98, 100.0])
    again = timed(2, first[-1], 200.0, SPEC)
    assert again == pytest.approx([199.98, 200.0])
    assert all(b > a for a, b in pairwise(first + again))


def test_bindings_that_contradict_themselves_are_refused() -> None:
    for wrong in (
        {"emit": "every"}, {"every": 5.0}, {"emit": "when"}, {"emit": "on-change", "every": 0.0},
        {"emit": "on-change", "every": math.inf}, {"format": "csv", "fields": {"x": "a.x"}},
        {"format": "json", "columns": ("x", "y")},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"binding: "):
            Binding("a/{entity}", "b/{entity}", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scale"):
        Unit(0.0)


def test_no_message_leads_to_many_more_windows_than_readings() -> None:
    spec = WindowSpec(4, 1, 1.0, XY, 60.0)
    rows = np.zeros((1000, 2), np.float32)
    for ts, refused in (
        (np.arange(1000.0), False),  # as they come
        (np.append(np.arange(500.0), 550.0 + np.arange(500)), False),  # ... with a time without the sensor
        (np.arange(1000.0) * 50, True),  # 49,950 windows
        (np.arange(1000.0) * 100, False),  # gaps that end segments lead to none
        (np.arange(1000.0)[::-1] * 50, False),  # nor does what lies in the past
        (np.resize([-1e308, 1e308], 1000), False),
    ):
        for last in (None, float(ts[0]) - 60):
            windows = WindowKernel(spec).push(ts, rows)
            assert (len(windows) > 2060) is refused
            if not refused:
                check_gaps(list(ts), last, spec)
                continue
            with pytest.raises(BadReading, match="2060 windows"):
                check_gaps(list(ts), last, spec)


def test_one_reading_after_a_long_gap_is_always_taken() -> None:
    check_gaps([3600.0], 0.0, WindowSpec(4, 1, 0.02, XY, 3600.0))
