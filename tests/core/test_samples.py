"""Samples from the field: sealed in the spool, opened by the one job that lands them, and windows of a view."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from appliance import keys
from appliance.core import ingest_job
from appliance.core import state as core_state
from appliance.core.state import CoreFolder
from appliance.settings import CoreSettings
from core.consistency import problems
from core.features import field, views
from core.handoffs import LABELLED, Dataset, LakeFile, Landed
from core.ingest import samples as samples_room
from core.ingest import spool as spool_room
from core.ingest.interface import SourceError
from core.ingest.landing import ROWS_TOLD
from core.ingest.samples import Box, SampleFeed
from core.ingest.spool import Entry, Spool, origins
from core.lake import Lake
from core.project import Column, Contract, Model, ModelGates, Project, Rollout, Source, View
from sync.errors import Malformed
from sync.features import WindowSpec
from sync.names import DeviceId, ModelName, TenantId
from sync.samples import Batch, Sample, seal

TENANT, MODEL = TenantId("acme"), ModelName("motion")
ONE, TWO = DeviceId("watch-1"), DeviceId("watch-2")
WINDOW = WindowSpec(4, 4, 0.5, ("x", "y"), 1.0)
PRIVATE = keys.new_box_key()
PUBLIC = keys.box_public(PRIVATE)
TEXT = Column(type="string")
FIELD = Contract(
    columns={
        "prediction": TEXT, "device": TEXT, "entity": TEXT, "release": Column(type="int64"), "value": TEXT,
        "label": Column(type="string", nullable=True), "ts": Column(type="float64"), "arrived": Column(type="float64"),
        "x": Column(type="float64"), "y": Column(type="float32", max=1e6),
    }
)  # fmt: skip
ROWS = Contract(
    columns={"ts": Column(type="float64"), "who": TEXT, "what": TEXT, "x": Column(type="float32"),
             "y": Column(type="float32")}
)  # fmt: skip
PROJECT = Project(
    sources={
        "rows": Source(kind="files", path="*.csv", contract="rows", time="ts"),
        "field": Source(kind="samples", model=MODEL, contract="field", time="ts"),
    },
    contracts={"rows": ROWS, "field": FIELD},
    views={"v": View(source="rows", samples="field", entity="who", label="what", window=WINDOW)},
    models={
        MODEL: Model(
            view="v",
            fit=(0.0, 0.5),
            gate=(0.5, 1.0),
            gates=ModelGates(min_accuracy=0.5),
            rollout=Rollout(canary=(ONE,)),
        )
    },
)


def sample(name: str, ts: float, label: str | None = "rest", *, seed: float = 0.0, **more: object) -> Sample:
    """Its window counts from `seed`, so that every seed has another."""
    window = (seed + np.arange(8, dtype="<f4")).tobytes()
    made = Sample(name, "left", ts, ts + 0.1, 1, (4, 2), window, "walk", (0.9, 0.1), label)
    return replace(made, **more)


class Field:
    """A spool, a lake, and the position of the last commit."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "samples")
        self.lake = Lake(folder / "lake", base64.b64encode, base64.b64decode)
        self.position: dict[str, str] = {}
        self.files: tuple[LakeFile, ...] = ()
        self.numbers: dict[DeviceId, int] = {}

    def send(
        self, *samples: Sample, device: DeviceId = ONE, channels: tuple[str, ...] = ("x", "y"), **lies: str
    ) -> Entry:
        """One batch, as the device seals it."""
        self.numbers[device] = self.numbers.get(device, 0) + 1
        batch = Batch(lies.get("model", str(MODEL)), channels, samples)
        return self.put(seal(batch, TENANT, DeviceId(lies.get("sealed_by", device)), PUBLIC), device)

    def put(self, sealed: bytes, device: DeviceId = ONE) -> Entry:
        entry = Entry(device, 1, self.numbers.setdefault(device, 1))
        self.spool.put(MODEL, entry, sealed)
        return entry

    def run(self, project: Project = PROJECT) -> Landed:
        box = Box(TENANT, self.spool, PRIVATE, 1)
        landed = ingest_job.run(project, "field", Path("."), self.lake, self.position, lambda _done: None, lambda: box)
        self.position, self.files = {**self.position, **landed.position}, self.files + landed.files
        return landed

    def table(self, columns: list[str]) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = self.lake.read("field", [f.name for f in self.files], columns).to_pylist()
        return rows

    def seen(self) -> field.Seen:
        view = PROJECT.views["v"]
        columns = views.sample_columns(view, PROJECT.sources["field"], FIELD)
        return field.windows(view, self.lake.read("field", [f.name for f in self.files], columns), "ts")


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Field]:
    return Field(tmp_path)


