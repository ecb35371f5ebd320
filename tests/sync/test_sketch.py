"""The laws of the counters: additive, exact, independent of how rows come; and the two distances by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.distances import distance, psi
from sync.errors import Malformed
from sync.sketch import (
    ABOVE,
    BELOW,
    BINS,
    COUNTERS,
    MISSING,
    UNSEEN,
    Bins,
    Sketch,
    Stream,
    WindowCounter,
    count,
    count_windows,
    fit,
    identity,
    pack,
    place,
    unpack,
)

STREAMS = (Stream("speed"), Stream("mode", "categorical"))
REFERENCE = np.column_stack([np.arange(1600) / 100, np.arange(1600) % 20])
FITTED = fit(STREAMS, REFERENCE)
values = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 3.0, 7.77, 15.99, 16.5, 19.0, 99.0])
tables = st.lists(st.tuples(values, values), max_size=40).map(lambda rows: np.array(rows, np.float32).reshape(-1, 2))


def test_reference_rows_fill_the_bins_equally() -> None:
    counts = count(FITTED, REFERENCE).array()
    assert counts[0, :BINS].tolist() == [100] * BINS
    assert counts[0, BINS:].tolist() == [0, 0, 0, 0]


def test_a_categorical_stream_has_fifteen_categories_other_and_unseen() -> None:
    counts = count(FITTED, REFERENCE).array()[1]
    assert counts[:15].tolist() == [80] * 15
    assert counts[15] == 5 * 80
    strange = count(FITTED, np.array([[1.0, 20.0], [1.0, -3.0], [1.0, math.nan]])).array()[1]
    assert strange[UNSEEN] == 2 and strange[MISSING] == 1


def test_the_most_frequent_categories_come_first() -> None:
    bins = fit((Stream("x", "categorical"),), np.array([[5.0], [7.0], [7.0], [2.0], [2.0], [2.0]]))
    assert bins[0].points == (2.0, 7.0, 5.0)


@pytest.mark.parametrize(
    ("value", "counter"),
    [(-0.01, BELOW), (0.0, 0), (0.99, 0), (1.0, 1), (15.99, 15), (16.0, ABOVE), (math.inf, ABOVE), (-math.inf, BELOW)],
)
def test_where_a_number_falls(value: float, counter: int) -> None:
    assert place(FITTED, [[value, 0.0]])[0, 0] == counter
    assert place(FITTED, [[math.nan, 0.0]])[0, 0] == MISSING


def test_a_stream_that_was_silent_in_the_reference_is_unseen_when_it_speaks() -> None:
    for kind in ("numeric", "categorical"):
        bins = fit((Stream("dead", kind),), np.full((10, 1), math.nan))
        assert place(bins, [[math.nan], [1.0]]).ravel().tolist() == [MISSING, UNSEEN]


def test_a_constant_stream_stays_in_one_bin() -> None:
    bins = fit((Stream("flag"),), np.full((10, 1), 3.1))
    assert place(bins, [[3.1], [3.0], [3.2]]).ravel().tolist() == [0, BELOW, ABOVE]


@given(tables, tables, tables)
def test_merging_is_adding_rows_in_any_order(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    x, y, z = (count(FITTED, rows) for rows in (a, b, c))
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z)) == count(FITTED, np.concatenate([a, b, c]))
    assert x.add(FITTED, b) == x.merge(y)
    assert x.rows == len(a)


def test_sketches_of_other_bins_do_not_merge() -> None:
    other = fit(STREAMS, REFERENCE + 1)
    with pytest.raises(ValueError, match="different bins"):
        count(FITTED, REFERENCE).merge(count(other, REFERENCE))


@given(tables, st.integers(1, 7), st.lists(st.integers(0, 40), max_size=4))
def test_windows_have_exactly_w_rows_however_the_rows_come(rows: np.ndarray, size: int, cuts: list[int]) -> None:
    whole = WindowCounter(FITTED, size).push(rows)
    counter, parts = WindowCounter(FITTED, size), []
    for part in np.split(rows, sorted(min(cut, len(rows)) for cut in cuts)):
        parts.append(counter.push(part))
        restored = unpack(Sketch, pack(counter.checkpoint()))
        assert restored.rows < size
        counter = WindowCounter(FITTED, size, restored)
    assert np.array_equal(whole, np.concatenate(parts))
    assert len(whole) == len(rows) // size
    assert (whole.sum(axis=-1) == size).all()


def test_an_unfinished_window_of_other_bins_or_a_full_one_is_refused() -> None:
    with pytest.raises(ValueError, match="other bins"):
        WindowCounter(fit(STREAMS, REFERENCE + 1), 50, count(FITTED, REFERENCE[:3]))
    with pytest.raises(ValueError, match="full"):
        WindowCounter(FITTED, 3, count(FITTED, REFERENCE[:3]))


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="2 streams"):
        count(FITTED, np.zeros((3, 5)))
    with pytest.raises(ValueError, match="whole number"):
        count_windows(FITTED, REFERENCE[:7], 5)
    with pytest.raises(ValueError, match="between 1 and 64"):
        fit((), np.zeros((3, 0)))


@pytest.mark.parametrize("points", [(1.0, 2.0), tuple(map(float, range(300)))])
def test_bins_that_cannot_be_are_refused(points: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bins of speed"):
        Bins(Stream("speed"), points)


# --- distances --------------------------------------------------------------------------------------------------


def test_the_distance_of_two_histograms_by_hand() -> None:
    # p = (1, 0), q = (1/2, 1/2): divergence = (log2(4/3) + (log2(2/3) + 1) / 2) / 2
    divergence = (math.log2(4 / 3) + (math.log2((1 / 2) / (3 / 4)) + math.log2((1 / 2) / (1 / 4))) / 2) / 2
    assert distance([10, 0], [3, 3]) == pytest.approx(math.sqrt(divergence), abs=1e-11)
    assert distance([5, 5], [3, 3]) == 0
    assert distance([5, 0], [0, 3]) == 1
    assert math.isnan(distance([0, 0], [3, 3]))


counters = st.lists(st.integers(0, 50), min_size=COUNTERS, max_size=COUNTERS).filter(any)


@given(counters, counters, st.integers(1, 9))
def test_the_distance_is_a_symmetric_share_of_one(a: list[int], b: list[int], times: int) -> None:
    assert 0 <= distance(a, b) <= 1
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(np.array(a) * times, b) == pytest.approx(distance(a, b), abs=1e-6)


def test_the_stability_index_by_hand() -> None:
    p, q = (30.5 / 41, 10.5 / 41), (20.5 / 41, 20.5 / 41)
    raw = sum((x - y) * math.log(x / y) for x, y in zip(p, q, strict=True))
    assert psi([30, 10, 0], [20, 20, 0]) == pytest.approx(raw - (2 - 1) * (1 / 40 + 1 / 40))
    assert math.isnan(psi([0, 0], [1, 1]))


def test_debiasing_takes_away_what_sampling_gives() -> None:
    rng = np.random.default_rng(3)
    shares = np.full(BINS, 1 / BINS)
    healthy = psi(rng.multinomial(400, shares, 300), rng.multinomial(6000, shares, 300))
    assert abs(float(healthy.mean())) < 0.005


# --- bytes ------------------------------------------------------------------------------------------------------


def test_a_window_of_a_stream_takes_about_25_bytes() -> None:
    sketch = count(FITTED, REFERENCE[:50])
    assert unpack(Sketch, pack(sketch)) == sketch
    assert len(pack(sketch)) <= 2 * 25 + 40


def test_bytes_that_are_no_sketch_are_malformed() -> None:
    good = count(FITTED, REFERENCE[:50])
    for bad in (b"", b"\xc1", pack(good)[:-1], pack({"bins": "x", "counts": [[1] * 19]})):
        with pytest.raises(Malformed, match="Sketch"):
            unpack(Sketch, bad)


def test_bins_have_one_name_everywhere() -> None:
    assert identity(FITTED) == identity(unpack(tuple[Bins, ...], pack(FITTED)))
    assert identity(FITTED) != identity(fit(STREAMS, REFERENCE + 1))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([1.0, 0.0, 1e30]))
def test_all_streams_at_once_fall_where_each_falls_alone(seed: int, count: int, scale: float) -> None:
    """By the words of `Bins`: counted one value and one edge at a time."""
    rng = np.random.default_rng(seed)
    reference = np.round(rng.normal(size=(50, 3)), 1) * scale  # ties, and a stream that never changes
    bins = fit((Stream("a"), Stream("kind", "categorical"), Stream("c")), reference)
    rows = np.concatenate([reference[:count], np.round(rng.normal(size=(count, 3)), 1) * 2]).astype(np.float32)
    rows[0], rows[-1], rows[count // 2] = np.nan, np.inf, -np.inf
    found = place(bins, rows)
    for row, places in zip(rows.tolist(), found.tolist(), strict=True):
        for stream in (0, 2):
            value, points = row[stream], bins[stream].points
            if math.isnan(value):
                wanted = 16
            elif value < points[0]:
                wanted = 17
            else:
                wanted = 18 if value > points[-1] else sum(edge < value for edge in points[1:-1])
            assert places[stream] == wanted


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 33))
def test_the_distance_of_a_window_does_not_depend_on_those_beside_it(seed: int, windows: int, streams: int) -> None:
    """To the last bit: how rows were cut into pushes must not change a verdict."""
    rng = np.random.default_rng(seed)
    counts, reference = rng.integers(0, 60, (windows, streams, 20)), rng.integers(0, 60, (streams, 20))
    alone = np.array([distance(one, reference) for one in counts])
    assert distance(counts, reference).tobytes() == alone.tobytes()
