"""What a rollout is when it starts: the plan that the project's settings ask for."""

from __future__ import annotations

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
