"""The two jobs, end to end on real files: CSV to lake, lake to a judged candidate whose files are in the store."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from appliance.core import jobs
from appliance.core import state as core_state
from appliance.core.ingest_job import run as ingest
from appliance.core.state import CoreFolder
from appliance.core.training_job import run as train
from appliance.keys import TenantKeys
from appliance.settings import CoreSettings
from core.breaking import ClassesChanged
from core.features.views import TooFewRows
from core.handoffs import Candidate, JobSpec, Known, LakeFile, Landed, Verdict
from core.ingest.spool import Entry, Spool
from core.lake import Lake
from core.orders import CommitRows
from core.project import Column, Contract, ModelGates, Project, Source, Training, UnknownPart
from sync import codec, golden
from sync.manifest import Precision, Profile
from sync.names import DeviceId, Digest, ModelName, TenantId
from sync.samples import Batch, Sample, seal

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


def run(project: Project, lake: Lake, landed: Landed, store: Store, known: Known | None = None) -> Candidate:
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
        known=known,
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


def test_rows_held_out_make_an_overconfident_model_honest(tmp_path: Path) -> None:
    """Two kinds that overlap: what is learned by heart is sure of itself, and the held-out rows know better."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(5)
    for k in range(8):
        shaken = 0.25 if k % 2 else 0.0
        x = shaken * np.sin(np.arange(600) * 1.3) + rng.normal(0, 0.3, 600)
        rows = [f"{i / 10:.1f},{v:.5f},watch-{k},{'shaken' if k % 2 else 'still'}" for i, v in enumerate(x)]
        (tmp_path / "in" / f"{k}.csv").write_text("\n".join(["ts,x,who,what", *rows, ""]))
    lake, store = Lake(tmp_path / "lake", base64.b64encode, base64.b64decode), Store()
    taken = ingest(PROJECT, "toy", tmp_path, lake, {}, lambda _done: None)
    plain = msgspec.structs.replace(
        PROJECT.models[MODEL], fit=(0.0, 0.3), gate=(0.3, 0.6),
        training=Training(epochs=60, batch=16), gates=ModelGates(min_accuracy=0.6, min_rows=50),
    )  # fmt: skip
    held = msgspec.structs.replace(plain, calibrate=(0.6, 1.0))
    before, after = (
        run(msgspec.structs.replace(PROJECT, models={MODEL: model}), lake, taken, store) for model in (plain, held)
    )
    assert before.accepted and after.accepted, after.verdicts
    assert before.scorecard.calibration is not None and after.scorecard.calibration is not None
    assert before.scorecard.calibration.reason.startswith("not calibrated: the project holds no rows out")
    assert after.scorecard.calibration.temperature > 1.2, after.scorecard.calibration
    (was, now) = (candidate.scorecard.scores[0] for candidate in (before, after))
    assert was.accuracy == now.accuracy and was.ece == was.ece_before
    assert now.ece_before == pytest.approx(was.ece, abs=1e-4)
    assert now.ece is not None and was.ece is not None and now.ece < was.ece
    assert len(store.kept[after.artifacts[-1].plain]) > len(store.kept[before.artifacts[-1].plain])


def test_other_classes_are_refused_before_anything_is_trained(lake: Lake, landed: Landed) -> None:
    store = Store()
    with pytest.raises(ClassesChanged, match="removes class torn"):
        run(PROJECT, lake, landed, store, Known(4, 1, ("shaken", "still", "torn")))
    assert [stage for stage, _ in store.stages][-1] == "rows" and not store.kept


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


FIELD = msgspec.convert(
    {
        "ts": {"type": "float64"},
        "x": {"type": "float32"},
        "prediction": {"type": "string"},
        "device": {"type": "string"},
        "entity": {"type": "string"},
        "label": {"type": "string"},
    },
    dict[str, Column],
)


def with_samples(use: str) -> Project:
    """The project above, whose model also learns from what devices send up."""
    source = Source(kind="samples", model=MODEL, contract="field", time="ts")
    return msgspec.structs.replace(
        PROJECT,
        sources={**PROJECT.sources, "field": source},
        contracts={**PROJECT.contracts, "field": Contract(columns=FIELD)},
        views={"toy": msgspec.structs.replace(PROJECT.views["toy"], samples="field")},
        models={MODEL: msgspec.structs.replace(PROJECT.models[MODEL], samples=use)},
    )


def spool_samples(folder: CoreFolder, keys: TenantKeys, device: DeviceId) -> None:
    """Forty windows of either class, as a device would seal them to the tenant's key."""
    rng = np.random.default_rng(3)
    spool, key = Spool(folder.samples), base64.b64decode(core_state.tenant_key(folder, keys))
    for n in range(1, 5):
        samples = []
        for i in range(20):
            label = "shaken" if i % 2 else "still"
            x = (5 * np.sin(np.arange(20) * 1.3) if i % 2 else 0) + rng.normal(2, 0.3, 20)
            window, ts = x.astype("<f4").tobytes(), 100.0 * n + 2 * i + (1000 if i % 2 else 0)
            samples.append(Sample(f"p{n}-{i}", label, ts, ts, 1, (20, 1), window, "still", label=label))
        sealed = seal(Batch(str(MODEL), ("x",), tuple(samples)), folder.tenant, device, key)
        spool.put(MODEL, Entry(device, 1, n), sealed)


def test_samples_go_from_the_spool_into_a_candidate(tmp_path: Path) -> None:
    """The two jobs as processes run them: only the first opens samples; the lake has them under its own keys."""
    folder = CoreFolder(tmp_path / "core", TenantId("acme"))
    keys = core_state.open_keys(folder)
    core_state.prepare(folder, CoreSettings(), keys, 1.79e9)
    write_recordings(tmp_path / "in")
    spool_samples(folder, keys, DeviceId("watch-1"))
    made = with_samples("add")

    def ingested(source: str) -> Landed:
        spec = JobSpec(1, "ingest", source, made, str(tmp_path))
        order = jobs.work(folder, keys, spec, lambda _stage, _done: None)
        assert isinstance(order, CommitRows)
        return order.landed

    rows, field = ingested("toy"), ingested("field")
    assert (field.rows, field.rejections) == (1600, ())
    assert field.position == {"watch-1/1": "4", "labelled": "80"}
    lake, store = Lake(folder.lake, keys.wrap, keys.unwrap), Store()

    def trained(use: str, samples: tuple[LakeFile, ...], epochs: int = 1) -> Candidate:
        model = with_samples(use).models[MODEL]
        quick = msgspec.structs.replace(model, training=msgspec.structs.replace(model.training, epochs=epochs))
        project = msgspec.structs.replace(with_samples(use), models={MODEL: quick})
        return train(
            project, MODEL, lake, rows.files, store.put, store.bless, lambda _stage, _done: None, {}, samples=samples
        )

    both, none, only = trained("add", field.files, 8), trained("none", ()), trained("only", field.files)
    assert len({c.snapshot for c in (both, none)}) == 2 and both.snapshot == only.snapshot
    assert both.view == only.view != none.view
    assert len({c.dataset for c in (both, none, only)}) == 3
    assert both.accepted and both.scorecard.rows > none.scorecard.rows
    assert trained("add", ()).view == both.view, "what a model may learn from, not what it found"
    with pytest.raises(TooFewRows, match="no samples have come up yet"):
        trained("only", ())