def test_the_project_of_these_tests_is_without_fault() -> None:
    assert problems(PROJECT) == []


# --- the spool --------------------------------------------------------------------------------------------------


def test_batches_come_back_in_order_of_device_epoch_and_number(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    entries = [Entry(TWO, 1, 3), Entry(ONE, 2, 1), Entry(ONE, 1, 10), Entry(ONE, 1, 9)]
    for entry in entries:
        spool.put(MODEL, entry, entry.origin.encode())
    spool.put(ModelName("other"), Entry(ONE, 1, 11), b"")
    (tmp_path / MODEL / ONE / "1-000000000012.tmp").write_bytes(b"half")
    assert spool.entries(MODEL) == [Entry(ONE, 1, 9), Entry(ONE, 1, 10), Entry(ONE, 2, 1), Entry(TWO, 1, 3)]
    assert spool.get(MODEL, Entry(TWO, 1, 3)) == b"watch-2/1"
    spool.drop(MODEL, Entry(TWO, 1, 3))
    spool.drop(MODEL, Entry(TWO, 1, 3))
    assert Entry(TWO, 1, 3) not in spool.entries(MODEL) and spool.entries(ModelName("none")) == []
    assert Spool(tmp_path).entries(MODEL)[0].order < Entry(ONE, 2, 1).order


@pytest.mark.parametrize("entry", [Entry(ONE, 1, 10**12), Entry(ONE, 10**6, 1), Entry(ONE, 1, 0)], ids=str)
def test_a_number_that_no_name_holds_is_malformed(tmp_path: Path, entry: Entry) -> None:
    with pytest.raises(Malformed, match="out of range"):
        Spool(tmp_path).put(MODEL, entry, b"x")


def test_a_batch_is_never_seen_before_an_older_one(tmp_path: Path) -> None:
    """Between two looks at a folder a newer file may come to show while an older one was missed."""

    class Racing(Spool):
        looks: list[list[Entry]]

        def _look(self, model: ModelName) -> list[Entry]:
            return self.looks.pop(0)

    spool = Racing(tmp_path)
    spool.looks = [[Entry(ONE, 1, 1)], [Entry(ONE, 1, 3), Entry(ONE, 1, 1)]]
    assert spool.entries(MODEL) == [Entry(ONE, 1, 1)]
    spool.looks = [[Entry(ONE, 1, 3)], [Entry(ONE, 1, n) for n in (1, 2, 3)]]
    assert [e.n for e in spool.entries(MODEL)] == [1, 2, 3]


# --- landing ----------------------------------------------------------------------------------------------------


def test_a_sample_lands_as_the_rows_of_its_window(road: Field) -> None:
    road.send(sample("p1", 100.0, "rest"), sample("p2", 102.0, None, seed=50.0), channels=("y", "x"))
    landed = road.run()
    assert (landed.rows, landed.rejections) == (8, ())
    rows = road.table([*FIELD.columns, "batch"])
    assert [r["ts"] for r in rows[:4]] == [98.5, 99.0, 99.5, 100.0]
    assert [r["y"] for r in rows[:4]] == [0, 2, 4, 6] and [r["x"] for r in rows[:4]] == [1, 3, 5, 7]
    told = {k: rows[0][k] for k in ("prediction", "device", "entity", "release", "value", "label", "arrived")}
    assert told == {"prediction": "p1", "device": ONE, "entity": "left", "release": 1, "value": "walk", "label": "rest",
                    "arrived": 100.1}  # fmt: skip
    assert rows[0]["batch"] == 10**12 + 1
    assert landed.position == {"watch-1/1": "1", LABELLED: "1"}, "of two samples one is labelled"


def test_an_answer_without_a_value_needs_a_column_that_may_be_empty(road: Field) -> None:
    road.send(sample("p1", 100.0, value=None))
    landed = road.run()
    assert landed.rows == 0 and {r.reason for r in landed.rejections} == {"null"} and len(landed.rejections) == 4


def test_a_rerun_lands_what_is_new_and_counts_on(road: Field) -> None:
    road.send(sample("p1", 100.0))
    road.send(sample("p9", 100.0), device=TWO)
    assert road.run().rows == 8
    assert road.run().rows == 0
    road.send(sample("p2", 102.0), sample("p3", 104.0))
    landed = road.run()
    assert landed.rows == 8
    assert landed.position == {"watch-1/1": "2", LABELLED: "4"}
    assert origins(road.position) == {(ONE, 1): 2, (TWO, 1): 1}


def test_a_batch_that_does_not_open_or_fit_is_turned_away_and_the_next_lands(road: Field) -> None:
    road.send(sample("p1", 1.0), sealed_by="watch-2")
    road.send(sample("p1", 1.0), model="other")
    road.send(replace(sample("p1", 1.0), shape=(4, 1), window=bytes(16)), channels=("x",))
    road.send(replace(sample("p1", 1.0), shape=(3, 2), window=bytes(24)))
    road.send(replace(sample("p1", 1.0), release=2**63))
    road.numbers[ONE] += 1
    road.put(b"no batch")
    road.send(sample("p7", 7.0))
    landed = road.run()
    assert [r.reason for r in landed.rejections] == ["damaged", "model", "columns", "shape", "type", "damaged"]
    assert all(r.text.startswith("batch ") and r.row == -1 for r in landed.rejections)
    assert landed.rows == 4 and landed.position["watch-1/1"] == "7"
    assert road.run().rejections == (), "told once"


def test_a_refused_last_batch_is_done_with_too(road: Field) -> None:
    road.put(b"no batch")
    assert origins(road.run().position) == {(ONE, 1): 1}
    assert road.run().rejections == ()


def test_rows_that_break_the_contract_are_turned_away_alone(road: Field) -> None:
    road.send(sample("p1", 100.0, seed=2e6), sample("p2", 102.0), sample("p3", float("nan")))
    landed = road.run()
    assert {r.reason for r in landed.rejections} == {"range", "time"} and landed.rows == 4


def test_what_cannot_be_read_fails_the_run_and_loses_nothing(road: Field) -> None:
    entry = road.send(sample("p1", 100.0))
    (path,) = (road.spool._folder / MODEL / ONE).iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(SourceError, match=r"batch 1 of watch-1 cannot be read"):
        road.run()
    path.rmdir()
    road.numbers.clear()
    assert road.send(sample("p1", 100.0)) == entry and road.run().rows == 4


def test_samples_without_their_key_are_not_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="only the core"):
        ingest_job.run(PROJECT, "field", tmp_path, Lake(tmp_path, bytes, bytes), {}, lambda _done: None)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_in_the_spool_give_rows_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    made = Field(tmp_path_factory.mktemp("road"))
    made.put(data)
    assert len(made.run().rejections) == 1


