"""One function a phase: what the walker does for a model that stands there. Each returns True if it moved.

Journal first, act second, report third. A step is repeated until it moves, so it must bear being repeated.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from edge import health, slots
from edge.agent import fetching as incoming
from edge.agent import growing, loading, splitting, standing, trying
from edge.agent.house import House
from edge.agent.leaving import gates_of, give_up, newest, of_incumbent, refuse, reverting, superseded, withdraw
from edge.artifacts import Rotten
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
    Slot,
)
from sync.errors import Damaged
from sync.messages import ModelOrder

HELD = "a person holds this device (the file `hold` in its folder); what serves goes on"


def advance(house: House, d: Deployment, now: float) -> bool:
    """Does what the phase asks for; True if the deployment is in another state now."""
    d = standing.watch(house, _renewed(house, splitting.tend(house, d, now)), now)
    if house.blocked.holds(d.model, now):
        return False
    return _STEPS[d.phase](house, d, now)


def _renewed(house: House, d: Deployment) -> Deployment:
    """The deployment under the newest order for the release that is under way: mode, gates, keys or retry changed."""
    order = newest(house, d)
    if d.order is None or order is None or d.phase in AT_REST or d.phase is Phase.REVERTING:
        return d
    if order == d.order or order.manifest != d.order.manifest or order.mode == "off":
        return d
    return house.write(slots.renew(d, order))


def at_rest(house: House, d: Deployment, now: float) -> bool:
    """Reconciles with the assignment: takes up an order that is not what serves, or takes a model away."""
    order = house.assignment.models.get(d.model) if house.assignment else None
    if order is None:
        return False
    if order.mode == "off":
        if d.serving is None:
            house.serving.forget(d.model)  # nobody waits for it
            return _unbind(house, d)
        house.write(slots.take_off(d, "withdrawn by the assignment", now))
        incoming.prune(house)  # what it may not run any more it does not keep
        return True
    if d.lanes:
        house.write(slots.rejoin(d, now))
        return True
    d = _heard(house, d, of_incumbent(order) if order.mode == "split" else order)
    if d.serving is not None and d.serving.release.manifest == order.manifest:
        arm = splitting.wanted_arm(house, d, order, now)
        return arm is not None and _take_up(house, d, arm, now)
    return _take_up(house, d, of_incumbent(order) if order.mode == "split" else order, now)


def _heard(house: House, d: Deployment, order: ModelOrder) -> Deployment:
    """Another word on what serves, or on what was tried last, counts at rest too: its floor says how far back to go."""
    serves = d.serving is not None and d.serving.release.manifest == order.manifest
    tried = d.order is not None and d.order.manifest == order.manifest
    return house.write(slots.renew(d, order)) if order != d.order and (serves or tried) else d


def live_split(house: House, d: Deployment, now: float) -> bool:
    """Several releases answer: fetches the arms that lack, gives them their places, and ends what is not wanted."""
    order = house.assignment.models.get(d.model) if house.assignment else None
    if order is None:
        return False
    if order.mode != "split" or d.serving is None or d.serving.release.manifest != order.manifest:
        may_begin = _holder(house, d, now) is None and _may_begin(house, d, order, now)
        return splitting.end(house, d, order, now, may_begin=may_begin)
    arm = splitting.wanted_arm(house, d, order, now)
    if arm is not None:
        return _take_up(house, d, arm, now)
    return splitting.reconcile(house, d, order, now)


def _may_begin(house: House, d: Deployment, order: ModelOrder, now: float) -> bool:
    """Whether this device may begin with the release of an order: it gave no verdict against it, and what has not
    expired is known not to have."""
    if _refused_before(house, order, d) or house.clock_is_off(now):
        return False
    return order.number >= order.floor and house.assignment is not None and now <= house.assignment.expires


def _holder(house: House, d: Deployment, now: float) -> Deployment | None:
    """The other model that is being proved or tried: what it takes of time and memory must be nobody else's. One that
    waits for memory to go back takes none."""
    others = (o for o in house.deployments.values() if o.model != d.model and o.phase in _TRYING)
    return next((o for o in others if o.phase is not Phase.REVERTING or not house.blocked.holds(o.model, now)), None)


def _unbind(house: House, d: Deployment) -> bool:
    """A model that is off, and answers nothing, hears nothing either."""
    if d.bound is not None:
        house.write(slots.unbind(d))
        house.outside.bindings_changed()
    return False


def _take_up(house: House, d: Deployment, order: ModelOrder, now: float) -> bool:
    if not _may_begin(house, d, order, now) or growing.rests(house, d.model, order.manifest, now):
        return False
    text = f"release {order.number} is assigned"
    offered = house.events.happened(now, "release-offered", text, d.model, number=order.number)
    house.write(slots.offer(d, order, now), says=offered)
    return True


def fetching(house: House, d: Deployment, now: float) -> bool:
    """1. trust: is it among the signed releases? 2. bytes: every chunk of the blobs we lack. 3. open them."""
    if d.order is None or superseded(house, d):
        return withdraw(house, d, now)
    if d.candidate is None:
        try:
            return incoming.admit(house, d, d.order, now)
        except loading.Unsuited as error:
            return refuse(house, d, loading.failure(error), now)
    try:
        blobs = incoming.blobs(house, d.candidate)
    except Damaged as error:
        return refuse(house, d, loading.failure(error), now)
    lacking = [b for b in blobs if not house.artifacts.complete(b)]
    if lacking:
        _outlive(house, d)  # power cuts while it is fetched are no fault of its
        return incoming.fetch(house, d, lacking, now)
    if looping := health.looping(d.starts, gates_of(d)):
        return refuse(house, d, Failure(FailureClass.VERDICT, "crash-loop", looping), now)
    try:
        opened = loading.open_slot(house, d.candidate)
    except Rotten as error:
        house.put_off(d.model, error.code, str(error), now, "alarm")  # a disk that rots may not let go of it either
        return False  # what rotted is gone: it is lacking at the next try
    except Damaged as error:
        for blob in blobs:
            house.artifacts.discard(blob)
        return refuse(house, d, loading.failure(error), now)
    d = house.write(slots.complete(d, now))
    house.blocked.drop(d.model)
    staged(house, d, now, opened)  # where nothing is in the way it need not be read from disk and opened once more
    return True


def staged(house: House, d: Deployment, now: float, opened: loading.Opened | None = None) -> bool:
    """Hands the plaintext, which may be `opened` already, to the proving child; nothing unproven is loaded into this
    process."""
    if d.candidate is None or superseded(house, d):
        return withdraw(house, d, now)
    looping = health.looping(d.starts, gates_of(d))
    if looping:
        return refuse(house, d, Failure(FailureClass.VERDICT, "crash-loop", looping), now)
    if house.guard.held():
        return incoming.wait(house, _outlive(house, d), HELD, now + incoming.RETRY)
    if (holder := _holder(house, d, now)) is not None:
        return _wait_for(house, _outlive(house, d), holder, now)
    try:
        opened = opened or loading.open_slot(house, d.candidate)
    except Damaged as error:
        give_up(house, d, Event.REFUSED, str(error), now, loading.failure(error))
        return True
    profile = d.candidate.manifest.profile
    house.write(slots.begin_proving(d, now))
    request = ProofRequest(opened.model, opened.golden, opened.variant.precision, profile.rss_mb)
    house.bench.proving[d.model] = opened.variant.blob.plain
    house.actions.append(Prove(d.model, opened.variant.blob.plain, request))
    return True


def _wait_for(house: House, d: Deployment, holder: Deployment, now: float) -> bool:
    """Whose turn it is is told once, for that may take weeks."""
    text = f"{holder.model} is being proved or tried, one model of a device at a time"
    if d.reason != text:
        waits = house.events.happened(now, "waits-its-turn", text, d.model, "notice", holder=str(holder.model))
        house.write(replace(d, reason=text), says=waits)
    return False


def _outlive(house: House, d: Deployment) -> Deployment:
    """The agent lived to see that it has to wait: the starts so far are no loop."""
    return house.write(slots.outlived(d)) if d.starts else d


def proving(house: House, d: Deployment, now: float) -> bool:
    """Waits for the child; an order that changed meanwhile wins."""
    return withdraw(house, d, now) if superseded(house, d) else False


def take_proof(house: House, d: Deployment, outcome: Proof | Failure, now: float) -> None:
    """The child's result: a verdict, an obstacle on this host, or proved."""
    if d.phase is not Phase.PROVING:
        return
    if isinstance(outcome, Proof) and d.candidate is not None:
        outcome = judge(outcome, d.candidate.manifest.profile) or _room(house, d, outcome) or outcome
    if isinstance(outcome, Failure):
        if outcome.kind is not FailureClass.VERDICT or not _another(house, d, outcome, now):
            refuse(house, d, outcome, now)
        return
    proved = house.events.happened(
        now, "release-proved", f"golden vectors passed, p99 {outcome.p99_ms:.2f} ms", d.model,
        p99_ms=outcome.p99_ms, rss_mb=outcome.rss_mb, worst=outcome.worst,
    )  # fmt: skip
    house.write(slots.proved(d, outcome, now), says=proved)
    house.blocked.drop(d.model)


