"""Answers orders: each is one function from a document to an answer, one catalog transaction inside.

An order that cannot be done is refused with a stable code and what to do next; nothing of it is kept then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core import orders
from core.answers import Answer
from core.consistency import problems
from core.fleet.labels import TooLong, messages
from core.handoffs import Landed
from core.ingest.spool import origins
from core.steward import (
    approvals,
    assigning,
    automatic,
    carrying,
    denials,
    devices,
    enrolling,
    forcing,
    inviting,
    jobs,
    parts,
    pieces,
    questions,
    skew,
    staging,
    succession,
    trust,
)
from core.steward.house import House
from core.steward.refusals import Refusal
from sync import codec, topics
from sync.errors import SyncError

LABELS_WAIT = 86_400  # seconds that the broker keeps labels for a device that is away


def answer(house: House, order: orders.AnyOrder, now: float) -> Answer:
    """Does one order. Refusals and untrusted input become answers; programmers' mistakes are raised."""
    try:
        if (walks := WALKS.get(type(order))) is not None:
            return Answer(True, result=walks(house, order, now))
        with house.catalog.transaction():
            try:
                result = _DESKS[type(order)](house, order, now)
            except Refusal as refusal:
                if not refusal.noted:
                    raise
                return _refused(refusal)
    except Refusal as refusal:
        return _refused(refusal)
    except SyncError as error:
        return Answer(False, error=str(error), code=error.code)
    return Answer(True, result=result)


def _refused(refusal: Refusal) -> Answer:
    return Answer(False, error=str(refusal), code=refusal.code, hint=refusal.hint)


def _apply(house: House, order: orders.ApplyProject, now: float) -> dict[str, Any]:
    found = problems(order.project)
    if found:
        raise Refusal("project-invalid", "; ".join(found), "correct falaj.toml and apply it again")
    before = house.catalog.projects.current()
    version = house.catalog.projects.apply(order.project, order.folder, order.actor, now)
    house.event(now, "project-applied", f"project version {version} by {order.actor}")
    for device in pieces.reconfigured(house, before[0] if before else None):
        assigning.issue(house, device, now, news=False)
    return {"version": version, "models": list(order.project.models), "sources": list(order.project.sources)}


def _ingest(house: House, order: orders.Ingest, now: float) -> dict[str, Any]:
    return jobs.ingest(house, order.source, order.actor, now)


def _train(house: House, order: orders.Train, now: float) -> dict[str, Any]:
    return jobs.train(house, order.model, order.actor, now)


def _label(house: House, order: orders.Label, now: float) -> dict[str, Any]:
    """Sent on, not kept: a device that knows a prediction keeps its label, and sends both up if it may."""
    if house.catalog.fleet.device(order.device) is None:
        raise Refusal("no-such-device", f"no device {order.device} is enrolled here", "`falaj status` lists them")
    if not order.labels:
        raise Refusal("no-labels", "there is no label in this order", "give prediction ids with their labels")
    try:
        parts = list(messages(order.labels))
    except TooLong as error:
        raise Refusal(error.code, str(error), "a label is the name of a class") from error
    for part in parts:
        house.send(topics.labels(house.tenant, order.device), codec.encode(part), expiry=LABELS_WAIT)
    return {"labels": len(order.labels), "messages": len(parts)}


def _replace(house: House, order: orders.Replace, now: float) -> dict[str, Any]:
    devices.replace(house, order, now)
    token = orders.IssueToken(actor=order.actor, device=order.device, minutes=order.minutes)
    return inviting.issue_token(house, token, now)


def _progress(house: House, order: orders.JobProgress, now: float) -> dict[str, Any]:
    house.catalog.projects.progress(order.job, order.stage, order.done)
    return {}


