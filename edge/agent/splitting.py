"""Several releases of a model that answer at once: arms join the one that serves, are watched, fall out, win or go.

Arms outlive the phases: while another one is fetched, those in force go on. So two things are done for every model in
every walk (`tend`): serving is given what the journal says, and each arm is held to its guardrails; one that breaks
them falls, and its keys are answered by the incumbent from the next question on, offline too.
"""

from __future__ import annotations

from msgspec.structs import replace

from edge import health, runtime, slots
from edge.agent import growing, loading, trying, why
from edge.agent.house import House
from edge.agent.leaving import gates_of, give_up, of_arm, superseded, withdraw
from edge.agent.pacing import AT_ONCE
from edge.health import PACED, Pace
from edge.outcomes import Found
from edge.serving import Loaded
from edge.states import Deployment, Event, Failure, FailureClass, Lane, Phase
from edge.verdicts import Quarantined
from sync.errors import SyncError
from sync.messages import SHARES, ModelOrder
from sync.names import Digest, ModelName
from sync.reports import ArmReport, SplitReport, Validated
from sync.splits import Stake, identity


def tend(house: House, d: Deployment, now: float) -> Deployment:
    """Has serving do what the journal says of this model's arms, and takes out those that break a guardrail."""
    house.blocked.only(f"{d.model}/", {_place(d, lane) for lane in d.lanes if not lane.fallen})
    if not d.lanes:
        if house.serving.arms(d.model):
            house.serving.split(d.model, slots.routes(d), {})
            house.bench.lane_paces = {
                place: known for place, known in house.bench.lane_paces.items() if place[0] != d.model
            }
        if house.evidence.outcomes.asks(d.model):
            house.evidence.outcomes.close(d.model)
        return d
    for lane in d.lanes:
        if not lane.fallen and (failure := _broken(house, d, lane, now)) is not None:
            d = _fall(house, d, lane, failure, now)
    arms, d = _loaded(house, d, now)
    routes = slots.routes(d)
    if house.serving.routes(d.model) != routes or house.serving.arms(d.model) != arms:
        house.serving.split(d.model, routes, arms)
    if slots.in_force(d) and d.phase is Phase.LIVE_SPLIT and d.serving is not None:
        house.evidence.outcomes.open(about(d), routes, d.per_key, now)
    return d


def _loaded(house: House, d: Deployment, now: float) -> tuple[dict[int, Loaded], Deployment]:
    """The arms that stand, in memory; one that does not load any more has fallen."""
    held, arms = house.serving.arms(d.model), {}
    for lane in d.lanes:
        number = lane.slot.release.number
        place = _place(d, lane)
        if lane.fallen or house.blocked.holds(place, now):
            continue
        joined = house.bench.shadows.get(d.model)
        if number in held and held[number].slot.release == lane.slot.release:
            arms[number] = held[number]
        elif joined is not None and joined[0].slot.release == lane.slot.release:
            arms[number] = joined[0]
        else:
            try:
                arms[number], _ = loading.load(house, lane.slot, now)
                house.blocked.drop(place)
            except runtime.NoMemory as error:  # the incumbent answers its keys meanwhile
                if house.blocked.put_off(place, error.code, now):
                    house.events.report(now, error.code, str(error), d.model, "alarm", number=number)
            except (SyncError, runtime.ModelError) as error:
                d = _fall(house, d, lane, loading.failure(error), now)
    if d.candidate is None:
        house.bench.shadows.pop(d.model, None)
    return arms, d


def _place(d: Deployment, lane: Lane) -> str:
    """The name under which an arm waits for memory."""
    return f"{d.model}/{lane.slot.release.number}"


def _broken(house: House, d: Deployment, lane: Lane, now: float) -> Failure | None:
    """The guardrail that an arm breaks, None while it breaks none."""
    number, gates = lane.slot.release.number, gates_of(d)
    crashing = health.crashing(lane.slot.crashes, now, gates)
    if crashing:
        return Failure(FailureClass.VERDICT, "crash-loop", crashing)
    counted = house.serving.health(d.model, number)
    event, reason = health.judge(counted, gates)
    greedy = growing.greedy(house, d.model, number, lane.slot.manifest.profile.rss_mb)
    if event is Event.DEGRADED or greedy:
        return Failure(FailureClass.VERDICT, "guardrail", greedy or reason)
    if counted.p99_ms > lane.slot.manifest.profile.p99_ms:
        return _slow(house, d.model, lane, counted.p99_ms)
    house.bench.lane_paces.pop((d.model, number), None)
    return None


def _slow(house: House, model: ModelName, lane: Lane, p99_ms: float) -> Failure | None:
    """An arm whose answers take too long, unless the incumbent in turn with it is as slow: then the host is busy."""
    number, allowed = lane.slot.release.number, lane.slot.manifest.profile.p99_ms
    arm = house.serving.arms(model).get(number)
    if arm is None:
        return None
    old, new = house.bench.lane_paces.setdefault((model, number), ([], []))
    for known, more in zip((old, new), house.serving.beside(model, arm, AT_ONCE), strict=True):
        known += more
        del known[:-PACED]
    if health.pace(new, old, allowed) is not Pace.RELEASE:
        return None
    text = f"p99 is {p99_ms:.2f} ms, the profile allows {allowed:g} ms, and the incumbent beside it is quick"
    return Failure(FailureClass.VERDICT, "too-slow", text)


