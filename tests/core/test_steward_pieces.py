"""Tables and configs from an order to the assignment of every device that asks for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from core import orders
from core.project import Config, LookupSource, Project, Range, Word
from core.steward import assigning
from core.steward.house import PersistBroker
from sync import chunks, codec, lookups, roles, sealing, topics
from sync.errors import Damaged
from sync.lookups import Table
from sync.manifest import LIMIT, Manifest, Variable
from sync.messages import Assignment
from sync.names import DeviceId, Digest, LookupName, SiteId
from sync.pieces import Piece
from sync.reports import Release
from tests.core.world import DAY, MODEL, ONE, TENANT, TWO, Device, World, landed, project, serving

MACHINES = LookupName("machines")
SOURCE = LookupSource(path="machines.csv", key="who", columns={"age": Range(min=0, max=100)}, ttl_hours=24)
NOTHING = Config()
FIRST = lookups.table(MACHINES, ("age",), {"w1": (3.0,)}, 0.0)
SECOND = lookups.table(MACHINES, ("age",), {"w1": (4.0,)}, 0.0)


def declared(config: Config = NOTHING) -> Project:
    known = project((ONE, TWO))
    view = replace(known.views["windows"], lookups=(MACHINES,))
    model = replace(known.models[MODEL], variables={"line": Word(default="a")})
    return replace(known, views={"windows": view}, models={MODEL: model}, lookups={MACHINES: SOURCE}, config=config)


class Scene:
    """A tenant with a model that asks for a table, released to two devices."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder).ready((ONE, TWO))
        self.apply(declared())
        self.one, self.two = self.world.enrol(ONE), self.world.enrol(TWO)

    def apply(self, project: Project) -> None:
        self.world.must(orders.ApplyProject(project=project, folder=str(self.world.folder)))

    def read(self, table: Table) -> dict[str, Any]:
        """The table as its job hands it over."""
        job = self.world.must(orders.Ingest(source=MACHINES))["job"]
        return self.world.must(orders.CommitLookup(job=job, name=MACHINES, content=lookups.encode(table)))

    def release(self) -> None:
        candidate = replace(self.world.candidate(), lookups=(SOURCE.accepted(MACHINES),))
        staged = self.world.must(orders.CommitCandidate(job=self.world.job(), candidate=candidate))
        self.world.must(self.world.approval(int(staged["number"])))
        self.world.tick()

    def assigned(self, device: DeviceId = ONE) -> Assignment:
        envelope = self.world.last(topics.desired(TENANT, device))
        assert envelope is not None
        return codec.decode(Assignment, roles.peek(envelope))

    def opened(self, piece: Piece | None, by: Device) -> bytes:
        """What a device finds in a piece: its chunks from the broker, its key from the assignment."""
        assert piece is not None
        parts = [self.world.last(topics.blob(TENANT, piece.blob.sealed, i)) for i in range(len(piece.blob.hashes))]
        sealed = b"".join(part or b"" for part in parts)
        assert chunks.digest(sealed) == piece.blob.sealed
        context = sealing.wrap_context(TENANT, by.name, piece.blob.sealed)
        key = sealing.unwrap(base64.b64decode(piece.key), by.keys.sealing, context)
        return sealing.unseal_artifact(sealed, key, TENANT, piece.blob.plain)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.catalog.close()


def test_a_table_becomes_a_version_that_every_device_of_its_release_can_open(scene: Scene) -> None:
    assert scene.read(FIRST) == {"lookup": MACHINES, "version": 1, "rows": 1, "changed": True}
    assert any(isinstance(action, PersistBroker) for action in scene.world.actions)
    scene.release()
    for device in (scene.one, scene.two):
        piece = scene.assigned(device.name).lookups[MACHINES]
        assert (piece.version, piece.as_of) == (1, scene.world.now)
        assert lookups.decode(scene.opened(piece, device)) == FIRST
    with pytest.raises(Damaged):
        scene.opened(scene.assigned(TWO).lookups[MACHINES], scene.one)


