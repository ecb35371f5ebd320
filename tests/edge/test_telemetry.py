"""The device's own drift watch: a baseline from the commit on, one alarm, and what a restart leaves of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edge.kept import Kept
from edge.telemetry import KEEP_EVERY, SOON, TOGETHER, Telemetry
from sync.features import TensorSpec
from sync.manifest import Drift, Manifest
from sync.names import ModelName, TenantId
from sync.reports import DriftReport
from tests.edge import graphs

MODEL = ModelName("motion")
DRIFT = Drift(window=20, baseline=80, alarm=1000.0, turns=8)


class Told:
    """A device's telemetry, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.alarms, self.reports = folder, [], []  # type: ignore[var-annotated]
        self.start()

    def start(self) -> None:
        def alarm(model: ModelName, found: DriftReport) -> None:
            self.alarms.append((model, found))

        def report(code: str, text: str) -> None:
            self.reports.append(code)

        made = iter(range(10_000))

        def nonces(n: int) -> bytes:
            return next(made).to_bytes(n, "big")

        self.telemetry = Telemetry(Kept(self.folder, TenantId("default"), bytes(32), "drift", nonces, report), alarm)

    def feel(self, windows: int, shift: float = 0.0, seed: int = 0) -> None:
        rows = np.random.default_rng(seed).normal(shift, 1.0, (windows * DRIFT.window, 2))
        for i in range(0, len(rows), 37):  # messages never end where windows do
            self.telemetry.observe(MODEL, float(i), rows[i : i + 37])
            self.telemetry.write_down()


def release(number: int = 1, drift: Drift | None = DRIFT) -> Manifest:
    return replace(graphs.manifest(number), model=MODEL, drift=drift)


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path / "drift")


def test_nothing_is_watched_before_the_commit_or_without_a_rule(told: Told) -> None:
    told.feel(5)
    assert told.telemetry.report(MODEL) is None
    told.telemetry.watch(release(drift=None))
    told.feel(5)
    assert told.telemetry.report(MODEL) is None


def test_a_rule_of_an_older_core_that_cannot_work_ends_nothing(told: Told) -> None:
    told.telemetry.watch(release(drift=Drift(baseline=60)))
    told.feel(2)
    assert told.telemetry.report(MODEL) is None


