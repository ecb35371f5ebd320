"""The catalog: one key opens it, a transaction is all or nothing, and nothing of it lies there in plain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlcipher3 import dbapi2 as sqlcipher

from core.catalog import Catalog, CatalogLocked, open_catalog
from core.catalog.catalog import _migrate
from core.catalog.events import FORGET_EVERY, Events
from core.catalog.samples import SampleTotals, Waiting
from core.catalog.schema import MIGRATIONS, VERSION
from core.catalog.wanted import Wanted
from core.handoffs import LakeFile, Landed, Merged
from sync.manifest import Drift
from sync.messages import Gates, Reported, Status
from sync.names import DeviceId, Digest, ModelName
from tests.core.world import CATALOG_KEY, MODEL, ONE, START, TENANT, World, landed, project

CANARY = "canary-in-a-coal-mine"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenant" / "catalog.db"


def raw(path: Path) -> sqlcipher.Connection:
    db = sqlcipher.connect(str(path), isolation_level=None)
    db.execute(f"PRAGMA key = \"x'{CATALOG_KEY.hex()}'\"")
    return db


def put(catalog: Catalog, text: str = CANARY) -> None:
    with catalog.transaction():
        catalog.events.add(START, "core", "noted", text)


def test_another_key_does_not_open_it(path: Path) -> None:
    open_catalog(path, CATALOG_KEY).close()
    for read_only in (False, True):
        with pytest.raises(CatalogLocked, match="key"):
            open_catalog(path, bytes(32), read_only=read_only)


def test_a_foreign_file_is_no_catalog(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 3\0" + bytes(4080))
    before = path.read_bytes()
    with pytest.raises(CatalogLocked):
        open_catalog(path, CATALOG_KEY)
    assert path.read_bytes() == before


def test_a_full_disk_is_called_one_and_the_next_transaction_is_none_the_worse(path: Path) -> None:
    catalog = open_catalog(path, CATALOG_KEY)
    (pages,) = catalog._db.execute("PRAGMA page_count").fetchone()
    catalog._db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(sqlcipher.OperationalError, match="full"):
        put(catalog, CANARY * 10_000)
    put(catalog)
    assert [event.text for event in catalog.events.newest()] == [CANARY]
    catalog.close()


def test_only_its_owner_can_read_the_file(path: Path) -> None:
    open_catalog(path, CATALOG_KEY).close()
    assert path.stat().st_mode & 0o077 == 0 and path.parent.stat().st_mode & 0o077 == 0


def test_reading_needs_a_catalog(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has not run here"):
        open_catalog(path, CATALOG_KEY, read_only=True)
    assert not path.exists()


def test_nothing_lies_there_in_plain(path: Path) -> None:
    catalog = open_catalog(path, CATALOG_KEY)
    put(catalog)
    files = list(path.parent.iterdir())
    assert any(f.name.endswith("-wal") and f.stat().st_size for f in files), "the row is still in the write-ahead log"
    for file in files:
        content = file.read_bytes()
        assert CANARY.encode() not in content and b"CREATE TABLE" not in content
    catalog.close()
    assert CANARY.encode() not in path.read_bytes()


def test_a_new_catalog_has_the_newest_schema_and_stays_as_it_is(path: Path) -> None:
    assert sorted(MIGRATIONS) == list(range(VERSION))
    catalog = open_catalog(path, CATALOG_KEY)
    put(catalog)
    catalog.close()
    again = open_catalog(path, CATALOG_KEY)
    assert [e.text for e in again.events.newest()] == [CANARY]
    again.close()


def test_a_catalog_of_a_newer_version_is_left_alone(path: Path) -> None:
    open_catalog(path, CATALOG_KEY).close()
    db = raw(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    for read_only in (False, True):
        with pytest.raises(CatalogLocked, match="update falaj"):
            open_catalog(path, CATALOG_KEY, read_only=read_only)


def test_a_migration_that_is_cut_leaves_the_old_schema(path: Path) -> None:
    path.parent.mkdir()
    db = raw(path)
    with pytest.raises(sqlcipher.DatabaseError):
        _migrate(db, 0, {0: "CREATE TABLE a (x)", 1: "CREATE TABLE b (x); CREATE TABLE a (x)"})
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_master")] == ["a"]
    _migrate(db, 1, {0: "never again", 1: "CREATE TABLE b (x)"})
    assert db.execute("PRAGMA user_version").fetchone() == (2,)
    db.close()


def test_a_catalog_of_the_version_before_is_taken_over(path: Path) -> None:
    """Reports of devices were written otherwise then: they are forgotten, their numbers are not."""
    path.parent.mkdir()
    db = raw(path)
    _migrate(db, 0, {n: MIGRATIONS[n] for n in (0, 1)})
    db.execute(
        "INSERT INTO device (device, epoch, enrolled, certificate, signing_key, sealing_key, state, report_epoch,"
        " report_seq, report) VALUES ('watch-1', 1, 1.0, x'00', x'00', x'00', 'enrolled', 1, 41, ?)",
        (b'{"models":{"motion":{"quarantined":[]}}}',),
    )
    db.close()
    catalog = open_catalog(path, CATALOG_KEY)
    row = catalog.fleet.device(ONE)
    assert row is not None and row.report is None
    assert not catalog.fleet.put_report(Reported(TENANT, ONE, 1, 41, START, "b", 0, {}), b"", START)
    assert catalog.fleet.put_report(Reported(TENANT, ONE, 1, 42, START, "b", 0, {}), b"", START)
    assert catalog.fleet.whys() == [] and catalog.samples.totals(MODEL) == SampleTotals()
    catalog.close()


def test_batches_wait_until_they_have_landed(path: Path) -> None:
    catalog = open_catalog(path, CATALOG_KEY)
    assert catalog.samples.waiting(MODEL) == Waiting() and catalog.samples.spooled() == 0
    for n, size in ((1, 100), (2, 9000), (3, 200)):
        catalog.samples.add(ONE, 1, n, MODEL, size, START + n)
    catalog.samples.add(ONE, 1, 4, ModelName("other"), 50, START)
    assert catalog.samples.waiting(MODEL) == Waiting(3, 9300, START + 1)
    assert catalog.samples.spooled() == 9000 + 3 * 4096, "a file takes a block of the disk at least"
    catalog.samples.mark_landed(MODEL, ONE, 1, 2)
    catalog.samples.mark_landed(MODEL, DeviceId("nobody"), 1, 9)
    assert catalog.samples.waiting(MODEL) == Waiting(1, 200, START + 3)
    assert catalog.samples.totals(MODEL) == SampleTotals(3, 9300, 2)
    catalog.close()


def on_every_shelf(catalog: Catalog) -> None:
    with catalog.transaction():
        catalog.projects.apply(project(), "/x", "cli", START)
        catalog.projects.new_job("train", MODEL, "cli", START)
        catalog.datasets.land(landed(), 1)
        catalog.releases.put_trust({"1.root.json": b"{}"})
        catalog.fleet.put_token(ONE, "hash", START)
        catalog.events.add(START, "core", "noted", CANARY)
        raise RuntimeError("in the middle")


def test_a_project_stored_before_there_was_a_rule_still_opens(path: Path) -> None:
    catalog, made = open_catalog(path, CATALOG_KEY), project()
    models = {MODEL: replace(made.models[MODEL], drift=Drift(baseline=60, alarm=0.5, window=70_000))}
    with catalog.transaction():
        catalog.projects.apply(replace(made, models=models), "/x", "cli", START)
    found = catalog.projects.current()
    assert found is not None and found[0].models == models
    catalog.close()


def test_a_merged_file_that_is_not_taken_is_to_be_removed_until_it_is(path: Path) -> None:
    catalog, file = open_catalog(path, CATALOG_KEY), LakeFile("merged.parquet", 20, Digest("2" * 64))
    parts = landed("day-1.parquet").files + landed("day-2.parquet").files
    merged = Landed("watches", (), (), {}, 0, merged=(Merged(file, tuple(one.name for one in parts)),))
    with catalog.transaction():
        catalog.datasets.land(replace(merged, files=parts[:1]), 1)
    assert catalog.datasets.files("watches") == parts[:1]
    assert catalog.datasets.outdated("watches") == (file.name,)
    with catalog.transaction():
        catalog.datasets.land(landed("day-2.parquet"), 2)
        catalog.datasets.land(merged, 3)
    assert catalog.datasets.files("watches") == (file,)
    assert catalog.datasets.outdated("watches") == tuple(one.name for one in parts)
    catalog.close()


def test_a_transaction_is_all_or_nothing_across_shelves(path: Path) -> None:
    catalog = open_catalog(path, CATALOG_KEY)
    with pytest.raises(RuntimeError, match="in the middle"):
        on_every_shelf(catalog)
    assert catalog.projects.current() is None and catalog.projects.jobs() == []
    assert catalog.datasets.files("watches") == () and catalog.datasets.position("watches") == {}
    assert catalog.releases.trust() == {} and catalog.fleet.token(ONE) is None and catalog.events.newest() == []
    put(catalog)  # and the next one works
    assert len(catalog.events.newest()) == 1
    catalog.close()


def test_a_killed_writer_leaves_what_it_committed_and_no_more(path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from core.catalog import open_catalog
from core.catalog.events import FORGET_EVERY, Events
catalog = open_catalog(Path({str(path)!r}), bytes(range(32)))
with catalog.transaction():
    catalog.events.add(1.0, "core", "first", "")
with catalog.transaction():
    catalog.events.add(1.0, "core", "second", "")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == -signal.SIGKILL
    catalog = open_catalog(path, CATALOG_KEY)
    assert [e.code for e in catalog.events.newest()] == ["first"]
    catalog.close()


def test_a_reader_sees_what_is_committed_and_cannot_write(path: Path) -> None:
    writer = open_catalog(path, CATALOG_KEY)
    reader = open_catalog(path, CATALOG_KEY, read_only=True)
    with writer.transaction():
        writer.events.add(START, "core", "noted", CANARY)
        assert reader.events.newest() == []
    assert [e.text for e in reader.events.newest()] == [CANARY]
    with pytest.raises(sqlcipher.OperationalError, match="readonly"):
        put(reader)
    with pytest.raises(sqlcipher.OperationalError, match="readonly"):
        reader.events.add(START, "core", "noted", "")
    reader.close()
    writer.close()
    alone = open_catalog(path, CATALOG_KEY, read_only=True)
    assert [e.text for e in alone.events.newest()] == [CANARY]
    alone.close()


def test_a_release_number_is_never_used_twice(tmp_path: Path) -> None:
    world = World(tmp_path).ready()
    assert [world.stage(b"one"), world.stage(b"two")] == [1, 2]
    with world.catalog.transaction():
        world.catalog.releases.set_state(MODEL, 2, "revoked")
    assert world.stage(b"three") == 3
    world.reopen()
    assert world.catalog.releases.next_number(MODEL) == 4
    world.catalog.close()


def test_what_was_kept_comes_back(path: Path) -> None:
    catalog = open_catalog(path, CATALOG_KEY)
    wanted = Wanted(MODEL, 3, "live", Gates(soak_answers=5), 0)
    catalog.fleet.put_device(ONE, 1, b"cert", b"s" * 32, b"x" * 32, START)
    catalog.fleet.want(ONE, wanted)
    assert catalog.fleet.wanted(ONE) == (wanted,)
    catalog.fleet.put_status(ONE, Status("online", START, "b", 1), START + 1)
    catalog.fleet.put_status(ONE, Status("offline", START, "b", 1), START + 9)
    row = catalog.fleet.device(ONE)
    assert row is not None and (row.status, row.status_ts, row.seen) == ("offline", START + 9, START + 1)
    assert catalog.fleet.device(DeviceId("nobody")) is None
    assert catalog.fleet.next_epoch(ONE) == 2
    catalog.datasets.land(landed(), 1)
    catalog.datasets.land(landed("day-2.parquet"), 2)
    assert catalog.datasets.totals() == {"watches": {"files": 2, "rows": 20, "rejections": 0}}
    assert catalog.datasets.position("watches") == landed().position
    catalog.close()


def test_a_noisy_source_keeps_only_its_own_newest_events(tmp_path: Path) -> None:
    catalog = open_catalog(tmp_path / "catalog.db", bytes(32))
    events = Events(catalog._db, kept=20)
    events.add(1.0, "core", "release-approved", "")
    for i in range(300):
        events.add(2.0 + i, "watch-1", "refused-malformed", str(i))
    noisy = [e.text for e in events.newest(1000) if e.source == "watch-1"]
    assert len(noisy) <= 20 + FORGET_EVERY and noisy[0] == "299"
    assert events.newest(1000)[-1].code == "release-approved"
    catalog.close()