# --- windows of a view ------------------------------------------------------------------------------------------


def test_the_newest_label_of_a_prediction_wins(road: Field) -> None:
    road.send(sample("p1", 100.0, "rest"), sample("p2", 102.0, "rest", seed=10), sample("p3", 104.0, None, seed=20))
    road.run()
    road.send(sample("p2", 102.0, "walk", seed=10), sample("p1", 100.0, None))
    road.send(sample("p1", 100.0, "run", seed=30), device=TWO)
    road.run()
    seen = road.seen()
    told = dict(zip(zip(seen.stream.tolist(), seen.end.tolist(), strict=True), seen.label.tolist(), strict=True))
    assert told == {("watch-1/left", 100.0): "rest", ("watch-1/left", 102.0): "walk", ("watch-2/left", 100.0): "run"}
    np.testing.assert_array_equal(seen.x[0].ravel(), np.arange(8))


def test_equal_windows_count_once_and_those_of_the_rows_not_at_all(road: Field) -> None:
    road.send(*(sample(f"p{i}", 100.0 + 2 * i, "rest", seed=float(i % 3)) for i in range(9)))
    road.run()
    assert sorted(road.seen().end.tolist()) == [112.0, 114.0, 116.0], "the latest of each"
    columns = views.sample_columns(PROJECT.views["v"], PROJECT.sources["field"], FIELD)
    table = road.lake.read("field", [f.name for f in road.files], columns)
    known = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert len(field.windows(PROJECT.views["v"], table, "ts", [known]).x) == 2


