"""Answers orders: each is one function from a document to an answer, one catalog transaction inside.

An order that cannot be done is refused with a stable code and what to do next; nothing of it is kept then.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from core import orders, project
from core.catalog.fleet import ALL
from core.fleet import enrolment
from core.handoffs import Candidate
from core.orders import Answer, JobSpec
from core.release import publish, registry
from core.rollout.plans import fallback, plan
from core.steward.house import House, PersistBroker, StartJob
from sync import chunks, codec, roles
from sync.errors import SyncError
from sync.manifest import Manifest
from sync.messages import EnrolAnswer, Token
from sync.names import ModelName

TOKEN_ATTEMPTS = 5


class Refusal(Exception):
    """An order that is not done; the state is as before, but for what is noted of a refusal with `noted`."""

    def __init__(self, code: str, text: str, hint: str = "", *, noted: bool = False) -> None:
        super().__init__(text)
        self.code, self.hint, self.noted = code, hint, noted


def answer(house: House, order: orders.AnyOrder, now: float) -> Answer:
    """Does one order. Refusals and untrusted input become answers; programmers' mistakes are raised."""
    try:
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
    found = project.problems(order.project)
    if found:
        raise Refusal("project-invalid", "; ".join(found), "correct falaj.toml and apply it again")
    version = house.catalog.projects.apply(order.project, order.folder, order.actor, now)
    house.event(now, "project-applied", f"project version {version} by {order.actor}")
    return {"version": version, "models": list(order.project.models), "sources": list(order.project.sources)}


def _ingest(house: House, order: orders.Ingest, now: float) -> dict[str, Any]:
    current, folder = _project(house)
    if order.source not in current.sources:
        raise Refusal("no-such-source", f"no source {order.source!r}; declared: {', '.join(current.sources)}")
    position = house.catalog.datasets.position(order.source)
    return _start_job(house, "ingest", order.source, order.actor, now, current, folder, position=position)


def _train(house: House, order: orders.Train, now: float) -> dict[str, Any]:
    current, folder = _project(house)
    source = current.views[_model(house, order.model).view].source
    files = house.catalog.datasets.files(source)
    if not files:
        raise Refusal("no-data", f"source {source!r} has no rows yet", f"run `falaj ingest {source}` first")
    return _start_job(house, "train", order.model, order.actor, now, current, folder, files=files)


def _start_job(
    house: House,
    kind: str,
    subject: str,
    actor: str,
    now: float,
    current: project.Project,
    folder: str,
    **more: Any,
) -> dict[str, Any]:
    if any(j.kind == kind and j.subject == subject for j in house.catalog.projects.unfinished()):
        raise Refusal(
            "job-running", f"{kind} of {subject} is under way", "wait for it: `falaj status` shows how far it is"
        )
    job = house.catalog.projects.new_job(kind, subject, actor, now)
    house.actions.append(StartJob(JobSpec(job, kind, subject, current, folder, **more)))
    return {"job": job}


def _trust_keys(house: House, order: orders.TrustKeys, now: float) -> dict[str, Any]:
    pems = {"director": house.keys.director, "snapshot": house.keys.snapshot, "timestamp": house.keys.timestamp}
    publics = {name: roles.signer(pem).public_key for name, pem in pems.items()}
    return {name: {"keyid": key.keyid, **key.to_dict()} for name, key in publics.items()}


def _trust_init(house: House, order: orders.TrustInit, now: float) -> dict[str, Any]:
    files = house.catalog.releases.trust()
    if "1.root.json" in files:
        raise Refusal("trust-exists", "this tenant has a root already", "see `falaj trust status`")
    root, targets = order.root.encode(), order.targets.encode()
    publish.check_trust_init(root, targets)
    director = roles.signer(house.keys.director).public_key.keyid
    if director not in publish.director_ids(root):
        raise Refusal("wrong-director", "the root names another director than this core's")
    fresh = {"1.root.json": root, "1.targets.json": targets}
    fresh |= publish.renew(fresh, _online(house), now)
    publish.check_online(fresh)  # else no device would ever believe what this core signs
    house.catalog.releases.put_trust(fresh)
    house.event(now, "trust-initialised", "root 1, profile single-owner")
    house.publish_trust(house.catalog.releases.trust())
    return {"root": chunks.digest(root)}


