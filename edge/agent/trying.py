"""The trial of a release, step by step: beside the incumbent in shadow, then in its place in probation.

Whatever is decided against it here is decided by this device alone, offline, from what it counted itself. That it is
safe is the core's word in shadow (an order in mode `live`), and in probation this device's own.
"""

from __future__ import annotations

from edge import health, runtime, slots
from edge.agent import fetching, growing, loading, pacing, why
from edge.agent.house import House
from edge.agent.leaving import gates_of, give_up, superseded, withdraw
from edge.health import Pace
from edge.serving import Loaded
from edge.states import Deployment, Event, Failure, FailureClass, Slot
from sync.errors import SyncError
from sync.evidence import Decision
from sync.reports import Validated


def shadow(house: House, d: Deployment, now: float) -> bool:
    """Runs the candidate beside the incumbent until the order says `live`; without an incumbent there is nothing to
    wait for."""
    if d.candidate is None or d.order is None:
        return withdraw(house, d, now)
    if superseded(house, d):
        return make_way(house, d, now)
    held = house.bench.shadows.get(d.model)
    if held is None or held[0].slot.release != d.candidate.release:
        return _load(house, d, now)
    incumbent = house.serving.incumbent(d.model)
    if incumbent is None or d.order.mode != "shadow":
        if not house.guard.held():
            return answer(house, d, *held, incumbent, now)
        if incumbent is None:
            return False
    house.evidence.trials.open(d.model, held[0], incumbent, gates_of(d), d.order.retry)
    if _greedy(house, d, d.candidate, now):
        return True
    counted = house.evidence.trials.health(d.model)
    event, reason = health.judge(counted, gates_of(d))
    if event is Event.DEGRADED:
        give_up(house, d, event, reason, now, Failure(FailureClass.VERDICT, "guardrail", reason))
        return True
    if _harmed(house, d, now):
        return True
    _outlive(house, d, counted.answers)
    return False


def probation(house: House, d: Deployment, now: float, *, commits: bool = True) -> bool:
    """Counts answers and breaches, and pairs where they are asked for; goes home at once, or commits, where it may: not
    while another release is ordered that was not begun with."""
    if d.serving is None:
        return make_way(house, d, now)
    paired = _beside(house, d, now)
    if _greedy(house, d, d.serving, now):
        return True
    counted = house.serving.health(d.model)
    event, reason = health.judge(counted, gates_of(d))
    if event is Event.DEGRADED:
        give_up(house, d, event, reason, now, Failure(FailureClass.VERDICT, "guardrail", reason))
        return True
    if _harmed(house, d, now):
        return True
    if counted.p99_ms > d.serving.manifest.profile.p99_ms and d.model not in house.bench.warm:
        _warm_after_restart(house, d, now)
    slow, text = pacing.slowed(house, d, d.serving, counted, now)
    if slow is Pace.RELEASE:
        give_up(house, d, Event.DEGRADED, text, now, Failure(FailureClass.VERDICT, "too-slow", text))
        return True
    if event is None or slow is Pace.UNKNOWN:
        return False
    if not commits or (paired and house.evidence.trials.decision(d.model)[0] is not Decision.SAFE):
        _outlive(house, d, counted.answers)
        return False
    committed = house.events.happened(now, "release-committed", reason, d.model, number=d.serving.release.number)
    house.write(slots.mark_good(d, now), says=committed)
    growing.cleared(house, d.model)
    house.bench.warm.pop(d.model, None)
    house.evidence.trials.close(d.model)
    fetching.prune(house)
    return True


def make_way(house: House, d: Deployment, now: float) -> bool:
    """A newer order wants something else, by the core's own judgement, perhaps: what this device's pairs say is not
    lost with it."""
    return _harmed(house, d, now) or withdraw(house, d, now)


def _greedy(house: House, d: Deployment, slot: Slot, now: float) -> bool:
    """The guardrail of memory, before what was counted of the release on trial."""
    if slot.unsoaked and growing.moving(house, d):
        # It is back on trial beside another model's: counted anew once it is alone.
        house.bench.before.pop(d.model, None)
        return False
    failure = growing.on_trial(house, d, slot, now)
    if failure is not None:
        give_up(house, d, Event.DEGRADED, failure.text, now, failure)
    return failure is not None


