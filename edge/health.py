"""The local judge: a pure rule over what serving counted since the release on trial began to serve.

Hard guardrails act at once and need no statistics; losing the broker or the core is no reason to roll back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from edge.states import Event, Health
from sync.messages import Gates
from sync.names import ModelName

DAY = 86_400.0  # seconds


def judge(health: Health, gates: Gates) -> tuple[Event | None, str]:
    """(SOAKED | DEGRADED | None, reason): None while the soak goes on. `answers` counts good ones only."""
    if health.not_finite:
        return Event.DEGRADED, f"{health.not_finite} answers were not finite numbers"
    if health.errors > gates.max_errors:
        return Event.DEGRADED, f"{health.errors} failed answers, {gates.max_errors} allowed"
    if health.answers >= gates.soak_answers:
        return Event.SOAKED, f"{health.answers} answers without a breach"
    return None, ""


def greedy(grown_mb: float, share_mb: float) -> str:
    """A reason if this process has grown by more than the share of the release on trial since it came in, else empty.
    Only one release of a device is on trial at a time: what grows then is held to be it."""
    if grown_mb <= share_mb:
        return ""
    return f"the agent has grown by {grown_mb:.0f} MiB since it came in, its share is {share_mb:.0f}"


class Growth(msgspec.Struct, frozen=True):
    """By how much this process grew while the same arms of splits answered and nothing else was under way; MiB."""

    arms: tuple[tuple[ModelName, int], ...] = ()  # model and release number, in the order in which they came
    beside: object = None  # what else there was at the last look ...
    at_mb: float = 0.0  # ... and what the process held
    grown_mb: float = 0.0


def grow(before: Growth, arms: Iterable[tuple[ModelName, int]], beside: object, now_mb: float) -> Growth:
    """The growth after another look. What the process grew by while anything `beside` the arms changed is nobody's.
    With another set of arms it is counted anew, and from the lowest point: what is given back is no credit."""
    there = set(arms)
    known = tuple(arm for arm in before.arms if arm in there)
    known += tuple(sorted(there.difference(known)))
    if known != before.arms:
        return Growth(known, beside, now_mb)
    more = now_mb - before.at_mb if beside == before.beside else 0.0
    return Growth(known, beside, now_mb, max(0.0, before.grown_mb + more))


class Pace(StrEnum):
    """Why answers take longer than the profile allows."""

    UNKNOWN = "unknown"  # too few runs side by side as yet
    RELEASE = "release"  # the one on trial is slow where the one before it is not
    HOST = "host"  # not the release: something else has the processor


PACED = 20  # runs of each, in turn, before anybody is held to be slow


def pace(new_ms: Sequence[float], old_ms: Sequence[float], allowed_ms: float) -> Pace:
    """Who is slow: `new_ms` of the release on trial and `old_ms` of the one before it, run in turn on the same input.

    The release is, if at least half of its runs were too long and at most one in twenty of the other's: what slows
    down both is the host.
    """
    if min(len(new_ms), len(old_ms)) < PACED:
        return Pace.UNKNOWN
    new, old = (sum(ms > allowed_ms for ms in runs) / len(runs) for runs in (new_ms, old_ms))
    return Pace.RELEASE if new >= 0.5 and old <= 0.05 else Pace.HOST


def crashing(crashes: tuple[float, ...], now: float, gates: Gates) -> str:
    """A reason if the release ended the agent's process too often within a day, else empty; however well it answered in
    between, and whether or not it was committed."""
    lately = sum(abs(now - at) < DAY for at in crashes)
    return f"it crashed the agent {lately} times within a day" if lately >= gates.crashes else ""


def looping(starts: int, gates: Gates) -> str:
    """A reason if the agent has started too often in this phase, else empty: the loop breaker."""
    if starts < gates.crashes:
        return ""
    return f"the agent started {starts} times during this step"
