"""The skew meter: what devices served is made again where their samples land, counted by cell, and told once."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from appliance.cli import metrics, screens
from appliance.core import jobs
from appliance.core import state as core_state
from appliance.core.state import CoreFolder
from appliance.settings import CoreSettings
from core import orders
from core.catalog.performance import RELEASES
from core.console.facts import gather
from core.console.pages import compose
from core.handoffs import JobSpec, Landed, Skew
from core.ingest.samples import IN_ALL, OF_A_DEVICE, shares
from core.ingest.spool import Entry, Spool
from core.orders import CommitRows
from core.release.registry import ArtifactStore
from core.release.replay import Replay
from core.release.skew import ROWS, compare
from edge.ring import Waiting
from edge.road import sample
from sync import golden
from sync.chunks import describe
from sync.errors import Damaged
from sync.manifest import Manifest, Variant
from sync.names import DeviceId, Digest
from sync.remembered import NO_BASIS, Basis
from sync.samples import Batch, Sample, seal
from tests.appliance.test_replay import DEVICE, Field, felt
from tests.core.desk import TwoVerbs
from tests.core.test_retraining import Learner
from tests.core.test_samples import MODEL, PROJECT, TENANT, TWO
from tests.core.world import CATALOG_KEY, ONE, serving
from tests.core.world import MODEL as MOTION
from tests.edge import graphs

# --- what is compared -------------------------------------------------------------------------------------------


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    """Through real bindings, with a table beside them."""
    with felt(tmp_path) as made:
        yield made


def samples(field: Field) -> list[Sample]:
    """What goes up of all that is remembered."""
    return [sample(Waiting(one, 0)) for one in field.file().predictions]


def counts(field: Field, *served: Sample) -> Skew:
    """What the core finds of them."""
    replay = Replay(lambda model, number: field.manifests.get(number), field.content)
    (found,) = compare(graphs.MODEL, [(DEVICE, one) for one in served], replay)
    return found


def test_what_a_device_served_comes_out_the_same_cell_by_cell(field: Field) -> None:
    served = samples(field)
    assert len(served) == 10 and all(one.basis.artifact and one.basis.lookups for one in served)
    assert counts(field, *served) == Skew(DEVICE, 1, 10, 10 * (3 + 1))


def test_every_cell_that_differs_counts(field: Field) -> None:
    one, *rest = samples(field)
    a, b, c = one.probabilities
    other = next(name for name in graphs.CLASSES if name != one.value)
    for lie, off in (
        ({"probabilities": (a + 0.01, b - 0.01, c)}, 2),
        ({"probabilities": (a, b, float("nan"))}, 2),  # the largest of them is no number
        ({"value": other}, 1),
        ({"probabilities": (a, b)}, 4),
        ({"window": rest[5].window}, 3),
    ):
        found = counts(field, replace(one, **lie), rest[0])
        assert (found.predictions, found.cells, found.mismatching) == (2, 8, off), lie
        assert found.example == one.id
    close = counts(field, replace(one, probabilities=(a + 1e-5, b, c)))
    assert (close.cells, close.mismatching) == (4, 0), "another CPU rounds otherwise"


def test_what_cannot_be_made_again_accuses_nobody(field: Field) -> None:
    one = samples(field)[0]
    alone = replace(one, basis=replace(one.basis, rows=10**9))
    assert counts(field, alone) == Skew(DEVICE, 1, unchecked=1)
    replay = Replay(lambda model, number: field.manifests.get(number), field.content)
    lies: list[dict[str, object]] = [{"release": 9}, {"basis": Basis("f" * 64)}, {"release": 9, "window": b""}]
    strange = [(DEVICE, replace(one, **lie)) for lie in lies]
    assert compare(graphs.MODEL, strange, replay) == ()
    broken = {plain: b"no graph" if content[:1] == b"\x08" else content for plain, content in field.shelf.items()}
    unopened = Replay(lambda model, number: field.manifests.get(number), broken.__getitem__)
    assert compare(graphs.MODEL, [(DEVICE, one)], unopened) == ()


def test_a_sample_of_an_older_agent_is_taken_by_its_only_variant(field: Field) -> None:
    one = samples(field)[0]
    lean = replace(one, basis=Basis(lookups=one.basis.lookups))
    assert counts(field, lean).mismatching == 0
    assert counts(field, replace(one, basis=NO_BASIS)) == Skew(DEVICE, 1, unchecked=1), "its table did not travel"
    alarmed = counts(field, replace(one, basis=replace(one.basis, lookups={})))
    assert (alarmed.cells, alarmed.mismatching) == (1, 1), "an agent that names its variant names its tables"


def test_a_request_of_many_rows_is_not_run_for_a_sample_of_it(field: Field) -> None:
    one = samples(field)[0]
    assert counts(field, replace(one, basis=replace(one.basis, rows=ROWS))).cells == 4
    assert counts(field, replace(one, basis=replace(one.basis, rows=ROWS + 1))) == Skew(DEVICE, 1, unchecked=1)
    replay = Replay(lambda model, number: field.manifests.get(number), field.content)
    elsewhere = replace(one, release=9, basis=replace(one.basis, rows=ROWS + 1))
    assert compare(graphs.MODEL, [(DEVICE, elsewhere)], replay) == ()


def test_files_that_are_damaged_are_read_once(field: Field) -> None:
    read: list[Digest] = []

    def damaged(plain: Digest) -> bytes:
        read.append(plain)
        raise Damaged("a bit has flipped")

    replay = Replay(lambda model, number: field.manifests.get(number), damaged)
    served = field.file().predictions
    assert len(served) == 10
    texts = {one.text for one in replay.all(served)}
    assert len(read) == 1 and texts == {"its files are not whole on this core: a bit has flipped"}


# --- where samples land -----------------------------------------------------------------------------------------


class Landing:
    """A core's folder with a release, and a device that answers by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = CoreFolder(folder / "core", TENANT)
        self.keys = core_state.open_keys(self.folder)
        core_state.prepare(self.folder, CoreSettings(), self.keys, 1.79e9)
        store = ArtifactStore(self.folder.artifacts, TENANT, self.keys.object_key("artifact"))
        self.graph = graphs.classifier()
        vectors = golden.encode(golden.Golden({}, {"fp32": golden.Expected({}, 1e-4)}))
        model, proof = (describe(content, store.put(content)) for content in (self.graph, vectors))
        plain = graphs.manifest(1, (), graphs.CLASSES, PROJECT.views["v"].window, MODEL)
        self.manifest: Manifest = replace(plain, variants=(Variant("fp32", (), model),), golden=proof)
        self.number = 0

    def send(self, device: DeviceId, count: int, off: float = 0.0) -> None:
        """One batch; `off` is added to what was served."""
        self.number += 1
        x = np.random.default_rng(self.number).normal(size=(count, 4, 2)).astype("<f4")
        mean = x.mean(axis=1) @ np.array([[1.0, 0.5, -1.0], [-0.5, 0.25, 2.0]], np.float32)
        said = np.exp(mean) / np.exp(mean).sum(axis=1, keepdims=True)
        batch = tuple(
            Sample(
                f"p{self.number}-{i}", "left", 100.0 * self.number + i, 1.0, 1, (4, 2), x[i].tobytes(),
                graphs.CLASSES[int(said[i].argmax())], tuple((said[i] + off).tolist()), "rest",
            )
            for i in range(count)
        )  # fmt: skip
        key = base64.b64decode(core_state.tenant_key(self.folder, self.keys))
        sealed = seal(Batch(str(MODEL), ("x", "y"), batch), TENANT, device, key)
        Spool(self.folder.samples).put(MODEL, Entry(device, 1, self.number), sealed)

    def run(self, position: dict[str, str]) -> tuple[Skew, ...]:
        spec = JobSpec(1, "ingest", "field", PROJECT, ".", position, released=(self.manifest,))
        order = jobs.work(self.folder, self.keys, spec, lambda _stage, _done: None)
        assert isinstance(order, CommitRows) and order.landed.rows
        return order.landed.skew