def _load(house: House, d: Deployment, now: float) -> bool:
    """Takes the candidate into memory, once a start of the agent."""
    assert d.candidate is not None and d.order is not None
    # The first load in this very process: it may take it down.
    looping = health.crashing(d.candidate.crashes, now, gates_of(d)) or health.looping(d.starts, gates_of(d))
    if looping:
        failure = Failure(FailureClass.VERDICT, "crash-loop", looping)
        give_up(house, d, Event.DEGRADED, looping, now, failure)
        return True
    house.bench.before[d.model] = house.guard.memory()
    try:
        house.bench.shadows[d.model] = loading.load(house, d.candidate, now)
    except runtime.NoMemory as error:
        house.put_off(d.model, error.code, str(error), now)
        return False
    except (SyncError, runtime.ModelError) as error:
        give_up(house, d, Event.DEGRADED, str(error), now, loading.failure(error))
        return True
    house.blocked.drop(d.model)
    if d.order.mode == "shadow" and d.starts == 0 and house.serving.incumbent(d.model) is not None:
        text = f"release {d.candidate.release.number} runs beside the one that answers"
        house.events.report(now, "shadow-begun", text, d.model, number=d.candidate.release.number)
    return True


def answer(
    house: House, d: Deployment, loaded: Loaded, validated: Validated, incumbent: Loaded | None, now: float
) -> bool:
    """The candidate answers from now on; who answered stays warm."""
    pacing.begin(house, d.model)
    if incumbent is not None:
        house.bench.warm[d.model] = incumbent
    text = f"release {loaded.slot.release.number} answers, on trial"
    house.write(slots.begin_trial(d, validated, now), says=house.events.happened(now, "probation-begun", text, d.model))
    house.bench.shadows.pop(d.model, None)
    house.serving.put(d.model, loaded)
    house.outside.bindings_changed()
    return True


def _beside(house: House, d: Deployment, now: float) -> bool:
    """Whether the release before runs beside the one on trial, as `labels` and `agreement` ask for."""
    live = house.serving.incumbent(d.model)
    if d.order is None or live is None:
        return False
    if d.order.gates.evidence == "guardrails":
        if house.evidence.trials.report(d.model) is not None:
            house.evidence.trials.close(d.model)  # the pairs have spoken
        return False
    if d.model not in house.bench.warm:
        house.bench.warm[d.model] = _warm_again(house, d, now)
    warm = house.bench.warm[d.model]
    if warm is None:
        return False
    house.evidence.trials.open(d.model, live, warm, d.order.gates, d.order.retry)
    return True


def _warm_again(house: House, d: Deployment, now: float) -> Loaded | None:
    """The release to go back to, from disk after a restart; None if there is none that loads: then nothing can be
    compared, and the guardrails alone decide."""
    behind = slots.fallbacks(d)
    if not behind:
        return None
    try:
        return loading.load(house, behind[0], now)[0]
    except (SyncError, runtime.ModelError) as error:
        text = f"nothing to compare with, only guardrails judge: {error}"
        house.events.report(now, "no-incumbent", text, d.model, "notice")
        return None


def _warm_after_restart(house: House, d: Deployment, now: float) -> None:
    """Loads the release that shows whether this host is slow; what that takes is not held against the one on trial."""
    held = house.guard.memory()
    house.bench.warm[d.model] = _warm_again(house, d, now)
    house.bench.before[d.model] = house.bench.before.get(d.model, held) + house.guard.memory() - held


def _harmed(house: House, d: Deployment, now: float) -> bool:
    decision, log_harm, _ = house.evidence.trials.decision(d.model)
    trial = house.evidence.trials.report(d.model)
    if decision is not Decision.HARM or trial is None:
        return False
    failure = why.worse(trial, log_harm)
    give_up(house, d, Event.DEGRADED, failure.text, now, failure)
    return True


def _outlive(house: House, d: Deployment, answers: int) -> None:
    """A trial may last for weeks: only starts that follow upon each other without answers in between are a loop."""
    if d.starts and answers >= gates_of(d).soak_answers:
        house.write(slots.outlived(d))