def test_samples_with_a_missing_row_or_a_hole_are_left_out(road: Field) -> None:
    holed = np.arange(8, dtype="<f4")
    holed[3] = np.inf
    road.send(
        sample("p1", 100.0), sample("p2", 102.0, seed=10, window=holed.tobytes()), sample("p3", 86_401.0, seed=20)
    )
    road.run()
    assert len(road.files) == 2, "the last one spans midnight"
    assert sorted(road.seen().end.tolist()) == [100.0, 86_401.0]


def test_a_gate_window_that_shares_readings_with_a_fit_window_is_left_out(road: Field) -> None:
    """Windows of 4 rows, 0.5 s apart, every 0.5 s: three neighbours share readings with the last one of `fit`."""
    road.send(*(sample(f"p{i}", 100.0 + 0.5 * i, seed=10.0 * i) for i in range(20)))
    road.send(*(sample(f"q{i}", 100.0 + 2 * i, seed=500.0 + 10 * i) for i in range(4)), device=TWO)
    road.run()
    fit, gate = field.split(road.seen(), ((0.0, 0.5), (0.5, 1.0)), 1.5, 0.5)
    assert (fit.stream == "watch-1/left").sum() == 10 and (gate.stream == "watch-1/left").sum() == 7
    assert (fit.stream == "watch-2/left").sum() == 2 and (gate.stream == "watch-2/left").sum() == 2
    back = field.split(road.seen(), ((0.5, 1.0), (0.0, 0.5)), 1.5, 0.5)
    assert (back[1].stream == "watch-1/left").sum() == 7 and back[1].end.max() < 104.5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a/l", "a/r", "b/l"]), st.integers(0, 400), st.sampled_from("xyz")), max_size=60
    ),
    st.tuples(st.floats(0.1, 0.6), st.floats(0.6, 1.0)),
)
def test_fit_and_gate_never_share_a_reading(moments: list[tuple[str, int, str]], cuts: tuple[float, float]) -> None:
    stream, label = (np.array([m[i] for m in moments], np.str_) for i in (0, 2))
    end = np.array([m[1] / 4 for m in moments], np.float64)
    order = np.lexsort((end, stream))
    seen = field.Seen(np.zeros((len(moments), 4, 2), np.float32), label[order], stream[order], end[order])
    fit, gate = field.split(seen, ((0.0, cuts[0]), cuts), 1.5, 0.5)
    for name in set(stream.tolist()):
        ours, theirs = fit.end[fit.stream == name], gate.end[gate.stream == name]
        assert all(abs(a - b) > 1.5 for a in ours for b in theirs)


