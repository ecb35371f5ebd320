"""What a rollout is when it starts: the plan that the project's settings ask for."""

from __future__ import annotations

from collections.abc import Iterable

from core.handoffs import Rollout, RolloutState
from core.project import Rollout as Settings
from sync.messages import Gates
from sync.names import Digest, ModelName


def plan(
    model: ModelName, number: int, manifest: Digest, settings: Settings, previous: int | None, now: float
) -> Rollout:
    """The rollout of one approved release; its gates are fixed from here on."""
    gates = Gates(evidence=settings.evidence, soak_answers=settings.soak_answers, max_errors=settings.max_errors)
    return Rollout(model, number, manifest, settings.canary, gates, RolloutState.APPROVED, now, previous)


def fallback(number: int, approved: Iterable[int], past: Iterable[Rollout]) -> int | None:
    """The release to take devices back to: the newest approved one before `number` that was not reversed itself."""
    bad = {r.number for r in past if r.state in (RolloutState.REVERSING, RolloutState.REVERSED)}
    return max((n for n in approved if n < number and n not in bad), default=None)
