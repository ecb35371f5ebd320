"""Attack 17: a folder from which something was taken away. A release is whole or it is not there at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sync import carried, roles
from sync.messages import EVENT
from sync.names import DEFAULT_TENANT, DeviceId
from tests.journey.by_folder import MODEL, FarBox, FarCore, far_tenant, round_trip

FAR = DeviceId("far-1")


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> tuple[FarCore, FarBox, Path]:
    return far_tenant(tmp_path_factory.mktemp("far"), FAR)


def the_model(core: FarCore, place: Path) -> list[Path]:
    return [place / "blob" / _manifest(core).variants[0].blob.sealed / "0"]


def the_golden_vectors(core: FarCore, place: Path) -> list[Path]:
    return [place / "blob" / _manifest(core).golden.sealed / "0"]


def the_manifest(core: FarCore, place: Path) -> list[Path]:
    return sorted(place.glob("trust/*.manifest"))


def the_roles_metadata(core: FarCore, place: Path) -> list[Path]:
    return sorted(place.glob(f"trust/*.model.{MODEL}.json"))


def the_snapshot(core: FarCore, place: Path) -> list[Path]:
    return sorted(place.glob("trust/*.snapshot.json"))


def the_timestamp(core: FarCore, place: Path) -> list[Path]:
    return [place / "trust" / "timestamp.json"]


def _manifest(core: FarCore) -> object:
    return core.catalog.releases.newest_approved(MODEL)


@pytest.mark.parametrize(
    "part", [the_model, the_golden_vectors, the_manifest, the_roles_metadata, the_snapshot, the_timestamp]
)
def test_17_a_release_of_which_a_part_was_withheld_is_not_installed(
    tenant: tuple[FarCore, FarBox, Path], tmp_path: Path, part: Callable[[FarCore, Path], list[Path]]
) -> None:
    core, box, stick = tenant
    number = box.house.deployments[MODEL].serving.release.number + 1  # type: ignore[union-attr]
    core.release(number, (float(number), 0.5, 0.25))
    core.trip(stick)
    torn = tmp_path / "stick"
    shutil.copytree(stick, torn)
    place = torn / "falaj" / "1" / DEFAULT_TENANT
    withheld = part(core, place)
    assert withheld
    for path in withheld:
        path.unlink()
    before = core.codes(FAR).count("folder-incomplete")
    done = box.visit(torn)
    assert box.ask() == number - 1 and box.phase == "fetching"
    core.trip(torn)
    assert core.codes(FAR).count("folder-incomplete") == before + 1, "one event, and it goes along in the very folder"
    assert {path.relative_to(place).as_posix() for path in withheld} & set(done.lacking)
    assert not [e for e in core.codes(FAR) if e == "release-refused"]
    box.tick(10.0)
    round_trip(core, box, stick)  # with the whole folder it goes on where it stood
    assert box.ask() == number and box.phase == "steady" and core.serving(FAR) == number
    assert core.codes(FAR).count("folder-incomplete") == before + 1, "a whole folder is no news"


def test_17_words_of_which_a_part_was_withheld_are_not_acknowledged(
    tenant: tuple[FarCore, FarBox, Path], tmp_path: Path
) -> None:
    core, box, _ = tenant
    stick = tmp_path / "stick"
    stick.mkdir()
    core.trip(stick, FAR)
    for i in range(4):
        box.house.events.report(box.house.time.at(box.clock), f"word-{i}", "one of four")
    box.visit(stick)
    place = stick / "falaj" / "1" / DEFAULT_TENANT / "d" / FAR / "up"
    own = box.house.identity
    keys = [roles.signer(own.signing_key).public_key]
    bundle = carried.opened((place / "0").read_bytes(), own.tenant, own.device, keys, "up")
    words = bundle.words
    first = next(i for i, word in enumerate(words) if word.topic == f"up/{EVENT}") + 1
    parts = [words[:first], words[first : first + 1], words[first + 1 :]]
    for number, part in enumerate(parts):
        signed = carried.bundles(own.tenant, own.device, own.epoch, bundle.ts, part, own.signing_key)
        (place / str(number)).write_bytes(signed[0])
    before = core.catalog.fleet.received(FAR, 1, EVENT)
    (place / "1").rename(tmp_path / "withheld")
    core.trip(stick)
    core.now += 60.0
    assert core.catalog.fleet.received(FAR, 1, EVENT) == before + 1
    (tmp_path / "withheld").rename(place / "1")
    core.trip(stick)
    assert [c for c in core.codes(FAR) if c.startswith("word-")] == [f"word-{i}" for i in range(4)]
    box.visit(stick)
    assert not [kind for kind, _, _ in box.house.outbox.pending() if kind == EVENT]
