"""Weighs what the canary devices' pairs say together: a pure, replayable function of their reports.

Each device counts blocks of pairs by itself and signs the counters; here those that are about just this trial are
added and decided on (`sync.evidence`). Order and repetition of reports change nothing, for only a device's newest
report is looked at and its counters only grow. A device that is offline adds nothing.

Counters are a device's own word, and one may lie. In a trial of three devices or more (`core.quorum`) a word counts
only if it holds without any single one of them: whatever one says, the decision is that of the others, or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from core.handoffs import Rollout
from core.quorum import quorum
from sync import evidence
from sync.evidence import ALPHA_HARM, ALPHA_SAFE, Counters, Decision
from sync.messages import Gates
from sync.names import DeviceId
from sync.reports import ModelReport, TrialReport

HARM_AT = -math.log(ALPHA_HARM)  # natural logarithms of the e-values that decide
SAFE_AT = -math.log(ALPHA_SAFE)
PAIRED = frozenset({"labels", "agreement"})  # the kinds of evidence that count pairs
MOST_BLOCKS = 1 << 40  # of one device: no honest one comes near it, and sums of such stay exact


class Judgement(msgspec.Struct, frozen=True):
    """What the pairs of all canary devices say. `log_*` are natural logarithms, decided at `*_at`; `devices` has the
    trials that were counted, `text` the same for people.

    `pooled` are all blocks; `least` those that `safe` has to be said of: in a trial of three devices or more without
    the one that says it loudest.
    """

    decision: Decision
    pooled: Counters
    least: Counters
    margin: float
    log_harm: float
    log_safe: float
    devices: dict[DeviceId, TrialReport]
    text: str
    harm_at: float = HARM_AT
    safe_at: float = SAFE_AT


def pairs_decide(gates: Gates) -> bool:
    """Whether pairs of candidate and incumbent are counted under these gates."""
    return gates.evidence in PAIRED


def judge(rollout: Rollout, reports: Mapping[DeviceId, ModelReport | None]) -> Judgement:
    """The word of the pairs about this rollout; HOLD as long as there are none. SAFE must hold whatever the labels say
    that are still missing: a device that lets its disagreements wait must not drop out of the evidence.

    Counted are trials of canary devices of just this manifest, retry generation, metric and block length; of others,
    of devices that a person set aside, and of counters that no device can have, nothing is taken. Raises ValueError for
    a margin outside 0..0.4.
    """
    told = {device: reports.get(device) for device in sorted(rollout.canary) if device not in rollout.aside}
    trials = {device: report.trial for device, report in told.items() if report is not None}
    devices = {device: trial for device, trial in trials.items() if trial is not None and _is_of(rollout, trial)}
    said = {device: Counters(t.plus, t.zero, t.minus) for device, t in devices.items()}
    worst = {device: Counters(*(t.worst or (t.plus, t.zero, t.minus))) for device, t in devices.items()}
    margin, alone = rollout.gates.margin, quorum(len(rollout.canary)) == 1
    pooled = evidence.pool(said.values())
    harm, _ = _least(said, lambda counters: evidence.log_harm(counters, margin), alone=alone)
    safe, least = _least(worst, lambda counters: evidence.log_safe(counters, margin), alone=alone)
    counted, _ = _least(said, lambda counters: evidence.log_safe(counters, margin), alone=alone)
    decision = Decision.HARM if harm >= HARM_AT else Decision.SAFE if min(safe, counted) >= SAFE_AT else Decision.HOLD
    text = _words(decision, pooled, harm, safe)
    if decision is Decision.HOLD and evidence.decide(pooled, margin) is not Decision.HOLD:
        text = f"{text}; one device alone would decide it, and the others do not bear it out yet"
    return Judgement(decision, pooled, least, margin, harm, safe, devices, text)


def _least(
    said: Mapping[DeviceId, Counters], value: Callable[[Counters], float], *, alone: bool
) -> tuple[float, Counters]:
    """The e-value (natural logarithm) that stands whichever device is left out, and the blocks it is of; of all
    devices together if one may speak `alone`."""
    everybody = evidence.pool(said.values())
    if alone or not said:
        return value(everybody), everybody
    without = (evidence.pool(c for other, c in said.items() if other != device) for device in said)
    return min(((value(rest), rest) for rest in without), key=lambda found: found[0])


def _is_of(rollout: Rollout, trial: TrialReport) -> bool:
    gates = rollout.gates
    return (
        pairs_decide(gates)
        and (trial.manifest, trial.retry) == (rollout.manifest, rollout.retry)
        and (trial.metric, trial.block) == (gates.evidence, gates.block)
        and all(0 <= n <= MOST_BLOCKS for n in (trial.plus, trial.zero, trial.minus, *(trial.worst or ())))
    )


def _words(decision: Decision, pooled: Counters, harm: float, safe: float) -> str:
    """Both thresholds are logarithms: plain numbers that add up as blocks come in."""
    blocks = pooled.plus + pooled.zero + pooled.minus
    if not blocks:
        return f"no block of pairs yet; safe at {SAFE_AT:.2f}, harm at {HARM_AT:.2f}"
    name, at, stands = ("harm", HARM_AT, harm) if decision is Decision.HARM else ("safe", SAFE_AT, safe)
    counts = f"worse in {pooled.plus}, equal in {pooled.zero}, better in {pooled.minus} of {blocks} blocks"
    return f"{counts}; {name} at {at:.2f}, stands at {stands:.2f}"
