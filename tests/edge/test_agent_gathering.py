"""Tables and config beside the releases: fetched, checked, swapped; what is refused changes nothing."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edge.agent.ports import Outside
from edge.lookups import NoLookup
from edge.states import Phase
from sync import chunks, sealing, topics
from sync.lookups import LIMIT, Config, Table
from sync.manifest import LookupColumn
from sync.messages import ModelOrder
from sync.pieces import Piece
from tests.edge import synced
from tests.edge.device import Device, new_device
from tests.edge.synced import ACCEPTED, HOUR, IN_CELLS, MACHINES, Shelf, machines
from tests.edge.world import MODEL, NOW, TENANT, Core

FIRST, SECOND = machines(w1=(3.0, 1.0)), machines(w1=(4.0, 1.0), w2=(5.0, 2.0))


@dataclass
class Scene:
    """A device on which the release with a table serves, and its core."""

    core: Core
    device: Device
    shelf: Shelf
    order: ModelOrder

    def assign(self, settle: int = 2, **pieces: Any) -> Device:
        """What the director names now: `machines`, `config`."""
        lookups = {MACHINES: pieces["machines"]} if "machines" in pieces else {}
        self.core.desire(self.core.assignment(self.order, lookups=lookups, config=pieces.get("config")))
        return self.device.settle(settle)

    def commit(self, **pieces: Any) -> Device:
        """The same, and the release is asked until its trial is over."""
        self.assign(**pieces)
        for _ in range(40):
            if self.device.house.serving.incumbent(MODEL) is not None:
                asked = {"window": np.ones((1, 1, 1), np.float32), "machines": np.ones((1, 2), np.float32)}
                self.device.house.serving.predict(MODEL, asked)
            self.device.settle(1)
        serving = self.device.state.serving
        assert self.device.state.phase is Phase.STEADY and serving is not None
        assert serving.release.number == self.order.number, self.device.state.reason
        return self.device

    def vector(self, entity: str = "w1") -> list[float] | None:
        """What the graph input of an entity is; None where there is none."""
        device = self.device
        try:
            inputs, *_ = device.house.pieces.lookups.fill((ACCEPTED,), entity)
        except NoLookup:
            return None
        return [float(n) for n in inputs[MACHINES][0]]

    @property
    def held(self) -> tuple[int, str]:
        """(version, why a newer one is not in force) as the core hears it."""
        told = self.device.reported().lookups.get(MACHINES)
        return (told.version, told.refused) if told else (0, "")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    core = Core()
    device = new_device(core, tmp_path / "d").boot()
    shelf = Shelf(core, device.identity)
    order = core.order(synced.ship(core), device.identity)
    made = Scene(core, device, shelf, order)
    made.commit(machines=shelf.piece(FIRST))
    return made


def test_a_table_is_fetched_opened_and_in_force_and_the_core_hears_of_it(scene: Scene) -> None:
    assert scene.vector() == [3.0, 1.0] and scene.vector("w2") is None
    assert scene.held == (1, "") and "lookup-applied" in scene.device.codes()
    assert b"machines" not in b"".join(p.read_bytes() for p in scene.device.folder.rglob("artifacts/*"))


def test_a_newer_version_takes_over_and_the_older_stays_on_disk(scene: Scene) -> None:
    old = scene.shelf.piece(FIRST)
    new = scene.shelf.piece(SECOND, 2)
    device = scene.assign(machines=new)
    assert scene.vector() == [4.0, 1.0] and scene.vector("w2") == [5.0, 2.0] and scene.held == (2, "")
    assert {old.blob.sealed, new.blob.sealed} <= set(device.house.artifacts.have())
    third = scene.shelf.piece(machines(w1=(9.0, 9.0)), 3)
    scene.assign(machines=third)
    have = set(device.house.artifacts.have())
    assert {new.blob.sealed, third.blob.sealed} <= have and old.blob.sealed not in have


def test_the_older_version_answers_while_the_new_one_is_under_way(scene: Scene) -> None:
    new = scene.shelf.piece(SECOND, 2, sent=False)
    scene.assign(machines=new, settle=25)
    assert scene.vector() == [3.0, 1.0] and scene.held == (1, "")
    assert new.blob.sealed in scene.device.reported().missing, "so that the core publishes it again"
    scene.shelf.piece(SECOND, 2)
    scene.device.settle(50)
    assert scene.vector() == [4.0, 1.0]


def test_it_is_in_force_again_after_a_power_cut_also_in_the_middle(scene: Scene) -> None:
    scene.device.cut_power()
    scene.device.boot(link=False)
    assert scene.vector() == [3.0, 1.0]
    scene.device.connect()
    new = scene.shelf.piece(SECOND, 2, sent=False)
    scene.assign(machines=new, settle=1)
    scene.device.cut_power()
    scene.device.boot()
    assert scene.vector() == [3.0, 1.0]
    scene.shelf.piece(SECOND, 2)
    assert scene.device.settle(12) and scene.vector() == [4.0, 1.0]


def test_a_table_that_the_journal_cannot_name_any_more_is_taken_up_anew_offline_too(scene: Scene) -> None:
    scene.device.cut_power()
    with closing(sqlite3.connect(scene.device.folder / "journal.db")) as db, db:
        assert db.execute("UPDATE piece SET document = '{'").rowcount == 1
    scene.device.boot(link=False)
    assert scene.vector() == [3.0, 1.0] and scene.held == (1, "")
    assert scene.device.codes().count("journal-row-unreadable") == 1


def test_what_rots_on_the_disk_falls_back_and_is_fetched_anew(scene: Scene) -> None:
    new = scene.shelf.piece(SECOND, 2)
    scene.assign(machines=new)
    scene.device.cut_power()
    (scene.device.folder / "artifacts" / new.blob.sealed).write_bytes(b"rot")
    scene.device.boot(link=False)
    assert scene.vector() == [3.0, 1.0], "the version before answers"
    assert "piece-lost" in scene.device.codes()
    scene.device.connect()
    scene.device.settle(8)
    assert scene.vector() == [4.0, 1.0] and scene.held == (2, "")


def test_the_same_table_confirmed_is_not_fetched_and_is_fresh_again(scene: Scene) -> None:
    scene.device.now = NOW + 2 * HOUR
    house = scene.device.house
    house.pieces.lookups._now = lambda: scene.device.now
    assert scene.vector() is None, "it is too old, and this release abstains"
    passed = len(scene.core.hub.passed)
    scene.assign(machines=scene.shelf.piece(FIRST, 1, NOW + 2 * HOUR, sent=False))
    assert scene.vector() == [3.0, 1.0]
    assert not [t for t, _ in scene.core.hub.passed[passed:] if "/blob/" in t]


BAD: dict[str, Callable[[Shelf], Piece]] = {
    "beyond the range": lambda shelf: shelf.piece(machines(w1=(101.0, 1.0)), 2),
    "other columns": lambda shelf: shelf.piece(machines(w1=(1.0,)), 2),
    "another table": lambda shelf: shelf.piece(replace(SECOND, name="others"), 2),
    "no table": lambda shelf: shelf.piece(b"no table", 2),
    "another key": lambda shelf: replace(shelf.piece(SECOND, 2), key=shelf.piece(FIRST).key),
    "no key": lambda shelf: replace(shelf.piece(SECOND, 2), key="%"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_table_that_does_not_hold_is_refused_once_and_the_old_one_stays(scene: Scene, bad: str) -> None:
    before = len(scene.device.codes())
    scene.assign(machines=BAD[bad](scene.shelf), settle=4)
    assert scene.vector() == [3.0, 1.0] and scene.held[0] == 1 and scene.held[1]
    codes = [code for code in scene.device.codes()[before:] if code.startswith("refused-")]
    assert len(codes) == 1 and codes[0] in ("refused-unfit", "refused-malformed", "refused-damaged")
    scene.assign(machines=scene.shelf.piece(SECOND, 3))
    assert scene.vector() == [4.0, 1.0] and scene.held == (3, "")


def test_what_would_fill_the_memory_or_the_disk_is_refused(scene: Scene) -> None:
    """The director's key alone is enough to name a piece; it opens to no more than one may hold."""
    small = scene.shelf.piece(SECOND, 2)
    plain, key = bytes(LIMIT + 1), bytes(range(32))
    name = chunks.digest(plain)
    sealed = sealing.seal(plain, key, TENANT, name, pack=True)
    blob = chunks.describe(sealed, name)
    assert len(sealed) < LIMIT // 100
    public = sealing.public_half(scene.device.identity.sealing_key)
    context = sealing.wrap_context(TENANT, scene.device.identity.device, blob.sealed)
    wrapped = base64.b64encode(sealing.wrap(key, public, context)).decode()
    for i, chunk in enumerate(chunks.split(sealed)):
        scene.core.retain(topics.blob(TENANT, blob.sealed, i), chunk)
    scene.assign(machines=replace(small, blob=blob, key=wrapped), settle=4)
    assert scene.held == (1, f"{name}: {LIMIT + 1} bytes declared, {LIMIT} are allowed")
    asked = len(scene.core.hub.passed)
    huge = replace(small.blob, length=2 * LIMIT + 1, chunk=LIMIT // 4, hashes=small.blob.hashes[:1] * 9)
    scene.assign(machines=replace(small, version=3, blob=huge), settle=4)
    assert scene.held == (1, f"it has {2 * LIMIT + 1} bytes, {2 * LIMIT} are allowed") and scene.vector() == [3.0, 1.0]
    assert not [topic for topic, _ in scene.core.hub.passed[asked:] if "/blob/" in topic]
    scene.assign(machines=scene.shelf.piece(SECOND, 4))
    assert scene.held == (4, "")


def test_chunks_that_are_not_what_was_signed_are_not_taken(scene: Scene) -> None:
    new = scene.shelf.piece(SECOND, 2, sent=False)
    for i in range(len(new.blob.hashes)):
        scene.core.retain(topics.blob(TENANT, new.blob.sealed, i), b"x" * chunks.span(new.blob, i)[1])
    scene.assign(machines=new)
    assert scene.vector() == [3.0, 1.0] and "chunk-damaged" in scene.device.codes()


def test_nothing_new_is_taken_up_after_the_assignment_expired(scene: Scene) -> None:
    new = scene.shelf.piece(SECOND, 2, sent=False)
    scene.assign(machines=new, settle=1)
    scene.device.now = scene.device.house.assignment.expires + 1  # type: ignore[union-attr]
    scene.shelf.piece(SECOND, 2)
    scene.device.settle(10)
    assert scene.vector() == [3.0, 1.0]


def test_a_table_that_is_named_no_more_goes_with_the_last_release_that_asks_for_it(scene: Scene) -> None:
    scene.assign(machines=BAD["no table"](scene.shelf))
    assert scene.held[1]
    scene.order = replace(scene.order, mode="off")
    scene.assign(settle=4)
    assert scene.vector() is None and scene.device.reported().lookups == {}
    scene.device.cut_power()
    scene.device.boot()
    assert scene.vector() is None


def test_what_serves_keeps_its_table_though_the_release_that_comes_asks_for_none(scene: Scene) -> None:
    """Else a device abstains while the next release is fetched and tried, and when it has to go back."""
    scene.order = scene.core.order(scene.core.ship(2), scene.device.identity)
    scene.device.prover = lambda job: None  # it stays unproven
    device = scene.assign(settle=4)
    assert device.state.phase is Phase.PROVING and scene.vector() == [3.0, 1.0] and scene.held == (1, "")
    device.cut_power()
    device.boot()
    assert scene.vector() == [3.0, 1.0]


def test_a_release_with_other_columns_comes_with_its_table_and_the_one_before_keeps_its_own(scene: Scene) -> None:
    """The new table fits the release on its way, not the one that serves: each gets the version it accepts."""
    one = replace(ACCEPTED, columns=(LookupColumn("age", 0.0, 100.0),))
    scene.order = scene.core.order(synced.ship(scene.core, 2, one), scene.device.identity)
    scene.device.prover = lambda job: None  # it stays unproven
    scene.assign(machines=scene.shelf.piece(machines(w1=(8.0,)), 2), settle=4)
    assert scene.device.state.phase is Phase.PROVING and scene.held == (2, "")
    assert scene.vector() == [3.0, 1.0], "what serves keeps the table it knows"
    inputs, *_ = scene.device.house.pieces.lookups.fill((one,), "w1")
    assert inputs[MACHINES].tolist() == [[8.0]]


def test_the_table_of_what_serves_outlives_any_number_of_versions_for_the_release_on_trial(scene: Scene) -> None:
    one = replace(ACCEPTED, columns=(LookupColumn("age", 0.0, 100.0),))
    scene.order = scene.core.order(synced.ship(scene.core, 2, one), scene.device.identity)
    scene.device.prover = lambda job: None
    for version in (2, 3, 4):
        scene.assign(machines=scene.shelf.piece(machines(w1=(6.0 + version,)), version), settle=4)
        inputs, *_ = scene.device.house.pieces.lookups.fill((one,), "w1")
        assert inputs[MACHINES].tolist() == [[6.0 + version]] and scene.vector() == [3.0, 1.0]
    scene.device.cut_power()
    scene.device.boot(link=False)
    assert scene.vector() == [3.0, 1.0]


@pytest.mark.parametrize("content", [Config({"line": "seven"}), Config({})])
def test_a_config_is_applied_reported_and_survives(scene: Scene, content: Config) -> None:
    changes: list[Config] = []
    house = scene.device.house
    house.outside = Outside(bindings_changed=lambda: changes.append(house.pieces.lookups.config))
    piece = scene.shelf.piece(FIRST)
    device = scene.assign(machines=piece, config=scene.shelf.piece(content, 4))
    assert changes[-1:] == [content] and device.codes().count("config-applied") == 1
    told = device.reported().config
    assert told is not None and (told.version, told.refused) == (4, "")
    device.cut_power()
    assert device.boot(link=False).house.pieces.lookups.config == content
    device.connect()
    scene.assign(machines=piece)
    assert device.house.pieces.lookups.config == Config({}) and device.reported().config is None


@pytest.mark.parametrize("bad", [Config({"line": "#"}), Config({"line": 3.0}), FIRST, b"junk"])
def test_a_config_that_a_release_does_not_allow_leaves_the_old_one(scene: Scene, bad: Config | Table | bytes) -> None:
    piece = scene.shelf.piece(FIRST)
    scene.assign(machines=piece, config=scene.shelf.piece(Config({"line": "seven"}), 4))
    device = scene.assign(machines=piece, config=scene.shelf.piece(bad, 5), settle=4)
    assert device.house.pieces.lookups.config == Config({"line": "seven"})
    told = device.reported().config
    assert told is not None and told.version == 4 and told.refused
    assert sum(code.startswith("refused-") for code in device.codes()) == 1


UNFIT, FIT = Config({"cell": 1e6}), Config({"cell": 8.0})


def test_a_config_under_which_a_binding_cannot_be_leaves_the_old_one(scene: Scene) -> None:
    piece = scene.shelf.piece(FIRST)
    scene.order = scene.core.order(synced.ship(scene.core, 2, binding=IN_CELLS), scene.device.identity)
    device = scene.commit(machines=piece, config=scene.shelf.piece(FIT, 4))
    scene.assign(machines=piece, config=scene.shelf.piece(UNFIT, 5), settle=4)
    assert device.house.pieces.lookups.config == FIT and device.state.phase is Phase.STEADY
    told = device.reported().config
    assert told is not None and told.version == 4 and "1e+06" in told.refused
    assert sum(code.startswith("refused-") for code in device.codes()) == 1


def test_a_release_waits_for_a_config_under_which_its_bindings_can_be(scene: Scene) -> None:
    """It is no verdict on the release: the same order goes on once the config is corrected."""
    piece, unfit = scene.shelf.piece(FIRST), scene.shelf.piece(UNFIT, 4)
    scene.assign(machines=piece, config=unfit)
    scene.order = scene.core.order(synced.ship(scene.core, 2, binding=IN_CELLS), scene.device.identity)
    device = scene.assign(machines=piece, config=unfit, settle=20)
    assert device.codes().count("config-unfit") == 1 and "1e+06" in device.state.reason
    assert device.state.serving is not None and device.state.serving.release.number == 1
    for _ in range(180):  # hours, after which it is tried once an hour
        device.now += 60.0
        device.settle(1)
    scene.commit(machines=piece, config=scene.shelf.piece(FIT, 5))
    assert device.house.pieces.lookups.config == FIT
