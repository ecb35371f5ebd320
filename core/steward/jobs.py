"""Starting long work, for whoever asks: people at the desk, or the core itself (`learning`)."""

from __future__ import annotations

from typing import Any

from core import breaking
from core.catalog.datasets import crowded
from core.handoffs import JobSpec
from core.project import Project
from core.steward import pieces
from core.steward.house import House, StartJob
from core.steward.refusals import Refusal, current_project, declared_model
from sync.names import ModelName

RELEASED = 16  # releases of a model whose predictions are made again: as many may be served somewhere, seldom more


def ingest(house: House, source: str, actor: str, now: float) -> dict[str, Any]:
    """Has one source of the project run. In a transaction."""
    current, folder = current_project(house)
    if source in current.lookups:
        return _start(house, "lookup", source, actor, now, current, folder)
    if source not in current.sources:
        names = ", ".join((*current.sources, *current.lookups))
        raise Refusal("no-such-source", f"no source {source!r}; declared: {names}")
    position = house.catalog.datasets.position(source)
    small, outdated = crowded(house.catalog.datasets.files(source)), house.catalog.datasets.outdated(source)
    model = current.sources[source].model
    released = () if model is None else house.catalog.releases.newest(model, RELEASED)
    return _start(
        house, "ingest", source, actor, now, current, folder, position=position, crowded=small, outdated=outdated,
        released=released,
    )  # fmt: skip


def train(house: House, name: ModelName, actor: str, now: float) -> dict[str, Any]:
    """Has a candidate made from all that has landed. In a transaction."""
    current, folder = current_project(house)
    model = declared_model(house, name)
    view = current.views[model.view]
    files = house.catalog.datasets.files(view.source)
    if not files:
        raise Refusal("no-data", f"source {view.source!r} has no rows yet", f"run `falaj ingest {view.source}` first")
    samples = house.catalog.datasets.files(view.samples) if view.samples and model.samples != "none" else ()
    if model.samples == "only" and not samples:
        text = f"source {view.samples!r} has no samples yet, and {name} learns from nothing else"
        raise Refusal("no-data", text, f"run `falaj ingest {view.samples}` first")
    tables = {table: pieces.versions(house, table) for table in view.lookups}
    lacking = [table for table, versions in tables.items() if not versions]
    if lacking:
        hint = f"run `falaj ingest {lacking[0]}` first"
        raise Refusal("no-data", f"lookup {lacking[0]!r} has no version yet, and {name} is given its values", hint)
    result = _start(
        house, "train", name, actor, now, current, folder, files=files, samples=samples, tables=tables,
        known=breaking.known(house.catalog.releases.newest_approved(name)),
    )  # fmt: skip
    if view.samples:
        house.catalog.samples.use(result["job"], view.samples, house.catalog.samples.labelled(view.samples))
    return result


def _start(
    house: House, kind: str, subject: str, actor: str, now: float, current: Project, folder: str, **more: Any
) -> dict[str, Any]:
    if any(j.kind == kind and j.subject == subject for j in house.catalog.projects.unfinished()):
        hint = "wait for it: `falaj status` shows how far it is"
        raise Refusal("job-running", f"{kind} of {subject} is under way", hint)
    job = house.catalog.projects.new_job(kind, subject, actor, now)
    house.actions.append(StartJob(JobSpec(job, kind, subject, current, folder, **more)))
    return {"job": job}
