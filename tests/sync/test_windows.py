"""The laws of the window kernel: what it gives depends on the rows, never on how they came."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.features import WindowSpec
from sync.windows import Checkpoint, Rows, Times, Window, WindowKernel, cut

Stream = tuple[Times, Rows]


def same(left: tuple[Window, ...], right: tuple[Window, ...]) -> bool:
    return len(left) == len(right) and all(
        (a.start, a.end, a.complete) == (b.start, b.end, b.complete)
        and np.array_equal(a.values, b.values, equal_nan=True)
        for a, b in zip(left, right, strict=True)
    )


def rows_for(ts: Times) -> Rows:
    """Rows that tell their own place, so that a row in a wrong slot shows."""
    return np.column_stack([np.arange(len(ts)), -np.arange(len(ts))]).astype(np.float32)


specs = st.builds(
    lambda size, step, gap: WindowSpec(size, min(step, size), 1.0, ("x", "y"), gap),
    st.integers(1, 6), st.integers(1, 6), st.sampled_from([1.0, 2.5, 4.0]),
)  # fmt: skip
# Steps of a stream in periods: regular, jittered, doubled, lost rows, gaps, and (for the split laws) the
# past.
forward = st.lists(
    st.sampled_from([1.0, 1.0, 1.0, 0.9, 1.13, 0.6, 1.4, 0.3, 2.0, 3.0, 5.0, 50.0]), min_size=1, max_size=40
)
anyhow = st.lists(
    st.sampled_from([1.0, 1.0, 1.0, 0.9, 1.4, 0.5, 0.0, 2.0, 5.0, -1.0, -2.3, -30.0]), min_size=1, max_size=40
)


def stream(steps: list[float]) -> Stream:
    ts = 1000.0 + np.cumsum(np.asarray(steps, np.float64))
    return ts, rows_for(ts)


def push_in_pieces(kernel: WindowKernel, data: Stream, edges: list[int]) -> tuple[Window, ...]:
    ts, rows = data
    cuts = [0, *sorted({e % (len(ts) + 1) for e in edges}), len(ts)]
    out: list[Window] = []
    for start, stop in pairwise(cuts):
        out += kernel.push(ts[start:stop], rows[start:stop])
    return tuple(out)


@given(specs, anyhow, st.lists(st.integers(0, 100), max_size=5))
def test_any_split_equals_one_block(spec: WindowSpec, steps: list[float], edges: list[int]) -> None:
    data = stream(steps)
    whole = cut(spec, *data)
    assert same(whole, push_in_pieces(WindowKernel(spec), data, list(range(len(steps)))))
    assert same(whole, push_in_pieces(WindowKernel(spec), data, edges))


@given(specs, forward, st.data())
def test_repeated_rows_change_nothing(spec: WindowSpec, steps: list[float], data: st.DataObject) -> None:
    ts, rows = stream(steps)
    order: list[int] = []
    for i in range(len(ts)):
        order.append(i)
        order += data.draw(st.lists(st.integers(0, i), max_size=2))
    assert same(cut(spec, ts, rows), cut(spec, ts[order], rows[order]))


@given(specs, forward)
def test_a_redelivered_stream_changes_nothing(spec: WindowSpec, steps: list[float]) -> None:
    ts, rows = stream(steps)
    kernel = WindowKernel(spec)
    kernel.push(ts, rows)
    before = kernel.checkpoint()
    assert kernel.push(ts, rows) == ()
    assert kernel.checkpoint() == before


@given(specs, anyhow)
def test_a_gap_is_never_spanned(spec: WindowSpec, steps: list[float]) -> None:
    ts, rows = stream(steps)
    newest, segment, segments = -np.inf, -1, []
    for t in ts:
        segment += bool(t - newest > spec.max_gap)
        segments.append(segment)
        newest = max(newest, t)
    for window in cut(spec, ts, rows):
        present = window.values[~np.isnan(window.values[:, 0]), 0].astype(int)
        assert len({segments[i] for i in present}) <= 1
        assert (np.diff(ts[present]) > 0).all()


@given(specs, anyhow, st.integers(0, 40))
def test_a_restart_at_any_point_gives_the_same_windows(spec: WindowSpec, steps: list[float], at: int) -> None:
    ts, rows = stream(steps)
    kernel = WindowKernel(spec)
    before = kernel.push(ts[:at], rows[:at])
    restarted = WindowKernel(spec, kernel.checkpoint())
    assert same(cut(spec, ts, rows), before + restarted.push(ts[at:], rows[at:]))


@given(specs, forward)
def test_complete_means_no_row_is_missing(spec: WindowSpec, steps: list[float]) -> None:
    for window in cut(spec, *stream(steps)):
        assert window.values.shape == (spec.size, 2)
        assert window.complete == (not np.isnan(window.values).any())


SPEC = WindowSpec(4, 2, 0.5, ("x", "y"), 2.0)


def test_windows_overlap_by_size_less_step_and_carry_event_times() -> None:
    ts = 10.0 + 0.5 * np.arange(8)
    windows = cut(SPEC, ts, rows_for(ts))
    assert [(w.start, w.end) for w in windows] == [(10.0, 11.5), (11.0, 12.5), (12.0, 13.5)]
    assert [w.values[0, 0] for w in windows] == [0, 2, 4]
    assert all(w.complete for w in windows)


def test_a_hole_makes_a_window_incomplete_and_a_late_row_fills_it() -> None:
    ts = np.array([0.0, 0.5, 1.5])
    holed = WindowKernel(SPEC).push(ts, rows_for(ts))
    assert [w.complete for w in holed] == [False]
    late = np.array([0.0, 1.0, 0.5, 1.5])
    filled = WindowKernel(SPEC).push(late, rows_for(late))
    assert [w.complete for w in filled] == [True]
    assert filled[0].values[:, 0].tolist() == [0, 2, 1, 3]


def test_one_missing_channel_is_the_sensors_business_not_a_hole() -> None:
    ts = 0.5 * np.arange(4)
    rows = rows_for(ts)
    rows[1, 0] = np.nan
    assert cut(SPEC, ts, rows)[0].complete


def test_drift_of_a_sensors_clock_does_not_add_up_to_holes() -> None:
    ts = 0.55 * np.arange(2000)
    assert all(w.complete for w in cut(SPEC, ts, rows_for(ts)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_push_that_does_not_fit_is_refused_whole(bad: float) -> None:
    kernel = WindowKernel(SPEC)
    before = kernel.checkpoint()
    with pytest.raises(ValueError, match="not finite"):
        kernel.push(np.array([0.0, bad]), rows_for(np.zeros(2)))
    with pytest.raises(ValueError, match="channels"):
        kernel.push(np.array([0.0]), np.zeros((1, 3), np.float32))
    assert kernel.checkpoint() == before


def test_a_checkpoint_of_another_shape_starts_empty() -> None:
    kernel = WindowKernel(SPEC, Checkpoint(5.0, 3, 5, b"short", b"short"))
    assert kernel.checkpoint() == WindowKernel(SPEC).checkpoint()


FAR = [-1e308, 1e308, -1.7e308, 1.7e308]


@pytest.mark.parametrize("before", [(), (0.0,), (0.0, 0.5, 1.0)])
@pytest.mark.parametrize("far", [[ts] for ts in FAR] + [FAR, FAR[::-1]])
def test_times_beyond_all_measure_break_nothing_however_they_come(before: tuple[float, ...], far: list[float]) -> None:
    ts = np.array([*before, *far, 2.0, 2.5, 3.0])
    whole, singly = WindowKernel(SPEC), WindowKernel(SPEC)
    found = whole.push(ts, rows_for(ts))
    assert same(found, push_in_pieces(singly, (ts, rows_for(ts)), list(range(len(ts)))))
    assert whole.checkpoint() == singly.checkpoint()