def probation(house: House, d: Deployment, now: float) -> bool:
    """A newer order ends the trial, unless nothing else would answer: then who is on trial stands in until the release
    that is ordered has been proved. Where that one was refused meanwhile it goes on with its trial; not where it was
    refused before it was ordered: then whoever ordered it wants the one on trial no more."""
    order = newest(house, d)
    if d.serving is None or order is None:
        return trying.probation(house, d, now)
    anew = superseded(house, d)  # ... by what was not begun with as yet
    if order.mode != "off" and order.manifest == d.serving.release.manifest:
        if not anew:
            return trying.probation(house, d, now)
        house.write(slots.renew(d, order))  # it is wanted again
        return True
    if not standing.stays(d, order) or (anew and _refused_before(house, order, d)):
        return trying.make_way(house, d, now)
    return _take_up(house, d, order, now) or trying.probation(house, d, now, commits=not anew)


def _another(house: House, d: Deployment, failure: Failure, now: float) -> bool:
    """An integer kernel may count differently on this CPU, or be slow: the release may have a variant that is fit."""
    assert d.candidate is not None
    tried = loading.installed(d.candidate)
    try:
        variant = loading.variant_of(house, d.candidate.manifest, (*d.candidate.refused, tried.blob.plain))
    except loading.Unsuited:
        return False
    text = f"{tried.precision} does not do here, {variant.precision} is tried: {failure.text}"
    facts = {"criterion": failure.code, "artifact": str(tried.blob.plain)}
    refused = house.events.happened(now, "variant-refused", text, d.model, "notice", **facts)
    house.write(slots.unfit(d, variant.blob.plain, now), says=refused)
    return True


