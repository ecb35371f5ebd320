"""Weighs what the devices of a split say of its arm: a pure, replayable function of their reports.

Each device counts keys by their losses itself and signs the counts; here those of just this split are added and decided
on (`core.rollout.splits`). Of three devices or more a word counts only if it holds without any single one of them
(`core.quorum`), as with pairs: one that lies decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from core.handoffs import Rollout
from core.quorum import quorum
from core.rollout import splits
from core.rollout.judge import MOST_BLOCKS
from sync.evidence import ALPHA_HARM, ALPHA_SAFE
from sync.messages import SHARES
from sync.names import DeviceId, Digest
from sync.reports import ArmReport, ModelReport, SplitReport
from sync.splits import Stake, identity, lot_of

ALPHA_MISMATCH = 0.001
WORSE_AT, BETTER_AT, MISMATCH_AT = map(splits.decides_at, (ALPHA_HARM, ALPHA_SAFE, ALPHA_MISMATCH))

Said = Mapping[DeviceId, tuple[ArmReport, ArmReport]]  # incumbent and arm, as each device counted them


class Comparison(msgspec.Struct, frozen=True):
    """What a split says. Losses are shares of bad outcomes; `low` to `high` holds the arm's loss less the incumbent's,
    at all looks together, with a chance of 95 %. `log_*` are natural logarithms, decided at `*_at`."""

    decision: Literal["worse", "better", "mismatch", "hold"]
    keys: tuple[int, int]  # incumbent, arm: keys answered ...
    words: tuple[int, int]  # ... and those of which enough is known
    losses: tuple[float | None, float | None]
    low: float
    high: float
    margin: float
    log_worse: float
    log_better: float
    log_mismatch: float
    devices: dict[DeviceId, SplitReport]
    text: str
    worse_at: float = WORSE_AT
    better_at: float = BETTER_AT
    mismatch_at: float = MISMATCH_AT


def name_of(rollout: Rollout, device: DeviceId) -> Digest | None:
    """What the device must name for its counts to be of this split; None if the rollout has none."""
    plan = rollout.split
    if plan is None:
        return None
    stake = Stake(rollout.manifest, rollout.retry, 0, plan.share)
    return identity(lot_of(plan.seed, plan.seeds, device), rollout.gates.per_key, plan.incumbent, (stake,))


def compare(rollout: Rollout, reports: Mapping[DeviceId, ModelReport | None]) -> Comparison:
    """The word of the split's keys, without those of devices that a person set aside; hold while there is none. Raises
    RuntimeError for a rollout without a split."""
    plan = rollout.split
    if plan is None:
        raise RuntimeError(f"release {rollout.number} of {rollout.model} is no arm of a split")
    asked = [device for device in sorted(rollout.canary) if device not in rollout.aside]
    found = {device: said for device in asked if (said := _of(rollout, device, reports.get(device)))}
    arms: Said = {device: (said.arms[0], said.arms[1]) for device, said in found.items()}
    alone, per_key = quorum(len(rollout.canary)) == 1, rollout.gates.per_key
    chance, shares = plan.share / SHARES, (SHARES - plan.share, plan.share)
    margin = rollout.gates.margin

    def least(value: Callable[[Said], float]) -> float:
        if alone or not arms:
            return value(arms)
        return min(value({name: one for name, one in arms.items() if name != left}) for left in arms)

    def words(said: Said, place: int) -> splits.Words:
        return splits.add([one[place].losses for one in said.values()], per_key)

    def mismatch(said: Said) -> float:
        keys = [sum(one[place].keys for one in said.values()) for place in (0, 1)]
        known = [sum(words(said, place)) for place in (0, 1)]
        logs = splits.log_mismatch(keys, shares), splits.log_mismatch(known, shares)
        return max(logs) - math.log(2)  # no more than their mean, which is such evidence itself

    worse = least(lambda said: splits.log_worse(words(said, 1), words(said, 0), chance, margin))
    better = least(lambda said: splits.log_better(words(said, 1), words(said, 0), chance))
    odd = least(mismatch)
    old, new = words(arms, 0), words(arms, 1)
    low, high = splits.interval(new, old, chance, ALPHA_SAFE)
    decision = _decision(worse, better, odd)
    losses = splits.loss(old), splits.loss(new)
    keys = sum(one.keys for one, _ in arms.values()), sum(one.keys for _, one in arms.values())
    return Comparison(
        decision, keys, (sum(old), sum(new)), losses, low, high, margin, worse, better, odd, found,
        _words(decision, (sum(old), sum(new)), losses, (low, high)),
    )  # fmt: skip


def _decision(worse: float, better: float, odd: float) -> Literal["worse", "better", "mismatch", "hold"]:
    if odd >= MISMATCH_AT:
        return "mismatch"
    if worse >= WORSE_AT:
        return "worse"
    return "better" if better >= BETTER_AT else "hold"


def _of(rollout: Rollout, device: DeviceId, report: ModelReport | None) -> SplitReport | None:
    """A device's counts, if they are of just this split and such as a device can have."""
    said = report.split if report is not None else None
    if said is None or said.split != name_of(rollout, device) or len(said.arms) != 2 or said.arms[1].fallen:
        return None
    counts = [n for arm in said.arms for n in (arm.keys, *arm.losses)]
    alike = all(len(arm.losses) in (0, rollout.gates.per_key + 1) for arm in said.arms)
    if not alike or any(not 0 <= n <= MOST_BLOCKS for n in counts):
        return None
    none = (0,) * (rollout.gates.per_key + 1)
    return replace(said, arms=tuple(replace(arm, losses=arm.losses or none) for arm in said.arms))


def _words(
    decision: str, words: tuple[int, int], losses: tuple[float | None, float | None], span: tuple[float, float]
) -> str:
    old, new = losses
    if old is None or new is None:
        return f"no word yet: of {words[1]} keys of the arm and {words[0]} of the incumbent enough is known"
    if decision == "mismatch":
        return (
            f"{words[1]} keys of the arm and {words[0]} of the incumbent are not what the places give: words are "
            "missing for a reason, and nothing is concluded"
        )
    return (
        f"bad in {new:.1%} of {words[1]} keys, the incumbent in {old:.1%} of {words[0]}: "
        f"the difference lies between {span[0]:+.1%} and {span[1]:+.1%}"
    )
