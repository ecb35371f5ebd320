"""What a rollout is when it starts: the plan that the project's settings ask for."""

from __future__ import annotations

from collections.abc import Iterable

from core.handoffs import Rollout, RolloutState, SplitPlan
from core.project import Rollout as Settings
from core.rollout.judge import pairs_decide
from sync.evidence import block_length
from sync.messages import Gates
from sync.names import Digest, ModelName

LEAST_BLOCK = 50  # windows: few errors are no measure of how many come together
_TURNED_BACK = (RolloutState.REVERSING, RolloutState.REVERSED)
_BEYOND_CANARY = (RolloutState.RAMP, RolloutState.COMPLETE)


def plan(
    model: ModelName,
    number: int,
    manifest: Digest,
    settings: Settings,
    previous: int | None,
    now: float,
    *,
    retry: int = 0,
    forced: str = "",
    split: SplitPlan | None = None,
    burst: float = 1.0,
) -> Rollout:
    """The rollout of one approved release; its gates are fixed from here on.

    Without a release before it there is nothing to pair with: it is judged by guardrails, and `reason` says so.
    `retry` is the generation of its assignments (`generation`), `forced` who had it serve at once, and why, `split` how
    it is tried beside the release before it, where the settings ask for that. `burst`: of how many windows a run of
    errors of that release is; blocks that are stated and too short for it are kept, and `reason` says so.
    """
    alone = previous is None and settings.evidence != "guardrails"
    gates = Gates(
        evidence="guardrails" if alone or settings.kind == "ab" else settings.evidence,
        margin=settings.margin,
        block=settings.block or max(LEAST_BLOCK, block_length(burst)),
        soak_answers=settings.soak_answers,
        max_errors=settings.max_errors,
        shadow_share=settings.shadow_share,
        per_key=settings.per_key,
    )
    reason = ""
    if alone:
        reason = f"no release to compare it with by {settings.evidence}: guardrails judge it"
    elif pairs_decide(gates) and gates.block < block_length(burst):
        reason = (
            f"errors of release {previous} came {burst:.1f} in a row: blocks of {gates.block} windows count for more "
            f"than they know, {block_length(burst)} would not"
        )
    return Rollout(
        model, number, manifest, settings.canary, gates, RolloutState.APPROVED, now, previous,
        reason=reason, retry=retry, forced=forced, split=split, days=settings.days,
    )  # fmt: skip


def fallback(number: int, approved: Iterable[int], past: Iterable[Rollout]) -> int | None:
    """The release to take devices back to: the newest approved one before `number` that was not reversed itself.

    One that went beyond its canary devices is preferred to one that never did. `past`: all rollouts of the model,
    newest first; of a release that was rolled out again the newest one counts.
    """
    newest: dict[int, Rollout] = {}
    for rollout in past:
        newest.setdefault(rollout.number, rollout)
    open_to = [n for n in approved if n < number and (n not in newest or newest[n].state not in _TURNED_BACK)]
    proved = [n for n in open_to if n in newest and _proved(newest[n])]
    return max(proved or open_to, default=None)


def generation(number: int, past: Iterable[Rollout]) -> int:
    """The highest retry generation that a release was ever assigned with; -1 if it never was rolled out.

    A device that gave a verdict against it takes it up again only at a higher one.
    """
    return max((r.retry for r in past if r.number == number), default=-1)


def _proved(rollout: Rollout) -> bool:
    """Whether its canary devices committed it: only then others are assigned."""
    superseded = rollout.state is RolloutState.SUPERSEDED and not set(rollout.assigned) <= set(rollout.canary)
    return superseded or rollout.state in _BEYOND_CANARY
