"""Attack 26: somebody reads the disk. Without the keys there is no model, reading or secret on it
(`tests/journey/test_real_processes.py` looks through a whole core and its agents); with the keys, which lie beside it
where there is no TPM, there is, and docs/security.md says so. So a box that leaves is erased, keys first."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli import falaj
from appliance.edge.erasing import erase
from appliance.edge.state import EdgeFolder, NotEnrolled, identity, keep
from appliance.keys import KeyUnsafe, TenantKeys, new_device_keys, tenant_keys
from appliance.processes import FolderTaken, hold
from sync.durable import write_private
from sync.enrolment import EnrolAnswer
from sync.errors import Damaged
from tests.attacks.field import Field
from tests.core.world import ONE, TENANT, World
from tests.edge.world import MODEL

SECRET = b"a reading nobody shall see"


@pytest.fixture
def box(tmp_path: Path) -> EdgeFolder:
    """A box that enrolled and sealed something under its keys."""
    folder, world = EdgeFolder(tmp_path / "edge"), World(tmp_path / "core").ready()
    device = world.enrol(ONE)
    root = world.catalog.releases.trust()["1.root.json"].decode()
    given = {"tenant": TENANT, "device": ONE, "epoch": 1, "certificate": device.certificate.decode(), "root": root}
    answer = EnrolAnswer(**given, ca=device.certificate.decode(), uplink_host="h", uplink_port=1)
    keep(folder, new_device_keys(ONE), answer)
    keys(folder).keep_secret(folder.root / "sealed", SECRET)
    world.catalog.close()
    return folder


def keys(folder: EdgeFolder) -> TenantKeys:
    return tenant_keys(folder.root / "kek", folder.root / "device.key-wrapped", TENANT)


@pytest.mark.parametrize("lost", ["kek", "device.key-wrapped"])
def test_26_an_image_without_one_of_the_two_halves_does_not_open(box: EdgeFolder, lost: str) -> None:
    assert keys(box).read_secret(box.root / "sealed") == SECRET
    (box.root / lost).unlink()
    with pytest.raises((KeyUnsafe, Damaged)):
        keys(box).read_secret(box.root / "sealed")
    assert not any(SECRET in path.read_bytes() for path in box.root.rglob("*") if path.is_file())


def test_26_what_was_erased_opens_no_more_not_even_from_a_later_image(box: EdgeFolder, tmp_path: Path) -> None:
    """The sealed files are copied before, as an undelete would bring them back; keys are destroyed, not unlinked."""
    copies = {path.relative_to(box.root): path.read_bytes() for path in box.root.rglob("*") if path.is_file()}
    inodes = {path.name: path.open("rb") for path in (box.root / "kek", box.identity / "device.key")}
    assert erase(box.root) >= 6 and list(box.root.iterdir()) == []
    for name, still_open in inodes.items():
        assert still_open.read() not in copies.values(), f"{name} was only unlinked"
        still_open.close()
    with pytest.raises(NotEnrolled):
        identity(box)
    write_private(box.root / "sealed", copies[Path("sealed")])
    with pytest.raises(Damaged):
        keys(box).read_secret(box.root / "sealed")


def test_26_a_running_agent_is_not_erased_under_its_feet(box: EdgeFolder) -> None:
    with hold(box.root), pytest.raises(FolderTaken):
        erase(box.root)
    assert box.enrolled()


def test_26_the_command_asks_first(box: EdgeFolder) -> None:
    refused = CliRunner().invoke(falaj, ["edge", "erase", "--dir", str(box.root)], input="n\n")
    assert refused.exit_code == 1 and box.enrolled()
    done = CliRunner().invoke(falaj, ["edge", "erase", "--dir", str(box.root), "--yes"])
    assert done.exit_code == 0 and "keys destroyed" in done.output and not box.enrolled()


def test_26_a_model_that_is_switched_off_from_afar_leaves_the_device(field: Field) -> None:
    """The way to erase a model on a box that still listens: no key, no byte of it stays."""
    device, core = field.device, field.core
    folder = device.folder / "artifacts"
    assert len(list(folder.iterdir())) == 4, "release 2, and release 1 to go back to"
    core.assign(core.ship(2), device.identity, mode="off", keys={})
    device.settle(2)
    assert device.answering is None and list(folder.iterdir()) == []
    held = device.house.journal.assignment()
    assert held is not None and device.house.assignment is not None
    assert device.house.assignment.models[MODEL].keys == {}
    before = device.state
    assert before.serving is None and before.previous == ()
