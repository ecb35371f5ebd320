"""What the fleet last said of a model: what rollouts are decided by, and what the pages show of them."""

from __future__ import annotations

from collections.abc import Iterable

from core.catalog.fleet import DeviceRow
from sync.names import DeviceId, ModelName
from sync.reports import ModelReport


def reports_of(model: ModelName, rows: Iterable[DeviceRow]) -> dict[DeviceId, ModelReport | None]:
    """Of every device that belongs to the fleet; None where it said nothing of this model. Who was revoked, replaced or
    stopped has no word."""
    return {row.device: row.report.models.get(model) if row.report else None for row in rows if row.active}
