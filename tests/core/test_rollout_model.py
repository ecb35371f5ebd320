"""Every way a rollout can take with two or three devices, walked to the end: what no state of it may ever show."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from core.handoffs import Rollout
from core.handoffs import RolloutState as State
from core.rollout.controller import decide
from core.rollout.waiting import Fleet
from sync.messages import Gates
from sync.names import DeviceId, Digest, ModelName
from sync.reports import ModelReport, Release, TrialReport

NEW, OLD = Digest("a" * 64), Digest("b" * 64)
A, B, C = (DeviceId(name) for name in "abc")
NOW = 1000.0
PAIRED = Gates("labels", margin=0.1, block=10)
MOST_STEPS = 40


class Part(NamedTuple):
    """One device: what it is told (manifest, mode), what it said last, and whether that answers what it is told."""

    order: tuple[Digest, str]
    report: ModelReport | None
    answered: bool = True
    refused: bool = False


class Model(NamedTuple):
    rollout: Rollout
    parts: tuple[tuple[DeviceId, Part], ...]

    @property
    def fleet(self) -> Fleet:
        return {device: part.report for device, part in self.parts}

    @property
    def behind(self) -> frozenset[DeviceId]:
        return frozenset(device for device, part in self.parts if not part.answered)


def release(manifest: Digest) -> Release:
    return Release(2 if manifest == NEW else 1, manifest, Digest("c" * 64))


def serves(manifest: Digest, phase: str = "steady", **more: Any) -> ModelReport:
    return ModelReport(phase, NOW, release(manifest), **more)


def answers(part: Part, retry: int) -> Iterator[Part]:
    """All that an honest device can answer to what it is told."""
    manifest, mode = part.order
    if manifest == OLD:
        verdicts = {NEW: retry} if part.refused else {}
        yield part._replace(report=serves(OLD, quarantined=verdicts), answered=True)
        return
    refusal = part._replace(report=serves(OLD, quarantined={NEW: retry}), answered=True, refused=True)
    yield refusal
    if part.refused:
        return
    if mode == "live":
        yield part._replace(report=serves(NEW), answered=True)
        yield part._replace(report=serves(NEW, "probation"), answered=True)
        return
    for plus, zero in ((0, 5), (0, 100), (20, 0)):
        trial = TrialReport(NEW, OLD, retry, "labels", 10, plus, zero)
        shadow = ModelReport("shadow", NOW, release(OLD), release(NEW), trial=trial)
        yield part._replace(report=shadow, answered=True)


def step(model: Model) -> Model:
    """What the steward does with the controller's word."""
    decision = decide(model.rollout, model.fleet, NOW, model.behind)
    told = dict.fromkeys(decision.assign, (NEW, decision.mode)) | dict.fromkeys(decision.take_back, (OLD, "live"))
    parts = tuple(
        (device, part._replace(order=told[device], answered=False) if device in told else part)
        for device, part in model.parts
    )
    after = Model(replace(decision.rollout, reason=""), parts)
    check(model, after)
    return after


def check(before: Model, after: Model) -> None:
    state, canary = after.rollout.state, after.rollout.canary
    orders = {device: part.order for device, part in after.parts}
    if state in (State.REVERSING, State.REVERSED):
        assert all(manifest == OLD for manifest, _ in orders.values()), "nobody is left on what was taken back"
    if state in (State.APPROVED, State.SHADOW, State.CANARY):
        assert all(orders[d][0] == OLD for d in orders if d not in canary), "only the canary has it"
    assert state is State.SHADOW or all(mode == "live" for _, mode in orders.values()), "a shadow ends with its state"
    if state is State.RAMP and before.rollout.state is not State.RAMP:
        for device in canary:
            part = dict(before.parts)[device]
            assert part.answered and part.report == serves(NEW), "it moves on what was committed in this rollout alone"
    if state is State.COMPLETE and before.rollout.state is not State.COMPLETE:
        counted = [part for device, part in before.parts if device not in before.rollout.aside]
        assert all(part.answered and part.report == serves(NEW) for part in counted)
    if state is State.REVERSING and before.rollout.state is not State.REVERSING:
        retry = after.rollout.retry
        refused = any(p.report is not None and p.report.quarantined.get(NEW, -1) >= retry for _, p in before.parts)
        harmed = any(
            p.report is not None and p.report.trial is not None and p.report.trial.plus for _, p in before.parts
        )
        assert refused or (harmed and before.rollout.state is State.SHADOW), "never without a verdict or harm"


