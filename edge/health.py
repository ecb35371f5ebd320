"""The local judge: a pure rule over what serving counted since the release on trial began to serve.

Hard guardrails act at once and need no statistics; losing the broker or the core is no reason to roll back.
"""

from __future__ import annotations

from edge.states import Event, Health
from sync.messages import Gates


def judge(health: Health, gates: Gates) -> tuple[Event | None, str]:
    """(SOAKED | DEGRADED | None, reason): None while the soak goes on. `answers` counts good ones only."""
    if health.not_finite:
        return Event.DEGRADED, f"{health.not_finite} answers were not finite numbers"
    if health.errors > gates.max_errors:
        return Event.DEGRADED, f"{health.errors} failed answers, {gates.max_errors} allowed"
    if health.answers >= gates.soak_answers:
        return Event.SOAKED, f"{health.answers} answers without a breach"
    return None, ""


def looping(starts: int, gates: Gates) -> str:
    """A reason if the agent has started too often in this phase, else empty: the loop breaker."""
    if starts < gates.crashes:
        return ""
    return f"the agent started {starts} times during this step"
