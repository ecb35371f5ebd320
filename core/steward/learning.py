"""The core learns by itself: samples that wait are taken in, a training starts when the fleet has drifted, and batches
that have landed leave the spool."""

from __future__ import annotations

from core.fleet import retraining
from core.ingest.spool import origins
from core.project import Model, Project
from core.steward import jobs
from core.steward.house import House
from sync.names import ModelName


def walk(house: House, now: float) -> None:
    """One round over the models: at most one job of each is started. Cheap while nothing can follow."""
    current = house.catalog.projects.current()
    if current is None:
        return
    for name, model in current[0].models.items():
        if retraining.stirs(house.catalog, current[0], name):
            _step(house, current[0], name, model, now)


def sweep(house: House) -> None:
    """Deletes the batches that are done with, after the position that says so was committed; again and again is as
    good as once."""
    current = house.catalog.projects.current()
    for name, source in current[0].sources.items() if current else ():
        if source.kind != "samples" or source.model is None:
            continue
        done = origins(house.catalog.datasets.position(name))
        for entry in house.spool.entries(source.model):
            if entry.n <= done.get((entry.device, entry.epoch), 0):
                house.spool.drop(source.model, entry)


def _step(house: House, project: Project, name: ModelName, model: Model, now: float) -> None:
    hop = retraining.decide(model.retraining, retraining.facts(house.catalog, project, name, now))
    view = project.views.get(model.view)
    if hop.kind == "ingest" and view is not None and view.samples is not None:
        with house.catalog.transaction():
            jobs.ingest(house, view.samples, retraining.ACTOR, now)
    elif hop.kind == "train":
        with house.catalog.transaction():
            jobs.train(house, name, retraining.ACTOR, now)
            house.event(now, "retraining-started", hop.reason, model=name, severity="notice")