def test_what_was_done_one_after_the_other_is_both_learned_and_judged() -> None:
    """By time alone the last label would only be judged."""
    count = 40
    label = np.repeat(["walk", "run", "rest", "sit"], count // 4)
    end = 10.0 * np.arange(count)
    seen = field.Seen(np.zeros((count, 4, 2), np.float32), label, np.full(count, "a/l"), end)
    fit, gate = field.split(seen, ((0.0, 0.8), (0.8, 1.0)), 1.5, 0.5)
    assert set(fit.label) == set(gate.label) == set(label)
    assert (len(fit.label), len(gate.label)) == (32, 8)


def test_only_samples_of_batches_that_landed_are_set_aside(road: Field) -> None:
    road.send(*(sample(f"p{i}", 100.0 + i) for i in range(8)))
    road.send(sample("q", 200.0))
    feed = SampleFeed(Box(TENANT, road.spool, PRIVATE, 1), MODEL, FIELD, "ts", WINDOW)
    assert len(list(feed.units({}))) == 2
    assert [one.id for _, one in feed.taken({"watch-1/1": "1"})] == ["p0", "p2", "p4", "p6"], "q is for the next run"
    assert feed.taken({}) == []


# --- data sets --------------------------------------------------------------------------------------------------


def rows_table() -> object:
    import pyarrow as pa

    parts = []
    for who, what in (("a", "rest"), ("b", "walk")):
        ts = np.arange(32) * 0.5
        base = 1000.0 * (1 + ord(who))
        parts.append(pa.table({"ts": ts, "who": [who] * 32, "what": [what] * 32, "x": (base + ts).astype(np.float32),
                               "y": (base - ts).astype(np.float32)}))  # fmt: skip
    return pa.concat_tables(parts)


def dataset(road: Field, use: str = "add") -> Dataset:
    view = PROJECT.views["v"]
    columns = views.sample_columns(view, PROJECT.sources["field"], FIELD)
    table = road.lake.read("field", [f.name for f in road.files], columns)
    model = replace(PROJECT.models[MODEL], samples=use)
    given_ = None if use == "none" else (table, "ts")
    return views.build(view, "hash", "snapshot", rows_table(), model, "ts", given_)


def streams(road: Field) -> None:
    for device in (ONE, TWO):
        for label in ("rest", "walk"):
            seed = 1000.0 * (1 + (device == TWO) + 2 * (label == "walk"))
            road.send(
                *(sample(f"{device}{label}{i}", 100 + 2.0 * i, label, seed=seed + 10 * i, entity=label)
                  for i in range(8)),
                device=device,
            )  # fmt: skip
    road.run()


def test_samples_are_added_to_the_rows_or_stand_in_for_them(road: Field) -> None:
    streams(road)
    none, add, only = (dataset(road, use) for use in ("none", "add", "only"))
    assert len(none.fit.x) == 8 and set(none.fit.entity.tolist()) == {"a", "b"}
    assert len(add.fit.x) == 8 + 16 and len(add.gate.x) == 8 + 16
    np.testing.assert_array_equal(add.fit.x[:8], none.fit.x)
    assert set(only.fit.entity.tolist()) == {f"{d}/{e}" for d in (ONE, TWO) for e in ("rest", "walk")}
    assert len(only.fit.x) == 16 and len(only.gate.x) == 24, "rows and samples judge"
    assert len({d.digest for d in (none, add, only)}) == 3 and dataset(road, "add").digest == add.digest
    assert add.classes == ("rest", "walk")


def test_samples_to_calibrate_by_share_no_reading_with_others(road: Field) -> None:
    road.send(*(sample(f"p{i}", 100.0 + 0.5 * i, seed=10.0 * i) for i in range(40)))
    road.run()
    fit, gate, held = field.split(road.seen(), ((0.0, 0.4), (0.7, 1.0), (0.4, 0.7)), 1.5, 0.5)
    assert (len(fit.end), len(gate.end), len(held.end)) == (16, 12, 6), "three at either end are left out"
    for other in (fit, gate):
        assert np.abs(held.end[:, None] - other.end).min() > 1.5


def test_a_class_that_no_row_has_is_left_out_and_counted(road: Field) -> None:
    streams(road)
    road.run()
    before = dataset(road)
    road.send(sample("odd", 900.0, "wlak", seed=9000), device=TWO)
    road.run()
    after = dataset(road)
    assert after.digest == before.digest, "one device must not end every training to come"
    assert after.learned.strange == {TWO: 1} and before.learned.strange == {}
    assert sum(after.learned.fit.values()) == len(after.fit.x) - len(dataset(road, "none").fit.x)


def test_texts_that_would_fill_the_memory_of_every_training_are_turned_away(road: Field) -> None:
    long = "x" * 5000
    road.send(sample("p1", 100.0), sample(long, 102.0))
    road.send(sample("p1", 100.0, entity=long))
    road.send(sample("p1", 100.0, label=long))
    road.send(sample("p1", 100.0, value=long))
    road.send(sample("p2", 102.0, entity="x" * samples_room.WORD))
    landed = road.run()
    assert [r.reason for r in landed.rejections] == ["type"] * 4 and landed.rows == 4


def test_a_device_that_fills_days_without_end_gets_a_few_in_each_run(road: Field) -> None:
    road.send(sample("p0", 100.0), *(sample(f"q{i}", 86_400.0 * i) for i in range(1, samples_room.DAYS + 2)))
    for i in range(samples_room.DAYS + 5):
        road.send(sample(f"p{i}", 86_400.0 * i + 100.0))
    road.send(sample("other", 100.0), device=TWO)
    landed = road.run()
    assert [r.reason for r in landed.rejections] == ["time"] and len(landed.files) == samples_room.DAYS
    assert origins(landed.position) == {(ONE, 1): 1 + samples_room.DAYS, (TWO, 1): 1}
    assert len(road.run().files) == 5, "a device that was away for months has the rest taken in by the next run"


def test_what_is_turned_away_of_one_device_or_of_all_fits_one_message(road: Field) -> None:
    for device in (ONE, TWO, DeviceId("watch-3")):
        for batch in range(6):
            road.send(*(sample(f"p{batch}-{i}", 100.0, seed=2e6) for i in range(100)), device=device)
    landed = road.run()
    told = [r.origin for r in landed.rejections]
    assert landed.rows == 0 and {told.count(origin) for origin in set(told)} == {ROWS_TOLD}
    assert landed.rejections[-1].text.endswith("1400 more rows of it were turned away after this one")


def test_any_number_of_streams_is_split_at_once() -> None:
    count = 20_000
    seen = field.Seen(
        np.zeros((count, 4, 2), np.float32), np.full(count, "rest"),
        np.array([f"watch-1/{i}" for i in range(count)]), np.arange(count, dtype=np.float64),
    )  # fmt: skip
    fit, gate = field.split(seen, ((0.0, 1.0), (0.0, 1.0)), 1.5, 0.5)
    assert len(fit.x) == count and len(gate.x) == 0
    assert field.by_device(fit) == {ONE: count}


def test_learning_from_samples_alone_needs_them_of_every_class(road: Field) -> None:
    road.send(*(sample(f"p{i}", 100.0 + 2 * i, "rest", seed=10.0 * i) for i in range(8)))
    road.run()
    assert len(dataset(road).fit.x) == 12
    with pytest.raises(views.TooFewRows, match="class walk in `fit`"):
        dataset(road, "only")


def test_the_view_hash_covers_the_samples_where_they_are_used() -> None:
    view, rows, of = PROJECT.views["v"], PROJECT.sources["rows"], PROJECT.sources["field"]
    plain = views.view_hash(view, rows, ROWS)
    assert plain == views.view_hash(replace(view, samples=None), rows, ROWS)
    used = views.view_hash(view, rows, ROWS, (of, FIELD))
    stricter = Contract(columns={**FIELD.columns, "x": Column(type="float64", max=5)})
    other = views.view_hash(view, rows, ROWS, (of, stricter))
    assert len({plain, used, other}) == 3
    with pytest.raises(views.ViewError, match="'label' is not in contract 'field'"):
        views.sample_columns(view, of, Contract(columns={k: c for k, c in FIELD.columns.items() if k != "label"}))


# --- the tenant's key -------------------------------------------------------------------------------------------


def test_an_older_installation_gets_the_key_that_samples_are_sealed_to(tmp_path: Path) -> None:
    folder = CoreFolder(tmp_path, TENANT)
    tenant_keys = core_state.open_keys(folder)
    core_state.prepare(folder, CoreSettings(), tenant_keys, 1.79e9)
    secret = folder.home / "keys" / core_state.SAMPLES_KEY
    before = {f.name: f.read_bytes() for f in secret.parent.iterdir()}
    secret.unlink()
    core_state.prepare(folder, CoreSettings(), tenant_keys, 1.79e9)
    public = core_state.tenant_key(folder, tenant_keys)
    private = core_state.samples_key(folder, tenant_keys)
    assert base64.b64decode(public) == keys.box_public(private) and len(private) == 32
    assert private not in secret.read_bytes() and secret.stat().st_mode & 0o077 == 0
    core_state.prepare(folder, CoreSettings(), tenant_keys, 1.79e9)
    assert core_state.tenant_key(folder, tenant_keys) == public
    assert {n: b for n, b in before.items() if n != "samples"} == {
        f.name: f.read_bytes() for f in secret.parent.iterdir() if f.name != "samples"
    }
    assert spool_room.Spool(folder.samples).entries(MODEL) == []
