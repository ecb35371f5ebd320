"""What a page is made of: everything it shows, read once from the catalog. The rest of the pages is pure."""

from __future__ import annotations

from dataclasses import dataclass

from core.catalog import Catalog
from core.catalog.events import Event
from core.catalog.fleet import DeviceRow, Wanted
from core.catalog.projects import Job
from core.catalog.releases import ReleaseRow
from core.console.trust_state import TrustState, trust_state
from core.handoffs import Candidate, Rollout
from sync.messages import ModelReport
from sync.names import DeviceId

_ALL = 1_000_000


@dataclass(frozen=True)
class Facts:
    """Newest first, but devices by name. `candidates` holds (id, time, candidate)."""

    devices: tuple[DeviceRow, ...]
    wanted: dict[DeviceId, tuple[Wanted, ...]]
    rollouts: tuple[Rollout, ...]
    releases: tuple[ReleaseRow, ...]
    candidates: tuple[tuple[int, float, Candidate], ...]
    jobs: tuple[Job, ...]
    events: tuple[Event, ...]
    declared: bool  # whether a project was ever applied
    trust: TrustState


def gather(catalog: Catalog) -> Facts:
    """Reads it all; some 20 ms for a hundred devices."""
    devices = tuple(catalog.fleet.devices())
    return Facts(
        devices=devices,
        wanted={row.device: catalog.fleet.wanted(row.device) for row in devices},
        rollouts=tuple(rollout for _, rollout in catalog.fleet.rollouts()),
        releases=tuple(catalog.releases.releases(12)),
        candidates=tuple(catalog.releases.candidates(12)),
        jobs=tuple(catalog.projects.jobs(8)),
        events=tuple(catalog.events.newest(25)),
        declared=catalog.projects.current() is not None,
        trust=trust_state(catalog.releases.trust()),
    )


def counts(catalog: Catalog) -> dict[str, int]:
    """The figures of `/v1/status`."""
    devices = catalog.fleet.devices()
    return {
        "devices": len(devices),
        "online": sum(row.status == "online" for row in devices),
        "validated": sum(_all_validated(row) for row in devices),
        "releases": len(catalog.releases.releases(_ALL)),
        "rollouts": len(catalog.fleet.rollouts(limit=_ALL)),
        "jobs": len(catalog.projects.unfinished()),
        "quarantine": sum(found["rejections"] for found in catalog.datasets.totals().values()),
    }


def is_validated(model: ModelReport) -> bool:
    """Whether what serves is what was validated on this device."""
    return (
        model.serving is not None and model.validated is not None and model.validated.artifact == model.serving.artifact
    )


def _all_validated(row: DeviceRow) -> bool:
    models = row.report.models if row.report else {}
    return bool(models) and all(map(is_validated, models.values()))