def _commit_rows(house: House, order: orders.CommitRows, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    landed = order.landed
    house.catalog.datasets.land(landed, order.job)
    _mark_landed(house, landed, now)
    result = {"rows": landed.rows, "files": len(landed.files), "rejections": len(landed.rejections)}
    if landed.more:
        result["more"] = True
    if landed.merged:
        before = result["merged"] = sum(len(one.replaces) for one in landed.merged)
        text = f"{before} small files of {landed.source} are {len(landed.merged)} now, with the same rows"
        house.event(now, "lake-compacted", text)
    house.catalog.projects.finish(order.job, now, result)
    severity = "notice" if landed.rejections else "info"
    text = f"{landed.rows} rows of {landed.source}, {len(landed.rejections)} rejections"
    house.event(now, "rows-landed", text, severity=severity)
    return result


def _mark_landed(house: House, landed: Landed, now: float) -> None:
    """Batches of samples that the position names are done with; their files go once this is committed. What came of
    some that were made again is counted."""
    current = house.catalog.projects.current()
    source = current[0].sources.get(landed.source) if current else None
    if source is None or source.kind != "samples" or source.model is None:
        return
    for (device, epoch), n in origins(landed.position).items():
        house.catalog.samples.mark_landed(source.model, device, epoch, n)
    skew.take(house, source.model, landed.skew, now)


def _commit_lookup(house: House, order: orders.CommitLookup, now: float) -> dict[str, Any]:
    """The devices that ask for it are told at once: of a new version, or that the one they have is still true."""
    _still_open(house, order.job)
    result = pieces.commit(house, order, now)
    house.catalog.projects.finish(order.job, now, result)
    for device in pieces.users(house, order.name):
        assigning.assign(house, device, now, news=False)
    return result


def _commit_candidate(house: House, order: orders.CommitCandidate, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    candidate = staging.judged(house, order.candidate)
    key = house.catalog.releases.add_candidate(candidate, order.job, now)
    staging.tell_learned(house, candidate, key, now)
    if not candidate.accepted:
        reasons = "; ".join(v.text for v in candidate.verdicts if v.outcome == "fail")
        house.catalog.projects.finish(order.job, now, {"candidate": key, "accepted": False, "reasons": reasons})
        house.event(now, "candidate-refused", reasons, severity="notice", model=candidate.model)
        return {"candidate": key, "accepted": False}
    manifest = staging.stage(house, candidate, key, now)
    text = f"release {manifest.number} awaits approval: {manifest.lineage.reason}"
    house.event(now, "release-staged", text, model=manifest.model)
    result = {"candidate": key, "accepted": True, "model": manifest.model, "number": manifest.number,
              **manifest.lineage.metrics, **automatic.release(house, candidate, manifest.number, now)}  # fmt: skip
    house.catalog.projects.finish(order.job, now, result)
    return result


def _job_failed(house: House, order: orders.JobFailed, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    house.catalog.projects.finish(order.job, now, {}, order.error, order.hint)
    house.event(now, "job-failed", f"job {order.job}: {order.error}", severity="alarm")
    return {}


def _still_open(house: House, job: int) -> None:
    found = house.catalog.projects.job(job)
    if found is None or found.finished is not None:
        raise Refusal("job-over", f"job {job} is not open; its result is not taken twice")


_DESKS: dict[type, Callable[[House, Any, float], dict[str, Any]]] = {
    orders.ApplyProject: _apply,
    orders.Ingest: _ingest,
    orders.Train: _train,
    orders.TrustKeys: trust.keys,
    orders.TrustInit: trust.init,
    orders.ChangeTrust: trust.change,
    orders.Approve: approvals.approve,
    orders.RevokeRelease: approvals.revoke,
    orders.AutoKey: automatic.key,
    orders.Automatic: automatic.change,
    orders.Override: forcing.override,
    orders.Force: forcing.force,
    orders.Reverse: forcing.reverse,
    orders.SetAside: forcing.set_aside,
    orders.Label: _label,
    orders.Question: questions.ask,
    orders.IssueToken: inviting.issue_token,
    orders.IssueSiteToken: inviting.issue_site_token,
    orders.ImportBoxes: inviting.import_boxes,
    orders.Accept: enrolling.accept,
    orders.Revoke: devices.revoke,
    orders.Replace: _replace,
    orders.Authority: succession.authority,
    orders.Enrol: enrolling.enrol,
    orders.EnrolByFolder: enrolling.enrol_by_folder,
    orders.JobProgress: _progress,
    orders.CommitRows: _commit_rows,
    orders.CommitLookup: _commit_lookup,
    orders.CommitCandidate: _commit_candidate,
    orders.JobFailed: _job_failed,
    orders.PartsFailing: parts.heard,
    orders.BrokerDenied: denials.heard,
}

# Many small transactions, as the line has them: each message of a device is committed by itself, and what follows from
# it is due also where the order is refused in the end.
WALKS: dict[type, Callable[[House, Any, float], dict[str, Any]]] = {
    orders.CarryIn: carrying.take_in,
    orders.CarryOut: carrying.take_out,
}