def test_the_same_world_is_quiet_and_a_shift_alarms_once(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(79, seed=1)
    found = told.telemetry.report(MODEL)
    assert found is not None and found.status == "not_calibrated"
    told.feel(200, seed=2)
    found = told.telemetry.report(MODEL)
    assert found is not None and found.status == "quiet" and not told.alarms
    told.feel(80, shift=1.5, seed=3)
    told.feel(80, shift=0.0, seed=4)
    ((model, alarm),) = told.alarms
    assert (model, alarm.status) == (MODEL, "alarm") and alarm.since is not None
    assert set(alarm.streams) <= {"x", "y"} and alarm.streams
    after = told.telemetry.report(MODEL)
    assert after is not None and after.status == "alarm" and after.since == alarm.since, "an alarm stays"


def test_a_restart_goes_on_where_it_was(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(100, seed=1)
    told.telemetry.close()
    told.start()
    told.telemetry.watch(release())
    found = told.telemetry.report(MODEL)
    assert found is not None and found.windows == 100
    told.feel(80, shift=1.5, seed=3)
    assert len(told.alarms) == 1


def test_single_readings_say_what_whole_messages_say_also_over_a_restart(told: Told, tmp_path: Path) -> None:
    rows = np.random.default_rng(5).normal(0, 1.0, (90 * DRIFT.window, 2)).astype(np.float32)
    other = Told(tmp_path / "other")
    for one in (told, other):
        one.telemetry.watch(release())
    for i, row in enumerate(rows):
        told.telemetry.observe(MODEL, float(i), [tuple(row.tolist())])
        if i in (7, 1111):  # in the middle of a window
            told.telemetry.close()
            told.start()
            told.telemetry.watch(release())
        if i == 33 * DRIFT.window - 1:
            found = told.telemetry.report(MODEL)
            assert found is not None and found.windows == 33, "a window counts with its last row"
    other.telemetry.observe(MODEL, 1.0, rows)
    assert told.telemetry.report(MODEL) == other.telemetry.report(MODEL) and not told.reports


def test_a_kill_costs_no_more_than_the_windows_since_the_last_checkpoint(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(97, seed=1)
    told.start()
    told.telemetry.watch(release())
    found = told.telemetry.report(MODEL)
    assert found is not None and 77 <= found.windows <= 97 and not told.reports


def test_another_release_has_a_baseline_of_its_own(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(100)
    told.telemetry.watch(release(2))
    found = told.telemetry.report(MODEL)
    assert found is not None and found.windows == 0
    told.telemetry.watch(release(2))
    told.feel(1)
    again = told.telemetry.report(MODEL)
    assert again is not None and again.windows == 1


def test_a_state_that_cannot_be_read_is_reported_and_watching_begins_anew(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(50)
    told.telemetry.close()
    (told.folder / MODEL).write_bytes(b"not a state")
    told.start()
    told.telemetry.watch(release())
    found = told.telemetry.report(MODEL)
    assert found is not None and found.windows == 0 and told.reports == ["drift-state-lost"]


def test_on_disk_nothing_is_readable(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(30)
    told.telemetry.close()
    content = (told.folder / MODEL).read_bytes()
    assert b"not_calibrated" not in content and (told.folder / MODEL).stat().st_mode & 0o077 == 0


def test_rows_that_come_fast_are_shown_together_and_say_the_same(told: Told, tmp_path: Path) -> None:
    """An event time that stands still: several windows at once, and the first alone."""
    slowly = Told(tmp_path / "slowly")
    rows = np.random.default_rng(6).normal(0, 1.0, (91 * DRIFT.window, 2)).astype(np.float32)
    for one, pace in ((told, 0.0), (slowly, 1.0)):
        one.telemetry.watch(release())
        for i, row in enumerate(rows):
            one.telemetry.observe(MODEL, i * pace, row[None])
    seen, all_of_them = told.telemetry.report(MODEL), slowly.telemetry.report(MODEL)
    assert seen is not None and all_of_them is not None
    assert (seen.windows, all_of_them.windows) == (1 + TOGETHER * 22, 91)
    told.telemetry.close()
    assert told.telemetry.report(MODEL) == all_of_them, "the last ones at the end"


def test_the_columns_of_a_model_without_windows_are_watched(told: Told) -> None:
    flat = replace(release(), window=None, inputs=(TensorSpec("x", "FP32", (-1, 3)),))
    told.telemetry.watch(flat)
    rows = np.random.default_rng(7).normal(size=(200 * DRIFT.window, 3)).astype(np.float32)
    rows[120 * DRIFT.window :, 1] += 3.0
    for i in range(0, len(rows), DRIFT.window):
        told.telemetry.observe(MODEL, float(i), rows[i : i + DRIFT.window])
    ((_, alarm),) = told.alarms
    assert alarm.streams == ("x[1]",)


def test_rows_of_another_layout_are_none_of_its_streams(told: Told) -> None:
    told.telemetry.watch(release())
    for rows in (np.zeros((100, 3)), np.zeros(100), np.zeros((2, 3, 2))):
        told.telemetry.observe(MODEL, 0.0, rows)
    found = told.telemetry.report(MODEL)
    assert found is not None and found.windows == 0


def test_whoever_feels_writes_nothing_and_what_is_due_is_written_once(told: Told) -> None:
    told.telemetry.watch(release())
    rows = np.random.default_rng(8).normal(size=(KEEP_EVERY * DRIFT.window, 2))
    told.telemetry.observe(MODEL, 0.0, rows[1:])
    told.telemetry.write_down()
    assert not (told.folder / MODEL).exists(), "a window short"
    told.telemetry.observe(MODEL, SOON, rows[:1])
    assert not (told.folder / MODEL).exists()
    told.telemetry.write_down()
    first = (told.folder / MODEL).read_bytes()
    told.telemetry.write_down()
    assert (told.folder / MODEL).read_bytes() == first


def test_an_alarm_is_due_at_once(told: Told) -> None:
    told.telemetry.watch(release())
    told.feel(100, seed=1)
    rows = np.random.default_rng(3).normal(1.5, 1.0, (80, DRIFT.window, 2))
    for ts, window in enumerate(rows):
        before = (told.folder / MODEL).read_bytes()
        told.telemetry.observe(MODEL, float(ts), window)
        if told.alarms:
            break
        told.telemetry.write_down()
    assert told.alarms and ts % KEEP_EVERY != KEEP_EVERY - 1
    told.telemetry.write_down()
    assert (told.folder / MODEL).read_bytes() != before
