"""The drift detector: formulas by hand, replay by law, seeded streams, and real smartwatches where they are at hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.detector import (
    Detector,
    State,
    Status,
    Verdict,
    decorrelation_lag,
    e_value,
    split,
    turns_for,
    watch,
)
from sync.distances import distance
from sync.errors import Malformed
from sync.manifest import Drift
from sync.sketch import Stream, count_windows, pack, unpack

W = 50
STREAMS = tuple(Stream(name) for name in ("ax", "ay", "az", "wx", "wy", "wz"))
WATCHES = Path(__file__).parents[3] / "shared" / "data" / "watch_har"


# --- formulas ---------------------------------------------------------------------------------------------------


def test_the_bet_by_hand_and_at_one() -> None:
    p = 0.01
    assert e_value(p) == pytest.approx((1 - p + p * math.log(p)) / (p * math.log(p) ** 2))
    assert e_value(1.0) == 0.5
    assert e_value(1 - 1e-4) == pytest.approx(0.5 + 1e-4 / 6, abs=1e-7)
    assert e_value(1 - 1e-12) == pytest.approx(0.5)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_a_smaller_p_never_bets_less(p: float, q: float) -> None:
    assert e_value(min(p, q)) >= e_value(max(p, q)) - 1e-7


@given(st.integers(40, 2000))
def test_the_bet_wins_nothing_on_average_over_the_possible_ranks(m: int) -> None:
    assert 0.5 < float(e_value(np.arange(1, m + 2) / (m + 1)).mean()) <= 1


def test_the_lag_is_the_slowest_streams_first_below_a_tenth() -> None:
    alternating = np.tile([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], 20)
    assert decorrelation_lag(np.column_stack([np.ones(120), alternating])) > 1
    assert decorrelation_lag(np.ones((120, 2))) == 1
    square = np.tile(np.repeat([1.0, -1.0], 10), 50)[:, None]  # autocorrelation 1 - lag / 5, nearly 0 at lag 5
    assert decorrelation_lag(square) == 5
    assert turns_for(square) == 10
    assert turns_for(np.ones((120, 2))) == 8
    assert turns_for(np.linspace(0, 1, 500)[:, None]) == 16


def test_the_baseline_is_split_in_time_order() -> None:
    assert split(240) == (120, 120)
    assert split(241) == (120, 121)


@pytest.mark.parametrize(
    "wrong", [{"baseline": 79}, {"window": 0}, {"window": 70_000}, {"alarm": 1.0}, {"turns": 0}, {"recent": 0}]
)
def test_a_rule_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"window|baseline|alarm"):
        watch(STREAMS, Drift(**wrong))


# --- the statistic, step by step --------------------------------------------------------------------------------


def test_the_statistic_is_what_the_formulas_say() -> None:
    rng = np.random.default_rng(1)
    rule = Drift(window=20, baseline=80, turns=3)
    detector = watch(STREAMS[:2], rule)
    quiet = detector.push(rng.normal(size=(80 * 20, 2)))
    assert quiet == tuple(Verdict(i, Status.NOT_CALIBRATED) for i in range(80))
    baseline = detector.state().baseline
    assert baseline is not None and len(baseline.scores) == 40
    live = rng.normal(0.5, 1, size=(10 * 20, 2))
    verdicts = detector.push(live)

    r = np.zeros((3, 2))
    for t, counts in enumerate(count_windows(baseline.bins, live, 20)):
        scores = distance(counts, baseline.reference.array())
        for i in range(2):
            before = [row[i] for row in baseline.scores]
            p = (1 + sum(one >= scores[i] for one in before)) / (len(before) + 1)  # ties count against an alarm
            r[t % 3, i] = (r[t % 3, i] + 1) * float(e_value(p))
        assert verdicts[t].window == 80 + t
        assert verdicts[t].statistic == pytest.approx(r.mean())


# --- replay -----------------------------------------------------------------------------------------------------

SMALL = Drift(window=5, baseline=80, alarm=20.0, recent=4)


def small_stream(seed: int) -> np.ndarray:
    """A baseline, a quiet time and a shift, of two streams of which one is categorical, with holes."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.normal(size=800), rng.integers(0, 4, 800)])
    rows[500:, 0] += 4
    rows[rng.random(800) < 0.02, 0] = math.nan
    return rows


