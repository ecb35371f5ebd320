"""The core learns by itself: when, why, why not; and the way from a batch in a record to a training that uses it."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core import orders
from core.catalog.samples import SampleTotals
from core.consistency import problems
from core.fleet import drift, retraining
from core.fleet.drift import Drifted
from core.fleet.retraining import Facts, Hop, decide, hops
from core.handoffs import LABELLED, LakeFile, Landed
from core.ingest.spool import Entry
from core.project import Column, Contract, LookupSource, Project, Range, Retraining, Source
from sync.manifest import Uplink
from sync.messages import SAMPLE, SampleBatch
from sync.names import DeviceId, Digest, LookupName, ModelName
from sync.reports import DriftReport
from tests.core.world import MODEL, ONE, START, TWO, Device, World, project, serving

ROOT = Path(__file__).resolve().parents[2]
NOON = 1_790_000_000.0 - 1_790_000_000.0 % 86_400 + 12 * 3600
SETTINGS = Retraining(devices=2, samples=200, every_hours=24)
CALM = Facts("labelled", (), 0, 0, None, True, False, False, None, None, NOON)


def moved(*since: float) -> tuple[Drifted, ...]:
    return tuple(Drifted(DeviceId(f"watch-{i}"), at, ("x",), 900) for i, at in enumerate(since))


READY = Facts("labelled", moved(NOON - 120, NOON), 240, 0, None, True, False, False, None, None, NOON + 60)


def facts(base: Facts = CALM, **changes: object) -> Facts:
    return Facts(**{**{name: getattr(base, name) for name in Facts.__dataclass_fields__}, **changes})


SHORT = facts(READY, labelled=140)

CASES: dict[str, tuple[Retraining | None, Facts, str, str]] = {
    "nobody asked for it": (None, READY, "none", "only people start a training"),
    "no road": (SETTINGS, facts(READY, policy="none"), "none", "no road: nothing comes up to learn from"),
    "calm": (SETTINGS, CALM, "none", "no device has drifted; 0 of 200 labelled samples are here"),
    "too few devices": (SETTINGS, facts(READY, drifted=moved(NOON)), "none", "1 of 2 devices drifted since 12:00 UTC"),
    "too few samples": (
        SETTINGS, facts(READY, labelled=140), "none",
        "2 devices drifted since 11:58 UTC; 140 of 200 labelled samples are here",
    ),
    "ready": (SETTINGS, READY, "train", "2 devices drifted since 11:58 UTC; 240 of 200 labelled samples are here"),
    "a training runs": (SETTINGS, facts(READY, training=True), "none", "a training is under way"),
    "trained today": (
        SETTINGS, facts(READY, trained=NOON - 3600), "none", "trained already, and not again before 2026-09-2",
    ),
    "trained the day before": (SETTINGS, facts(READY, trained=NOON - 86_400), "train", "2 devices drifted"),
    "no rows of its own": (SETTINGS, facts(READY, rows=False), "none", "own source has no rows yet"),
    "a table that was never read": (
        SETTINGS, facts(READY, lacking=(LookupName("halls"),)), "none", "lookup 'halls' has no version yet: run `fal",
    ),
    "batches just came": (
        SETTINGS, facts(SHORT, waiting=3, waiting_since=NOON + 58), "none", "3 batches of samples came up; more",
    ),
    "batches wait": (SETTINGS, facts(SHORT, waiting=1, waiting_since=NOON + 55), "ingest", "1 batch of samples is"),
    "many batches": (SETTINGS, facts(SHORT, waiting=20, waiting_since=NOON + 60), "ingest", "20 batches of samples"),
    "batches wait and nobody drifted": (
        SETTINGS, facts(waiting=30, waiting_since=NOON - 900), "none", "no device has drifted",
    ),
    "the spool fills": (SETTINGS, facts(waiting=500, waiting_since=NOON - 900), "ingest", "500 batches"),
    "batches are taken in": (
        SETTINGS, facts(SHORT, waiting=9, waiting_since=NOON, ingesting=True), "none", "9 batches of samples are being",
    ),
    "batches that cannot be taken in": (
        SETTINGS, facts(SHORT, waiting=9, waiting_since=NOON, stuck=NOON), "none", "could not be taken in; tried again",
    ),
    "tried again": (SETTINGS, facts(SHORT, waiting=9, waiting_since=0.0, stuck=NOON - 601), "ingest", "9 batches"),
    "enough is here": (SETTINGS, facts(READY, waiting=30, waiting_since=NOON - 900), "train", "2 devices drifted"),
    "a clock that was never set": (SETTINGS, facts(READY, drifted=moved(1e300, 5.0)), "train", "since 1970-01-01"),
    "a clock that was put back": (SETTINGS, facts(READY, trained=NOON + 9e6, failed=NOON + 9e6), "train", "2 devices"),
    "a clock that was put back, batches": (
        SETTINGS, facts(SHORT, waiting=1, waiting_since=NOON + 9e6, stuck=NOON + 9e6), "ingest", "1 batch",
    ),
    "a training that came to nothing": (SETTINGS, facts(READY, failed=NOON), "none", "the last training came to noth"),
    "tried once more": (SETTINGS, facts(READY, failed=NOON - 601), "train", "2 devices drifted"),
    "no date at all": (SETTINGS, facts(READY, drifted=moved(1e300, 1e301)), "train", "since second 1e+300"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_reason(case: str) -> None:
    settings, known, kind, says = CASES[case]
    hop = decide(settings, known)
    assert hop.kind == kind and says in hop.reason, hop


@given(
    st.integers(1, 5), st.integers(1, 500), st.integers(0, 5), st.integers(0, 500), st.integers(0, 600), st.booleans(),
    st.booleans(), st.one_of(st.none(), st.floats(NOON - 90_000, NOON)),
)  # fmt: skip
def test_a_training_starts_only_with_all_that_was_asked_for(
    devices: int, samples: int, alarms: int, here: int, waiting: int, busy: bool, training: bool, trained: float | None
) -> None:
    since = NOON - 60 if waiting else None
    known = facts(
        drifted=moved(*[NOON] * alarms), labelled=here, waiting=waiting, waiting_since=since, ingesting=busy,
        training=training, trained=trained,
    )  # fmt: skip
    hop = decide(Retraining(devices=devices, samples=samples), known)
    assert hop.reason
    if hop.kind == "train":
        assert alarms >= devices and here >= samples and not training and not (waiting and busy)
        assert trained is None or known.now - trained >= 86_400
    if hop.kind == "ingest":
        assert waiting and not busy and not training


def test_who_drifted_since_when() -> None:
    def says(since: float | None) -> DriftReport:
        return DriftReport("quiet" if since is None else "alarm", 7, 0.0, ("x",), since)

    reports = {
        ONE: serving(Digest("a" * 64), drift=says(9.0)),
        TWO: serving(Digest("a" * 64), drift=says(4.0)),
        DeviceId("calm"): serving(Digest("a" * 64), drift=says(None)),
        DeviceId("unwatched"): serving(Digest("a" * 64)),
        DeviceId("silent"): None,
    }
    assert drift.drifted(reports) == (Drifted(TWO, 4.0, ("x",), 7), Drifted(ONE, 9.0, ("x",), 7))


# --- the steward ------------------------------------------------------------------------------------------------


def learning_project(**settings: object) -> Project:
    """That of the world, with a road, samples and retraining."""
    base = project((ONE, TWO))
    text = Column(type="string")
    columns = {"prediction": text, "device": text, "entity": text, "label": text, "ts": Column(type="float64"),
               "x": Column(type="float32"), "y": Column(type="float32")}  # fmt: skip
    asked: dict[str, object] = {"devices": 1, "samples": 5, **settings}
    model = replace(base.models[MODEL], uplink=Uplink("labelled"), retraining=Retraining(**asked))
    return replace(
        base,
        sources={**base.sources, "field": Source(kind="samples", model=MODEL, contract="field", time="ts")},
        contracts={**base.contracts, "field": Contract(columns=columns)},
        views={"windows": replace(base.views["windows"], samples="field")},
        models={MODEL: model},
    )


class Learner:
    """A world with one device that drifted; its batches are made up, as the steward cannot open any."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder).ready((ONE, TWO))
        self.apply()
        self.device = self.world.enrol(ONE)
        self.sent = 0

    def apply(self, **settings: object) -> None:
        made = learning_project(**settings)
        assert problems(made) == []
        self.world.must(orders.ApplyProject(project=made, folder=str(self.world.folder)))

    def rows(self) -> None:
        job = self.world.must(orders.Ingest(source="watches"))["job"]
        file = LakeFile("day-1.parquet", 10, Digest("1" * 64))
        self.world.must(orders.CommitRows(job=job, landed=Landed("watches", (file,), (), {"day-1.csv": "2"}, 10)))

    def drift(self, device: Device | None = None) -> None:
        said = DriftReport("alarm", 900, 5.0, ("x",), START - 60)
        self.world.hear((device or self.device).report({MODEL: serving(Digest("a" * 64), drift=said)}))

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            self.world.hear(self.device.record(batch(), self.sent, str(SAMPLE)))

    def commit(self, labelled: int) -> None:
        """What the ingest job that runs would commit."""
        (job,) = [j for j in self.world.catalog.projects.unfinished() if j.kind == "ingest"]
        file = LakeFile(f"day=2026-01-01/{self.sent}.parquet", 4, Digest("5" * 64))
        total = int(self.world.catalog.datasets.position("field").get(LABELLED, "0")) + labelled
        position = {f"{ONE}/{self.device.epoch}": str(self.sent), LABELLED: str(total)}
        self.world.must(orders.CommitRows(job=job.id, landed=Landed("field", (file,), (), position, 4)))

    def running(self) -> list[str]:
        return [f"{j.kind} {j.subject}" for j in self.world.catalog.projects.unfinished()]

    def hop(self) -> Hop:
        return hops(self.world.catalog, self.world.now)[MODEL]

    def files(self) -> list[str]:
        return [f.name for f in (self.world.folder / "samples").rglob("*-*") if f.is_file()]

    def finish(self, accepted: bool = True) -> None:
        (job,) = [j for j in self.world.catalog.projects.unfinished() if j.kind == "train"]
        self.world.must(orders.CommitCandidate(job=job.id, candidate=self.world.candidate(accepted=accepted)))

    def name_anew(self, made: Project, labelled: int) -> None:
        """So many labelled samples came and were learned from; then their source is called `road` in the project."""
        self.rows()
        self.drift()
        self.send()
        self.world.tick(6)
        self.commit(labelled=labelled)
        self.finish()
        renamed = replace(
            made,
            sources={"watches": made.sources["watches"], "road": made.sources["field"]},
            views={"windows": replace(made.views["windows"], samples="road")},
        )
        self.world.must(orders.ApplyProject(project=renamed, folder=str(self.world.folder)))


