"""What the console shows, made by hand: releases, devices, a release in shadow, drift, verdicts, a gate overridden."""

from __future__ import annotations

from math import log as ln
from pathlib import Path

from appliance.core.project_file import read_project
from core.catalog import Catalog
from core.handoffs import Candidate, Rollout, RolloutState, Score, Scorecard, Verdict
from core.project import Project
from core.release import publish
from sync import chunks, codec, roles
from sync.evidence import ALPHA_HARM, ALPHA_SAFE
from sync.features import WindowSpec
from sync.manifest import Lineage, Manifest, Profile, Variant
from sync.messages import Gates, Reported, Status
from sync.names import DeviceId, ModelName, TenantId
from sync.reports import (
    DriftReport,
    LabelReport,
    ModelReport,
    Release,
    RoadReport,
    Side,
    TrialReport,
    Validated,
    WhyCard,
)
from tests.core import people

KEY = bytes(range(32))
NOW = 1.8e9
MODEL = ModelName("activity")
TENANT = TenantId("default")
WINDOW = WindowSpec(4, 2, 0.02, ("x", "y"))
ONE, TWO = DeviceId("watch-1"), DeviceId("watch-2")
LABELS = Gates(evidence="labels", margin=0.05, block=20)
OVERRIDE = "cli:amal: the gate's rows are stale"
FORCED = "cli:amal: to see it rolled back"


def manifest(number: int, override: str = "") -> Manifest:
    blob = chunks.describe(b"sealed", artifact(number))
    lineage = Lineage("snap", "view", "cnn1d", 7, {}, "fp32 is as fast", override)
    return Manifest(
        TENANT, MODEL, number, NOW, (Variant("fp32", (), blob),), blob, (), (), ("a", "b"), WINDOW, (), Profile(),
        lineage,
    )  # fmt: skip


def artifact(number: int) -> chunks.Digest:
    return chunks.digest(b"model %d" % number)


def release(number: int, override: str = "") -> Release:
    return Release(number, chunks.digest(codec.encode(manifest(number, override))), artifact(number))


def add_release(catalog: Catalog, number: int, accuracy: float, *, accepted: bool = True, override: str = "") -> None:
    """A candidate; also the release that came of it, unless it was refused and nobody overrode that."""
    card = Scorecard(266, (Score("fp32", accuracy, 1.0, 110.0, 182.0, 41_300),), "fp32", "as fast", 1e-7)
    verdict = Verdict("G2", "pass" if accepted else "fail", f"accuracy {accuracy}")
    candidate = Candidate(
        MODEL, "snap", "view", artifact(number), "cnn1d", 7, ("a", "b"), WINDOW, (), (), (), artifact(number),
        card, (verdict,), accepted,
    )  # fmt: skip
    key = catalog.releases.add_candidate(candidate, 1, NOW - 600)
    if accepted or override:
        payload = codec.encode(manifest(number, override))
        catalog.releases.stage(manifest(number, override), payload, chunks.digest(payload), key, NOW - 600)


def steady(number: int, **changes: object) -> ModelReport:
    fields = {"validated": Validated(artifact(number), NOW - 7200, 2.5), "answers": 12_408, **changes}
    return ModelReport("steady", NOW - 7200, release(number), **fields)


def add_device(catalog: Catalog, name: str, models: dict[ModelName, ModelReport], *, state: str = "online") -> None:
    device = DeviceId(name)
    catalog.fleet.put_device(device, 1, b"c", b"s" * 32, b"k" * 32, NOW - 86_400)
    catalog.fleet.put_status(device, Status(state, NOW, "b", 1), NOW - 3600)
    report = Reported(TENANT, device, 1, 1, NOW, "b", 1, models, agent="0.1.0")
    catalog.fleet.put_report(report, b"{}", NOW - 20)


def add_trust(catalog: Catalog, now: float = NOW) -> None:
    owner, *online = (roles.signer(roles.new_signing_key()) for _ in range(4))
    root, targets = people.begun(owner, *(signer.public_key for signer in online), now)
    files = {"1.root.json": root, "1.targets.json": targets}
    catalog.releases.put_trust(files | publish.renew(files, publish.OnlineSigners(online[0], online[1]), now))


# --- the second act ---------------------------------------------------------------------------------------------


def trial(plus: int, zero: int, minus: int, *, retry: int = 0, waiting: int = 0) -> TrialReport:
    """Pairs of release 3 against release 2, some with labels."""
    blocks = plus + zero + minus
    return TrialReport(
        release(3).manifest, release(2).manifest, retry, "labels", 20, plus, zero, minus, 20 * blocks, 14 * blocks,
        16 * blocks, 15 * blocks, 9 * blocks, waiting,
    )  # fmt: skip