@settings(max_examples=30)
@given(st.integers(0, 5), st.lists(st.integers(0, 800), max_size=6))
def test_the_same_windows_give_the_same_verdicts_whatever_the_batching(seed: int, cuts: list[int]) -> None:
    streams = (Stream("x"), Stream("mode", "categorical"))
    rows = small_stream(seed)
    whole = watch(streams, SMALL)
    expected = whole.push(rows)
    detector, found = watch(streams, SMALL), []
    for part in np.split(rows, sorted(cuts)):
        found += detector.push(part)
        detector = Detector(unpack(State, pack(detector.state())))
    assert tuple(found) == expected
    assert detector.state() == whole.state()
    assert len(expected) == 160
    assert expected[-1].status is Status.ALARM


def test_rows_of_another_shape_are_refused_and_nothing_is_taken_in() -> None:
    detector = watch(STREAMS, SMALL)
    with pytest.raises(ValueError, match="6 streams"):
        detector.push(np.zeros((10, 5)))
    assert detector.state() == watch(STREAMS, SMALL).state()
    with pytest.raises(ValueError, match="streams"):
        watch((), SMALL)


def test_a_state_that_is_damaged_is_not_taken() -> None:
    detector = watch(STREAMS[:1], SMALL)
    detector.push(np.random.default_rng(0).normal(size=(500, 1)))
    state = detector.state()
    with pytest.raises(Malformed, match="State"):
        unpack(State, pack(state)[:-3])
    baseline = state.baseline
    assert baseline is not None
    too_many = State(SMALL, state.streams, baseline=type(baseline)(baseline.bins, baseline.reference, ((0.1,),) * 41))
    with pytest.raises(ValueError, match="calibration scores"):
        Detector(too_many)


# --- behaviour, seeded ------------------------------------------------------------------------------------------


def level(rng: np.random.Generator, windows: int, memory: float) -> np.ndarray:
    """Six streams whose windows resemble each other: an AR(1) level a window under white rows; total sd 1."""
    found = np.zeros((windows, 6))
    for t in range(windows):
        last = found[t - 1] if t else rng.normal(size=6)
        found[t] = memory * last + math.sqrt(1 - memory**2) * rng.normal(size=6)
    share = 0.5 if memory else 0.0
    return math.sqrt(share) * np.repeat(found, W, axis=0) + math.sqrt(1 - share) * rng.normal(size=(windows * W, 6))


def verdicts_on(rows: np.ndarray, shift: float, rule: Drift) -> tuple[Verdict, ...]:
    """After the baseline, the first two streams move by `shift`."""
    detector = watch(STREAMS, rule)
    detector.push(rows[: rule.baseline * W])
    return detector.push(rows[rule.baseline * W :] + np.array([shift, shift, 0, 0, 0, 0]))


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_unchanged_streams_stay_quiet(memory: float) -> None:
    for run in range(5):
        rows = level(np.random.default_rng([2, run]), 480 + 300, memory)
        assert {v.status for v in verdicts_on(rows, 0.0, Drift(baseline=480))} == {Status.QUIET}


def test_without_turns_neighbours_that_resemble_each_other_raise_false_alarms() -> None:
    rules = Drift(baseline=480, turns=1), Drift(baseline=480)
    alarms = [0, 0]
    for run in range(5):
        rows = level(np.random.default_rng([3, run]), 480 + 300, 0.9)
        for i, rule in enumerate(rules):
            alarms[i] += any(v.status is Status.ALARM for v in verdicts_on(rows, 0.0, rule))
    assert alarms[0] >= 3 > 1 >= alarms[1]


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_a_shift_is_found_and_the_moved_streams_are_named(memory: float) -> None:
    for run in range(3):
        rows = level(np.random.default_rng([4, run]), 240 + 300, memory)
        last = verdicts_on(rows, 3.0, Drift(baseline=240))[-1]
        assert last.status is Status.ALARM
        assert {one.stream for one in last.drifted} <= {"ax", "ay"} and last.drifted
        assert all(one.effect > 0.05 and one.statistic >= 10_000 for one in last.drifted)


