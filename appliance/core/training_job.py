"""The long work of making a candidate, composed from the core's stages.

Processes, files of the catalog and keys are the caller's: everything with an effect comes in as an
argument, and the result is a document for the steward to commit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import msgspec
import numpy as np

from core import breaking
from core.features import views
from core.features.lookups import Joined
from core.handoffs import Artifact, Calibration, Candidate, Dataset, Known, LakeFile, Scorecard, Verdict
from core.lake import Lake, snapshot_id
from core.project import Contract, Model, Project, Source, View, accepted, declared
from core.release import calibration, export, gates, quantize, scorecard
from core.release.tempering import ends_in_softmax
from core.training import loop
from sync import golden
from sync.lookups import Table
from sync.manifest import Precision, Profile
from sync.names import Digest, LookupName, ModelName

Put = Callable[[bytes], Digest]
Bless = Callable[[bytes, bytes, Precision, Profile], Verdict]
StageProgress = Callable[[str, float], None]

GENERATED_WINDOWS = 64
NO_TABLES: Mapping[LookupName, Sequence[Table]] = {}
# The CPU flags that make int8 fast; those this machine measured with become an int8 variant's `needs`.
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp")


@dataclass(frozen=True)
class _Files:
    """The whole graphs of a candidate, their golden vectors and what was measured of them."""

    shipped: dict[Precision, bytes]  # in order of preference
    golden: bytes
    scorecard: Scorecard
    facts: gates.Facts


def run(
    project: Project,
    model_name: ModelName,
    lake: Lake,
    files: Sequence[LakeFile],
    put: Put,
    bless: Bless,
    progress: StageProgress,
    metadata: Mapping[str, str],
    cpu_flags: Collection[str] = (),
    samples: Sequence[LakeFile] = (),
    tables: Mapping[LookupName, Sequence[Table]] = NO_TABLES,
    known: Known | None = None,
) -> Candidate:
    """Dataset, training, export, quantization, measurement and gates for one model, from the snapshot
    `files` of its view's source and `samples` of its view's samples source.

    `tables` has all versions of each of the view's lookups, oldest first; `known` is what listeners know of the model.

    `put` stores a model file or golden vectors and returns the digest of what it was given. `bless` is the
    edge's proof of (model, golden vectors, precision, profile) on this machine: the verdict of gate G8.
    `metadata` is written into every graph. A candidate that is refused is a result, not an error; raises
    UnknownPart, ClassesChanged, NoSuchClass, and what the stages raise (ViewError, TooFewRows, LakeError, RecipeError,
    TrainingFailed, ExportError).
    """
    model = declared("model", model_name, project.models)
    view = declared("view", model.view, project.views)
    joined = Joined(accepted(project, view), tables)
    dataset = _dataset(project, model, view, lake, files, samples, joined, progress)
    breaking.check(model_name, model, dataset.classes, known)
    trained = loop.train(dataset, model.training, lambda done: progress("training", done))
    made = _release_files(model, dataset, trained, metadata, progress)
    artifacts = tuple(
        Artifact(precision, _needs(precision, cpu_flags), put(data), len(data))
        for precision, data in made.shipped.items()
    )
    verdicts = gates.judge(made.scorecard, model.gates, made.facts)
    for i, (precision, data) in enumerate(made.shipped.items()):
        verdicts += (bless(data, made.golden, precision, model.profile),)
        progress("proving", (i + 1) / len(made.shipped))
    _, given = export.specs(dataset.window, dataset.classes)
    return Candidate(
        model=model_name,
        snapshot=dataset.snapshot,
        view=dataset.view,
        dataset=dataset.digest,
        recipe=model.training.recipe,
        seed=model.training.seed,
        classes=dataset.classes,
        window=view.window,
        inputs=export.inputs(view.window, dataset.lookups),
        outputs=(given,),
        artifacts=artifacts,
        golden=put(made.golden),
        scorecard=made.scorecard,
        verdicts=verdicts,
        accepted=gates.accepted(verdicts),
        learned=dataset.learned,
        lookups=dataset.lookups,
    )


def _dataset(
    project: Project,
    model: Model,
    view: View,
    lake: Lake,
    files: Sequence[LakeFile],
    samples: Sequence[LakeFile],
    joined: Joined,
    progress: StageProgress,
) -> Dataset:
    source = declared("source", view.source, project.sources)
    contract = declared("contract", source.contract, project.contracts)
    columns = views.columns(view, source, contract, model)
    if not files:
        raise views.TooFewRows(f"source {view.source!r} has no rows yet; run `falaj ingest {view.source}` first")
    table = lake.read(view.source, (file.name for file in files), columns)
    progress("rows", 0.5)
    described = _samples_source(project, view, model)
    seen = None
    if described is not None and view.samples is not None and samples:
        wanted = views.sample_columns(view, *described)
        seen = lake.read(view.samples, (file.name for file in samples), wanted), described[0].time
    elif model.samples == "only":
        raise views.TooFewRows("no samples have come up yet, and this model learns from nothing else")
    name = views.view_hash(view, source, contract, described, joined.accepted)
    snapshot = joined.snapshot(snapshot_id((*files, *samples) if seen else files))
    dataset = views.build(view, name, snapshot, table, model, source.time, seen, joined)
    progress("rows", 1.0)
    return dataset


def _samples_source(project: Project, view: View, model: Model) -> tuple[Source, Contract] | None:
    """What the model's samples are, if it learns from any."""
    if view.samples is None or model.samples == "none":
        return None
    source = declared("source", view.samples, project.sources)
    return source, declared("contract", source.contract, project.contracts)


