"""Many small files of the lake become one: the same rows in the same order, for every reader, whatever is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import jobs
from appliance.core.state import CoreFolder, open_keys
from appliance.keys import TenantKeys
from core import orders
from core.catalog.datasets import AT_ONCE, MANY, MOST, SMALL, crowded
from core.handoffs import JobSpec, LakeFile
from core.lake import Lake
from sync.names import Digest
from tests.core.world import DAY, MODEL, START, TENANT, World

COLUMNS = ("ts", "who", "label", "x", "y")
CONTENT = Digest("1" * 64)


class Estate:
    """A core whose source `watches` is read again and again, a few rows a time, by the real job."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder).ready()
        self.core = CoreFolder(folder / "root", TENANT)
        self.core.home.mkdir(parents=True)
        self.keys: TenantKeys = open_keys(self.core)
        self.lake = Lake(self.core.lake, self.keys.wrap, self.keys.unwrap)
        self.written = 0

    def arrive(self, day: int, rows: int = 3) -> None:
        """One more file of readings."""
        at = START - START % DAY + DAY * day + 60.0 * self.written
        lines = [f"{at + n},watch-1,rest,{self.written},{n}" for n in range(rows)]
        text = "\n".join((",".join(COLUMNS), *lines)) + "\n"
        (self.world.folder / f"{self.written:04d}.csv").write_text(text)
        self.written += 1

    def begin(self) -> tuple[JobSpec, orders.AnyOrder]:
        """A run of the source up to what its job hands over; nothing of it is committed."""
        self.world.must(orders.Ingest(source="watches"))
        spec = self.world.jobs[-1]
        return spec, jobs.work(self.core, self.keys, spec, lambda stage, done: None)

    def run(self) -> JobSpec:
        spec, result = self.begin()
        self.world.must(result)
        return spec

    def fill(self, count: int, day: int = 0) -> None:
        for _ in range(count):
            self.arrive(day)
            self.run()

    def files(self) -> tuple[LakeFile, ...]:
        return self.world.catalog.datasets.files("watches")

    def rows(self, files: tuple[LakeFile, ...]) -> pa.Table:
        return self.lake.read("watches", [file.name for file in files], COLUMNS)

    def on_disk(self) -> set[str]:
        place = self.core.lake / "watches"
        return {str(path.relative_to(place)) for path in place.rglob("*.parquet")}


@pytest.fixture
def estate(tmp_path: Path) -> Iterator[Estate]:
    made = Estate(tmp_path)
    yield made
    made.world.catalog.close()


def test_a_day_of_many_files_becomes_one_with_the_same_rows_in_the_same_order(estate: Estate) -> None:
    estate.fill(MANY)
    before = estate.files()
    rows = estate.rows(before)
    assert len(before) == MANY and len(estate.run().crowded[0]) == MANY
    (one,) = estate.files()
    assert estate.rows((one,)).equals(rows) and one.rows == rows.num_rows == 3 * MANY
    assert estate.world.codes().count("lake-compacted") == 1
    job = estate.world.catalog.projects.job(estate.world.jobs[-1].job)
    assert job is not None and job.result["merged"] == MANY and job.result["files"] == 0
    assert len(estate.on_disk()) == MANY + 1, "those that were replaced stay for whoever still reads them"
    estate.run()
    assert estate.on_disk() == {one.name} and estate.world.catalog.datasets.outdated("watches") == ()


def test_landings_of_many_days_stay_a_few_files_a_day(estate: Estate) -> None:
    for day in range(2):
        estate.fill(MANY + 4, day)
    estate.run()
    assert len(estate.files()) < MANY and estate.rows(estate.files()).num_rows == 2 * 3 * (MANY + 4)


def test_a_training_that_was_given_the_old_names_reads_them_to_its_end(estate: Estate) -> None:
    estate.fill(MANY)
    training = estate.world.must(orders.Train(model=MODEL))["job"]
    given = estate.world.jobs[-1].files
    rows = estate.rows(given)
    for _ in range(3):
        estate.run()
    assert len(estate.files()) == 1 and estate.rows(given).equals(rows)
    estate.world.must(orders.JobFailed(job=training, error="a test", hint=""))
    estate.run()
    assert len(estate.on_disk()) == 1


