"""Fault 24: a column is renamed under a running device, or says its numbers in another unit. Of the first nothing is
predicted from what is left, and it is told; when the name is right again, so are the predictions. A unit stands in no
message: the device finds it by its numbers, and so does the core's contract."""

from __future__ import annotations

import json
from pathlib import Path
from secrets import token_bytes

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from core.ingest.contract import check
from core.project import Column, Contract
from edge.kept import Kept
from edge.telemetry import Telemetry
from sync.manifest import Drift
from sync.reports import DriftReport
from tests.edge import graphs
from tests.edge.bound import Box
from tests.edge.graphs import TENANT

DRIFT = Drift(window=20, baseline=80, alarm=1000.0, turns=8)


def reading(ts: float, *names: str) -> bytes:
    return json.dumps({"ts": ts} | dict.fromkeys(names, 1.0)).encode()


def test_a_renamed_column_is_refused_and_named_and_comes_back(local: Box) -> None:
    for ts in range(4):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    assert len(local.predictions()) == 1
    for ts in range(4, 14):
        local.send(float(ts), payload=reading(ts, "x", "vertical"))
    assert len(local.predictions()) == 1, "no window is filled up with what is not there"
    assert len(local.errors()) == 10 and all("'y'" in error["text"] for error in local.errors())
    for ts in range(14, 22):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    after = local.predictions()[1:]
    assert after and all(p.quality in ("ok", "warming") for p in after)
    assert after[-1].quality == "ok"


def test_a_message_is_taken_whole_or_not_at_all(local: Box) -> None:
    batch = [{"ts": 0.0, "x": 1.0, "y": 1.0}, {"ts": 1.0, "x": 1.0, "vertical": 1.0}]
    local.send(0.0, payload=json.dumps(batch).encode())
    for ts in range(2, 5):
        local.send(float(ts), payload=reading(ts, "x", "y"))
    assert len(local.errors()) == 1
    assert [p.quality for p in local.predictions()] != ["ok"], "the first half of the batch is in no window"


def test_a_changed_unit_is_found_on_the_device_and_the_column_is_named(tmp_path: Path) -> None:
    """Accelerations in g become such in m/s²: the numbers of one column are another's, and an alarm names it."""
    alarms: list[DriftReport] = []
    kept = Kept(tmp_path / "drift", TENANT, bytes(32), "drift", token_bytes, lambda code, text: None)
    telemetry = Telemetry(kept, lambda model, found: alarms.append(found))
    telemetry.watch(replace(graphs.manifest(1), drift=DRIFT))
    chance = np.random.default_rng(7)

    def feel(windows: int, unit: float) -> None:
        rows = chance.normal(0.0, 1.0, (windows * DRIFT.window, 2)) * (unit, 1.0)
        telemetry.observe(graphs.manifest(1).model, 0.0, rows)
        telemetry.write_down()

    feel(DRIFT.baseline + 120, 1.0)
    assert not alarms, "the same sensor, the same unit"
    feel(120, 9.80665)
    (alarm,) = alarms
    assert alarm.status == "alarm" and set(alarm.streams) == {"x"}
    telemetry.close()


def test_a_changed_unit_is_turned_away_by_the_contract_and_the_column_is_named() -> None:
    contract = Contract(columns={"ts": Column(type="float64"), "x": Column(type="float64", min=-4.0, max=4.0)})
    good = [-3.9, 0.0, 2.5]
    for unit, turned_away in ((1.0, 0), (9.80665, 2)):
        table = pa.table({"ts": [1.8e9 + i for i in range(3)], "x": [value * unit for value in good]})
        found = check(table, contract, "ts", "a.csv")
        assert [r.reason for r in found.rejections] == ["range"] * turned_away
        assert all(r.text.startswith("x = ") for r in found.rejections)
