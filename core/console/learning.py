"""What the fleet meets and what comes of it: who drifted, what goes up the road, what the core learns next. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from core.console import wording
from core.console.facts import Facts
from core.console.wording import Badge, Moment
from core.fleet.drift import Drifted
from core.fleet.drift import drifted as alarmed_in
from core.fleet.retraining import Hop
from sync.names import DeviceId, ModelName
from sync.reports import ModelReport, RoadReport

SHOWN = 20  # devices of one model

_HOPS = {
    "none": Badge("plain", "waits"),
    "ingest": Badge("busy", "takes samples in"),
    "train": Badge("busy", "trains"),
}
_NEXT = {"none": "The core waits", "ingest": "The core takes samples in", "train": "The core trains a new release"}


@dataclass(frozen=True)
class LearningLine:
    """One device's part: its alarm, and what it sent. Empty cells are not known."""

    device: str
    drift: Badge
    streams: str
    since: Moment | None
    labelled: str
    labels: int
    sent: str
    today: str
    held_back: int


@dataclass(frozen=True)
class LearningCard:
    """One model. `road` says in words what may leave a device; `quiet` devices have nothing to tell."""

    model: str
    hop: Badge | None
    reason: str
    road: str
    open: bool  # whether there is a road
    lines: tuple[LearningLine, ...]
    quiet: int


def drifted(facts: Facts) -> dict[ModelName, tuple[Drifted, ...]]:
    """Of each model the devices whose alarm stands, the worst first: least accurate by labels, then longest."""
    found = {}
    for name in sorted(facts.told()):
        reports = facts.reports(name)
        alarmed = alarmed_in(reports)
        if alarmed:
            found[name] = tuple(sorted(alarmed, key=lambda one: _accuracy(reports[one.device])))
    return found


def next_words(hop: Hop) -> str:
    """What happens next, as a sentence."""
    return f"{_NEXT.get(hop.kind, 'Next')}: {hop.reason}"


def cards(facts: Facts, now: float) -> tuple[LearningCard, ...]:
    """Of every model that is declared or reported, by name."""
    declared = facts.project.models.keys() if facts.project else set()
    return tuple(_card(facts, name, now) for name in sorted(facts.told() | declared))


def _card(facts: Facts, name: ModelName, now: float) -> LearningCard:
    hop = facts.hops.get(name)
    alarmed = {line.device: place for place, line in enumerate(drifted(facts).get(name, ()))}
    reports = {device: report for device, report in facts.reports(name).items() if report is not None}
    loud = [device for device, report in reports.items() if device in alarmed or _has_sent(report.road)]
    shown = sorted(loud, key=lambda device: (alarmed.get(device, len(alarmed)), device))[:SHOWN]
    policy, road = _road(facts, name, reports)
    return LearningCard(
        model=name,
        hop=_HOPS.get(hop.kind, Badge("notice", hop.kind)) if hop else None,
        reason=wording.sentence(hop.reason) if hop else "",
        road=road,
        open=policy != "none",
        lines=tuple(_line(device, reports[device], now) for device in shown),
        quiet=len(facts.fleet) - len(shown),
    )


def _road(facts: Facts, name: ModelName, reports: dict[DeviceId, ModelReport]) -> tuple[str, str]:
    """(policy, in words): what devices were signed to send, or what the project asks of the next release."""
    signed = {report.road.policy for report in reports.values() if report.road is not None}
    settings = facts.project.models[name].uplink if facts.project and name in facts.project.models else None
    declared = settings.policy if settings else "none"
    if signed - {"none"}:
        return "open", wording.sentence(" and ".join(map(_policy_words, sorted(signed - {"none"}))))
    if declared != "none":
        return "none", f"No road yet: {_policy_words(declared)} from the next release on."
    return "none", "No road: no input leaves a device for this model. `uplink` in falaj.toml opens one."


def _policy_words(policy: str) -> str:
    said = {
        "labelled": "labelled predictions go up the road, sealed to the tenant's key",
        "sampled": "a share of all predictions goes up the road, sealed to the tenant's key",
    }
    return said.get(policy, f"predictions go up by policy {policy}")


def _line(device: DeviceId, report: ModelReport, now: float) -> LearningLine:
    drift, road, labelled = report.drift, report.road, report.labelled
    stands = drift is not None and drift.since is not None
    return LearningLine(
        device=device,
        drift=_drift(report),
        streams=", ".join(drift.streams) if drift and stands else "",
        since=wording.moment(drift.since, now) if drift else None,
        labelled=wording.share_of(labelled.right, labelled.labels) if labelled else "",
        labels=labelled.labels if labelled else 0,
        sent=wording.count(road.sent) if road else "",
        today=f"{wording.size(road.bytes_today)} of {wording.size(road.budget)}" if road else "",
        held_back=road.held_back if road else 0,
    )


def _drift(report: ModelReport) -> Badge:
    if report.drift is None:
        return Badge("plain", "not watched")
    if report.drift.since is not None:
        return Badge("alarm", "inputs drifted")
    return Badge("busy", "calibrates") if report.drift.status == "not_calibrated" else Badge("ok", "as committed")


def _has_sent(road: RoadReport | None) -> bool:
    return road is not None and bool(road.sent or road.held_back or road.bytes_today)


def _accuracy(report: ModelReport | None) -> float:
    """By labels; a device without any stands behind those that are known to be wrong."""
    labelled = report.labelled if report else None
    return labelled.right / labelled.labels if labelled and labelled.labels else 1.0