def _approve(house: House, order: orders.Approve, now: float) -> dict[str, Any]:
    """1. the owner's signatures hold; 2. trust files; 3. blobs; 4. the rollout begins with the next round."""
    found = house.catalog.releases.release(order.model, order.number)
    if found is None:
        raise Refusal("no-such-release", f"there is no release {order.number} of {order.model}")
    row, payload = found
    if row.state == "revoked":
        raise Refusal("release-revoked", f"release {order.number} was revoked", "train a new one: `falaj train`")
    settings = _model(house, order.model).rollout
    files = house.catalog.releases.trust()
    targets = order.targets.encode() if order.targets is not None else None
    publish.check_approval(files, order.model, order.number, payload, targets, order.role.encode())
    fresh = publish.approved_files(order.model, payload, targets, order.role.encode())
    fresh |= publish.renew({**files, **fresh}, _online(house), now)
    house.catalog.releases.put_trust(fresh)
    house.catalog.releases.set_state(order.model, order.number, "approved")
    for digest in house.catalog.releases.keys(order.model, order.number):
        house.publish_blob(digest)
    house.publish_trust(house.catalog.releases.trust())
    house.actions.append(PersistBroker())
    approved = [
        r.number for r in house.catalog.releases.releases(ALL) if (r.model, r.state) == (order.model, "approved")
    ]
    past = [r for _, r in house.catalog.fleet.rollouts(active=False, limit=ALL) if r.model == order.model]
    rollout = plan(order.model, order.number, row.digest, settings, fallback(order.number, approved, past), now)
    house.catalog.fleet.add_rollout(rollout)
    house.event(now, "release-approved", f"release {order.number} by {order.actor}", model=order.model)
    return {"digest": row.digest, "canary": list(rollout.canary)}


def _token(house: House, order: orders.IssueToken, now: float) -> dict[str, Any]:
    root = house.catalog.releases.trust().get("1.root.json")
    if root is None:
        raise Refusal("no-trust", "a device must know whom to trust", "run `falaj trust init` first")
    secret = base64.urlsafe_b64encode(house.random(32)).decode().rstrip("=")
    expires = now + 60 * order.minutes
    house.catalog.fleet.put_token(order.device, enrolment.hash_secret(secret), expires)
    token = Token(
        url=house.enrol_url, tenant=house.tenant, device=order.device, secret=secret,
        ca=enrolment.fingerprint(house.authority.certificate), root=chunks.digest(root), expires=expires,
    )  # fmt: skip
    house.event(now, "token-issued", f"for {order.device}, {order.minutes} minutes, by {order.actor}")
    text = base64.urlsafe_b64encode(codec.encode(token)).decode().rstrip("=")
    return {"token": text, "device": order.device, "expires": expires}


def _enrol(house: House, order: orders.Enrol, now: float) -> dict[str, Any]:
    """Single use, short life, few attempts; the same answer for every reason, so that nothing can be guessed."""
    envelope = order.envelope.encode()
    device = enrolment.peek(envelope).device
    token = house.catalog.fleet.token(device)
    refused = Refusal(
        "enrolment-refused", "the token does not hold", "ask for a new one: `falaj device token NAME`", noted=True
    )
    if token is None or token.used is not None or now > token.expires or token.attempts >= TOKEN_ATTEMPTS:
        house.event(now, "enrolment-refused", f"for {device}", severity="notice", source="enrolment")
        raise refused
    try:
        admitted = enrolment.admit(house.authority, envelope, house.tenant, token.secret, now)
    except SyncError as error:
        house.catalog.fleet.token_tried(device)
        house.event(now, "enrolment-refused", f"for {device}: {error}", severity="notice", source="enrolment")
        raise refused from error
    epoch = house.catalog.fleet.next_epoch(device)
    house.catalog.fleet.token_used(device, now)
    house.catalog.fleet.put_device(device, epoch, admitted.certificate, admitted.signing_key, admitted.sealing_key, now)
    house.event(now, "device-enrolled", f"{device}, epoch {epoch}")
    root = house.catalog.releases.trust()["1.root.json"]
    host, port = house.uplink
    document = EnrolAnswer(
        house.tenant, device, epoch, admitted.certificate.decode(), house.authority.certificate.decode(),
        root.decode(), host, port,
    )  # fmt: skip
    return dict(msgspec.to_builtins(document, enc_hook=str))


