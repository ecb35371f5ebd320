"""What the fleet last said of a model: what rollouts are decided by, and what the pages show of them."""

from __future__ import annotations

from collections.abc import Iterable

from core.catalog.fleet import DeviceRow
from sync.messages import Reported
from sync.names import DeviceId, ModelName
from sync.reports import ModelReport


def reports_of(model: ModelName, rows: Iterable[DeviceRow]) -> dict[DeviceId, ModelReport | None]:
    """Of every device that belongs to the fleet; None where it said nothing of this model. Who was revoked, replaced or
    stopped has no word."""
    return {row.device: row.report.models.get(model) if row.report else None for row in rows if row.active}


def standing(report: Reported) -> tuple[object, ...]:
    """What a rollout can follow of a report: most reports of a fleet differ in their counts of answers alone."""
    return report.seen, {name: _stands(model) for name, model in report.models.items()}


def _stands(model: ModelReport) -> tuple[object, ...]:
    trial = model.trial
    pairs = (trial.manifest, trial.retry, trial.plus, trial.zero, trial.minus) if trial else ()
    return model.phase, model.serving, model.candidate, model.quarantined, pairs, model.split