def shadowing(report: TrialReport) -> ModelReport:
    """A canary device in shadow."""
    return ModelReport(
        "shadow", NOW - 900, release(2), release(3), validated=Validated(artifact(2), NOW - 7200, 2.5), answers=5120,
        trial=report, wanted=release(3).manifest,
    )  # fmt: skip


def drifting(since: float, right: int, **more: object) -> ModelReport:
    """A device whose inputs changed, with labels that came back."""
    drift = DriftReport("alarm", 1400, 2e4, ("ax", "wz"), since)
    return steady(2, drift=drift, labelled=LabelReport(120, right), **more)


def in_shadow(state: RolloutState = RolloutState.SHADOW, **changes: object) -> Rollout:
    """The rollout of release 3, with release 2 as the way back."""
    fields = {"since": NOW - 900, "previous": 2, "assigned": (ONE, TWO), "reason": "runs beside release 2", **changes}
    return Rollout(MODEL, 3, release(3).manifest, (ONE, TWO), LABELS, state, **fields)


def why_card(*, old: bool = True, **changes: object) -> WhyCard:
    """A verdict by pairs against release 3."""
    fields = {
        "trial": trial(14, 1, 0, retry=1), "log_harm": 5.93, "harm_at": -ln(ALPHA_HARM), "log_safe": -7.2,
        "safe_at": -ln(ALPHA_SAFE), **changes,
    }  # fmt: skip
    text = "worse in 14 of 15 blocks: right in 0.31 of 120 labelled windows, the incumbent in 0.96"
    new = Side(3, release(3).manifest, 0.31, 300, 2, 2.9)
    before = Side(2, release(2).manifest, 0.96, 12_408, 0, 2.5) if old else None
    return WhyCard(MODEL, NOW - 240, "probation", "worse-than-incumbent", text, new, before, **fields)


def declare(catalog: Catalog, folder: Path, *, road: bool = True) -> Project:
    """Applies a project with one model that learns from what devices send up."""
    file = folder / "falaj.toml"
    absent = dict.fromkeys(ROAD, "")
    file.write_text(PROJECT.format(**(ROAD if road else absent)))
    project = read_project(file)
    catalog.projects.apply(project, str(folder), "cli", NOW - 86_400)
    return project


def second_act(catalog: Catalog, folder: Path) -> None:
    """Two watches drifted, what they sent was learned from, and the new release runs in shadow on two devices."""
    add_trust(catalog)
    declare(catalog, folder)
    add_release(catalog, 2, 0.961)
    add_release(catalog, 3, 0.974, accepted=False, override=OVERRIDE)
    add_release(catalog, 4, 0.61, accepted=False)
    for number in (2, 3):
        catalog.releases.set_state(MODEL, number, "approved")
    add_device(catalog, "watch-1", {MODEL: shadowing(trial(0, 9, 2))})
    add_device(catalog, "watch-2", {MODEL: shadowing(trial(1, 7, 1, waiting=6))})
    road = RoadReport("labelled", 214, 412_000, 1_000_000)
    add_device(catalog, "watch-3", {MODEL: drifting(NOW - 5400, 62, road=road)})
    add_device(
        catalog, "watch-4", {MODEL: drifting(NOW - 9000, 91, road=RoadReport("labelled", 9, 999_000, 10**6, 31))}
    )
    add_device(catalog, "watch-5", {MODEL: steady(2, road=RoadReport("labelled", 0, 0, 10**6))})
    catalog.fleet.add_rollout(in_shadow())


PROJECT = """
[sources.watches]
kind = "files"
path = "*.csv"
contract = "imu"
time = "ts"

{source}

[contracts.imu.columns]
ts = {{ type = "float64" }}
who = {{ type = "string" }}
label = {{ type = "string" }}
x = {{ type = "float32" }}
y = {{ type = "float32" }}

[views.imu]
source = "watches"
entity = "who"
label = "label"
window = {{ size = 4, step = 2, period = 0.02, channels = ["x", "y"] }}
{samples}

[models.activity]
view = "imu"
gates = {{ min_accuracy = 0.9 }}
{uplink}
{retraining}

[models.activity.rollout]
evidence = "labels"
margin = 0.05
block = 20
canary = ["watch-1", "watch-2"]
"""

SAMPLES = """
[sources.field]
kind = "samples"
model = "activity"
contract = "samples"
time = "ts"

[contracts.samples.columns]
prediction = { type = "string" }
device = { type = "string" }
entity = { type = "string" }
label = { type = "string" }
ts = { type = "float64" }
x = { type = "float32" }
y = { type = "float32" }
"""

ROAD = {
    "source": SAMPLES,
    "samples": 'samples = "field"',
    "uplink": 'uplink = { policy = "labelled" }',
    "retraining": "retraining = { devices = 2 }",
}
