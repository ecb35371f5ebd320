"""What devices count of their releases, in figures for people: of one device, and added up over a fleet. Pure.

Devices count for themselves: a figure is as true as the device, and nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import msgspec

from core.catalog.fleet import DeviceRow
from core.catalog.performance import Hour, Performed
from core.catalog.skew import SkewRow
from sync.names import DeviceId, ModelName
from sync.performance import Tally, believed, outside, within
from sync.reports import LabelReport

OUTSIDE = 0.2  # share of a stream's newest drift window unlike its baseline, beyond which an estimate says little
LEAST = 60.0  # seconds of an interval, below which a rate would say little

Release = tuple[ModelName, int]


class Figures(msgspec.Struct, frozen=True):
    """`p50_ms` and `p99_ms` are upper bounds; None: nobody asked, or it is beyond the last one that is counted.
    `estimated` is the share of right answers as the model believes, of `seen` answers; None: it tells no
    probabilities."""

    answers: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    estimated: float | None
    seen: int


class OnDevice(msgspec.Struct, frozen=True):
    """One release on one device: in its newest interval, and since the core first heard of it (`since`). `labels` and
    `right` are of the newest labelled predictions, while it serves."""

    device: DeviceId
    model: ModelName
    number: int
    received: float
    until: float
    span: float
    per_hour: float | None
    newest: Figures
    since: float
    total: Figures
    labels: int = 0
    right: int = 0
    outside: dict[str, float] = {}
    doubtful: bool = False  # an input is unlike the baseline: the estimate says little
    calibrated: bool = False  # its probabilities were made honest before it was released, so the estimate says more


class InFleet(msgspec.Struct, frozen=True):
    """One release on all devices that told of it, since the core first heard of it from one of them."""

    model: ModelName
    number: int
    devices: int
    since: float
    total: Figures
    calibrated: bool = False


class MadeAgain(msgspec.Struct, frozen=True):
    """What devices of the fleet served by one release and the core computed again: `mismatching` of `cells` came out
    otherwise, and shall be 0. `unchecked` predictions came without all that they rest on."""

    model: ModelName
    number: int
    devices: int
    predictions: int
    cells: int
    mismatching: int
    unchecked: int


class InInterval(msgspec.Struct, frozen=True):
    """One interval of a release on a device."""

    model: ModelName
    number: int
    ts: float
    span: float
    figures: Figures


def figures(tally: Tally) -> Figures:
    estimate = believed(tally)
    return Figures(
        tally.answers, tally.errors, _ms(within(tally, 0.5)), _ms(within(tally, 0.99)), *(estimate or (None, 0))
    )


def on_device(row: Performed, devices: Mapping[DeviceId, DeviceRow], calibrated: Collection[Release] = ()) -> OnDevice:
    """One row, with what labels say beside it; `calibrated` are the releases that are."""
    interval, labelled = row.newest, _labelled(row, devices.get(row.device))
    strange, span = outside(interval), interval.span
    return OnDevice(
        row.device, interval.model, interval.number, row.received, interval.until, span,
        3600 * interval.tally.answers / span if span >= LEAST else None,
        figures(interval.tally), row.since, figures(row.total),
        labelled.labels if labelled else 0, labelled.right if labelled else 0,
        strange, any(share > OUTSIDE for share in strange.values()), (interval.model, interval.number) in calibrated,
    )  # fmt: skip


def in_fleet(rows: Iterable[Performed], calibrated: Collection[Release] = ()) -> tuple[InFleet, ...]:
    """The sum over devices of each release, the newest first."""
    sums: dict[Release, tuple[int, float, Tally]] = {}
    for row in rows:
        key = row.newest.model, row.newest.number
        devices, since, total = sums.get(key, (0, row.since, Tally()))
        sums[key] = devices + 1, min(since, row.since), total.merge(row.total)
    ordered = sorted(sums.items(), key=lambda item: (item[0][0], -item[0][1]))
    return tuple(
        InFleet(*key, devices, since, figures(total), key in calibrated) for key, (devices, since, total) in ordered
    )


def made_again(rows: Iterable[SkewRow], fleet: Collection[DeviceId]) -> tuple[MadeAgain, ...]:
    """The sum over the devices of the fleet of each release, the newest first."""
    sums: dict[Release, list[int]] = {}
    for row in rows:
        if row.device in fleet:
            counts = sums.setdefault((row.model, row.number), [0] * 5)
            for i, more in enumerate((1, row.predictions, row.cells, row.mismatching, row.unchecked)):
                counts[i] += more
    return tuple(MadeAgain(*key, *sums[key]) for key in sorted(sums, key=lambda key: (key[0], -key[1])))


def in_interval(hour: Hour) -> InInterval:
    return InInterval(hour.model, hour.number, hour.ts, hour.span, figures(hour.tally))


def _labelled(row: Performed, device: DeviceRow | None) -> LabelReport | None:
    model = device.report.models.get(row.newest.model) if device is not None and device.report is not None else None
    if model is None or model.serving is None or model.serving.number != row.newest.number:
        return None
    return model.labelled


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else 1000 * seconds
