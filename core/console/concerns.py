"""What needs a person, the worst first, each with what to do next. Pure.

The page opens with this list, so a rule earns its place only if somebody can act on it. A device that is away is
waited for, never counted against a release; it is said all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from core.catalog.fleet import DeviceRow
from core.console import learning, wording
from core.console.evidence import judgement
from core.console.facts import Facts, is_validated
from core.console.why_card import newest_against
from core.console.wording import relative
from core.handoffs import ROLLOUT_ENDED, Rollout, RolloutState
from sync.evidence import Decision
from sync.names import LAST, DeviceId, ModelName
from sync.reports import ANY, ModelReport

PATIENCE = 15 * 60.0  # seconds a device may be away or silent before it is an alarm
AHEAD = 30 * 86_400.0  # seconds before the end of root and targets at which it is time to sign again
SEVERAL = 3  # devices with the same trouble, from which on they share one line


@dataclass(frozen=True)
class Concern:
    """One thing that is wrong or waits. `next` is what to do, empty where waiting is right; `why` is the id of the
    why card that says more."""

    level: Literal["notice", "alarm"]
    subject: str
    text: str
    next: str = ""
    why: int | None = None


def concerns(facts: Facts, now: float) -> tuple[Concern, ...]:
    """Alarms first, then notices, each in the order core, fleet, drift, rollouts, releases, work, trust."""
    found = [
        *_core(facts, now),
        *(c for row in facts.devices if row.active for c in _device(facts, row, now)),
        *_drift(facts, now),
        *_rollouts(facts, now),
        *_releases(facts),
        *_jobs(facts),
        *_trust(facts, now),
    ]
    return tuple(sorted(_gathered(found), key=lambda concern: concern.level != "alarm"))


def _gathered(found: list[Concern]) -> list[Concern]:
    """Many devices with one and the same trouble are one concern: a cut line must not bury the rest."""
    groups: dict[tuple[str, str, str], list[Concern]] = {}
    for concern in found:
        groups.setdefault((concern.level, concern.text, concern.next), []).append(concern)
    lines = []
    for alike in groups.values():
        subjects = [concern.subject for concern in alike]
        together = len(alike) >= SEVERAL
        lines += [replace(alike[0], subject=f"{len(alike)} devices: {', '.join(subjects)}")] if together else alike
    return lines


def _core(facts: Facts, now: float) -> Iterator[Concern]:
    for row in facts.failing:
        began = f"began to fail {relative(row.since, now)}" if row.since else "fails"
        yield Concern("alarm", f"the core, {row.part}", f"{began}: {row.text}")


def _device(facts: Facts, row: DeviceRow, now: float) -> Iterator[Concern]:
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
    told = facts.untaken.get(row.device)
    if told is not None and row.seen > told + PATIENCE:
        yield Concern(
            "alarm",
            row.device,
            f"speaks, and has not taken in what it was told {relative(told, now)}",
            "Its `refused-` events say why; without any, somebody keeps it back: `falaj device carry FOLDER`",
        )
    if row.report.clock == "unset":
        yield Concern(
            "notice",
            row.device,
            "its clock is not set: it serves, but installs nothing",
            "Give it a time server, or set it by hand",
        )
    for name, model in sorted(row.report.models.items()):
        yield from _model(facts, row.device, name, model)


def _lifting(model: ModelName, retry: int) -> str:
    """What lifts a verdict that a device cannot read any more, of this attempt at the least."""
    if retry == LAST:
        return "No attempt lifts it: wipe the device and enrol it anew (`falaj rollout aside` goes on without it)"
    again = f"`falaj rollout force {model} NUMBER --reason TEXT`, again if need be, lifts it"
    return f"{again}; `falaj rollout aside` goes on without it"


def _model(facts: Facts, device: DeviceId, name: ModelName, model: ModelReport) -> Iterator[Concern]:
    subject = f"{device}, {name}"
    why = f": {model.reason}" if model.reason else ""
    if model.phase == "reverting":
        yield Concern("alarm", subject, f"is going back to its previous release{why}")
        return  # that says it all
    asked = next((w.retry for w in facts.wanted.get(device, ()) if w.model == name), 0)
    if model.wanted is not None and model.quarantined.get(model.wanted, -1) >= asked:
        card = newest_against(facts, name, model.wanted, device)
        yield Concern(
            "alarm",
            subject,
            f"refused release {wording.short(model.wanted)}{why}",
            "Its why card says by which criterion" if card is not None else "The events below say why",
            card,
        )
    if (verdict := model.quarantined.get(ANY, -1)) >= asked:
        text = "takes up no other release: it cannot read one of its own verdicts, which may be against any"
        yield Concern("alarm", subject, text, _lifting(name, verdict))
    if model.serving is not None and not is_validated(model):
        yield Concern(
            "alarm",
            subject,
            f"serves release {model.serving.number} without a validation on this device",
            "Restart its agent: it validates at every load",
        )
    if model.serving is None and model.phase == "no_model" and model.wanted is not None:
        yield Concern("notice", subject, f"has no model yet{why}")
    if model.errors:
        yield Concern(
            "notice",
            subject,
            f"{wording.count(model.errors)} of {wording.count(model.answers + model.errors)} answers failed "
            "since this release began to serve",
        )


def _drift(facts: Facts, now: float) -> Iterator[Concern]:
    """One concern a model: who drifted, the worst first, and what the core does about it by itself."""
    for model, drifted in learning.drifted(facts).items():
        first = min(line.since for line in drifted)
        names = ", ".join(line.device for line in drifted)
        hop = facts.hops.get(model)
        by_hand = "Look at the sensors and how they are mounted; if the world has changed, train again: `falaj train`"
        streams = ", ".join(dict.fromkeys(stream for line in drifted for stream in line.streams))
        told = f"inputs ({streams}) are not what they were when the release was committed, since {relative(first, now)}"
        yield Concern("alarm", f"{names}, {model}", told, learning.next_words(hop) if hop else by_hand)


def _rollouts(facts: Facts, now: float) -> Iterator[Concern]:
    for rollout in facts.rollouts:
        subject = f"rollout of {rollout.model} {rollout.number}"
        why = f": {rollout.reason}" if rollout.reason else ""
        card = newest_against(facts, rollout.model, rollout.manifest)
        if rollout.forced and rollout.state not in ROLLOUT_ENDED:
            yield Concern("alarm", subject, f"was forced to serve without a shadow's word, by {rollout.forced}")
        if rollout.state is RolloutState.REVERSING:
            yield Concern("alarm", subject, f"is being taken back{why}", why=card)
        elif rollout.state is RolloutState.REVERSED:
            yield Concern(
                "alarm",
                subject,
                f"was taken back {relative(rollout.since, now)}{why}",
                "Correct the cause, then train and approve a new release",
                card,
            )
        elif rollout.held:
            todo = (
                f"Look at {rollout.held[0]}. If the release is bad: `falaj rollout reverse {rollout.model} "
                f"{rollout.number} --reason TEXT`; if the device is: `falaj rollout aside {rollout.model} "
                f"{rollout.number} {rollout.held[0]} --reason TEXT`"
            )
            yield Concern("alarm", subject, f"is {rollout.reason}", todo, card)
        elif rollout.state is RolloutState.PAUSED:
            again = f"`falaj trust approve {rollout.model}@{rollout.number}` tries it anew"
            todo = f"{again}, `falaj rollout force {rollout.model} {rollout.number} --reason TEXT` has it serve"
            yield Concern("alarm", subject, f"is paused, a person decides{why}", todo, card)
        elif rollout.state is RolloutState.SHADOW:
            yield from _shadow(facts, rollout, subject)
        elif rollout.state is RolloutState.APPROVED and rollout.reason:
            yield Concern(
                "notice", subject, rollout.reason, "Run `falaj device token NAME` for each device that is missing"
            )


def _shadow(facts: Facts, rollout: Rollout, subject: str) -> Iterator[Concern]:
    """Pairs that only a label can decide are waited for by nobody but a person."""
    found = judgement(rollout, facts.reports(rollout.model))
    waiting = {device: trial.waiting for device, trial in found.devices.items() if trial.waiting} if found else {}
    if waiting and found is not None and found.decision is Decision.HOLD:
        yield Concern(
            "notice",
            subject,
            f"waits for the labels of {wording.plural(sum(waiting.values()), 'pair')} on {', '.join(waiting)}",
            "Run `falaj labels DEVICE FILE.csv` with what those predictions really were",
        )


def _releases(facts: Facts) -> Iterator[Concern]:
    judged = set()
    staged = {row.candidate for row in facts.releases}
    for key, _, candidate in facts.candidates:
        if candidate.model in judged:
            continue
        judged.add(candidate.model)
        if not candidate.accepted and key not in staged:
            failed = "; ".join(v.text for v in candidate.verdicts if v.outcome == "fail")
            yield Concern(
                "notice",
                f"candidate {key} of {candidate.model}",
                f"was refused: {failed or 'see its verdicts'}",
                f"To let it pass all the same: `falaj candidate override {key} --reason TEXT`",
            )
    newest = set()
    for row in facts.releases:
        override = facts.overrides.get((row.model, row.number))
        if row.model not in newest and row.state == "staged":
            yield Concern(
                "notice",
                f"release {row.model} {row.number}",
                "waits for its owner's approval" + (f"; a gate was overridden by {override}" if override else ""),
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
    for name, role in (("root", trust.root), ("targets", trust.targets), *trust.models.items()):
        if role is not None and role.expires - now < AHEAD:
            ended = role.expires <= now
            yield Concern(
                "alarm" if ended else "notice",
                "trust",
                f"{name} {'ended' if ended else 'ends'} {relative(role.expires, now)}",
                "Run `falaj trust renew`: its owners sign it again",
            )