def batch(size: int = 90) -> SampleBatch:
    return SampleBatch(MODEL, "internal", "", base64.b64encode(os.urandom(size)).decode())


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[Learner]:
    made = Learner(tmp_path)
    yield made
    made.world.catalog.close()


def test_from_a_batch_to_a_training_that_nobody_started(learner: Learner) -> None:
    world = learner.world
    learner.rows()
    learner.send(3)
    world.tick(60)
    assert learner.running() == [] and "no device has drifted" in learner.hop().reason
    learner.drift()
    world.tick()
    assert learner.running() == ["ingest field"]
    (spec,) = world.jobs[-1:]
    assert (spec.kind, spec.subject, spec.position) == ("ingest", "field", {})
    assert "being taken in" in learner.hop().reason
    world.tick(60)
    assert learner.running() == ["ingest field"], "one at a time"
    assert len(learner.files()) == 3
    learner.commit(labelled=3)
    assert learner.files() == [] and learner.running() == []
    assert world.catalog.samples.totals(MODEL) == SampleTotals(3, 270, 3)
    assert "3 of 5 labelled samples are here" in learner.hop().reason
    learner.send(2)
    world.tick(6)
    assert world.jobs[-1].position == {"watch-1/1": "3", LABELLED: "3"}
    learner.commit(labelled=2)
    assert learner.running() == [f"train {MODEL}"], "the round that follows the commit starts it"
    spec = world.jobs[-1]
    assert [f.name for f in spec.files] == ["day-1.parquet"] and len(spec.samples) == 2
    event = next(e for e in world.catalog.events.newest() if e.code == "retraining-started")
    assert (event.model, event.source) == (MODEL, "core") and "1 device drifted since" in event.text
    assert "5 of 5 labelled samples are here" in event.text