def _release_files(
    model: Model,
    dataset: Dataset,
    trained: loop.Trained,
    metadata: Mapping[str, str],
    progress: StageProgress,
) -> _Files:
    bare = export.export_bare(trained.network, dataset.window, dataset.classes)
    progress("export", 1.0)
    normalised = (dataset.fit.x - trained.mean) / trained.deviation
    candidates = quantize.candidates(bare, normalised)
    found = _calibration(model, dataset, trained, candidates.models.values())
    whole = {
        precision: export.assemble(data, trained.mean, trained.deviation, metadata, dataset.lookups, found.temperature)
        for precision, data in candidates.models.items()
    }
    progress("quantization", 1.0)
    wanted = export.reference(trained, dataset.gate.x, found.temperature)
    card = scorecard.measure(whole, dataset.gate, wanted, model.gates, perf_counter, temperature=found.temperature)
    card = msgspec.structs.replace(card, reason="; ".join((card.reason, *candidates.refusals)), calibration=found)
    chosen: tuple[Precision, ...] = ("fp32",) if card.chosen == "fp32" else (card.chosen, "fp32")
    shipped = {precision: whole[precision] for precision in chosen}
    made_up = export.generated_windows(
        trained, dataset.window, GENERATED_WINDOWS, np.random.default_rng(model.training.seed),
        sum(len(one.columns) for one in dataset.lookups),
    )  # fmt: skip
    answers = scorecard.probabilities(scorecard.open_session(whole["fp32"]), made_up)
    facts = gates.Facts(
        graphs=tuple(scorecard.inspect(precision, data) for precision, data in shipped.items()),
        generated_rows=len(made_up),
        generated_parity=scorecard.parity(answers, export.reference(trained, made_up, found.temperature)),
    )
    vectors = golden.encode(scorecard.golden(shipped, dataset.gate))
    progress("measurement", 1.0)
    return _Files(shipped, vectors, card, facts)


def _calibration(model: Model, dataset: Dataset, trained: loop.Trained, bare: Iterable[bytes]) -> Calibration:
    """One temperature for all files: they are ways to compute the same model."""
    held = dataset.calibrate
    if held is None:
        return Calibration(1.0, 0, "not calibrated: the project holds no rows out for it (`calibrate`)")
    if not all(map(ends_in_softmax, bare)):
        return Calibration(1.0, 0, "not calibrated: what it gives comes out of no Softmax")
    return calibration.decide(export.scores(trained, held.x), held.y, model.gates.min_rows)


def _needs(precision: Precision, cpu_flags: Collection[str]) -> tuple[str, ...]:
    """The last variant, fp32, needs nothing, so that every device has one it can take."""
    return () if precision == "fp32" else tuple(flag for flag in INT8_FLAGS if flag in cpu_flags)
