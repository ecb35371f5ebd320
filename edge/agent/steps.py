"""One function a phase: what the walker does for a model that stands there. Each returns True if it moved.

Journal first, act second, report third. A step is repeated until it moves, so it must bear being repeated.
"""

from __future__ import annotations

from collections.abc import Callable

from edge import health, runtime, slots
from edge.agent import fetching as incoming
from edge.agent import loading
from edge.agent.house import CLOCK_FLOOR, House
from edge.artifacts import Rotten
from edge.journal import Quarantined
from edge.lifecycle import AT_REST
from edge.proving import judge
from edge.states import (
    Deployment,
    Event,
    Failure,
    FailureClass,
    Phase,
    Proof,
    ProofRequest,
    Prove,
)
from sync.errors import Damaged, SyncError
from sync.messages import Gates, ModelOrder, Validated


def advance(house: House, d: Deployment, now: float) -> bool:
    """Does what the phase asks for; True if the deployment is in another state now."""
    if now < house.blocked.get(d.model, 0.0):
        return False
    return _STEPS[d.phase](house, d, now)


def at_rest(house: House, d: Deployment, now: float) -> bool:
    """Reconciles with the assignment: takes up an order that is not what serves, or takes a model away."""
    assignment = house.assignment
    order = assignment.models.get(d.model) if assignment else None
    if assignment is None or order is None:
        return False
    if order.mode == "off":
        if d.serving is None:
            return False
        house.write(slots.take_off(d, "withdrawn by the assignment", now))
        return True
    if d.serving is not None and d.serving.release.manifest == order.manifest:
        return False
    busy = any(o.phase not in AT_REST for o in house.deployments.values() if o.model != d.model)
    if busy or _refused_before(house, order, d) or now < CLOCK_FLOOR:
        return False
    if order.number < order.floor or now > assignment.expires:
        return False
    house.write(slots.offer(d, order, now))
    house.event(now, "release-offered", f"release {order.number} is assigned", d.model, number=order.number)
    return True


def fetching(house: House, d: Deployment, now: float) -> bool:
    """1. trust: is it among the signed releases? 2. bytes: every chunk of the blobs we lack. 3. open them."""
    if d.order is None or _superseded(house, d):
        return _withdraw(house, d, now)
    if d.candidate is None:
        try:
            return incoming.admit(house, d, d.order, now)
        except loading.Unsuited as error:
            return refuse(house, d, loading.failure(error), now)
    blobs = incoming.blobs(house, d.candidate)
    lacking = [b for b in blobs if not house.artifacts.complete(b)]
    if lacking:
        return incoming.fetch(house, d, lacking, now)
    try:
        loading.open_slot(house, d.candidate)
    except Rotten as error:
        house.event(now, error.code, str(error), d.model, "alarm")
        house.blocked[d.model] = now + incoming.AGAIN  # a disk that rots may not let go of the file either
        return False  # what rotted is gone: it is lacking at the next try
    except Damaged as error:
        for blob in blobs:
            house.artifacts.discard(blob)
        return refuse(house, d, loading.failure(error), now)
    house.write(slots.complete(d, now))
    return True


def staged(house: House, d: Deployment, now: float) -> bool:
    """Hands the plaintext to the proving child; nothing unproven is loaded into this process."""
    if d.candidate is None or _superseded(house, d):
        return _withdraw(house, d, now)
    looping = health.looping(d.starts, gates_of(d))
    if looping:
        return refuse(house, d, Failure(FailureClass.VERDICT, "crash-loop", looping), now)
    try:
        opened = loading.open_slot(house, d.candidate)
    except Damaged as error:
        give_up(house, d, Event.REFUSED, str(error), now, loading.failure(error))
        return True
    profile = d.candidate.manifest.profile
    house.write(slots.begin_proving(d, now))
    request = ProofRequest(opened.model, opened.golden, opened.variant.precision, profile.p99_ms, profile.rss_mb)
    house.proving.add(d.model)
    house.actions.append(Prove(d.model, opened.variant.blob.plain, request))
    return True


def proving(house: House, d: Deployment, now: float) -> bool:
    """Waits for the child; an order that changed meanwhile wins."""
    return _withdraw(house, d, now) if _superseded(house, d) else False


def take_proof(house: House, d: Deployment, outcome: Proof | Failure, now: float) -> None:
    """The child's result: a verdict, an obstacle on this host, or proved."""
    house.proving.discard(d.model)
    if d.phase is not Phase.PROVING:
        return
    if isinstance(outcome, Proof) and d.candidate is not None:
        outcome = judge(outcome, d.candidate.manifest.profile) or outcome
    if isinstance(outcome, Failure):
        refuse(house, d, outcome, now)
        return
    house.write(slots.proved(d, outcome.p99_ms, now))
    house.event(
        now, "release-proved", f"golden vectors passed, p99 {outcome.p99_ms:.2f} ms", d.model,
        p99_ms=outcome.p99_ms, rss_mb=outcome.rss_mb, worst=outcome.worst,
    )  # fmt: skip


