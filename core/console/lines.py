"""The rows of the overview's tables, ready to be written down: facts in, words out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from core.catalog.events import Event
from core.catalog.fleet import DeviceRow
from core.catalog.projects import Job
from core.catalog.releases import ReleaseRow
from core.console import wording
from core.console.facts import Facts, is_validated
from core.console.performing import in_field, on_device
from core.console.trust_state import TrustRole, TrustState
from core.console.wording import Badge, Moment
from core.handoffs import Candidate, Score
from sync.reports import ModelReport, Release


@dataclass(frozen=True)
class Shown:
    """A release as a cell shows it."""

    number: str
    digest: str  # shortened
    full: str


@dataclass(frozen=True)
class DeviceLine:
    """One model of one device; a device without a model has one line. `again`: the device stands above already."""

    device: str
    again: bool
    status: Badge
    status_since: Moment | None
    agent: str
    keys: Badge
    seen: Moment | None
    model: str = ""
    phase: Badge | None = None
    since: Moment | None = None
    reason: str = ""
    validated: Shown | None = None
    validated_at: Moment | None = None
    p99: str = ""
    serving: Shown | None = None
    proven: bool = True  # what serves is what was validated
    incoming: Shown | None = None
    answers: str = ""
    errors: str = ""
    labelled: str = ""  # by labels that came back
    drift: Badge | None = None  # shown once the inputs have changed
    performance: str = ""  # as the device counts it


@dataclass(frozen=True)
class ReleaseLine:
    """A release and the figures it was approved on."""

    model: str
    release: Shown
    state: Badge
    made: Moment | None
    precision: str
    accuracy: str
    p99: str
    size: str
    rows: str
    gates: Badge | None
    field: str  # how it does where it serves, as devices count it
    served_by: int
    override: str  # who let it pass against a gate's word, and why


@dataclass(frozen=True)
class RefusedLine:
    """A candidate that its gates refused and nobody let pass; `failed` are the gates' own words."""

    id: int
    model: str
    made: Moment | None
    accuracy: str
    failed: tuple[str, ...]


@dataclass(frozen=True)
class JobLine:
    """A piece of long work; `done` is from 0 to 1."""

    id: int
    kind: str
    subject: str
    state: Badge
    running: bool
    stage: str
    done: float
    percent: str
    began: Moment | None
    took: str
    error: str
    hint: str


@dataclass(frozen=True)
class EventLine:
    """Something that happened."""

    at: Moment | None
    severity: Badge
    source: str
    code: str
    model: str
    text: str


@dataclass(frozen=True)
class TrustLine:
    """One top-level role: version and end, and how many of whom sign the next."""

    role: str
    version: int
    holders: str
    ends: Moment | None
    ended: bool


def devices(facts: Facts, now: float) -> tuple[DeviceLine, ...]:
    """By device, then by model."""
    return tuple(line for row in facts.devices for line in _device(facts, row, now))


def _device(facts: Facts, row: DeviceRow, now: float) -> list[DeviceLine]:
    report = row.report
    shared: dict[str, Any] = {
        "device": row.device,
        "status": wording.badge("status", row.status) if row.active else wording.badge("barred", row.state),
        "status_since": wording.moment(row.status_ts, now),
        "agent": report.agent if report else "",
        "keys": wording.badge("keys", report.key_protection) if report else Badge("plain", "not told yet"),
        "seen": wording.moment(row.seen, now),
    }
    models = sorted(report.models.items()) if report else []
    if not models:
        return [DeviceLine(again=False, **shared)]
    return [
        DeviceLine(again=place > 0, model=name, **shared, **_model(model, now, on_device(facts, row.device, name)))
        for place, (name, model) in enumerate(models)
    ]


def _model(model: ModelReport, now: float, told: str) -> dict[str, Any]:
    validated = model.validated
    known = (model.serving, model.candidate, *model.previous)
    proven = next((r for r in known if r and validated and r.artifact == validated.artifact), None)
    return {
        "phase": wording.badge("phase", model.phase),
        "since": wording.moment(model.since, now),
        "reason": model.reason,
        "validated": _shown(proven),
        "validated_at": wording.moment(validated.ts, now) if validated else None,
        "p99": f"{validated.p99_ms:.2g} ms" if validated else "",
        "serving": _shown(model.serving),
        "proven": model.serving is None or is_validated(model),
        "incoming": _shown(model.candidate),
        "answers": wording.count(model.answers),
        "errors": wording.count(model.errors),
        "labelled": f"{model.labelled.right} of {model.labelled.labels} right" if model.labelled else "",
        "performance": told,
        "drift": Badge("alarm", "inputs drifted") if model.drift and model.drift.since is not None else None,
    }


def _shown(release: Release | None) -> Shown | None:
    if release is None:
        return None
    return Shown(str(release.number), wording.short(release.manifest), release.manifest)


