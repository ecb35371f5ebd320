"""When the core learns anew by itself: `decide` is pure, `facts` and `hops` read what it decides on from the catalog.

The way from the field back to a candidate has two hops: batches that wait in the spool are taken in, and once enough
devices have drifted and enough labelled samples have landed that no candidate was made of, a training starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from core.catalog import Catalog
from core.catalog.pieces import of_lookup
from core.catalog.projects import Ended
from core.catalog.samples import Waiting
from core.fleet.drift import Drifted, drifted
from core.fleet.reports import reports_of
from core.project import Model, Project, Retraining
from core.quorum import quorum
from sync.names import LookupName, ModelName

ACTOR = "retraining"  # who starts its jobs
GATHER, TOGETHER = 5.0, 20  # batches are taken in when the oldest waited so many seconds, or so many wait
PILE = 500  # batches that are taken in although nothing waits for them: the spool must not fill
AGAIN = 600.0  # seconds until work that came to nothing is tried again


@dataclass(frozen=True)
class Facts:
    """What is known of one model. Of `fleet` devices a quorum must have drifted. `labelled` counts the samples that no
    candidate was made of; `trained` is when the last training ended that the core started by itself, `failed` when it
    came to nothing, `stuck` when samples could not be taken in the last time."""

    policy: str
    drifted: tuple[Drifted, ...]
    labelled: int
    waiting: int
    waiting_since: float | None
    rows: bool  # whether the view's own source has landed anything
    ingesting: bool
    training: bool
    trained: float | None
    stuck: float | None
    now: float
    failed: float | None = None
    fleet: int = 1  # devices that spoke of the model
    lacking: tuple[LookupName, ...] = ()  # the view's tables that were never read


@dataclass(frozen=True)
class Hop:
    """What happens next, and why, or why nothing does: a sentence for people."""

    kind: Literal["none", "ingest", "train"]
    reason: str


def decide(settings: Retraining | None, facts: Facts) -> Hop:
    """The next hop of one model; the first thing that is in the way is the reason."""
    if settings is None:
        return Hop("none", "only people start a training of this model")
    if facts.policy == "none":
        return Hop("none", "no road: nothing comes up to learn from")
    if facts.training:
        return Hop("none", "a training is under way")
    ingest = _ingest(settings, facts)
    if ingest is not None:
        return ingest
    story = f"{_drift(settings, facts)}; {_samples(settings, facts)}"
    if len(facts.drifted) < _devices(settings, facts) or facts.labelled < settings.samples:
        return Hop("none", story)
    if not facts.rows:
        return Hop("none", f"{story}; the view's own source has no rows yet")
    if facts.lacking:
        table = facts.lacking[0]
        return Hop("none", f"{story}; lookup {table!r} has no version yet: run `falaj ingest {table}`")
    if (again := _until(facts.trained, 3600 * settings.every_hours, facts.now)) is not None:
        return Hop("none", f"{story}; trained already, and not again before {_moment(again, facts.now)}")
    if (again := _until(facts.failed, AGAIN, facts.now)) is not None:
        return Hop("none", f"{story}; the last training came to nothing; tried again at {_moment(again, facts.now)}")
    return Hop("train", story)


def _ingest(settings: Retraining, facts: Facts) -> Hop | None:
    """Whether batches that wait are taken in now; None if there is nothing to say about them.

    They are wanted while some device has drifted and a training lacks samples; else they may lie.
    """
    if not facts.waiting or facts.waiting_since is None:
        return None
    waiting = _plural(facts.waiting, "batch", "batches")
    if facts.ingesting:
        return Hop("none", f"{waiting} of samples {_are(facts.waiting)} being taken in")
    wanted = bool(facts.drifted) and facts.labelled < settings.samples
    if not wanted and facts.waiting < PILE:
        return None
    if (again := _until(facts.stuck, AGAIN, facts.now)) is not None:
        return Hop("none", f"{waiting} of samples could not be taken in; tried again at {_moment(again, facts.now)}")
    if facts.waiting < TOGETHER and _until(facts.waiting_since, GATHER, facts.now) is not None:
        return Hop("none", f"{waiting} of samples came up; more are waited for")
    return Hop("ingest", f"{waiting} of samples {_are(facts.waiting)} waiting")


def _until(then: float | None, span: float, now: float) -> float | None:
    """When `span` seconds after `then` are over; None if they are. A clock that was put back must stop nothing: what
    then lies ahead is over too."""
    return then + span if then is not None and 0 <= now - then < span else None


def _devices(settings: Retraining, facts: Facts) -> int:
    """As many as are asked for, and never one alone where there are others that could say so too."""
    return max(settings.devices, quorum(facts.fleet))


def _drift(settings: Retraining, facts: Facts) -> str:
    count = len(facts.drifted)
    if not count:
        return "no device has drifted"
    since = _moment(min(one.since for one in facts.drifted), facts.now)
    wanted = _devices(settings, facts)
    if count < wanted:
        return f"{count} of {_plural(wanted, 'device', 'devices')} drifted since {since}"
    return f"{_plural(count, 'device', 'devices')} drifted since {since}"


def _samples(settings: Retraining, facts: Facts) -> str:
    return f"{facts.labelled} of {settings.samples} labelled samples are here"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _moment(seconds: float, now: float) -> str:
    """UTC; with the day unless it is that of `now`. Event times are the devices' word and may be no date at all."""
    try:
        then, today = datetime.fromtimestamp(seconds, UTC), datetime.fromtimestamp(now, UTC)
    except (ValueError, OverflowError, OSError):
        return f"second {seconds:g}"
    return then.strftime("%H:%M UTC" if then.date() == today.date() else "%Y-%m-%d %H:%M UTC")