def shadow(house: House, d: Deployment, now: float) -> bool:
    """Without an incumbent, or under `guardrails`, there is nothing to compare: the trial begins."""
    if d.candidate is None or _superseded(house, d):
        return _withdraw(house, d, now)
    looping = health.looping(d.starts, gates_of(d))  # the first load in this very process: it may take it down
    if looping:
        failure = Failure(FailureClass.VERDICT, "crash-loop", looping)
        give_up(house, d, Event.DEGRADED, looping, now, failure)
        return True
    try:
        loaded, validated = loading.load(house, d.candidate, now)
    except (SyncError, runtime.ModelError) as error:
        give_up(house, d, Event.DEGRADED, str(error), now, loading.failure(error))
        return True
    incumbent = house.serving.incumbent(d.model)
    if incumbent is not None:
        house.warm[d.model] = incumbent
    house.write(slots.begin_trial(d, validated, now))
    house.serving.put(d.model, loaded)
    house.bindings_changed()
    house.event(now, "probation-begun", f"release {loaded.slot.release.number} answers, on trial", d.model)
    return True


def probation(house: House, d: Deployment, now: float) -> bool:
    """Counts answers and breaches; commits, or goes home at once."""
    if _superseded(house, d):
        return _withdraw(house, d, now)
    event, reason = health.judge(house.serving.health(d.model), gates_of(d))
    if event is None:
        return False
    if event is Event.DEGRADED:
        give_up(house, d, event, reason, now, Failure(FailureClass.VERDICT, "guardrail", reason))
        return True
    house.write(slots.mark_good(d, now))
    house.warm.pop(d.model, None)
    house.artifacts.prune(house.kept())
    house.event(now, "release-committed", reason, d.model, number=d.serving.release.number if d.serving else 0)
    return True


def reverting(house: House, d: Deployment, now: float) -> bool:
    """Settles who answers now: the warm session, else the previous release from disk, else nobody, declared."""
    warm = house.warm.pop(d.model, None)
    current = house.serving.incumbent(d.model)
    validated: Validated | None = None
    while d.serving is not None:
        known = Validated(d.serving.release.artifact, now, d.serving.p99_ms)
        if current is not None and current.slot.release == d.serving.release:
            validated = d.validated or known  # it never stopped to answer, and goes on counting
            break
        try:
            if warm is not None and warm.slot.release == d.serving.release:
                loaded, validated = warm, known
            else:
                loaded, validated = loading.load(house, d.serving, now)
        except (SyncError, runtime.ModelError) as error:
            house.event(now, "return-failed", str(error), d.model, "alarm")
            d = house.write(slots.drop_previous(d))
            continue
        house.serving.put(d.model, loaded)
        break
    if d.serving is None:
        house.serving.take_away(d.model)
    d = house.write(slots.returned(d, validated, now))
    house.bindings_changed()
    who = f"release {d.serving.release.number} answers again" if d.serving else "no model answers, declared"
    house.event(now, "returned", f"{who}: {d.reason}", d.model, "notice")
    return True


def refuse(house: House, d: Deployment, failure: Failure, now: float) -> bool:
    """A failure before the release served, by its class: stay and retry, or a verdict."""
    if failure.kind is not FailureClass.VERDICT:
        house.blocked[d.model] = now + incoming.RETRY
        house.event(now, failure.code, failure.text, d.model, "notice")
        if d.phase is Phase.PROVING:  # the proof is repeated from the start
            house.write(slots.prove_again(d))
        return False
    give_up(house, d, Event.REFUSED, failure.text, now, failure)
    return True


def give_up(house: House, d: Deployment, event: Event, reason: str, now: float, failure: Failure | None = None) -> None:
    """Leaves a release behind; a verdict also quarantines it, in one write, before anything else happens."""
    verdict = _verdict(d, failure) if failure is not None and failure.kind is FailureClass.VERDICT else None
    house.write(slots.give_up(d, event, reason, now), verdict)
    incoming.abandon(house)
    if failure is not None:
        facts = failure.facts | ({"manifest": str(verdict.manifest)} if verdict else {})
        house.event(now, failure.code, failure.text, d.model, "alarm", **facts)


def _verdict(d: Deployment, failure: Failure) -> Quarantined | None:
    """What is quarantined: the release that was tried, which need not be the one last ordered."""
    tried = d.candidate or (d.serving if d.phase in (Phase.PROBATION, Phase.STEADY) else None)
    manifest = tried.release.manifest if tried else d.order.manifest if d.order else None
    if manifest is None:
        return None
    retry = d.order.retry if d.order and d.order.manifest == manifest else 0
    return Quarantined(tried.release.artifact if tried else manifest, manifest, retry, failure.text)


def _superseded(house: House, d: Deployment) -> bool:
    """Whether the newest assignment wants something else than what is under way."""
    if house.assignment is None or d.order is None:
        return False
    order = house.assignment.models.get(d.model)
    return order is not None and (order.manifest != d.order.manifest or order.mode == "off")


def _withdraw(house: House, d: Deployment, now: float) -> bool:
    give_up(house, d, Event.WITHDRAWN, "a newer assignment wants something else", now)
    return True


def _refused_before(house: House, order: ModelOrder, d: Deployment) -> bool:
    return any(q.manifest == order.manifest and q.retry >= order.retry for q in house.journal.quarantined(d.model))


def gates_of(d: Deployment) -> Gates:
    return d.order.gates if d.order else Gates()


_STEPS: dict[Phase, Callable[[House, Deployment, float], bool]] = {
    Phase.NO_MODEL: at_rest,
    Phase.STEADY: at_rest,
    Phase.FETCHING: fetching,
    Phase.STAGED: staged,
    Phase.PROVING: proving,
    Phase.SHADOW: shadow,
    Phase.PROBATION: probation,
    Phase.REVERTING: reverting,
}