def test_the_job_that_lands_samples_makes_some_of_each_batch_again(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.send(DeviceId("watch-1"), 10)
    landing.send(TWO, 2, off=0.1)
    honest, other = landing.run({})
    assert honest == Skew(DeviceId("watch-1"), 1, 4, 16), "four of ten"
    assert (other.device, other.predictions, other.cells, other.mismatching) == (TWO, 2, 8, 6)
    assert other.example == "p2-0"
    for _ in range(20):
        landing.send(TWO, 4)
    (found,) = landing.run({"watch-1/1": "1", "watch-2/1": "2"})
    assert found == Skew(TWO, 1, 64, 256), "no device takes all of a run"


def test_a_device_whose_name_sorts_last_is_looked_at_as_well(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    for i in range(10):
        for _ in range(13):
            landing.send(DeviceId(f"watch-{i}"), 4)
    landing.send(DeviceId("zebra"), 4, off=0.1)
    found = {one.device: one.predictions for one in landing.run({})}
    assert found == {**{DeviceId(f"watch-{i}"): 46 for i in range(10)}, DeviceId("zebra"): 4}


def test_more_devices_than_a_run_makes_again_take_turns() -> None:
    devices = [DeviceId(f"watch-{i:04}") for i in range(IN_ALL + 100)]
    runs = [shares(devices, job) for job in range(10)]
    assert all(len(run) == IN_ALL and set(run.values()) == {1} for run in runs)
    assert set().union(*runs) == set(devices) and runs[0] == shares(devices[::-1], 0)
    assert shares(devices[:3], 0) == dict.fromkeys(devices[:3], OF_A_DEVICE) and shares([], 0) == {}


# --- what is told -----------------------------------------------------------------------------------------------


@pytest.fixture
def learner(tmp_path: Path) -> Iterator[Learner]:
    made = Learner(tmp_path)
    yield made
    made.world.catalog.close()


def commit(learner: Learner, *found: Skew) -> None:
    """What an ingest job of samples would commit."""
    job = learner.world.must(orders.Ingest(source="field"))["job"]
    learner.world.must(orders.CommitRows(job=job, landed=Landed("field", (), (), {}, 0, skew=found)))


def test_the_counts_add_up_and_the_first_mismatch_is_one_alarm(learner: Learner) -> None:
    world = learner.world
    number, _ = world.release()
    commit(learner, Skew(ONE, number, 10, 40), Skew(DeviceId("nobody"), number, 1, 4, 4))
    assert "skew-found" not in world.codes()
    for _ in range(2):
        commit(learner, Skew(ONE, number, 5, 20, 3, 1, "p7"))
    assert world.codes().count("skew-found") == 1
    (event,) = [one for one in world.catalog.events.newest(50) if one.code == "skew-found"]
    assert (event.severity, event.source, event.model) == ("alarm", ONE, MOTION) and "prediction p7" in event.text
    world.reopen()
    (row,) = world.catalog.skew.all()
    assert (row.predictions, row.cells, row.mismatching, row.unchecked, row.example) == (20, 80, 6, 2, "p7")
    commit(learner, Skew(ONE, number, 1, 4, 4, 0, "p9"))
    assert world.codes().count("skew-found") == 1, "told once, also after a restart"


def test_a_device_keeps_no_more_releases_than_its_own_tallies_have(learner: Learner) -> None:
    catalog = learner.world.catalog
    with catalog.transaction():
        for number in range(1, RELEASES + 11):
            told = catalog.skew.add(MOTION, Skew(ONE, number, 1, 4), float(number))
            assert (told.device, told.number, told.cells) == (ONE, number, 4)
        catalog.skew.add(MOTION, Skew(TWO, 1, 1, 4), 1.0)
    assert [row.number for row in catalog.skew.all(ONE)] == list(range(11, RELEASES + 11))
    assert [row.number for row in catalog.skew.all(TWO)] == [1]


def test_the_number_is_in_metrics_in_status_and_on_the_console(learner: Learner) -> None:
    world = learner.world
    number, digest = world.release()
    world.hear(learner.device.report({MOTION: serving(digest, number)}))
    commit(learner, Skew(ONE, number, 10, 40, 0, 2))
    desk = TwoVerbs(world.folder / "catalog.db", CATALOG_KEY, world.order, lambda: world.now)
    found = desk.get(f"/v1/performance?device={ONE}")
    said = "made again by the core: 0 of 40 cells, of 10 predictions, differ; 2 could not be made again"
    assert metrics.device_lines(found) == [f"{MOTION}@{number}  {said}"]
    assert metrics.fleet_lines(found["fleet"], found["made_again"]) == [f"{MOTION}@{number}  {said}"]
    status = desk.get("/v1/status")
    assert status["skew"] == found["made_again"]
    lists = ("concerns", "devices", "releases", "rollouts", "rejections", "events")
    empty = {"retraining": {}, **dict.fromkeys(lists, ())}
    shown = screens.core({**empty, "status": status}, world.now)
    assert f"  {MOTION}@{number}: 0 of 40 cells differ, of 10 served predictions" in shown
    (release,) = compose(gather(world.catalog, world.now), world.now).releases
    assert release.field == "0 of 40 cells skewed"
    commit(learner, Skew(ONE, number, 1, 4, 3, 0, "p9"))
    (line,) = compose(gather(world.catalog, world.now), world.now).devices
    assert line.performance == "3 of 44 cells skewed"


def test_the_job_is_given_the_releases_that_may_serve(learner: Learner) -> None:
    number, _ = learner.world.release()
    learner.world.stage(b"another")
    learner.world.must(orders.Ingest(source="field"))
    assert [one.number for one in learner.world.jobs[-1].released] == [number], "not the one that nobody approved"
    learner.world.must(orders.Ingest(source="watches"))
    assert learner.world.jobs[-1].released == ()