def comes_to_rest(model: Model) -> None:
    """If from now on every device answers, and the pairs say it is no worse, the rollout ends."""
    for _ in range(MOST_STEPS):
        moved = step(model)
        best = [(d, p if p.answered and d not in moved.behind else kindest(p, moved)) for d, p in moved.parts]
        best = [
            (d, kindest(p, moved) if p.report and p.report.phase in ("shadow", "probation") else p) for d, p in best
        ]
        moved = Model(moved.rollout, tuple(best))
        if moved == model and model.rollout.held:  # one verdict among three: a person calls it that device's own
            set_aside = (*model.rollout.aside, *model.rollout.held)
            moved = Model(replace(model.rollout, held=(), aside=set_aside), model.parts)
        elif moved == model:
            break
        model = moved
    assert model.rollout.state in (State.COMPLETE, State.REVERSED), model


def kindest(part: Part, model: Model) -> Part:
    def rank(answer: Part) -> tuple[bool, bool]:
        trial = answer.report.trial if answer.report else None
        return not answer.refused, answer.report == serves(NEW) or (trial is not None and trial.zero == 100)

    return max(answers(part, model.rollout.retry), key=rank)


def reachable(start: Model) -> int:
    known, open_ = {repr(start)}, [start]
    while open_:
        model = open_.pop()
        comes_to_rest(model)
        moves = [step(model)]
        for place, (device, part) in enumerate(model.parts):
            for answer in answers(part, model.rollout.retry):
                parts = (*model.parts[:place], (device, answer), *model.parts[place + 1 :])
                moves.append(Model(model.rollout, parts))
        for moved in moves:
            if (name := repr(moved)) not in known:
                known.add(name)
                open_.append(moved)
    return len(known)


# What the last rollout of the same release may have left behind.
BEFORE = {
    "serves the old": serves(OLD),
    "served the new": serves(NEW),
    "refused the new": serves(OLD, quarantined={NEW: 0}),
    "never spoke": None,
}


@pytest.mark.parametrize("forced", ["", "owner: now"], ids=["planned", "forced"])
@pytest.mark.parametrize("gates", [PAIRED, Gates()], ids=["labels", "guardrails"])
@pytest.mark.parametrize("canary", [(A,), (A, B)], ids=["one canary", "two canaries"])
def test_no_way_leads_astray_and_every_way_leads_to_an_end(
    gates: Gates, canary: tuple[DeviceId, ...], forced: str
) -> None:
    pairs = itertools.product(BEFORE.values(), repeat=2) if len(canary) == 2 else [(r, None) for r in BEFORE.values()]
    for first, second in pairs:
        rollout = Rollout(
            ModelName("m"), 2, NEW, canary, gates, State.APPROVED, NOW, 1, retry=1, forced=forced
        )  # fmt: skip
        parts = ((A, Part((OLD, "live"), first)), (B, Part((OLD, "live"), second)))
        assert reachable(Model(rollout, parts)) > 10


def test_three_devices_with_two_canaries() -> None:
    rollout = Rollout(ModelName("m"), 2, NEW, (A, B), PAIRED, State.APPROVED, NOW, 1, retry=1)
    parts = tuple((device, Part((OLD, "live"), serves(OLD))) for device in (A, B, C))
    assert reachable(Model(rollout, parts)) > 500
