"""What a page is made of: everything it shows, read once from the catalog. The rest of the pages is pure."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from core.catalog import Catalog
from core.catalog.events import Event
from core.catalog.failing import FailingPart
from core.catalog.fleet import DeviceRow
from core.catalog.projects import Job
from core.catalog.releases import ReleaseRow
from core.catalog.skew import SkewRow
from core.catalog.wanted import Wanted
from core.console.tallies import Tallies, Told
from core.console.trust_state import TrustState, trust_state
from core.fleet.performance import MadeAgain, made_again
from core.fleet.reports import reports_of
from core.fleet.retraining import Hop, hops
from core.handoffs import Candidate, Rollout
from core.project import Project
from sync import roles
from sync.names import DeviceId, ModelName
from sync.reports import ModelReport, WhyCard

WHYS = 20  # why cards of one page
AWAY = FailingPart(
    "steward", 0.0, "it is not there, so nothing here is newer than its end, and no order is done. Devices serve and "
    "keep what they say. It is started anew by itself: see steward.log in logs of the core's folder why it ends",
)  # fmt: skip
_ALL = 1_000_000
_KEPT = 16 * 1024 * 1024  # bytes of an assignment in the catalog: the wire's limit is not the catalog's


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
    project: Project | None  # as it was applied last
    trust: TrustState
    whys: tuple[tuple[int, DeviceId, WhyCard], ...]
    hops: dict[ModelName, Hop]  # what the core learns next by itself, and why (not)
    overrides: dict[tuple[ModelName, int], str]  # releases that passed against a gate's word: who, and why
    untaken: dict[DeviceId, float]  # who has not taken in what it was told, and when it was told that last
    failing: tuple[FailingPart, ...]  # parts of the core itself, by name
    performed: Told  # how what serves does, as far as devices told
    skew: dict[tuple[DeviceId, ModelName], SkewRow]  # of what serves, what the core made again
    made_again: tuple[MadeAgain, ...]  # the same of each release, over the fleet
    calibrated: frozenset[tuple[ModelName, int]]  # of these releases, those whose probabilities were made honest

    @property
    def fleet(self) -> tuple[DeviceRow, ...]:
        """The devices that belong to the fleet: what is counted and judged; the others are only shown."""
        return tuple(row for row in self.devices if row.active)

    def reports(self, model: ModelName) -> dict[DeviceId, ModelReport | None]:
        """What every device of the fleet last said of this model."""
        return reports_of(model, self.devices)

    def by_core(self, row: ReleaseRow) -> bool:
        """Whether the core signed this release by itself, and no person."""
        allowed = self.trust.automatic.get(row.model)
        return allowed is not None and row.number in allowed.releases

    def told(self) -> set[ModelName]:
        """The models that devices report and the core knows of: a device may make up any number of names."""
        known = {rollout.model for rollout in self.rollouts} | {row.model for row in self.releases}
        known |= {wanted.model for those in self.wanted.values() for wanted in those}
        known |= self.project.models.keys() if self.project else set()
        return {name for row in self.fleet if row.report for name in row.report.models} & known


class _Lineage(msgspec.Struct, frozen=True):
    override: str = ""


class _Manifest(msgspec.Struct, frozen=True):
    """The one part of a manifest that the pages mark; the rest is not read at every poll."""

    lineage: _Lineage


def failing(catalog: Catalog, steward: bool) -> tuple[FailingPart, ...]:
    """The parts of the core that fail, by name. The steward writes them down; that it is not there itself (`steward`)
    can only be seen from here."""
    known = catalog.failing.all()
    return known if steward else (*(row for row in known if row.part != AWAY.part), AWAY)


def gather(catalog: Catalog, now: float, *, steward: bool = True, tallies: Tallies | None = None) -> Facts:
    """Reads it all; some 20 ms for a hundred devices. `steward`: whether it is there; `tallies`: what is known from the
    page before."""
    devices = tuple(catalog.fleet.devices())
    releases = tuple(catalog.releases.releases(12))
    current = catalog.projects.current()
    performed, skewed = (tallies or Tallies()).read(catalog, devices), catalog.skew.all()
    return Facts(
        devices=devices,
        wanted={row.device: catalog.fleet.wanted(row.device) for row in devices},
        rollouts=tuple(rollout for _, rollout in catalog.fleet.rollouts()),
        releases=releases,
        candidates=tuple(catalog.releases.candidates(12)),
        jobs=tuple(catalog.projects.jobs(8)),
        events=tuple(catalog.events.newest(25)),
        project=current[0] if current else None,
        trust=trust_state(catalog.releases.trust(), catalog.releases.proposals()),
        whys=tuple(catalog.fleet.whys(limit=WHYS)),
        hops=hops(catalog, now),
        overrides=_overrides(catalog, releases),
        untaken=_untaken(catalog, devices),
        failing=failing(catalog, steward),
        performed=performed,
        skew=_skew(devices, skewed),
        made_again=made_again(skewed, {row.device for row in devices if row.active}),
        calibrated=frozenset(key for key in performed.fleet if catalog.releases.is_calibrated(*key)),
    )


def _skew(devices: tuple[DeviceRow, ...], rows: list[SkewRow]) -> dict[tuple[DeviceId, ModelName], SkewRow]:
    known = {(row.device, row.model, row.number): row for row in rows}
    found = {}
    for row in devices:
        for name, model in row.report.models.items() if row.report and row.active else ():
            key = row.device, name, model.serving.number if model.serving else 0
            if key in known:
                found[row.device, name] = known[key]
    return found


class _Told(msgspec.Struct, frozen=True):
    """The one part of an assignment of our own that is shown."""

    ts: float


def _untaken(catalog: Catalog, devices: tuple[DeviceRow, ...]) -> dict[DeviceId, float]:
    found, told = {}, catalog.fleet.told()
    for row in devices:
        if row.report is None or (row.report.epoch, row.report.seen) >= told.get(row.device, (0, 0)):
            continue
        if (newest := catalog.fleet.assignment(row.device)) is not None:
            found[row.device] = msgspec.json.decode(roles.peek(newest[3], _KEPT), type=_Told).ts
    return found


def _overrides(catalog: Catalog, releases: tuple[ReleaseRow, ...]) -> dict[tuple[ModelName, int], str]:
    found = {}
    for row in releases:
        kept = catalog.releases.release(row.model, row.number)
        text = msgspec.json.decode(kept[1], type=_Manifest).lineage.override if kept else ""
        if text:
            found[row.model, row.number] = text
    return found


def active(catalog: Catalog) -> frozenset[DeviceId]:
    """The devices that belong to the fleet."""
    return frozenset(row.device for row in catalog.fleet.devices() if row.active)


def counts(catalog: Catalog) -> dict[str, int]:
    """The figures of `/v1/status`."""
    devices = [row for row in catalog.fleet.devices() if row.active]
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