def test_another_content_is_another_version_and_is_told_at_once(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    before = scene.assigned()
    scene.world.now += 60
    assert scene.read(SECOND)["version"] == 2
    after = scene.assigned()
    assert after.seq > before.seq and after.models[MODEL].manifest == before.models[MODEL].manifest
    found = lookups.decode(scene.opened(after.lookups[MACHINES], scene.one))
    assert found == replace(SECOND, valid_from=scene.world.now), "it holds from now on; the first from the beginning"
    assert "lookup-published" in scene.world.codes()


def test_the_same_content_only_confirms_the_version(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    before, told = scene.assigned().lookups[MACHINES], scene.world.catalog.fleet.told()
    scene.world.now += 3600
    assert scene.read(FIRST) == {"lookup": MACHINES, "version": 1, "rows": 1, "changed": False}
    after = scene.assigned().lookups[MACHINES]
    assert (after.version, after.blob, after.as_of) == (1, before.blob, scene.world.now)
    assert scene.world.catalog.fleet.told() == told, "no rollout waits for anybody's answer"


def test_the_manifest_says_what_the_release_accepts(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    found = scene.world.catalog.releases.release(MODEL, 1)
    assert found is not None
    manifest = codec.decode(Manifest, found[1], LIMIT)
    assert manifest.lookups == (SOURCE.accepted(MACHINES),) and manifest.variables == (Variable("line", "a"),)


def test_who_has_no_release_that_asks_is_told_of_no_table(scene: Scene) -> None:
    scene.read(FIRST)
    scene.world.release()
    scene.world.tick()
    assert scene.assigned().lookups == {} and scene.assigned().config is None


def test_what_a_device_still_serves_keeps_its_table_when_the_wanted_release_asks_for_none(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    first = scene.assigned().models[MODEL].manifest
    for device in (scene.one, scene.two):
        scene.world.hear(device.report({MODEL: serving(first)}, seen=1))
    scene.world.release()
    scene.world.tick()
    assert scene.assigned().models[MODEL].number == 2 and scene.assigned().lookups.keys() == {MACHINES}
    scene.world.now += 3600
    scene.read(FIRST)
    assert scene.assigned().lookups[MACHINES].as_of == scene.world.now, "it grows no older than its source"
    second, seen = scene.assigned().models[MODEL].manifest, scene.assigned().seq
    back = Release(1, first, Digest("3" * 64))
    for previous, tables in (((back,), {MACHINES}), ((), set())):
        scene.world.hear(scene.one.report({MODEL: serving(second, 2, previous=previous)}, seen=seen))
        with scene.world.catalog.transaction():
            one = scene.world.catalog.fleet.device(ONE)
            assert one is not None
            assigning.assign(scene.world.house, one, scene.world.now)
        scene.world.tick()
        assert scene.assigned().lookups.keys() == tables


def test_a_device_gets_no_table_by_its_own_word(scene: Scene) -> None:
    """That it serves a release says a device itself; of a model that it was never told to run it gets nothing."""
    scene.read(FIRST)
    scene.release()
    liar = scene.world.enrol(DeviceId("watch-9"))
    scene.world.hear(liar.report({MODEL: serving(scene.assigned().models[MODEL].manifest)}))
    scene.read(SECOND)
    told = scene.world.last(topics.desired(TENANT, liar.name))
    assert told is None or codec.decode(Assignment, roles.peek(told)).lookups == {}


def test_a_training_is_given_all_versions_and_none_begins_without_one(scene: Scene) -> None:
    ingest = scene.world.must(orders.Ingest(source="watches"))["job"]
    scene.world.must(orders.CommitRows(job=ingest, landed=landed()))
    refused = scene.world.order(orders.Train(model=MODEL))
    assert (refused.ok, refused.code) == (False, "no-data") and "falaj ingest machines" in refused.hint
    scene.read(FIRST)
    scene.read(SECOND)
    scene.world.must(orders.Train(model=MODEL))
    tables = [lookups.decode(scene.world.house.artifacts.get(d)) for d in scene.world.jobs[-1].tables[MACHINES]]
    assert [table.values for table in tables] == [FIRST.values, SECOND.values]


def test_the_config_of_a_device_is_the_narrowest_that_is_declared(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    box = {"serial": "S1", "name": ONE, "site": SiteId("north"), "labels": ()}
    scene.world.must(codec.typed(orders.ImportBoxes, {"order": "ImportBoxes", "boxes": [box]}))
    scene.apply(declared(Config(variables={"line": "all"}, sites={SiteId("north"): {"line": "north"}})))
    said = {name: lookups.decode_config(scene.opened(scene.assigned(name).config, device)).variables
            for name, device in ((ONE, scene.one), (TWO, scene.two))}  # fmt: skip
    assert said == {ONE: {"line": "north"}, TWO: {"line": "all"}}
    seq = scene.assigned(TWO).seq
    scene.apply(declared(Config(variables={"line": "all"}, devices={ONE: {"line": "own"}})))
    config = scene.assigned().config
    assert config is not None and config.version == 2 and scene.assigned(TWO).seq == seq, "only who has another one"
    assert lookups.decode_config(scene.opened(config, scene.one)).variables == {"line": "own"}
    scene.apply(declared())
    assert scene.assigned().config is None and scene.assigned(TWO).config is None


def test_the_box_that_takes_the_place_of_another_has_its_config_and_tables(scene: Scene) -> None:
    """Sealed to its own key: the box before it opens nothing that is said from then on."""
    scene.read(FIRST)
    scene.apply(declared(Config(variables={"line": "all"}, devices={ONE: {"line": "own"}})))
    scene.release()
    before = scene.assigned().config
    scene.world.must(orders.Replace(device=ONE))
    new = scene.world.enrol(ONE)
    found = scene.assigned()
    assert before is not None and found.config is not None and found.epoch == 2
    assert (found.config.version, found.config.blob) == (before.version, before.blob)
    assert lookups.decode_config(scene.opened(found.config, new)).variables == {"line": "own"}
    assert lookups.decode(scene.opened(found.lookups[MACHINES], new)) == FIRST
    with pytest.raises(Damaged):
        scene.opened(found.config, scene.one)


def test_who_is_assigned_later_gets_its_config_too(scene: Scene) -> None:
    scene.read(FIRST)
    scene.apply(declared(Config(variables={"line": "seven"})))
    assert scene.world.last(topics.desired(TENANT, ONE)) is None
    scene.release()
    assert lookups.decode_config(scene.opened(scene.assigned().config, scene.one)).variables == {"line": "seven"}


def test_a_wiped_broker_gets_all_of_it_again_and_so_does_a_restarted_core(scene: Scene) -> None:
    scene.read(FIRST)
    scene.apply(declared(Config(variables={"line": "seven"})))
    scene.release()
    named = scene.assigned()
    scene.world.reopen()
    scene.world.sent.clear()
    scene.world.take(scene.world.steward.link_changed(True, scene.world.now))
    assert lookups.decode(scene.opened(named.lookups[MACHINES], scene.one)) == FIRST
    assert scene.opened(named.config, scene.one)


def lying(scene: Scene) -> set[Digest]:
    """The sealed versions of the table that are on the core's disk, by the blobs that the catalog ever named."""
    rows = scene.world.catalog.pieces.versions(f"lookup/{MACHINES}")
    return {row.blob.sealed for row in rows if (scene.world.folder / "blobs" / row.blob.sealed).exists()}


def on_broker(scene: Scene, sealed: Digest) -> bool:
    return bool(scene.world.last(topics.blob(TENANT, sealed, 0)))


def test_sealed_old_versions_leave_broker_and_disk_and_trainings_keep_them(scene: Scene) -> None:
    scene.world.take(scene.world.steward.link_changed(True, scene.world.now))
    scene.read(FIRST)
    scene.release()
    for table in (SECOND, FIRST, SECOND):
        scene.world.now += 60
        scene.read(table)
    rows = scene.world.catalog.pieces.versions(f"lookup/{MACHINES}")
    newest = rows[-1].blob.sealed
    scene.world.tick()
    assert [on_broker(scene, row.blob.sealed) for row in rows] == [False, False, False, True]
    assert len(lying(scene)) == 4, "a lost session may have lost the clearing: it is said again for a day"
    for _ in range(2):
        scene.world.tick(2 * DAY)
    assert lying(scene) == {newest} and scene.world.codes().count("versions-removed") == 1
    assert "3 sealed old versions" in next(
        e.text for e in scene.world.catalog.events.newest(100) if e.code == "versions-removed"
    )
    kept = [lookups.decode(scene.world.house.artifacts.get(row.plain)).values for row in rows]
    assert kept == [FIRST.values, SECOND.values, FIRST.values, SECOND.values]
    assert lookups.decode(scene.opened(scene.assigned().lookups[MACHINES], scene.one)).values == SECOND.values
    scene.world.reopen()
    assert scene.world.catalog.releases.blob_length(newest) and not scene.world.catalog.pieces.outdated()


def test_an_old_version_that_a_silenced_device_is_told_of_stays(scene: Scene) -> None:
    """It comes back with the assignment it has, and must find what that names."""
    scene.world.take(scene.world.steward.link_changed(True, scene.world.now))
    scene.read(FIRST)
    scene.release()
    first = scene.assigned(TWO).lookups[MACHINES].blob.sealed
    scene.world.catalog.fleet.set_state(TWO, "cloned")
    scene.world.now += 60
    scene.read(SECOND)
    for _ in range(3):
        scene.world.tick(2 * DAY)
    assert first in lying(scene)
    scene.world.catalog.fleet.set_state(TWO, "revoked")
    scene.world.tick(2 * DAY)
    assert first not in lying(scene) and len(lying(scene)) == 1


def test_a_cut_between_the_file_and_its_row_is_done_again(scene: Scene) -> None:
    scene.world.take(scene.world.steward.link_changed(True, scene.world.now))
    scene.read(FIRST)
    scene.release()
    scene.world.now += 60
    scene.read(SECOND)
    first = scene.world.catalog.pieces.versions(f"lookup/{MACHINES}")[0].blob.sealed
    scene.world.house.blobs.remove(first)
    for _ in range(2):
        scene.world.tick(2 * DAY)
    assert scene.world.catalog.pieces.outdated() == [] and "blob-damaged" not in scene.world.codes()


def test_missing_chunks_of_a_table_are_published_again(scene: Scene) -> None:
    scene.read(FIRST)
    scene.release()
    blob = scene.assigned().lookups[MACHINES].blob
    scene.world.sent.clear()
    scene.world.now += 60
    scene.world.hear(scene.one.report(missing={blob.sealed: (0,)}, at=scene.world.now))
    assert scene.world.last(topics.blob(TENANT, blob.sealed, 0)) is not None


def test_junk_is_no_table(scene: Scene) -> None:
    job = scene.world.must(orders.Ingest(source=MACHINES))["job"]
    answer = scene.world.order(orders.CommitLookup(job=job, name=MACHINES, content=b"junk"))
    assert (answer.ok, answer.code) == (False, "malformed")
    assert scene.world.catalog.pieces.newest("lookup/machines") is None
