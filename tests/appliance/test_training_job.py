"""The two jobs, end to end on real files: CSV to lake, lake to a judged candidate whose files are in the store."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from appliance.ingest_job import run as ingest
from appliance.training_job import run as train
from core.features.views import TooFewRows
from core.handoffs import Candidate, Landed, Verdict
from core.lake import Lake
from core.project import Project, UnknownPart
from sync import codec, golden
from sync.manifest import Precision, Profile
from sync.names import Digest, ModelName

MODEL = ModelName("shake")
PROJECT = msgspec.convert(
    {
        "sources": {"toy": {"kind": "files", "path": "in/*.csv", "contract": "toy", "time": "ts"}},
        "contracts": {
            "toy": {
                "columns": {
                    "ts": {"type": "float64"},
                    "x": {"type": "float32", "min": -100, "max": 100},
                    "who": {"type": "string"},
                    "what": {"type": "string", "values": ["still", "shaken"]},
                }
            }
        },
        "views": {
            "toy": {
                "source": "toy",
                "entity": "who",
                "label": "what",
                "window": {"size": 20, "step": 10, "period": 0.1, "channels": ["x"]},
            }
        },
        "models": {
            "shake": {
                "view": "toy",
                "training": {"epochs": 8, "batch": 16},
                "gates": {"min_accuracy": 0.9, "min_rows": 10},
                "rollout": {"canary": []},
            }
        },
    },
    Project,
)


class Store:
    """Keeps what it is given, by digest, and what it was asked to bless."""

    def __init__(self) -> None:
        self.kept: dict[Digest, bytes] = {}
        self.blessed: list[Precision] = []
        self.stages: list[tuple[str, float]] = []

    def put(self, data: bytes) -> Digest:
        name = Digest(hashlib.sha256(data).hexdigest())
        self.kept[name] = data
        return name

    def bless(self, model: bytes, vectors: bytes, precision: Precision, profile: Profile) -> Verdict:
        assert precision in golden.decode(vectors).expected and profile.p99_ms > 0 and model
        self.blessed.append(precision)
        return Verdict("G8", "pass", "fine")


def write_recordings(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(5)
    for k in range(6):
        what = "shaken" if k % 2 else "still"
        lines = ["ts,x,who,what"]
        for i in range(300):
            x = (5 * math.sin(i * 1.3) if k % 2 else 0.0) + rng.normal(0, 0.3)
            lines.append(f"{i / 10:.1f},{x:.5f},watch-{k},{what}")
        (folder / f"{k}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    write_recordings(tmp_path / "in")
    return Lake(tmp_path / "lake", base64.b64encode, base64.b64decode)


@pytest.fixture
def landed(tmp_path: Path, lake: Lake) -> Landed:
    return ingest(PROJECT, "toy", tmp_path, lake, {}, lambda _done: None)


def run(project: Project, lake: Lake, landed: Landed, store: Store) -> Candidate:
    return train(
        project,
        MODEL,
        lake,
        landed.files,
        store.put,
        store.bless,
        lambda stage, done: store.stages.append((stage, done)),
        {"project": "toy"},
        cpu_flags=("avx2", "avx512_vnni"),
    )


def test_files_become_an_accepted_candidate(lake: Lake, landed: Landed) -> None:
    store = Store()
    candidate = run(PROJECT, lake, landed, store)
    assert landed.rows == 1800
    assert candidate.accepted, candidate.verdicts
    assert candidate.classes == ("shaken", "still")
    assert candidate.inputs[0].shape == (-1, 20, 1) and candidate.outputs[0].shape == (-1, 2)
    assert set(store.kept) == {*(artifact.plain for artifact in candidate.artifacts), candidate.golden}
    assert all(len(store.kept[a.plain]) == a.length for a in candidate.artifacts)
    assert candidate.artifacts[-1].precision == "fp32" and candidate.artifacts[-1].needs == ()
    assert all(a.needs == ("avx512_vnni",) for a in candidate.artifacts[:-1])
    assert store.blessed == [artifact.precision for artifact in candidate.artifacts]
    assert b"project" in store.kept[candidate.artifacts[-1].plain]
    assert codec.decode(Candidate, codec.encode(candidate)) == candidate
    order = list(dict.fromkeys(stage for stage, _ in store.stages))
    assert order == ["rows", "training", "export", "quantization", "measurement", "proving"]
    again = run(PROJECT, lake, landed, store)
    assert (again.snapshot, again.view, again.dataset) == (candidate.snapshot, candidate.view, candidate.dataset)
    assert again.artifacts[-1].plain == candidate.artifacts[-1].plain


def test_a_candidate_below_the_floor_is_a_refused_fact(lake: Lake, landed: Landed) -> None:
    model = PROJECT.models[MODEL]
    untrained = msgspec.structs.replace(
        model,
        training=msgspec.structs.replace(model.training, epochs=1, learning_rate=1e-9),
        gates=msgspec.structs.replace(model.gates, min_accuracy=0.99),
    )
    store = Store()
    candidate = run(msgspec.structs.replace(PROJECT, models={MODEL: untrained}), lake, landed, store)
    assert not candidate.accepted
    assert {v.gate: v.outcome for v in candidate.verdicts}["G2"] == "fail"
    assert candidate.golden in store.kept


def test_unknown_names_and_missing_rows_say_what_to_do(tmp_path: Path, lake: Lake, landed: Landed) -> None:
    with pytest.raises(UnknownPart, match="source 'tpy' is not in the project file; declared are: toy"):
        ingest(PROJECT, "tpy", tmp_path, lake, {}, lambda _done: None)
    nothing = msgspec.structs.replace(landed, files=())
    with pytest.raises(TooFewRows, match="run `falaj ingest toy` first"):
        run(PROJECT, lake, nothing, Store())
