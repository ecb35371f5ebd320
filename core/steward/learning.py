"""The core learns by itself: samples that wait are taken in, a training starts when the fleet has drifted, and batches
that have landed leave the spool."""

from __future__ import annotations

from core.fleet import retraining
from core.fleet.retraining import Hop
from core.ingest.spool import origins
from core.project import Model, Project
from core.steward import jobs
from core.steward.house import House
from core.steward.refusals import Refusal
from sync.names import ModelName

TOLD_EVERY = 3600.0  # seconds between two words on what keeps a model from learning


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
    """What the desk would refuse is no reason to stop: told, and tried again, for people may set it right."""
    hop = retraining.decide(model.retraining, retraining.facts(house.catalog, project, name, now))
    if hop.kind == "none":
        return
    try:
        with house.catalog.transaction():
            _begin(house, project, name, hop, now)
    except Refusal as refusal:
        told = house.memory.refused.get(name)
        if told is None or not 0 <= now - told < TOLD_EVERY:
            house.memory.refused[name] = now
            text = f"{refusal}; {refusal.hint}" if refusal.hint else str(refusal)
            with house.catalog.transaction():
                house.event(now, "retraining-refused", text, model=name, severity="alarm")


def _begin(house: House, project: Project, name: ModelName, hop: Hop, now: float) -> None:
    view = project.views.get(project.models[name].view)
    if hop.kind == "train":
        jobs.train(house, name, retraining.ACTOR, now)
        house.event(now, "retraining-started", hop.reason, model=name, severity="notice")
    elif view is not None and view.samples is not None:
        jobs.ingest(house, view.samples, retraining.ACTOR, now)
