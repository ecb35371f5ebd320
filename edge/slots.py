"""Pure verbs on a deployment: who serves, who is on trial, who can be gone back to. Nothing here writes."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from edge.lifecycle import RESUME, step
from edge.routing import Routes, Stretch
from edge.states import Deployment, Event, Lane, Phase, Proof, Slot
from sync.manifest import Manifest
from sync.messages import ModelOrder
from sync.names import Digest
from sync.reports import Validated

CRASHES = 16  # times that are kept of a release
PINNED = 2  # committed releases kept on disk behind the one that serves


def offer(d: Deployment, order: ModelOrder, now: float) -> Deployment:
    """A signed assignment names another release: start to fetch it. Who answers on trial meanwhile, because nothing
    else would (`edge.agent.standing`), still has its trial before it."""
    serving = d.serving
    if serving is not None:
        on_trial = serving.unsoaked or d.phase is Phase.PROBATION
        serving = replace(serving, unsoaked=on_trial, retry=generation(d, serving))
    return _to(d, Event.OFFERED, now, order=order, candidate=None, reason="", serving=serving)


def generation(d: Deployment, slot: Slot) -> int:
    """The retry generation in which this release was ordered last: a verdict against it holds for that."""
    return d.order.retry if d.order and d.order.manifest == slot.release.manifest else slot.retry


def admit(d: Deployment, candidate: Slot) -> Deployment:
    """The release passed the trust checks; its bytes may still be on their way."""
    bound = d.bound if d.serving else candidate.manifest
    return replace(d, candidate=candidate, bound=bound, starts=0)


def bound(d: Deployment) -> Manifest | None:
    """Whose bindings hold: of the release that serves, else those of before go on, and say that there is none. A first
    release that an older agent took up has noted none."""
    if d.serving is not None:
        return d.serving.manifest
    return d.bound or (d.candidate.manifest if d.candidate is not None else None)


def unbind(d: Deployment) -> Deployment:
    """The assignment wants no release of this model: nothing is listened for any more."""
    return replace(d, bound=None)


def renew(d: Deployment, order: ModelOrder) -> Deployment:
    """The order under way changed in something else than its release; its keys count until they have opened it."""
    candidate = replace(d.candidate, keys=order.keys) if d.candidate and d.phase is Phase.FETCHING else d.candidate
    return replace(d, order=order, candidate=candidate)


def complete(d: Deployment, now: float) -> Deployment:
    """All bytes are here and verified."""
    return _to(d, Event.COMPLETE, now)


def begin_proving(d: Deployment, now: float) -> Deployment:
    # The starts go on counting: a model that takes the agent down while it is proved must be given up.
    return _to(d, Event.ALLOWED, now, starts=d.starts, reason="")


def unfit(d: Deployment, artifact: Digest, now: float) -> Deployment:
    """The variant that was tried does not do on this device: the one of this plaintext digest is tried instead."""
    if d.candidate is None:
        raise RuntimeError("a proof without a candidate")
    tried = d.candidate.release
    refused = (*d.candidate.refused, tried.artifact)
    candidate = replace(d.candidate, release=replace(tried, artifact=artifact), refused=refused)
    return _to(d, Event.UNFIT, now, candidate=candidate, starts=d.starts)


def proved(d: Deployment, proof: Proof, now: float) -> Deployment:
    """The child's golden vectors passed; what it measured stays with the release."""
    candidate = replace(d.candidate, p99_ms=proof.p99_ms, rss_mb=proof.rss_mb) if d.candidate else None
    return _to(d, Event.PROVED, now, candidate=candidate)


def begin_trial(d: Deployment, validated: Validated, now: float) -> Deployment:
    """The candidate answers from now on; the incumbent becomes the first to go back to."""
    if d.candidate is None:
        raise RuntimeError("a trial without a candidate")
    behind = (d.serving, *d.previous) if d.serving else d.previous
    return _to(
        d, Event.CLEARED, now,
        serving=d.candidate, candidate=None, previous=behind[:PINNED], validated=validated, reason="",
        bound=d.candidate.manifest,
    )  # fmt: skip


def join(d: Deployment, now: float) -> Deployment:
    """The candidate, which is proven, stands beside the one that serves: an arm that has no places yet."""
    if d.candidate is None or d.order is None:
        raise RuntimeError("an arm without a candidate")
    others = tuple(lane for lane in d.lanes if lane.slot.release.manifest != d.candidate.release.manifest)
    lanes = (*others, Lane(d.candidate, retry=d.order.retry))
    return _to(d, Event.JOINED, now, candidate=None, lanes=lanes, reason="")


def rejoin(d: Deployment, now: float) -> Deployment:
    """What came between is settled: the arms that are there go on."""
    return _to(d, Event.JOINED, now)


def fall(d: Deployment, number: int) -> Deployment:
    """The arm of this number has no places any more; those of the others stay."""
    fallen = (replace(lane, fallen=lane.fallen or lane.slot.release.number == number) for lane in d.lanes)
    return replace(d, lanes=tuple(fallen))


def end_split(d: Deployment, reason: str, now: float) -> Deployment:
    """No arm is left; who serves did nothing wrong."""
    return _to(d, Event.DEGRADED, now, lanes=(), reason=reason)


