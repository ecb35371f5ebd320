"""What needs a person, the worst first, each with what to do next. Pure.

The page opens with this list, so a rule earns its place only if somebody can act on it. A device that is away is
waited for, never counted against a release; it is said all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from core.catalog.fleet import DeviceRow
from core.console import wording
from core.console.facts import Facts, is_validated
from core.console.wording import relative
from core.handoffs import RolloutState
from sync.messages import ModelReport

PATIENCE = 15 * 60.0  # seconds a device may be away or silent before it is an alarm
AHEAD = 30 * 86_400.0  # seconds before the end of root and targets at which it is time to sign again
SEVERAL = 3  # devices with the same trouble, from which on they share one line


@dataclass(frozen=True)
class Concern:
    """One thing that is wrong or waits. `next` is what to do, empty where waiting is right."""

    level: Literal["notice", "alarm"]
    subject: str
    text: str
    next: str = ""


def concerns(facts: Facts, now: float) -> tuple[Concern, ...]:
    """Alarms first, then notices, each in the order fleet, rollouts, releases, work, trust."""
    found = [
        *(c for row in facts.devices if row.state != "revoked" for c in _device(row, now)),
        *_rollouts(facts, now),
        *_releases(facts),
        *_jobs(facts),
        *_trust(facts, now),
    ]
    return tuple(sorted(_gathered(found), key=lambda concern: concern.level != "alarm"))


def _gathered(found: list[Concern]) -> list[Concern]:
    """Many devices with one and the same trouble are one concern: a cut line must not bury the rest."""
    groups: dict[Concern, list[str]] = {}
    for concern in found:
        groups.setdefault(Concern(concern.level, "", concern.text, concern.next), []).append(concern.subject)
    lines = []
    for key, subjects in groups.items():
        together = len(subjects) >= SEVERAL
        for subject in [f"{len(subjects)} devices: {', '.join(subjects)}"] if together else subjects:
            lines.append(Concern(key.level, subject, key.text, key.next))
    return lines


def _device(row: DeviceRow, now: float) -> Iterator[Concern]:
    if row.report is None:
        level: Literal["notice", "alarm"] = "alarm" if now - row.enrolled > PATIENCE else "notice"
        yield Concern(
            level,
            row.device,
            f"enrolled {relative(row.enrolled, now)}, has not reported yet",
            "Start its agent: `falaj edge run`",
        )
        return
    if row.status == "offline":
        away = now - row.status_ts
        yield Concern(
            "alarm" if away > PATIENCE else "notice",
            row.device,
            f"went offline {relative(row.status_ts, now)}",
            "It goes on serving by itself. Check its power and network",
        )
    if row.status == "stopped":
        yield Concern(
            "notice",
            row.device,
            f"stopped in good order {relative(row.status_ts, now)}",
            "Start its agent when it shall serve again: `falaj edge run`",
        )
    if row.report.clock == "unset":
        yield Concern(
            "notice",
            row.device,
            "its clock is not set: it serves, but installs nothing",
            "Give it a time server, or set it by hand",
        )
    for name, model in sorted(row.report.models.items()):
        yield from _model(f"{row.device}, {name}", model)


def _model(subject: str, model: ModelReport) -> Iterator[Concern]:
    why = f": {model.reason}" if model.reason else ""
    if model.phase == "reverting":
        yield Concern("alarm", subject, f"is going back to its previous release{why}")
        return  # that says it all
    if model.wanted is not None and model.wanted in model.quarantined:
        yield Concern(
            "alarm", subject, f"refused release {wording.short(model.wanted)}{why}", "The events below say why"
        )
    if model.serving is not None and not is_validated(model):
        yield Concern(
            "alarm",
            subject,
            f"serves release {model.serving.number} without a validation on this device",
            "Restart its agent: it validates at every load",
        )
    if model.serving is None and model.phase == "no_model" and model.wanted is not None:
        yield Concern("notice", subject, f"has no model yet{why}")
    if model.drift is not None and model.drift.since is not None:
        yield Concern(
            "alarm",
            subject,
            f"its inputs ({', '.join(model.drift.streams)}) are not what they were when its release was committed",
            "Look at its sensors and how it is mounted; if the world has changed, train again: `falaj train`",
        )
    if model.errors:
        yield Concern(
            "notice",
            subject,
            f"{wording.count(model.errors)} of {wording.count(model.answers + model.errors)} answers failed "
            "since this release began to serve",
        )


def _rollouts(facts: Facts, now: float) -> Iterator[Concern]:
    for rollout in facts.rollouts:
        subject = f"rollout of {rollout.model} {rollout.number}"
        why = f": {rollout.reason}" if rollout.reason else ""
        if rollout.state is RolloutState.REVERSING:
            yield Concern("alarm", subject, f"is being taken back{why}")
        elif rollout.state is RolloutState.REVERSED:
            yield Concern(
                "alarm",
                subject,
                f"was taken back {relative(rollout.since, now)}{why}",
                "Correct the cause, then train and approve a new release",
            )
        elif rollout.state is RolloutState.APPROVED and rollout.reason:
            yield Concern(
                "notice", subject, rollout.reason, "Run `falaj device token NAME` for each device that is missing"
            )


def _releases(facts: Facts) -> Iterator[Concern]:
    judged = set()
    for key, _, candidate in facts.candidates:
        if candidate.model in judged:
            continue
        judged.add(candidate.model)
        if not candidate.accepted:
            failed = "; ".join(v.text for v in candidate.verdicts if v.outcome == "fail")
            yield Concern(
                "notice", f"candidate {key} of {candidate.model}", f"was refused: {failed or 'see its verdicts'}"
            )
    newest = set()
    for row in facts.releases:
        if row.model not in newest and row.state == "staged":
            yield Concern(
                "notice",
                f"release {row.model} {row.number}",
                "waits for its owner's approval",
                f"Run `falaj trust approve {row.model}@{row.number}`",
            )
        newest.add(row.model)


def _jobs(facts: Facts) -> Iterator[Concern]:
    known = set()
    for job in facts.jobs:
        if (job.kind, job.subject) not in known and job.state == "failed":
            yield Concern("alarm", f"job {job.id}, {job.kind} {job.subject}", f"failed: {job.error}", job.hint)
        known.add((job.kind, job.subject))


def _trust(facts: Facts, now: float) -> Iterator[Concern]:
    trust = facts.trust
    if not trust.initialised:
        yield Concern("notice", "trust", "is not set up: nothing can be released", "Run `falaj trust init`")
        return
    if trust.timestamp is None or trust.timestamp.expires <= now:
        yield Concern(
            "alarm",
            "trust",
            "the timestamp has ended: devices go on serving, but install nothing new",
            "The steward renews it: see that the core is running",
        )
    for name, role in (("root", trust.root), ("targets", trust.targets)):
        if role is not None and role.expires - now < AHEAD:
            ended = role.expires <= now
            yield Concern(
                "alarm" if ended else "notice",
                "trust",
                f"{name} {'ended' if ended else 'ends'} {relative(role.expires, now)}",
                "Its owner must sign it again",
            )