def test_what_a_candidate_was_made_of_is_not_counted_again_and_not_before_its_time(learner: Learner) -> None:
    learner.rows()
    learner.drift()
    learner.send(2)
    learner.world.tick(6)
    learner.commit(labelled=7)
    learner.send(1)
    learner.world.tick(6)
    assert learner.running() == [f"train {MODEL}"], "while it trains, nothing else is begun"
    learner.finish(accepted=False)
    learner.world.tick()
    learner.commit(labelled=1)
    assert "1 of 5 labelled samples are here" in learner.hop().reason
    learner.send(1)
    learner.world.tick(6)
    learner.commit(labelled=30)
    assert learner.running() == [] and "trained already, and not again before" in learner.hop().reason
    learner.world.tick(86_400)
    assert learner.running() == [f"train {MODEL}"]


def test_a_training_that_a_person_started_uses_samples_and_holds_none_up(learner: Learner) -> None:
    learner.rows()
    learner.world.must(orders.Train(model=MODEL))
    learner.finish()
    learner.drift()
    learner.send()
    learner.world.tick(6)
    learner.commit(labelled=5)
    assert learner.running() == [f"train {MODEL}"]


def test_a_core_killed_while_it_retrains_begins_anew(learner: Learner) -> None:
    learner.rows()
    learner.drift()
    learner.send()
    learner.world.tick(6)
    learner.commit(labelled=5)
    assert learner.running() == [f"train {MODEL}"]
    learner.world.reopen()
    assert learner.running() == [] and learner.world.codes()[-1] == "job-lost"
    learner.world.tick()
    assert learner.running() == [f"train {MODEL}"]
    assert learner.world.codes().count("retraining-started") == 2
    learner.finish()
    assert learner.running() == []


