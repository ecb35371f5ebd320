"""Whose world has changed: the devices of which the alarm of a model's drift detector stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sync.names import DeviceId
from sync.reports import ModelReport


@dataclass(frozen=True)
class Drifted:
    """One device: the event time of its first alarm, the streams that alarmed then, and how many drift windows it has
    seen since its release was committed."""

    device: DeviceId
    since: float
    streams: tuple[str, ...]
    windows: int


def drifted(reports: Mapping[DeviceId, ModelReport | None]) -> tuple[Drifted, ...]:
    """Of what devices say of one model: those with a standing alarm, the one that has it longest first."""
    found = [
        Drifted(device, report.drift.since, report.drift.streams, report.drift.windows)
        for device, report in reports.items()
        if report is not None and report.drift is not None and report.drift.since is not None
    ]
    return tuple(sorted(found, key=lambda one: (one.since, one.device)))
