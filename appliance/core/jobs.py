"""The process of one job: its order on standard input, its progress and result to the steward's socket."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from appliance import clock
from appliance.core.orders_socket import StewardAway, ask
from appliance.core.state import CoreFolder, open_keys, samples_key
from appliance.errors import Trouble
from appliance.keys import TenantKeys
from core.handoffs import JobSpec
from core.lake import Lake
from core.orders import CommitCandidate, CommitLookup, CommitRows, JobProgress
from core.release.registry import ArtifactStore
from sync import codec
from sync.manifest import Manifest
from sync.names import LookupName, ModelName

if TYPE_CHECKING:
    from core.release.replay import Replay

log = logging.getLogger("falaj.job")

PROGRESS_EVERY = 0.25  # seconds between two progress orders
SPEC_LIMIT = 1 << 30  # bytes of a job's order: the steward's own words, with the whole position of a source


def run(folder: CoreFolder) -> int:
    """Does the job on standard input; 0 if its result is committed. Errors end on standard error, for the steward."""
    spec = codec.decode(JobSpec, sys.stdin.buffer.read(), SPEC_LIMIT)
    try:
        order = work(folder, open_keys(folder), spec, _Progress(folder, spec.job))
    except Exception as error:
        if getattr(error, "code", None) is None:
            raise  # no code, no error of a stage: a mistake of ours, told with its traceback
        raise Trouble(str(error)) from error
    result = ask(folder.steward_socket, order)
    if not result.ok:
        log.error("the steward did not take the result: %s", result.error)
        return 1
    return 0


def work(
    folder: CoreFolder, keys: TenantKeys, spec: JobSpec, progress: Callable[[str, float], None]
) -> CommitRows | CommitLookup | CommitCandidate:
    """Does the job; the order that commits its result."""
    if spec.kind == "lookup":
        return _lookup(spec, progress)
    lake = Lake(folder.lake, keys.wrap, keys.unwrap)
    return (_ingest if spec.kind == "ingest" else _train)(folder, keys, spec, lake, progress)


def _lookup(spec: JobSpec, progress: Callable[[str, float], None]) -> CommitLookup:
    from core.ingest.lookups import read
    from sync import lookups

    name = LookupName(spec.subject)
    found = read(name, spec.project.lookups[name], Path(spec.folder))
    progress("rows", 1.0)
    return CommitLookup(actor="job", job=spec.job, name=name, content=lookups.encode(found))


def _ingest(
    folder: CoreFolder, keys: TenantKeys, spec: JobSpec, lake: Lake, progress: Callable[[str, float], None]
) -> CommitRows:
    # Imported here: a training has no use for what reads sources.
    from appliance.core import ingest_job
    from core.ingest.compacting import compact
    from core.ingest.samples import Box
    from core.ingest.spool import Spool

    lake.remove(spec.subject, spec.outdated)  # first: what lands may have the name of one that was here before
    landed = ingest_job.run(
        spec.project,
        spec.subject,
        Path(spec.folder),
        lake,
        spec.position,
        lambda done: progress("rows", done),
        lambda: Box(folder.tenant, Spool(folder.samples), samples_key(folder, keys), spec.job),
        lambda: _replay(folder, keys, spec.released),
    )
    landed = replace(compact(landed, lake, spec.crowded), removed=spec.outdated)
    return CommitRows(actor="job", job=spec.job, landed=landed)


def _replay(folder: CoreFolder, keys: TenantKeys, released: tuple[Manifest, ...]) -> Replay:
    """What makes predictions of these releases again, from the files that the core keeps of them."""
    from core.release.replay import Replay

    manifests = {(manifest.model, manifest.number): manifest for manifest in released}
    store = ArtifactStore(folder.artifacts, folder.tenant, keys.object_key("artifact"))
    return Replay(lambda model, number: manifests.get((model, number)), store.get)


def _train(
    folder: CoreFolder, keys: TenantKeys, spec: JobSpec, lake: Lake, progress: Callable[[str, float], None]
) -> CommitCandidate:
    # Imported here: torch, onnx and ONNX Runtime cost an ingest job seconds it has no use for.
    from appliance.core import training_job
    from appliance.core.prover import bless
    from edge.runtime import cpu_flags
    from sync import lookups

    model = ModelName(spec.subject)
    store = ArtifactStore(folder.artifacts, folder.tenant, keys.object_key("artifact"))
    # What the owner declared stands in the graph; it is sealed with it, and never on the wire in plain.
    metadata = {**spec.project.models[model].metadata, "falaj.tenant": folder.tenant, "falaj.job": str(spec.job)}
    tables = {name: [lookups.decode(store.get(plain)) for plain in versions] for name, versions in spec.tables.items()}
    candidate = training_job.run(
        spec.project, model, lake, spec.files, store.put, bless, progress, metadata, cpu_flags(), samples=spec.samples,
        tables=tables, known=spec.known,
    )  # fmt: skip
    return CommitCandidate(actor="job", job=spec.job, candidate=candidate)


class _Progress:
    """Tells the steward, not more often than people can see."""

    def __init__(self, folder: CoreFolder, job: int) -> None:
        self._folder, self._job, self._last, self._stage = folder, job, 0.0, ""
        self._heard = True

    def __call__(self, stage: str, done: float) -> None:
        now = clock.ticks()
        if stage == self._stage and now - self._last < PROGRESS_EVERY:
            return
        self._last, self._stage = now, stage
        try:
            ask(self._folder.steward_socket, JobProgress(actor="job", job=self._job, stage=stage, done=done))
            self._heard = True
        except StewardAway as away:  # it may be busy: no reason to throw hours of work away
            if self._heard:
                log.warning("how far the job is nobody hears: %s", away)
            self._heard = False