def releases(facts: Facts, now: float) -> tuple[ReleaseLine, ...]:
    """Newest first, with the figures of the precision that ships."""
    found = {key: candidate for key, _, candidate in facts.candidates}
    return tuple(_release(facts, row, found.get(row.candidate), now) for row in facts.releases)


def _release(facts: Facts, row: ReleaseRow, candidate: Candidate | None, now: float) -> ReleaseLine:
    card = candidate.scorecard if candidate else None
    score = _chosen(candidate) if candidate else None
    models = (d.report.models.get(row.model) for d in facts.fleet if d.report)
    return ReleaseLine(
        model=row.model,
        release=Shown(str(row.number), wording.short(row.digest), row.digest),
        state=wording.badge("release", "automatic" if facts.by_core(row) else row.state),
        made=wording.moment(row.ts, now),
        precision=card.chosen if card else "",
        accuracy=wording.share(score.accuracy) if score else "",
        p99=f"{score.p99_us / 1000:.2f} ms" if score else "",
        size=wording.size(score.bytes) if score else "",
        rows=wording.count(card.rows) if card else "",
        gates=_gates(candidate) if candidate else None,
        field=in_field(facts, row.model, row.number),
        served_by=sum(1 for m in models if m and m.serving and m.serving.manifest == row.digest),
        override=facts.overrides.get((row.model, row.number), ""),
    )


def refused(facts: Facts, now: float) -> tuple[RefusedLine, ...]:
    """Of each model the newest candidate, where it was refused and did not become a release."""
    staged = {row.candidate for row in facts.releases}
    newest: dict[str, tuple[int, float, Candidate]] = {}
    for key, ts, candidate in facts.candidates:
        newest.setdefault(candidate.model, (key, ts, candidate))
    return tuple(
        _refused(key, ts, candidate, now)
        for key, ts, candidate in newest.values()
        if not candidate.accepted and key not in staged
    )


def _refused(key: int, ts: float, candidate: Candidate, now: float) -> RefusedLine:
    score = _chosen(candidate)
    failed = tuple(f"{v.gate}: {v.text}" for v in candidate.verdicts if v.outcome == "fail")
    accuracy = wording.share(score.accuracy) if score else ""
    return RefusedLine(key, candidate.model, wording.moment(ts, now), accuracy, failed)


def _chosen(candidate: Candidate) -> Score | None:
    """The figures of the precision that ships."""
    card = candidate.scorecard
    return next((score for score in card.scores if score.precision == card.chosen), None)


def _gates(candidate: Candidate) -> Badge:
    failed = [v.gate for v in candidate.verdicts if v.outcome == "fail"]
    if failed:
        return Badge("alarm", f"{', '.join(failed)} failed")
    unsure = [v.gate for v in candidate.verdicts if v.outcome == "inconclusive"]
    if unsure:
        return Badge("notice", f"{', '.join(unsure)} inconclusive")
    return Badge("ok", f"{len(candidate.verdicts)} passed")


def jobs(facts: Facts, now: float) -> tuple[JobLine, ...]:
    """Newest first."""
    return tuple(_job(job, now) for job in facts.jobs)


def _job(job: Job, now: float) -> JobLine:
    return JobLine(
        id=job.id,
        kind=job.kind,
        subject=job.subject,
        state=wording.badge("job", job.state),
        running=job.finished is None,
        stage=job.stage,
        done=job.done,
        percent=f"{100 * job.done:.0f} %",
        began=wording.moment(job.created, now),
        took=wording.duration(job.finished - job.created) if job.finished is not None else "",
        error=job.error,
        hint=job.hint,
    )


def events(facts: Facts, now: float) -> tuple[EventLine, ...]:
    """Newest first."""
    return tuple(_event(event, now) for event in facts.events)


def _event(event: Event, now: float) -> EventLine:
    return EventLine(
        wording.moment(event.ts, now),
        wording.badge("severity", event.severity),
        event.source,
        event.code,
        event.model or "",
        event.text,
    )


def trust(state: TrustState, now: float) -> tuple[TrustLine, ...]:
    """Root, targets, timestamp, as far as they are there."""
    roles: tuple[tuple[str, TrustRole | None], ...] = (
        ("root", state.root),
        ("targets", state.targets),
        ("timestamp", state.timestamp),
    )
    return tuple(
        TrustLine(name, role.version, _holders(role), wording.moment(role.expires, now), role.expires <= now)
        for name, role in roles
        if role is not None
    )


def _holders(role: TrustRole) -> str:
    """`2 of amal, badr, carim`, or the one there is; nothing for keys without a name, which are the core's own."""
    names = [holder.name for holder in role.holders if holder.name]
    return f"{role.threshold} of {', '.join(names)}" if len(names) > 1 else "".join(names)
