"""Has the core told how releases did: one record for each that was asked in an interval that is over."""

from __future__ import annotations

from msgspec.structs import replace

from edge.agent.house import House
from edge.performance import Performance
from edge.telemetry import Telemetry
from sync import codec
from sync.messages import METRICS
from sync.performance import NAME, Interval

ROOM = 44 * 1024  # bytes of a body that fits into a record once it is sealed


def account(
    house: House, performance: Performance, telemetry: Telemetry, now: float, elapsed: float, *, ending: bool = False
) -> None:
    """Puts what is due into the outbox; where the disk refuses, or the core does not know the kind, it goes on being
    counted. `ending`: all, due or not."""
    answering = {
        model: loaded.slot.release.number if (loaded := house.serving.incumbent(model)) else None
        for model in house.deployments
    }
    if house.disk.reason or not house.outbox.alarms_apart:
        return  # a core that does not know alarms apart knows this kind as little: it would keep of each its size alone
    for interval in performance.due(answering, now, elapsed, ending=ending):
        if not house.outbox.add(METRICS, _with_inputs(interval, telemetry), now):
            house.disk.refused(OSError("the outbox takes nothing"), now)
            return
        performance.told(interval)
    performance.turn(answering, elapsed)


def _with_inputs(interval: Interval, telemetry: Telemetry) -> Interval:
    """With the newest drift window, as far as there is room."""
    newest = telemetry.newest(interval.model, interval.number)
    if newest is None or any(len(name) > NAME for name in newest[0]):
        return interval
    whole = replace(interval, streams=newest[0], sketch=newest[1])
    return whole if len(codec.encode(whole)) <= ROOM else interval