def test_a_training_that_began_while_the_files_were_merged_has_its_names_too(estate: Estate) -> None:
    estate.fill(MANY)
    _, result = estate.begin()
    estate.world.must(orders.Train(model=MODEL))
    given = estate.world.jobs[-1].files
    estate.world.must(result)
    estate.run()
    assert len(estate.files()) == 1 and estate.rows(given).num_rows == 3 * MANY


def test_a_core_that_is_killed_before_the_commit_has_what_it_had(estate: Estate) -> None:
    estate.fill(MANY)
    before = estate.files()
    rows = estate.rows(before)
    estate.begin()
    estate.world.reopen()  # the job is lost
    assert estate.files() == before and estate.rows(before).equals(rows)
    estate.run()
    assert len(estate.files()) == 1 and estate.rows(estate.files()).equals(rows)
    estate.run()
    assert estate.on_disk() == {estate.files()[0].name}, "the rerun wrote under the same name"


def test_a_core_that_is_killed_between_removing_and_its_commit_removes_again(estate: Estate) -> None:
    estate.fill(MANY)
    estate.run()
    estate.begin()
    estate.world.reopen()
    assert len(estate.world.catalog.datasets.outdated("watches")) == MANY
    estate.run()
    assert estate.world.catalog.datasets.outdated("watches") == () and len(estate.on_disk()) == 1


def test_a_file_that_cannot_be_read_keeps_its_day_apart_and_nothing_else(estate: Estate) -> None:
    estate.fill(MANY)
    broken = estate.core.lake / "watches" / estate.files()[0].name
    content = broken.read_bytes()
    broken.write_bytes(content[:-9])
    estate.arrive(1)
    estate.run()
    assert len(estate.files()) == MANY + 1 and "lake-compacted" not in estate.world.codes()
    broken.write_bytes(content)
    estate.run()
    assert len(estate.files()) == 2


def test_a_merge_that_the_disk_refuses_costs_nothing_that_landed(estate: Estate) -> None:
    """A folder stands where the merged file shall be, which is refused to root as well."""
    estate.fill(MANY)
    before = estate.files()
    estate.arrive(0)
    spec, result = estate.begin()
    assert isinstance(result, orders.CommitRows) and len(spec.crowded) == 1
    (merged,) = result.landed.merged
    place = estate.core.lake / "watches" / merged.file.name
    place.unlink()
    (place / "in the way").mkdir(parents=True)
    estate.world.must(orders.JobFailed(job=spec.job, error="a test", hint=""))
    estate.run()
    assert len(estate.files()) == len(before) + 1 and "lake-compacted" not in estate.world.codes()
    assert not list(estate.core.lake.rglob("*.tmp"))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 2 * SMALL)), max_size=120),
)
def test_groups_are_small_files_of_one_day_in_order_and_each_is_in_one_group(sizes: list[tuple[int, int]]) -> None:
    files = [LakeFile(f"day=2026-01-0{day + 1}/{n:032x}.parquet", rows, CONTENT) for n, (day, rows) in enumerate(sizes)]
    groups = crowded(files)
    taken = [file for group in groups for file in group]
    assert len(taken) == len(set(taken)) <= MOST and all(file.rows < SMALL for file in taken)
    for group in groups:
        (day,) = {file.name.partition("/")[0] for file in group}
        small = sorted((f for f in files if f.name.startswith(day) and f.rows < SMALL), key=lambda f: f.name)
        assert len(small) >= MANY and list(group) == small[: len(group)] and len(group) > 1
        assert sum(file.rows for file in group) <= AT_ONCE


def test_a_run_takes_on_no_more_than_it_can_bear() -> None:
    files = [
        LakeFile(f"day=2026-{n // 310 + 1:02d}-{n % 31 + 1:02d}/{n:032x}.parquet", 5, CONTENT) for n in range(3100)
    ]
    assert sum(map(len, crowded(files))) <= MOST