def _progress(house: House, order: orders.JobProgress, now: float) -> dict[str, Any]:
    house.catalog.projects.progress(order.job, order.stage, order.done)
    return {}


def _commit_rows(house: House, order: orders.CommitRows, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    landed = order.landed
    house.catalog.datasets.land(landed, order.job)
    result = {"rows": landed.rows, "files": len(landed.files), "rejections": len(landed.rejections)}
    house.catalog.projects.finish(order.job, now, result)
    severity = "notice" if landed.rejections else "info"
    text = f"{landed.rows} rows of {landed.source}, {len(landed.rejections)} rejections"
    house.event(now, "rows-landed", text, severity=severity)
    return result


def _commit_candidate(house: House, order: orders.CommitCandidate, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    candidate = order.candidate
    key = house.catalog.releases.add_candidate(candidate, order.job, now)
    if not candidate.accepted:
        reasons = "; ".join(v.text for v in candidate.verdicts if v.outcome == "fail")
        house.catalog.projects.finish(order.job, now, {"candidate": key, "accepted": False, "reasons": reasons})
        house.event(now, "candidate-refused", reasons, severity="notice", model=candidate.model)
        return {"candidate": key, "accepted": False}
    manifest = _stage(house, candidate, key, now)
    result = {"candidate": key, "accepted": True, "model": manifest.model, "number": manifest.number,
              **manifest.lineage.metrics}  # fmt: skip
    house.catalog.projects.finish(order.job, now, result)
    text = f"release {manifest.number} awaits approval: {manifest.lineage.reason}"
    house.event(now, "release-staged", text, model=manifest.model)
    return result


def _stage(house: House, candidate: Candidate, key: int, now: float) -> Manifest:
    """Blobs to disk first, then the rows that name them: a cut between leaves files nobody names."""
    number = house.catalog.releases.next_number(candidate.model)
    model = _model(house, candidate.model)
    staged = registry.stage(candidate, model, number, house.tenant, house.artifacts, house.random, now)
    for item in staged.blobs:
        house.blobs.put(item.blob.sealed, item.sealed)
        house.catalog.releases.keep_key(item.blob, item.key, candidate.model, number)
    house.catalog.releases.stage(staged.manifest, staged.payload, staged.digest, key, now)
    return staged.manifest


def _job_failed(house: House, order: orders.JobFailed, now: float) -> dict[str, Any]:
    _still_open(house, order.job)
    house.catalog.projects.finish(order.job, now, {}, order.error, order.hint)
    house.event(now, "job-failed", f"job {order.job}: {order.error}", severity="alarm")
    return {}


def _project(house: House) -> tuple[project.Project, str]:
    current = house.catalog.projects.current()
    if current is None:
        raise Refusal("no-project", "no project yet", "run `falaj apply falaj.toml` first")
    return current[0], str(Path(current[1]))


def _model(house: House, name: ModelName) -> project.Model:
    """The model as the project declares it now; it may have gone since its training began."""
    current, _ = _project(house)
    model = current.models.get(name)
    if model is None:
        raise Refusal("no-such-model", f"no model {name!r}; declared: {', '.join(current.models)}")
    return model


def _still_open(house: House, job: int) -> None:
    found = house.catalog.projects.job(job)
    if found is None or found.finished is not None:
        raise Refusal("job-over", f"job {job} is not open; its result is not taken twice")


def _online(house: House) -> publish.OnlineSigners:
    return publish.OnlineSigners(roles.signer(house.keys.snapshot), roles.signer(house.keys.timestamp))


_DESKS: dict[type, Callable[[House, Any, float], dict[str, Any]]] = {
    orders.ApplyProject: _apply,
    orders.Ingest: _ingest,
    orders.Train: _train,
    orders.TrustKeys: _trust_keys,
    orders.TrustInit: _trust_init,
    orders.Approve: _approve,
    orders.IssueToken: _token,
    orders.Enrol: _enrol,
    orders.JobProgress: _progress,
    orders.CommitRows: _commit_rows,
    orders.CommitCandidate: _commit_candidate,
    orders.JobFailed: _job_failed,
}