def test_samples_that_cannot_be_taken_in_are_not_tried_every_second(learner: Learner) -> None:
    learner.drift()
    learner.send()
    learner.world.tick(6)
    (job,) = learner.world.catalog.projects.unfinished()
    learner.world.must(orders.JobFailed(job=job.id, error="disk full"))
    for _ in range(5):
        learner.world.tick(60)
    assert learner.running() == [] and "could not be taken in" in learner.hop().reason
    learner.world.tick(301)
    assert learner.running() == ["ingest field"]
    learner.world.reopen()
    learner.world.tick()
    assert learner.running() == ["ingest field"], "one that was lost says nothing about the samples"


def test_without_rows_of_its_own_a_model_waits(learner: Learner) -> None:
    learner.drift()
    learner.send()
    learner.world.tick(6)
    learner.commit(labelled=9)
    learner.world.tick()
    assert learner.running() == [] and "no rows yet" in learner.hop().reason


def test_a_revoked_device_and_one_that_went_quiet_count_for_nothing(learner: Learner) -> None:
    learner.apply(devices=2)
    learner.drift()
    assert "1 of 2 devices drifted" in learner.hop().reason
    learner.drift(learner.world.enrol(TWO))
    assert "2 devices drifted" in learner.hop().reason
    learner.world.hear(learner.device.report({MODEL: serving(Digest("a" * 64), drift=DriftReport("quiet"))}))
    assert "1 of 2 devices drifted" in learner.hop().reason
    with learner.world.catalog.transaction():
        learner.world.catalog._db.execute("UPDATE device SET state = 'revoked'")
    assert "no device has drifted" in learner.hop().reason


def test_a_source_named_anew_begins_to_count_anew(learner: Learner) -> None:
    learner.name_anew(learning_project(), labelled=9)
    assert "0 of 5 labelled samples" in learner.hop().reason


