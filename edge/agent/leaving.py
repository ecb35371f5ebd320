"""How a release is left behind: refused, degraded or withdrawn, with or without a verdict, and who answers then."""

from __future__ import annotations

from msgspec.structs import replace

from edge import runtime, slots
from edge.agent import fetching as incoming
from edge.agent import loading, why
from edge.agent.house import House
from edge.states import Deployment, Event, Failure, FailureClass, Phase
from edge.untold import Saying
from edge.verdicts import Quarantined
from sync.errors import SyncError
from sync.messages import Arm, Gates, ModelOrder
from sync.reports import Validated, WhyCard

TRIES = 10  # without memory, in about an hour and a half: then the release before is tried


def superseded(house: House, d: Deployment) -> bool:
    """Whether the newest assignment wants something else than what is under way; another mode or retry does not."""
    order = newest(house, d)
    if order is None or d.order is None:
        return False
    return order.manifest != d.order.manifest or order.mode == "off"


def newest(house: House, d: Deployment) -> ModelOrder | None:
    """What the newest assignment says of the release under way, which may be an arm of a split; None without a word."""
    order = house.assignment.models.get(d.model) if house.assignment else None
    if order is None or d.order is None:
        return order
    if order.mode != "split":
        return order
    arm = next((one for one in order.arms if one.manifest == d.order.manifest), None)
    if arm is None or (d.serving is not None and d.serving.unsoaked):  # an arm stands beside a committed release
        return of_incumbent(order)
    return of_arm(order, arm)


def of_incumbent(order: ModelOrder) -> ModelOrder:
    """The incumbent of a split as an order of its own: before it serves there is nothing to stand beside."""
    return ModelOrder(order.manifest, order.number, order.keys, order.floor, "live", order.gates, order.retry)


def of_arm(order: ModelOrder, arm: Arm) -> ModelOrder:
    """An arm of a split as an order of its own, as far as it is on its way."""
    return ModelOrder(arm.manifest, arm.number, arm.keys, order.floor, "split", order.gates, arm.retry)


def withdraw(house: House, d: Deployment, now: float) -> bool:
    """Leaves what is under way, which did nothing wrong."""
    give_up(house, d, Event.WITHDRAWN, "a newer assignment wants something else", now)
    return True


def gates_of(d: Deployment) -> Gates:
    """What the release under way must survive."""
    return d.order.gates if d.order else Gates()


def refuse(house: House, d: Deployment, failure: Failure, now: float) -> bool:
    """A failure before the release served, by its class: stay and retry, or a verdict."""
    if failure.kind is not FailureClass.VERDICT:
        if d.phase is Phase.PROVING:  # the proof is repeated from the start
            house.write(replace(slots.prove_again(d), reason=failure.text))
        house.put_off(d.model, failure.code, failure.text, now)
        return False
    give_up(house, d, Event.REFUSED, failure.text, now, failure)
    return True


def give_up(house: House, d: Deployment, event: Event, reason: str, now: float, failure: Failure | None = None) -> None:
    """Leaves a release behind; a verdict also quarantines it and says why, in one write, before anything else
    happens."""
    verdict = _verdict(d, failure) if failure is not None and failure.kind is FailureClass.VERDICT else None
    card = why.card(house, d, failure, now) if failure is not None and verdict is not None else None
    says = None
    if failure is not None:
        facts = failure.facts | ({"manifest": str(verdict.manifest)} if verdict else {})
        says = house.events.happened(now, failure.code, failure.text, d.model, "alarm", **facts)
    leave(house, d, slots.give_up(d, event, reason, now), verdict, card, says)


def leave(
    house: House, d: Deployment, left: Deployment, verdict: Quarantined | None, card: WhyCard | None,
    says: Saying | None,
) -> None:  # fmt: skip
    """Writes how `d` is `left`, what was said against it in the same write, and forgets what was under way."""
    house.write(left, verdict, card, says)
    house.bench.shadows.pop(d.model, None)
    house.trust.hunts.pop(d.model, None)
    house.blocked.drop(d.model)
    incoming.abandon(house, d)


def _verdict(d: Deployment, failure: Failure) -> Quarantined | None:
    """What is quarantined: the release that was tried, which need not be the one last ordered."""
    tried = why.tried(d)
    manifest = tried.release.manifest if tried else d.order.manifest if d.order else None
    if manifest is None:
        return None
    retry = slots.generation(d, tried) if tried else d.order.retry if d.order else 0
    return Quarantined(tried.release.artifact if tried else manifest, manifest, retry, failure.text)


def reverting(house: House, d: Deployment, now: float) -> bool:
    """Settles who answers now: the warm session, else the previous release from disk, else nobody, declared."""
    house.evidence.trials.close(d.model)
    warm = house.bench.warm.pop(d.model, None)
    current = house.serving.incumbent(d.model)
    validated: Validated | None = None
    while d.serving is not None:
        known = Validated(d.serving.release.artifact, now, d.serving.p99_ms)
        if current is not None and current.slot.release == d.serving.release:
            validated = d.validated or known  # it never stopped to answer, and goes on counting
            break
        try:
            if warm is not None and warm.slot.release == d.serving.release:
                loaded, validated = warm, known
            else:
                loaded, validated = loading.load(house, d.serving, now)
        except runtime.NoMemory as error:
            if current is not None:  # who was left answers no more, and what it holds may be what lacks
                current = None
                house.serving.take_away(d.model)
                house.outside.bindings_changed()
                continue
            house.put_off(d.model, error.code, str(error), now, "alarm")  # later: it did nothing wrong
            if house.blocked.times(d.model) < TRIES:
                return False
            d = _without(house, d, error, now)
            continue
        except (SyncError, runtime.ModelError) as error:
            d = _without(house, d, error, now)
            continue
        house.serving.put(d.model, loaded)
        house.bench.before.clear()  # what this process grew by now is of none that is on trial
        break
    if d.serving is None:
        house.serving.take_away(d.model)
    d = slots.returned(d, validated, now)
    if d.phase is Phase.PROBATION:
        house.bench.before.pop(d.model, None)  # what it holds is counted from here on
    who = f"release {d.serving.release.number} answers again" if d.serving else "no model answers, declared"
    house.write(d, says=house.events.happened(now, "returned", f"{who}: {d.reason}", d.model, "notice"))
    house.blocked.drop(d.model)
    house.outside.bindings_changed()
    return True


def _without(house: House, d: Deployment, error: SyncError | runtime.ModelError, now: float) -> Deployment:
    """The release to go back to does not load: the one before it is next."""
    house.blocked.drop(d.model)
    failed = house.events.happened(now, "return-failed", str(error), d.model, "alarm")
    return house.write(slots.drop_previous(d), says=failed)
