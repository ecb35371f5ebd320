"""A table from its file to a model that learned with it and is served with it: both sides see the same vectors."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from appliance.core.ingest_job import run as ingest
from appliance.core.prover import bless
from appliance.core.training_job import run as train
from core.features import views
from core.features.lookups import Joined
from core.handoffs import Candidate, LakeFile
from core.ingest.interface import SourceError
from core.ingest.lookups import read
from core.lake import Lake
from core.project import Project, accepted
from core.release.export import feeds
from core.release.scorecard import open_session
from edge.answers import conclude
from edge.lookups import Lookups
from edge.runtime import load
from sync import codec, lookups
from sync.chunks import digest
from sync.errors import Unfit
from sync.lookups import Table
from sync.names import Digest, LookupName, ModelName
from sync.windows import cut
from tests.edge import graphs

HALLS, MODEL = LookupName("halls"), ModelName("hum")
ENTITIES = 6
SOURCES = {
    "sources": {"toy": {"kind": "files", "path": "in/*.csv", "contract": "toy", "time": "ts"}},
    "contracts": {"toy": {"columns": {
        "ts": {"type": "float64"}, "x": {"type": "float32"}, "who": {"type": "string"}, "what": {"type": "string"},
    }}},
    "views": {"toy": {
        "source": "toy", "entity": "who", "label": "what", "lookups": ["halls"],
        "window": {"size": 20, "step": 10, "period": 0.1, "channels": ["x"]},
    }},
    "lookups": {"halls": {
        "path": "halls.csv", "key": "who", "columns": {"floor": {"min": 0, "max": 9}, "area": {}}, "ttl_hours": 24,
    }},
    "models": {"hum": {
        "view": "toy", "training": {"epochs": 8, "batch": 16}, "gates": {"min_accuracy": 0.9, "min_rows": 10},
        "rollout": {"canary": []},
    }},
}  # fmt: skip
PROJECT = msgspec.convert(SOURCES, Project, dec_hook=lambda kind, value: kind(value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that are all the same noise: only the hall tells the class."""
    made = tmp_path_factory.mktemp("halls")
    (made / "in").mkdir()
    rng = np.random.default_rng(5)
    for k in range(ENTITIES):
        rows = [f"{i / 10:.1f},{rng.normal():.5f},watch-{k},{('quiet', 'loud')[k % 2]}" for i in range(300)]
        (made / "in" / f"{k}.csv").write_text("\n".join(["ts,x,who,what", *rows]) + "\n")
    halls = [f"watch-{k},{k % 2},{10 + k}.5" for k in range(ENTITIES)]
    (made / "halls.csv").write_text("\n".join(["who,floor,area", *halls]) + "\n")
    return made


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return read(HALLS, PROJECT.lookups[HALLS], folder)


@pytest.fixture(scope="module")
def lake(folder: Path) -> Lake:
    return Lake(folder / "lake", base64.b64encode, base64.b64decode)


@pytest.fixture(scope="module")
def files(folder: Path, lake: Lake) -> tuple[LakeFile, ...]:
    return ingest(PROJECT, "toy", folder, lake, {}, lambda done: None).files


@pytest.fixture(scope="module")
def made(lake: Lake, files: tuple[LakeFile, ...], table: Table) -> tuple[Candidate, dict[Digest, bytes]]:
    kept: dict[Digest, bytes] = {}

    def put(data: bytes) -> Digest:
        kept[digest(data)] = data
        return digest(data)

    candidate = train(PROJECT, MODEL, lake, files, put, bless, lambda stage, done: None, {}, tables={HALLS: [table]})
    return candidate, kept


def test_a_model_learns_from_its_table_and_its_graph_takes_it_as_an_input(
    made: tuple[Candidate, dict[Digest, bytes]],
) -> None:
    candidate, _ = made
    assert candidate.accepted, candidate.verdicts
    score = next(s for s in candidate.scorecard.scores if s.precision == "fp32")
    assert score.accuracy == 1.0, "which the noise alone could never tell"
    assert [(i.name, i.shape) for i in candidate.inputs] == [("window", (-1, 20, 1)), ("halls", (-1, 2))]
    assert candidate.window.channels == ("x",) and candidate.lookups == accepted(PROJECT, PROJECT.views["toy"])
    assert codec.decode(Candidate, codec.encode(candidate)) == candidate


def test_the_served_vectors_are_the_ones_that_training_saw(
    made: tuple[Candidate, dict[Digest, bytes]], lake: Lake, files: tuple[LakeFile, ...], table: Table
) -> None:
    """Zero skew: for every window of the gate, inputs equal bit by bit, and the answer is the entity's class."""
    candidate, kept = made
    view = PROJECT.views["toy"]
    rows = lake.read("toy", (file.name for file in files), ("ts", "who", "what", "x"))
    joined = Joined(accepted(PROJECT, view), {HALLS: [table]})
    dataset = views.build(view, "v", "s", rows, PROJECT.models[MODEL], "ts", joined=joined)
    session = load(kept[candidate.artifacts[-1].plain])
    manifest = msgspec.structs.replace(graphs.manifest(), lookups=candidate.lookups, classes=candidate.classes)
    device = Lookups()
    device.put(lookups.decode(lookups.encode(table)), 0.0)
    trained = feeds(open_session(kept[candidate.artifacts[-1].plain]), dataset.gate.x)
    for i, entity in enumerate(dataset.gate.entity.tolist()):
        served, stale, _ = device.question(session, manifest, entity, trained["window"][i])
        assert not stale and {n: a.tobytes() for n, a in served.items()} == {
            name: trained[name][i : i + 1].tobytes() for name in ("window", "halls")
        }
        value, _ = conclude(session.run(served), candidate.classes)
        assert value == ("quiet", "loud")[int(entity.rpartition("-")[2]) % 2]


