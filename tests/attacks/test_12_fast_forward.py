"""Attack 12: who holds a stolen online key, and the broker, counts its versions up to the end, so that nothing newer
can follow. Recovered from by the commands alone, without touching a device."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp

from appliance.core import owner
from core.orders import OnlineRole
from sync.names import LAST
from tests.attacks.estate import Estate, signed
from tests.core.world import MODEL

BOXES = ("press-1", "press-2")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both boxes have committed release 1."""
    home = tmp_path_factory.mktemp("prepared") / "estate"
    estate = Estate(home, *BOXES)
    assert estate.release() == 1
    estate.close()
    return home


@pytest.fixture
def estate(prepared: Path, tmp_path: Path) -> Estate:
    return Estate.again(prepared, tmp_path / "estate", *BOXES)


def counted_up(estate: Estate, *stolen: OnlineRole) -> dict[str, bytes]:
    """The newest metadata of the stolen keys, at the last version there is."""
    files = estate.trust()
    timestamp: Metadata[Timestamp] = Metadata.from_bytes(files["timestamp.json"])
    forged = {}
    if "snapshot" in stolen:
        version = timestamp.signed.snapshot_meta.version
        snapshot: Metadata[Snapshot] = Metadata.from_bytes(files[f"{version}.snapshot.json"])
        snapshot.signed.version = LAST
        data = signed(snapshot, estate.stolen("snapshot"))
        forged[f"{LAST}.snapshot.json"] = data
        timestamp.signed.snapshot_meta = MetaFile.from_data(LAST, data, ["sha256"])
    timestamp.signed.version = LAST
    return forged | {"timestamp.json": signed(timestamp, estate.stolen("timestamp"))}


STOLEN: list[tuple[OnlineRole, ...]] = [("timestamp",), ("snapshot", "timestamp")]


@pytest.mark.parametrize("stolen", STOLEN, ids="+".join)
def test_12_recovered_from_by_putting_other_keys_into_the_root(estate: Estate, stolen: tuple[OnlineRole, ...]) -> None:
    untouched = [estate.identity(name) for name in BOXES]
    estate.plant(counted_up(estate, *stolen))
    estate.pass_time(2)
    assert {estate.mark(name)["timestamp"] for name in BOXES} == {LAST}

    number = estate.stage()
    owner.approve(estate.api, estate.owner, MODEL, number, "test", estate.world.now)
    before = {name: estate.codes(name) for name in BOXES}
    estate.pass_time(6)
    assert [estate.serves(name) for name in BOXES] == [1, 1], "what serves goes on"
    new = estate.codes("press-1")[len(before["press-1"]) :]
    assert new.count("refused-untrusted") == 1 and set(new) <= {"release-offered", "refused-untrusted"}
    assert estate.mark("press-1")["timestamp"] == LAST

    for role in stolen:
        changed = owner.rotate_online(estate.api, estate.owner, role, "test", estate.world.now)
        assert changed.lacks == ()
    estate.until_serving(number)
    assert {estate.mark(name)["timestamp"] < 100 for name in BOXES} == {True}
    assert [estate.identity(name) for name in BOXES] == untouched, "nobody had to touch a device"


def test_12_the_stolen_key_is_of_no_more_use(estate: Estate) -> None:
    forged = counted_up(estate, "timestamp")
    owner.rotate_online(estate.api, estate.owner, "timestamp", "test", estate.world.now)
    estate.pass_time(3)
    before, honest = estate.mark("press-1"), estate.trust()["timestamp.json"]
    estate.plant(forged)
    estate.pass_time(3)
    assert estate.mark("press-1") == before and estate.serves("press-1") == 1
    assert estate.codes("press-1")[-1] == "refused-untrusted"
    estate.plant({"timestamp.json": honest})
    assert estate.release() == 2