def _fall(house: House, d: Deployment, lane: Lane, failure: Failure, now: float) -> Deployment:
    """An arm has no keys any more, and is not taken up again before a higher retry generation; with a card that says
    why, in one write."""
    release = lane.slot.release
    verdict = None
    if failure.kind is FailureClass.VERDICT:
        verdict = Quarantined(release.artifact, release.manifest, lane.retry, failure.text)
    text = f"release {release.number} fell out of the split, its keys are answered by the incumbent: {failure.text}"
    facts = {**failure.facts, "criterion": failure.code, "number": release.number, "manifest": str(release.manifest)}
    says = house.events.happened(now, "arm-fell", text, d.model, "alarm", **facts)
    card = why.of_arm(house, d, lane.slot, failure, now) if verdict is not None else None
    return house.write(slots.fall(d, release.number), verdict, card, says)


def shadow(house: House, d: Deployment, now: float) -> bool:
    """An arm needs no shadow: once it is in memory it joins the release that serves. All others go the usual way."""
    held, order = house.bench.shadows.get(d.model), d.order
    if order is None or order.mode != "split" or d.candidate is None:
        return trying.shadow(house, d, now)
    if d.serving is None:
        return withdraw(house, d, now)
    if held is None or held[0].slot.release != d.candidate.release or superseded(house, d):
        return trying.shadow(house, d, now)
    if house.guard.held():
        return False
    number = d.candidate.release.number
    text = f"release {number} is proven, an arm beside release {d.serving.release.number}"
    house.write(slots.join(d, now), says=house.events.happened(now, "arm-joined", text, d.model, number=number))
    return True


def wanted_arm(house: House, d: Deployment, order: ModelOrder, now: float) -> ModelOrder | None:
    """The next arm of a split that this device lacks, as an order of its own; None if it has all it may have now."""
    if order.mode != "split":
        return None
    standing = {lane.slot.release.manifest for lane in d.lanes if not lane.fallen}
    verdicts = house.journal.quarantined(d.model)
    for arm in order.arms:
        barred = any(verdict.bars(arm.manifest, arm.retry) for verdict in verdicts)
        barred = barred or growing.rests(house, d.model, arm.manifest, now)
        if arm.manifest not in standing and not barred and arm.number >= order.floor:
            return of_arm(order, arm)
    return None


def reconcile(house: House, d: Deployment, order: ModelOrder, now: float) -> bool:
    """A split on its way with the newest order, once all arms have come: their places, or that none is left. True if
    it moved."""
    if order != d.order:
        d = house.write(slots.renew(d, order))
    wanted = {arm.manifest: arm for arm in order.arms}
    lanes = []
    for lane in d.lanes:
        arm = wanted.get(lane.slot.release.manifest)
        if arm is not None:
            lanes.append(replace(lane, first=arm.first, share=arm.share, retry=max(lane.retry, arm.retry)))
    if all(lane.fallen for lane in lanes):
        house.write(slots.end_split(d, "no arm of the split is left", now))
        return True
    begun = replace(d, lanes=tuple(lanes), seed=order.seed, per_key=order.gates.per_key)
    if begun == d:
        return False
    shares = ", ".join(f"release {lane.slot.release.number} {lane.share / 100:g} %" for lane in lanes)
    house.write(begun, says=house.events.happened(now, "split-begun", f"by entity or key: {shares}", d.model))
    return True


def end(house: House, d: Deployment, order: ModelOrder, now: float, *, may_begin: bool) -> bool:
    """The newest order wants no split any more, or one around another release: an arm that shall answer for all is on
    trial at once, anything else is taken up from STEADY."""
    won = (one for one in d.lanes if not one.fallen and one.slot.release.manifest == order.manifest)
    lane, incumbent = next(won, None), house.serving.incumbent(d.model)
    arm = house.serving.arms(d.model).get(lane.slot.release.number) if lane is not None else None
    if lane is None or arm is None or order.mode != "live" or incumbent is None:
        give_up(house, d, Event.WITHDRAWN, "a newer assignment ends the split", now)
        return True
    if house.guard.held() or not may_begin:
        return False
    validated = Validated(lane.slot.release.artifact, now, lane.slot.p99_ms)
    return trying.answer(house, slots.crown(d, lane, order), arm, validated, incumbent, now)


def about(d: Deployment) -> Digest:
    """The name of the split in force; an arm that has joined and has no places yet is none of it."""
    begun = (one for one in d.lanes if one.share)
    stakes = (Stake(one.slot.release.manifest, one.retry, one.first, one.share) for one in begun)
    if d.serving is None:
        raise RuntimeError("a split without an incumbent")
    return identity(d.seed, d.per_key, d.serving.release.manifest, tuple(stakes))


def progress(house: House, d: Deployment) -> tuple[object, ...]:
    """How far a split is, coarsely (by powers of two, and tens of keys): what is worth a new report."""
    if not slots.in_force(d):
        return ()
    found, _ = house.evidence.outcomes.found(d.model)
    counted = (house.serving.health(d.model, lane.slot.release.number) for lane in d.lanes)
    words = tuple((known.keys // 10, sum(known.losses) // 10) for known in found.values())
    return (*((one.answers.bit_length(), one.errors) for one in counted), *words)


def report(house: House, d: Deployment) -> SplitReport | None:
    """What the arms in force did; None while none is."""
    if d.serving is None or not slots.in_force(d):
        return None
    found, full = house.evidence.outcomes.found(d.model)
    left = SHARES - sum(lane.share for lane in d.lanes)
    retry = d.order.retry if d.order else 0
    arms = [Lane(d.serving, 0, left, retry), *d.lanes]
    told = []
    for place, lane in enumerate(arms):
        release = lane.slot.release
        counted = house.serving.health(d.model, release.number if place else None)
        known = found.get(release.number, Found())
        told.append(ArmReport(
            release.number, release.manifest, lane.retry, lane.share, counted.answers, counted.errors, counted.p99_ms,
            known.keys, known.labels, known.right, known.losses, lane.fallen,
        ))  # fmt: skip
    return SplitReport(about(d), d.per_key, tuple(told), full)
