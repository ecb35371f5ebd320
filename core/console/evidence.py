"""What the pairs of a rollout say, for people: two meters with their marks, blocks, and each device's figures. Pure.

The judging is `core.rollout.judge`'s; here its figures are only put into words and lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from core.console import wording
from core.console.wording import Badge
from core.handoffs import Rollout, RolloutState
from core.rollout.arms import Comparison, compare
from core.rollout.judge import Judgement, judge, pairs_decide
from sync import codec
from sync.evidence import ALPHA_SAFE, Counters, Decision, log_safe
from sync.names import DeviceId
from sync.reports import ModelReport, TrialReport

MARK = 80.0  # where a threshold stands on a meter of length 100: what went beyond it is seen

Reports = Mapping[DeviceId, ModelReport | None]


@dataclass(frozen=True)
class Meter:
    """One e-value (natural logarithm) beside the threshold at which it decides; `filled` of a length of 100."""

    kind: str  # harm, safe
    title: str
    value: str
    at: str
    filled: float
    reached: bool


@dataclass(frozen=True)
class Pairs:
    """One device's part: blocks worse, equal, better; how often labels agreed with the new and the old release."""

    device: str
    worse: int
    equal: int
    better: int
    pairs: str
    agreed: str
    new: str
    old: str
    labels: int
    waiting: int


@dataclass(frozen=True)
class Evidence:
    """The panel. `decided`: as it stood when it decided; otherwise as it stands."""

    decided: bool
    decision: Badge
    metric: str
    rule: str
    harm: Meter
    safe: Meter
    worse: int
    equal: int
    better: int
    needed: str
    waiting: int
    devices: tuple[Pairs, ...]
    text: str


def counts_pairs(rollout: Rollout) -> bool:
    """Whether pairs have a word in this rollout: it has an incumbent, and not guardrails alone."""
    return pairs_decide(rollout.gates) and rollout.previous is not None


def judgement(rollout: Rollout, reports: Reports) -> Judgement | None:
    """The pooled word of the canary devices' pairs: as it was when it decided, else as it is. None where pairs have no
    word, or where the trial has not begun."""
    if not counts_pairs(rollout):
        return None
    kept = {device: ModelReport("shadow", 0.0, trial=trial) for device, trial in rollout.decided.items()}
    found = judge(rollout, kept or reports)
    return found if found.devices or rollout.state is RolloutState.SHADOW else None


def still_needed(counters: Counters, margin: float) -> int | None:
    """Further blocks, all equal, after which the release is called safe; None if no number of them suffices."""

    def enough(more: int) -> bool:
        grown = Counters(counters.plus, counters.zero + more, counters.minus)
        return log_safe(grown, margin) >= -math.log(ALPHA_SAFE)

    return _first(enough) if margin > 0 else None


def _first(enough: Callable[[int], bool]) -> int:
    """The smallest number that is enough; whatever is enough stays so."""
    high = 1
    while not enough(high):
        high *= 2
    low = 0 if enough(0) else high // 2
    if enough(low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def evidence(rollout: Rollout, reports: Reports) -> Evidence | None:
    """The panel of a rollout; None where no pairs are counted."""
    found = judgement(rollout, reports)
    if found is None:
        return None
    pooled, gates = found.pooled, rollout.gates
    return Evidence(
        decided=bool(rollout.decided),
        decision=wording.badge("decision", found.decision.value),
        metric=gates.evidence,
        rule=f"Blocks of {gates.block} input windows; it may be worse in a net share of {wording.share(gates.margin)}",
        harm=meter("harm", found.log_harm, found.harm_at),
        safe=meter("safe", found.log_safe, found.safe_at),
        worse=pooled.plus,
        equal=pooled.zero,
        better=pooled.minus,
        needed=_needed(found.decision, found.least, rollout),
        waiting=sum(trial.waiting for trial in found.devices.values()),
        devices=tuple(_pairs(device, trial) for device, trial in found.devices.items()),
        text=found.text,
    )


def document(rollout: Rollout, reports: Reports) -> dict[str, object] | None:
    """The evidence of a rollout as the API gives it: figures, unrounded; None where no pairs are counted."""
    found = judgement(rollout, reports)
    if found is None:
        return None
    pooled = found.pooled
    return {
        "decision": found.decision.value,
        "decided": bool(rollout.decided),
        "plus": pooled.plus,
        "zero": pooled.zero,
        "minus": pooled.minus,
        "log_harm": found.log_harm,
        "harm_at": found.harm_at,
        "log_safe": found.log_safe,
        "safe_at": found.safe_at,
        "needed": still_needed(found.least, rollout.gates.margin) if found.decision is Decision.HOLD else 0,
        "text": found.text,
        "devices": found.devices,
    }


def comparison(rollout: Rollout, reports: Reports) -> Comparison | None:
    """What the keys of an A/B say: as it was when they decided, else as it is; None where there is no split, or it has
    not begun."""
    if rollout.split is None or rollout.forced:
        return None
    kept = {device: ModelReport("live_split", 0.0, split=split) for device, split in rollout.compared.items()}
    found = compare(rollout, kept or reports)
    return found if found.devices or rollout.state is RolloutState.SPLIT else None


def comparison_document(rollout: Rollout, reports: Reports) -> dict[str, object] | None:
    """The comparison as the API gives it, unrounded; None where there is none."""
    found = comparison(rollout, reports)
    return {k: v for k, v in codec.builtins(found).items() if k != "devices"} if found is not None else None


def meter(kind: str, value: float, at: float) -> Meter:
    """`value` and its threshold `at`, both natural logarithms of e-values; a value below 0 is drawn as 0."""
    title = "It does worse" if kind == "harm" else "It does no worse"
    filled = min(100.0, max(0.0, MARK * value / at)) if at > 0 else 0.0
    return Meter(kind, title, f"{value:.2f}".replace("-", "\u2212"), f"{at:.2f}", round(filled, 1), value >= at)


def _needed(decision: Decision, counters: Counters, rollout: Rollout) -> str:
    if decision is not Decision.HOLD or rollout.decided:
        return ""
    blocks = still_needed(counters, rollout.gates.margin)
    if blocks is None:
        return "With a margin of 0 no number of equal blocks makes it safe."
    windows = wording.count(blocks * rollout.gates.block)
    return f"It takes {wording.plural(blocks, 'more block')} ({windows} input windows) if none of them differs."


def _pairs(device: DeviceId, trial: TrialReport) -> Pairs:
    return Pairs(
        device=device,
        worse=trial.plus,
        equal=trial.zero,
        better=trial.minus,
        pairs=wording.count(trial.pairs),
        agreed=wording.share_of(trial.agreed, trial.pairs),
        new=wording.share_of(trial.right, trial.labels),
        old=wording.share_of(trial.right_before, trial.labels),
        labels=trial.labels,
        waiting=trial.waiting,
    )