def _room(house: House, d: Deployment, proof: Proof) -> Failure | None:
    """Each model has its share of the box; one that leaves no room for the others waits, and did nothing wrong."""
    stay = [slot for o in house.deployments.values() if o.model != d.model for slot in (o.serving, *_arms(o))]
    if d.order is not None and d.order.mode == "split":
        stay += [d.serving, *_arms(d)]
    others = sum(slot.rss_mb for slot in stay if slot is not None)
    if others + proof.rss_mb <= house.guard.room_mb:
        return None
    text = f"it takes {proof.rss_mb:.0f} MiB, the others {others:.0f}, and {house.guard.room_mb:.0f} are for all models"
    return Failure(FailureClass.ENVIRONMENT, "no-room", f"{text}: raise models_mb in edge.toml, or take a model away")


def _arms(d: Deployment) -> list[Slot]:
    return [lane.slot for lane in d.lanes if not lane.fallen]


def _refused_before(house: House, order: ModelOrder, d: Deployment) -> bool:
    return any(verdict.bars(order.manifest, order.retry) for verdict in house.journal.quarantined(d.model))


# One model of a device at a time is in these.
_TRYING = frozenset({Phase.PROVING, Phase.SHADOW, Phase.PROBATION, Phase.REVERTING})

_STEPS: dict[Phase, Callable[[House, Deployment, float], bool]] = {
    Phase.NO_MODEL: at_rest,
    Phase.STEADY: at_rest,
    Phase.FETCHING: fetching,
    Phase.STAGED: staged,
    Phase.PROVING: proving,
    Phase.SHADOW: splitting.shadow,
    Phase.PROBATION: probation,
    Phase.LIVE_SPLIT: live_split,
    Phase.REVERTING: reverting,
}
