"""Memory as a guardrail, of releases on trial and of arms. onnxruntime does not tell what a session holds.

What can be told is by how much the process grows. What grows while a release is on trial is held to be it, for only one
of a device is; but an arm of a split may have grown meanwhile. Then the one that came last, the release on trial, is
taken off without a verdict. The arms are looked at without it for as long as its trial lasted, and then it is tried
again: what grows for a second time while it is here is its own.
What is on trial while another one stands in (`edge.agent.standing`) is taken off without a verdict however often: that
one's own growth counts where its trial goes on.

Several releases answer for weeks in a split. So growth is held against an arm only while nothing else is under way
on this device that takes memory: no proof, no trial, no release, table or config that came or went between two looks,
and not before all that a start has loaded had their first answers.
The one that came last on this box falls: at worst an arm that did nothing wrong, never a release that serves.
"""

from __future__ import annotations

from edge import health
from edge.agent.house import House
from edge.agent.leaving import gates_of
from edge.health import DAY, grow
from edge.states import Deployment, Failure, FailureClass, Phase, Slot
from sync.names import Digest, ModelName

WARM_S = 600.0  # seconds after a start in which models may still have their first answers

# Whatever grows in these is held to be the release on its way: by its own share, or by the child's limits.
_MOVING = frozenset({Phase.PROVING, Phase.SHADOW, Phase.PROBATION, Phase.REVERTING})


def look(house: House, now: float) -> None:
    """Takes note of what this process holds now; once in every walk."""
    arms = [(d.model, number) for d in house.deployments.values() for number in house.serving.arms(d.model)]
    if arms or house.bench.growth.arms:
        house.bench.growth = grow(house.bench.growth, arms, _beside(house, now), house.guard.memory())


def on_trial(house: House, d: Deployment, slot: Slot, now: float) -> Failure | None:
    """Why the release on trial has to go for the growth of this process since it came in; None while it stays."""
    now_mb = house.guard.memory()
    text = health.greedy(now_mb - house.bench.before.setdefault(d.model, now_mb), slot.manifest.profile.rss_mb)
    if not text:
        return None
    place = _place(d.model, slot.release.manifest)
    arms = any(house.serving.arms(one) for one in house.deployments)
    if not _stands_in(house, slot) and (house.blocked.times(place) or not arms):
        house.blocked.drop(place)
        return Failure(FailureClass.VERDICT, "guardrail", text)
    house.blocked.only(_place(d.model), {place})
    house.blocked.put_off(place, "memory-unclear", now)
    house.blocked.rest(place, now + min(abs(now - d.since), DAY))
    text = f"{text}; it may have been an arm of a split, or who stands in: it is tried again after as long without it"
    return Failure(FailureClass.ENVIRONMENT, "memory-unclear", text)


def moving(house: House, d: Deployment) -> bool:
    """Whether another model is under way in what takes memory."""
    return any(other.phase in _MOVING for other in house.deployments.values() if other.model != d.model)


def _stands_in(house: House, slot: Slot) -> bool:
    """Whether another release than this one answers before its trial is over: it may be that one that grows."""
    others = (d.serving for d in house.deployments.values() if d.serving is not None)
    return any(other.unsoaked and other.release != slot.release for other in others)


def rests(house: House, model: ModelName, manifest: Digest, now: float) -> bool:
    """Whether the arms are looked at without this release now."""
    return house.blocked.holds(_place(model, manifest), now)


def cleared(house: House, model: ModelName) -> None:
    """A release of this model passed its trial."""
    house.blocked.only(_place(model), set())


def _place(model: ModelName, manifest: str = "") -> str:
    """The name under which a release rests."""
    return f"grown:{model}:{manifest}"


def greedy(house: House, model: ModelName, number: int, share_mb: float) -> str:
    """A reason if it is this arm that falls for the growth of the process, else empty."""
    growth = house.bench.growth
    if not growth.arms or growth.arms[-1] != (model, number) or growth.grown_mb <= share_mb:
        return ""
    return (
        f"the agent has grown by {growth.grown_mb:.0f} MiB while it answered as the newest arm and nothing else was "
        f"under way, its share is {share_mb:.0f}"
    )


def _warming(house: House, now: float) -> bool:
    """Whether the first answers of what the start has loaded may still take memory for good."""
    if abs(now - house.bench.begun) >= WARM_S:
        return False
    for d in house.deployments.values():
        if d.since >= house.bench.begun or house.serving.incumbent(d.model) is None:
            continue  # what has moved since was proved and tried in this process
        answering = (None, *house.serving.arms(d.model))
        if any(house.serving.health(d.model, one).answers < gates_of(d).soak_answers for one in answering):
            return True
    return False


def _beside(house: House, now: float) -> object:
    """Another value whenever something else than an answer may have taken memory since the last look."""
    known = tuple((d.model, d.phase, d.since, d.serving and d.serving.release) for d in house.deployments.values())
    if any(phase in _MOVING for _, phase, _, _ in known) or _warming(house, now):
        return object()  # is never what it was
    pieces = tuple((name, held.current) for name, held in house.pieces.held.items())
    return known, pieces, frozenset(house.pieces.gathers)