def crown(d: Deployment, lane: Lane, order: ModelOrder) -> Deployment:
    """An arm shall answer for all: it is the candidate, to be begun with (`begin_trial`); the other arms go."""
    return replace(d, candidate=lane.slot, order=order, lanes=())


def in_force(d: Deployment) -> bool:
    """Whether a split has begun: its arms have their places."""
    return any(lane.share for lane in d.lanes)


def routes(d: Deployment) -> Routes:
    """Who answers for whom, also while an arm has fallen: where none is loaded, the release that serves answers."""
    incumbent = d.serving.release.number if d.serving else 0
    lanes = (lane for lane in d.lanes if lane.share)
    stretches = (Stretch(one.first, one.first + one.share, one.slot.release.number) for one in lanes)
    return Routes(d.model, d.seed, incumbent, tuple(stretches))


def mark_good(d: Deployment, now: float) -> Deployment:
    """Committed: it passed probation."""
    return _to(d, Event.SOAKED, now, serving=replace(d.serving, unsoaked=False) if d.serving else None)


def give_up(d: Deployment, event: Event, reason: str, now: float) -> Deployment:
    """REFUSED, DEGRADED or WITHDRAWN: the release that was tried goes, who answered before stays or comes back; a split
    ends with it.

    Going back never leads below the floor of the order: what lies under it was revoked.
    """
    tried_served = d.phase in (Phase.PROBATION, Phase.STEADY)
    if d.phase is Phase.LIVE_SPLIT:
        d, tried_served = replace(d, lanes=()), event is Event.DEGRADED
    if not tried_served:
        return _to(d, event, now, candidate=None, reason=reason)
    behind = fallbacks(d)
    serving = behind[0] if behind else None
    return _to(d, event, now, serving=serving, previous=behind[1:], validated=None, reason=reason)


def drop_serving(d: Deployment, reason: str, now: float) -> Deployment:
    """A verdict on the release that answers while another is on its way: who is behind it, or nobody, answers."""
    return give_up(drop_previous(d), Event.WITHDRAWN, reason, now)


def fallbacks(d: Deployment) -> tuple[Slot, ...]:
    """The releases that can be gone back to from the one that serves, the next one first."""
    floor = d.order.floor if d.order else 1
    return tuple(slot for slot in d.previous if slot.release.number >= floor)


def take_off(d: Deployment, reason: str, now: float) -> Deployment:
    """The assignment wants no release of this model any more: nobody answers, nobody is gone back to."""
    return _to(d, Event.WITHDRAWN, now, serving=None, previous=(), validated=None, reason=reason, lanes=(), bound=None)


def prove_again(d: Deployment) -> Deployment:
    """Something on this host was in the way of the proof, or the agent was told to stop; no start is counted, for that
    was not the release's fault."""
    return replace(d, phase=RESUME[d.phase])


def drop_previous(d: Deployment) -> Deployment:
    """The release to go back to does not load either: the next one, or none."""
    behind = fallbacks(d)
    return replace(d, serving=behind[0] if behind else None, previous=behind[1:])


def forget(d: Deployment, number: int) -> Deployment:
    """This release was revoked: it is not gone back to. Where another is on trial, or nobody is settled to answer yet,
    the one behind it takes its place at once; else `give_up` does that."""
    d = replace(
        d,
        previous=tuple(slot for slot in d.previous if slot.release.number != number),
        lanes=tuple(lane for lane in d.lanes if lane.slot.release.number != number),
    )
    settled = d.phase in (Phase.PROBATION, Phase.STEADY)
    return d if settled or d.serving is None or d.serving.release.number != number else drop_previous(d)


def returned(d: Deployment, validated: Validated | None, now: float) -> Deployment:
    """Whoever should answer now does: the previous release, which may have its trial before it, or (declared)
    nobody."""
    if d.serving is None:
        return _to(d, Event.EMPTIED, now, validated=validated, lanes=())
    return _to(d, Event.BACK_ON_TRIAL if d.serving.unsoaked else Event.RETURNED, now, validated=validated)


def resumed(d: Deployment) -> Deployment:
    """The deployment after a restart; counts the start, so that a loop of crashes is seen."""
    return replace(d, phase=RESUME[d.phase], starts=d.starts + 1)


def crashed(d: Deployment, artifact: Digest, now: float) -> Deployment:
    """The process ended of its own fault while it asked this artifact, on trial or committed."""

    def counted(slot: Slot | None) -> Slot | None:
        hit = slot is not None and slot.release.artifact == artifact
        return replace(slot, crashes=(*slot.crashes, now)[-CRASHES:]) if slot is not None and hit else slot

    lanes = tuple(replace(lane, slot=counted(lane.slot)) for lane in d.lanes)
    return replace(d, serving=counted(d.serving), candidate=counted(d.candidate), lanes=lanes)


def outlived(d: Deployment) -> Deployment:
    """The release on trial ran long enough since the last start: the starts before it are no loop."""
    return replace(d, starts=0)


def revalidated(d: Deployment, validated: Validated) -> Deployment:
    """Checked again at this load."""
    return replace(d, validated=validated)


def _to(d: Deployment, event: Event, now: float, **changes: Any) -> Deployment:
    return replace(d, phase=step(d.phase, event), since=now, **{"starts": 0, **changes})
