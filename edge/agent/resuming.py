"""How a start goes on where the last one ended: who answered answers again, verified anew, and what was under way
is taken up by its resume rule."""

from __future__ import annotations

from collections.abc import Iterable

from edge import health, runtime, slots
from edge.agent import leaving, loading, standing, why
from edge.agent.house import House
from edge.lifecycle import AT_REST
from edge.states import Deployment, Event, Failure, FailureClass, Phase, Slot
from sync.errors import SyncError
from sync.names import ModelName
from sync.reports import Validated


def count(house: House, model: ModelName, now: float, *, stopped: bool = False) -> None:
    """The resume rule of the phase, and this start counted before anything on trial is loaded; so is a crash. The start
    after an end that was asked for (`stopped`) does not count."""
    before = d = house.deployments[model]
    if d.phase not in AT_REST:
        d = slots.prove_again(d) if stopped else slots.resumed(d)
    for artifact in house.guard.crashed:
        d = slots.crashed(d, artifact, now)
    says = None
    for slot in (d.serving, d.candidate, *(lane.slot for lane in d.lanes)):
        if slot is not None and slot.release.artifact in house.guard.crashed:
            text = f"the agent ended of a fault while release {slot.release.number} was asked"
            says = house.events.happened(now, "agent-crashed", text, model, "alarm", number=slot.release.number)
    if d != before:
        house.write(d, says=says)


def resume(house: House, model: ModelName, now: float) -> bool:
    """The load of whoever answers, or the loop breaker; after `count`. May be repeated after a write that failed. False
    if this host has no memory for it now: it did nothing wrong, and is loaded later."""
    d = standing.watch(house, house.deployments[model], now)  # before it is loaded: that may be what crashes
    if d.phase in AT_REST:
        house.evidence.trials.close(model)  # a cut between the end of a trial and this leaves its books behind
    if d.serving is None and slots.bound(d) is not None:
        house.outside.bindings_changed()  # nothing answers, and what its bindings say of that goes on
    looping = _looping(d, now)
    if looping:
        failure = Failure(FailureClass.VERDICT, "crash-loop", looping)
        leaving.give_up(house, d, Event.DEGRADED, looping, now, failure)
        return True
    while d.serving is not None and d.phase is not Phase.REVERTING:
        answers = house.serving.incumbent(d.model)
        try:
            if answers is not None and answers.slot.release == d.serving.release:
                validated = Validated(d.serving.release.artifact, now, d.serving.p99_ms)
            else:
                loaded, validated = loading.load(house, d.serving, now)
                house.serving.put(d.model, loaded)
                house.bench.before.clear()  # what this process grew by now is of none that is on trial
                house.outside.bindings_changed()
        except runtime.NoMemory as error:
            if house.blocked.put_off(place(model), error.code, now):
                house.events.report(now, error.code, str(error), model, "alarm")
            if answers is None:
                _first(house, model, slots.fallbacks(d), now)
            return False
        except (SyncError, runtime.ModelError) as error:
            d = _cannot_serve(house, d, error, now)
            continue
        house.write(slots.revalidated(d, validated))
        break
    house.blocked.drop(place(model))
    return True


def place(model: ModelName) -> str:
    """The name under which who answered before waits for memory; other obstacles have their own."""
    return f"start:{model}"


def waits(house: House, d: Deployment) -> bool:
    """Whether a model that has not resumed stands still until who answered before is in memory: what is said of its
    answers would be of a stand-in. What shall go, or be replaced, is waited for by nobody."""
    answers = house.serving.incumbent(d.model)
    if d.serving is None or (answers is not None and answers.slot.release == d.serving.release):
        return False
    compared = d.phase is Phase.SHADOW and d.order is not None and d.order.mode != "live"
    return (compared or d.phase in AT_REST or d.phase is Phase.PROBATION) and not leaving.superseded(house, d)


def _looping(d: Deployment, now: float) -> str:
    """Why whoever answered is given up before it is loaded again: it was on trial in too many starts, or it crashed
    too often, on trial or since."""
    gates = leaving.gates_of(d)
    if d.phase is Phase.PROBATION and (reason := health.looping(d.starts, gates)):
        return reason
    if d.phase in why.SERVED and d.serving is not None:
        return health.crashing(d.serving.crashes, now, gates)
    return ""


def meanwhile(house: House, model: ModelName, now: float) -> None:
    """Who answers while the disk takes nothing: nothing is written, no verdict is given.

    What is on trial does not, if there is anything before it: neither its starts nor a verdict on it could be kept.
    """
    d, current = house.deployments[model], house.serving.incumbent(model)
    on_trial = d.phase is Phase.PROBATION and d.serving is not None
    if current is not None and not (on_trial and d.serving and current.slot.release == d.serving.release):
        return
    behind = slots.fallbacks(d)
    _first(house, model, behind if on_trial or d.serving is None else (d.serving, *behind), now)


def _first(house: House, model: ModelName, releases: Iterable[Slot], now: float) -> None:
    """The first of these that loads answers."""
    warm = house.bench.warm.get(model)
    for slot in releases:
        try:
            held = warm is not None and warm.slot.release == slot.release
            loaded = warm if held and warm is not None else loading.load(house, slot, now)[0]
        except (SyncError, runtime.ModelError) as error:
            if not isinstance(error, runtime.NoMemory):  # which is told of who should answer
                house.events.report(now, "load-failed", str(error), model, "alarm")
            continue
        house.serving.put(model, loaded)
        house.outside.bindings_changed()
        return


def _cannot_serve(house: House, d: Deployment, error: SyncError | runtime.ModelError, now: float) -> Deployment:
    """The release that answered before does not load any more: the last good one must."""
    if d.phase in (Phase.PROBATION, Phase.STEADY):
        leaving.give_up(house, d, Event.DEGRADED, str(error), now, loading.failure(error))
        # Who answers no more; why is told by then.
        house.events.report(now, "load-failed", str(error), d.model, "alarm")
    else:  # a candidate is under way; what is behind it must answer meanwhile
        failed = house.events.happened(now, "load-failed", str(error), d.model, "alarm")
        house.write(slots.drop_previous(d), says=failed)
    return house.deployments[d.model]