def test_without_a_project_there_is_nothing_to_learn(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert hops(world.catalog, START) == {} and world.tick() == []
    world.must(orders.ApplyProject(project=project(), folder="/p"))
    assert hops(world.catalog, START)[MODEL] == Hop("none", "only people start a training of this model")
    world.catalog.close()


def test_a_table_that_was_never_read_is_waited_for(learner: Learner) -> None:
    made, halls = learning_project(), LookupName("halls")
    view = replace(made.views["windows"], lookups=(halls,))
    source = LookupSource(path="halls.csv", key="who", columns={"age": Range(min=0, max=100)}, ttl_hours=24)
    asks = replace(made, views={"windows": view}, lookups={halls: source})
    learner.rows()
    learner.drift()
    learner.send(20)
    learner.world.tick(6)
    learner.world.must(orders.ApplyProject(project=asks, folder="/p"))
    learner.commit(labelled=5)
    learner.world.tick(1)
    assert learner.running() == [] and "falaj ingest halls" in learner.hop().reason
    assert "retraining-refused" not in learner.world.codes()


def test_what_the_desk_refuses_is_told_once_an_hour_and_ends_nothing(learner: Learner) -> None:
    made = learning_project()
    only = replace(made, models={MODEL: replace(made.models[MODEL], samples="only")})
    learner.world.must(orders.ApplyProject(project=only, folder="/p"))
    learner.rows()
    learner.drift()
    job = learner.world.must(orders.Ingest(source="field"))["job"]
    counted = Landed("field", (), (), {LABELLED: "5"}, 0)  # of rows that nobody has any more
    learner.world.must(orders.CommitRows(job=job, landed=counted))
    for _ in range(3):
        learner.world.tick(1100)
    assert learner.world.codes().count("retraining-refused") == 1 and learner.running() == []
    assert "falaj ingest field" in next(e for e in learner.world.catalog.events.newest()).text
    learner.world.tick(3600)
    assert learner.world.codes().count("retraining-refused") == 2


def test_a_model_that_learns_from_samples_alone_says_what_it_lacks(learner: Learner) -> None:
    learner.rows()
    made = learning_project()
    only = replace(made, models={MODEL: replace(made.models[MODEL], samples="only")})
    learner.world.must(orders.ApplyProject(project=only, folder="/p"))
    answer = learner.world.order(orders.Train(model=MODEL))
    assert (answer.code, answer.hint) == ("no-data", "run `falaj ingest field` first")
    learner.apply()
    learner.world.must(orders.Train(model=MODEL))
    assert learner.world.jobs[-1].samples == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from core.steward import learning
from tests.core.test_retraining import Learner

learner = Learner(Path(sys.argv[1]))
learner.rows(); learner.drift(); learner.send(2); learner.world.tick(6)
learner.world.house.spool.drop = lambda model, entry: os.kill(os.getpid(), signal.SIGKILL)
learner.commit(labelled=2)
"""


def test_a_kill_between_the_commit_and_the_sweep_lands_nothing_twice(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "samples").rglob("1-*"))) == 2
    world = World(tmp_path)
    assert world.catalog.datasets.position("field") == {"watch-1/1": "2", LABELLED: "2"}
    assert world.house.spool.entries(MODEL) == [], "swept at the start"
    assert world.catalog.samples.waiting(MODEL).batches == 0
    world.catalog.close()


def test_a_sweep_leaves_what_has_not_landed(learner: Learner) -> None:
    learner.drift()
    learner.send(2)
    learner.world.tick(6)
    learner.sent = 1
    learner.commit(labelled=1)
    assert learner.world.house.spool.entries(MODEL) == [Entry(ONE, 1, 2)]
    assert learner.world.catalog.samples.waiting(MODEL).batches == 1
    assert retraining.stirs(learner.world.catalog, learning_project(), MODEL)


def test_a_training_that_fails_is_not_started_every_second(learner: Learner) -> None:
    learner.apply(every_hours=0)
    learner.rows()
    learner.drift()
    learner.send()
    learner.world.tick(6)
    learner.commit(labelled=5)
    started = 0
    for _ in range(20):
        learner.world.tick(60)
        for job in learner.world.catalog.projects.unfinished():
            started += 1
            learner.world.must(orders.JobFailed(job=job.id, error="killed"))
    assert 2 <= started <= 3, "once in ten minutes"


def test_a_training_that_takes_the_core_along_is_not_started_at_once_again(learner: Learner) -> None:
    learner.rows()
    learner.drift()
    learner.send()
    learner.world.tick(6)
    learner.commit(labelled=5)
    for _ in range(5):
        learner.world.reopen()
        learner.world.tick()
    assert len([job for job in learner.world.jobs if job.kind == "train"]) == 2, "one more try"
    learner.world.tick(601)
    assert learner.running() == [f"train {MODEL}"]


def test_batches_that_no_job_finds_are_not_looked_for_every_second(learner: Learner) -> None:
    learner.drift()
    learner.send()
    for file in (learner.world.folder / "samples").rglob("*-*"):
        if file.is_file():
            file.unlink()
    started = 0
    for _ in range(20):
        learner.world.tick(60)
        for job in learner.world.catalog.projects.unfinished():
            started += 1
            learner.world.must(orders.CommitRows(job=job.id, landed=Landed("field", (), (), {}, 0)))
    assert 2 <= started <= 3 and "could not be taken in" in learner.hop().reason


def test_a_source_that_was_named_anew_counts_anew(learner: Learner) -> None:
    learner.name_anew(learning_project(every_hours=0), labelled=500)
    learner.send()
    learner.world.tick(6)
    (job,) = learner.world.catalog.projects.unfinished()
    file = LakeFile("day=2026-01-01/1.parquet", 4, Digest("5" * 64))
    position = {f"{ONE}/{learner.device.epoch}": str(learner.sent), LABELLED: "5"}
    learner.world.must(orders.CommitRows(job=job.id, landed=Landed("road", (file,), (), position, 4)))
    assert learner.running() == [f"train {MODEL}"]


def test_a_model_that_learns_from_the_samples_of_another_takes_in_those(learner: Learner) -> None:
    made = learning_project()
    second = ModelName("second")
    both = replace(made, models={MODEL: replace(made.models[MODEL], retraining=None), second: made.models[MODEL]})
    assert problems(both) == []
    learner.world.must(orders.ApplyProject(project=both, folder=str(learner.world.folder)))
    said = DriftReport("alarm", 900, 5.0, ("x",), START - 60)
    learner.world.hear(learner.device.report({second: serving(Digest("a" * 64), drift=said)}))
    learner.send()
    learner.world.tick(6)
    assert learner.running() == ["ingest field"]
    learner.commit(labelled=1)
    learner.world.tick(6)
    assert learner.running() == []