# --- what the catalog knows -------------------------------------------------------------------------------------


def hops(catalog: Catalog, now: float) -> dict[ModelName, Hop]:
    """The next hop of every model that the project declares."""
    current = catalog.projects.current()
    if current is None:
        return {}
    project = current[0]
    return {
        name: decide(model.retraining, facts(catalog, project, name, now)) for name, model in project.models.items()
    }


def stirs(catalog: Catalog, project: Project, name: ModelName) -> bool:
    """False if nothing can follow for this model now, whatever its devices say: costs two small queries."""
    model = project.models[name]
    if model.retraining is None or model.uplink.policy == "none":
        return False
    waiting = catalog.samples.waiting(_sender(project, name)).batches > 0
    return waiting or _fresh(catalog, project, name) >= model.retraining.samples


def facts(catalog: Catalog, project: Project, name: ModelName, now: float) -> Facts:
    """What `decide` needs of one model; reads what every device said last."""
    model = project.models[name]
    reports = reports_of(name, catalog.fleet.devices())
    running = {(job.kind, job.subject) for job in catalog.projects.unfinished()}
    waiting, source = catalog.samples.waiting(_sender(project, name)), _source(project, model)
    ended = catalog.projects.last_ended("train", name, ACTOR)
    taken = catalog.projects.last_ended("ingest", source) if source else None
    view = project.views.get(model.view)
    tables = view.lookups if view is not None else ()
    return Facts(
        policy=model.uplink.policy,
        drifted=drifted(reports),
        labelled=_fresh(catalog, project, name),
        waiting=waiting.batches,
        waiting_since=waiting.since,
        rows=view is not None and catalog.datasets.has_files(view.source),
        ingesting=("ingest", source) in running,
        training=("train", name) in running,
        trained=ended.at if ended and not ended.lost else None,
        stuck=_stuck(taken, waiting),
        now=now,
        failed=ended.at if ended and ended.vain else None,
        fleet=sum(report is not None for report in reports.values()),
        lacking=tuple(table for table in tables if catalog.pieces.newest(of_lookup(table)) is None),
    )


def _stuck(taken: Ended | None, waiting: Waiting) -> float | None:
    """When samples were last tried in vain: the job failed, or left behind what was there before it began."""
    if taken is None:
        return None
    left = waiting.since is not None and waiting.since < taken.begun
    return taken.at if taken.vain or (taken.done and left) else None


def _fresh(catalog: Catalog, project: Project, name: ModelName) -> int:
    source = _source(project, project.models[name])
    return max(0, catalog.samples.labelled(source) - catalog.samples.used(name, source)) if source else 0


def _source(project: Project, model: Model) -> str | None:
    """The samples source that the model learns from."""
    view = project.views.get(model.view)
    return view.samples if view and model.samples != "none" else None


def _sender(project: Project, name: ModelName) -> ModelName:
    """Whose samples those are: several models may learn from what came up for one."""
    source = _source(project, project.models[name])
    found = project.sources.get(source) if source else None
    return found.model if found and found.model is not None else name