def test_windows_of_the_kernel_and_rows_of_the_table_make_the_dataset(
    lake: Lake, files: tuple[LakeFile, ...], table: Table
) -> None:
    """The other way round: what a device would cut and look up from the raw rows is in the dataset."""
    view = PROJECT.views["toy"]
    rows = lake.read("toy", (file.name for file in files), ("ts", "who", "what", "x"))
    joined = Joined(accepted(PROJECT, view), {HALLS: [table]})
    dataset = views.build(view, "v", "s", rows, PROJECT.models[MODEL], "ts", joined=joined)
    known = {window.tobytes() for window in dataset.fit.x}
    mine = rows.to_pydict()
    of = [i for i, who in enumerate(mine["who"]) if who == "watch-3"]
    ts, x = np.array([mine["ts"][i] for i in of]), np.array([[mine["x"][i]] for i in of], np.float32)
    row = lookups.Index(table).vector("watch-3", joined.accepted[0])
    assert row is not None
    for window in cut(view.window, ts, x)[:10]:
        assert np.concatenate((window.values, np.repeat(row, 20, axis=0)), axis=1).tobytes() in known


def test_each_window_gets_the_version_that_held_when_it_ended() -> None:
    one = accepted(PROJECT, PROJECT.views["toy"])
    old = lookups.table(HALLS, ("floor", "area"), {"a": (1.0, 1.0)}, 0.0)
    new = lookups.table(HALLS, ("floor", "area"), {"a": (2.0, 2.0), "b": (3.0, 3.0)}, 100.0)
    joined = Joined(one, {HALLS: [old, new]})
    x = np.zeros((5, 2, 1), np.float32)
    wide, kept = joined.widen(x, ["a", "a", "a", "b", "b"], [-5.0, 99.9, 100.0, 99.0, 101.0])
    assert kept.tolist() == [0, 1, 2, 4], "b had no row before, and a device would have abstained"
    assert wide[:, :, 1].tolist() == [[1.0, 1.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    assert joined.snapshot("s") != Joined(one, {HALLS: [old]}).snapshot("s") != "s" == Joined((), {}).snapshot("s")


def test_versions_that_the_declaration_of_now_does_not_take_are_left_out() -> None:
    """Else a table that got another column, or a narrower range, could never be learned with again."""
    one = accepted(PROJECT, PROJECT.views["toy"])
    other = lookups.table(HALLS, ("floor",), {"a": (1.0,)}, 0.0)
    beyond = lookups.table(HALLS, ("floor", "area"), {"a": (1e6, 1.0)}, 50.0)
    new = lookups.table(HALLS, ("floor", "area"), {"a": (2.0, 2.0)}, 100.0)
    newer = lookups.table(HALLS, ("floor", "area"), {"a": (3.0, 3.0)}, 200.0)
    joined = Joined(one, {HALLS: [other, beyond, new, newer]})
    assert [joined.vector("a", at) for at in (10.0, 60.0, 150.0)] == [pytest.approx([2.0, 2.0])] * 3
    assert joined.vector("a", 200.0) == pytest.approx([3.0, 3.0])
    with pytest.raises(Unfit, match="halls has floor; halls takes floor, area"):
        Joined(one, {HALLS: [new, other]})


BAD: dict[str, tuple[str, str]] = {
    "no such file": ("", "cannot be read"),
    "no such column": ("who,floor\na,1\n", "no column area"),
    "a key twice": ("who,floor,area\na,1,1\na,2,2\n", "more than one row for a"),
    "no key": ("who,floor,area\n,1,1\n", "row 1 has no key"),
    "no number": ("who,floor,area\na,one,1\n", "floor of 'a' is 'one', no number"),
    "not finite": ("who,floor,area\na,nan,1\n", "no finite number"),
    "beyond": ("who,floor,area\na,10,1\n", "floor of 'a' is 10, allowed is"),
    "too large": ("who,floor,area\na,1,1e39\n", "32 bits"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_file_that_does_not_keep_what_was_declared_is_refused_whole(tmp_path: Path, bad: str) -> None:
    text, says = BAD[bad]
    if text:
        (tmp_path / "halls.csv").write_text(text)
    with pytest.raises(SourceError, match=says):
        read(HALLS, PROJECT.lookups[HALLS], tmp_path)


def test_a_table_may_come_as_parquet_and_keys_stay_text(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"who": ["007", "8"], "floor": [1, 2], "area": [1.5, 2.5]}), tmp_path / "halls.parquet")
    (tmp_path / "halls.csv").write_text("area,who,floor\n1.5,007,1\n2.5,8,2\n")
    source = PROJECT.lookups[HALLS]
    columnar: Any = msgspec.structs.replace(source, path="halls.parquet")
    assert read(HALLS, columnar, tmp_path) == read(HALLS, source, tmp_path)
    assert read(HALLS, source, tmp_path).keys == ("007", "8")