def test_a_change_without_a_material_effect_is_a_notice() -> None:
    rows = level(np.random.default_rng(5), 240 + 200, 0.0)
    verdicts = verdicts_on(rows, 1.5, Drift(baseline=240, material=1e6))
    assert {v.status for v in verdicts} == {Status.QUIET, Status.NOTICE}
    assert verdicts[-1].drifted


def test_a_level_a_hundred_times_higher_costs_a_few_windows_more() -> None:
    """Bets multiply, so the delay grows with the level's logarithm: quiet is cheap (docs/adr/0013)."""
    rows = level(np.random.default_rng(7), 480 + 500, 0.7)
    first = []
    for alarm in (1e4, 1e6, 1e8):
        verdicts = verdicts_on(rows, 2.0, Drift(baseline=480, alarm=alarm))
        first.append(next(v.window for v in verdicts if v.status is Status.ALARM) - 479)
    assert first[0] < first[1] < first[2] <= 2.5 * first[0]


def test_the_first_alarm_is_kept_and_the_statistic_comes_down_when_the_change_is_undone() -> None:
    rows = level(np.random.default_rng(6), 240 + 500, 0.0)
    moved = slice(240 * W, 440 * W)
    rows[moved] += 3.0
    detector = watch(STREAMS, Drift(baseline=240))
    verdicts = detector.push(rows)
    first = next(v.window for v in verdicts if v.status is Status.ALARM)
    assert detector.state().first_alarm == first
    assert verdicts[439].status is Status.ALARM
    assert verdicts[-1].status is Status.QUIET
    assert detector.turns == 8


# --- real watches -----------------------------------------------------------------------------------------------


def recordings() -> dict[tuple[int, int], list[np.ndarray]]:
    """(subject, right wrist) to recordings of rows of six channels."""
    from pyarrow import csv, parquet

    table = parquet.read_table(WATCHES / "watch_samples.parquet")
    rows = np.column_stack([table[stream.name].to_numpy() for stream in STREAMS])
    of = table["recording"].to_numpy()
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for entry in csv.read_csv(WATCHES / "recordings.csv").to_pylist():
        found.setdefault((entry["subject"], entry["right_side"]), []).append(rows[of == entry["recording"]])
    return found


def stretches(rng: np.random.Generator, pool: list[np.ndarray], windows: int) -> np.ndarray:
    """A block bootstrap: stretches of 12 windows from anywhere in the recordings, which are too short by themselves."""
    parts = []
    while sum(map(len, parts)) < windows * W:
        one = pool[int(rng.integers(len(pool)))]
        start = int(rng.integers(len(one) - 12 * W + 1))
        parts.append(one[start : start + 12 * W])
    return np.concatenate(parts)[: windows * W]


@pytest.mark.skipif(not WATCHES.exists(), reason="the smartwatch recordings are not beside the checkout")
def test_six_watches_alarm_when_they_move_to_the_other_wrist_and_not_before() -> None:
    found = recordings()
    for subject in range(1, 7):
        rng = np.random.default_rng([8, subject])
        detector = watch(STREAMS)
        detector.push(stretches(rng, found[subject, 1], Drift().baseline))
        stays = detector.push(stretches(rng, found[subject, 1], 240))
        assert Status.ALARM not in {v.status for v in stays}, f"subject {subject} did not move"
        moves = detector.push(stretches(rng, found[subject, 0], 400))
        assert Status.ALARM in {v.status for v in moves}, f"subject {subject} moved"
