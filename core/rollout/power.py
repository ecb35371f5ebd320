"""How many pairs a planned rollout needs before it can decide, and why a plan that never could is refused. Pure."""

from __future__ import annotations

import math

import msgspec

from core.quorum import quorum
from core.rollout.judge import pairs_decide
from sync.evidence import MAX_MARGIN, pairs_needed
from sync.messages import Gates
from sync.reports import Evidence

DISPUTED = 0.1  # the share of blocks that are not equal in the second of the two answers


class Needs(msgspec.Struct, frozen=True):
    """What it takes to call an equally good release safe, over all canary devices together: with no unequal block at
    all, and with a tenth of them unequal (None: the margin is too small for that, no number suffices). Where no device
    may decide alone (`core.quorum`), they are counted as if all gave equally many."""

    blocks: int
    windows: int  # input windows, overlapping ones once
    disputed_blocks: int | None
    disputed_windows: int | None
    text: str


class Refusal(msgspec.Struct, frozen=True):
    """Why gates can never decide: a stable code, words for people, and the evidence to choose instead."""

    code: str
    text: str
    offers: tuple[Evidence, ...]


def needs(gates: Gates, canary: int = 1) -> Needs | None:
    """What these gates need of so many canary devices; None under guardrails, which count no pairs. ValueError if
    `refuse` has an answer."""
    if not pairs_decide(gates):
        return None
    if (refused := refuse(gates)) is not None:
        raise ValueError(refused.text)
    blocks, disputed = pairs_needed(gates.margin), pairs_needed(gates.margin, DISPUTED)
    assert blocks is not None  # else it was refused
    if quorum(canary) > 1:  # it must hold without any one of them
        share = canary / (canary - 1)
        blocks, disputed = math.ceil(blocks * share), None if disputed is None else math.ceil(disputed * share)
    windows = blocks * gates.block
    disputed_windows = disputed * gates.block if disputed is not None else None
    text = (
        f"{gates.evidence} at a margin of {gates.margin:.1%} need {blocks:,} blocks of {gates.block} input windows, "
        f"{windows:,} in all over the canary devices, if the releases never differ; "
        f"if they do in {DISPUTED:.0%} of the blocks, as often for the better, {_many(disputed, disputed_windows)}"
    )
    return Needs(blocks, windows, disputed, disputed_windows, text)


def refuse(gates: Gates) -> Refusal | None:
    """Why no number of pairs can decide under these gates, with what to choose instead; None if some number can."""
    if not pairs_decide(gates):
        return None
    fault = ""
    if not 0 < gates.margin <= MAX_MARGIN:
        fault = f"margin is {gates.margin:g}: pairs can only ever say safe at one above 0 and up to {MAX_MARGIN}"
    elif gates.block < 1:
        fault = f"block is {gates.block}: a block is at least 1 input window"
    elif pairs_needed(gates.margin) is None:
        fault = f"margin is {gates.margin:g}: so small a margin takes more blocks than can ever come"
    return Refusal("never-decides", fault, ("guardrails",)) if fault else None


def _many(blocks: int | None, windows: int | None) -> str:
    if blocks is None or windows is None:
        return "no number of them suffices: allow a larger margin"
    return f"{blocks:,} blocks, {windows:,} windows"
