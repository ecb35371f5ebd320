"""Attack 20: a release that was revoked is to come back: by forcing the device's own return, by an order of the
director, after a power cut, offline, or with the device's files of trust lost."""

from __future__ import annotations

import contextlib
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.core import owner
from core.release import metadata, signing
from edge.states import Phase
from sync import roles
from tests.attacks.estate import Estate
from tests.core.world import MODEL as NAME
from tests.edge.device import committed, new_device
from tests.edge.power import Fuse, PowerCut
from tests.edge.world import DAY, MODEL, Core, Shipped


class Field:
    """A device that committed releases 1, 2 and 3; the two before are kept to go back to."""

    def __init__(self, folder: Path) -> None:
        self.core = Core()
        self.device = new_device(self.core, folder).boot()
        self.shipped: dict[int, Shipped] = {}
        for number in (1, 2, 3):
            self.shipped[number] = self.core.ship(number)
            self.device.commit(self.shipped[number])
        self.device.acknowledge(999)

    def revoke(self, *numbers: int, told: bool = True) -> None:
        """By the owner's signature; `told`: the broker hands it on."""
        core, signer = self.core, roles.signer(self.core.owner)
        for number in numbers:
            drafts = signing.revocation(core.files, MODEL, number, metadata.later(core.now, signing.LIFE))
            core.files |= signing.as_files(signing.sign(core.files, drafts, [signer]))
            core.renew()
        if told:
            core.publish_trust()
            self.device.settle(8, ask=0)

    def breaks(self) -> None:
        """Somebody spoils what serves on the disk, and starts the agent anew, without a line."""
        serving = self.device.state.serving
        assert serving is not None
        for path in (self.device.folder / "artifacts").rglob("*"):
            if path.is_file() and serving.manifest.variants[0].blob.sealed in str(path):
                path.write_bytes(b"spoilt")
        self.device.cut_power()
        self.device.boot(link=False).settle(3, ask=0)

    def held(self) -> list[int]:
        state = self.device.state
        return [s.release.number for s in (state.serving, *state.previous) if s is not None]


@pytest.fixture
def field(tmp_path: Path) -> Field:
    return Field(tmp_path)


def test_20_without_a_revocation_the_one_before_answers(field: Field) -> None:
    """What the attack forces where nothing was revoked."""
    field.breaks()
    assert field.device.answering == 2


def test_20_a_forced_return_skips_what_was_revoked(field: Field) -> None:
    field.revoke(2)
    assert committed(field.device, 3) and field.held() == [3, 1]
    assert field.device.codes() == ["release-revoked"] and field.device.events()[0].severity == "alarm"
    field.breaks()
    assert field.device.answering == 1 and field.held() == [1]


def test_20_with_all_before_it_revoked_nobody_answers_declared(field: Field) -> None:
    field.revoke(1, 2)
    assert field.device.codes() == ["release-revoked"] * 2
    field.breaks()
    assert field.device.answering is None and field.held() == []


def test_20_what_serves_and_was_revoked_stops_at_once(field: Field) -> None:
    field.revoke(3)
    assert field.device.answering == 2 and field.held() == [2, 1]
    assert field.device.state.phase is Phase.STEADY and "release-revoked" in field.device.codes()


@pytest.mark.parametrize("whose", ["timestamp", "model"])
def test_20_metadata_that_has_expired_is_told_for_no_revocation_is_heard_by_it(field: Field, whose: str) -> None:
    """Somebody keeps newer ones back, or whoever signs them has lost the key. Told once, and what serves goes on."""
    core = field.core
    if whose == "model":
        drafts = signing.revocation(core.files, MODEL, 3, metadata.later(core.now, timedelta(days=-1)))
        core.files |= signing.as_files(signing.sign(core.files, drafts, [roles.signer(core.owner)]))
    core.renew(core.now - (30 * DAY if whose == "timestamp" else 0))
    for _ in range(3):
        core.publish_trust()
        field.device.settle(8, ask=0)
    (event,) = field.device.events()
    assert (event.code, event.severity) == ("trust-expired", "alarm") and field.device.answering == 3
    assert event.model == (MODEL if whose == "model" else None)
    if whose == "timestamp":
        core.renew()
        field.revoke(3)
        assert field.device.answering == 2


def test_20_a_disk_that_refuses_just_then_only_delays_the_revocation(field: Field) -> None:
    """Whoever can fill the disk must not be able to keep a revocation from being read."""
    place = field.device.house.trust.folder
    shutil.rmtree(place)
    place.write_bytes(b"no folder can be made here")
    field.revoke(3)
    assert field.device.answering == 3
    place.unlink()
    field.device.settle(40, ask=0)
    assert field.device.answering == 2 and field.held() == [2, 1]


def test_20_the_revocation_is_kept_over_a_power_cut_without_a_line(field: Field) -> None:
    field.revoke(3)
    field.device.cut_power()
    shutil.rmtree(field.device.folder / "trust")
    field.device.boot(link=False).settle(3, ask=0)
    assert field.device.answering == 2 and field.held() == [2, 1]


def test_20_the_director_cannot_order_it_back(field: Field) -> None:
    """Who has the director's key orders what the owner took away, in a generation above all."""
    field.revoke(3)
    field.device.acknowledge(999)
    field.core.assign(field.shipped[3], field.device.identity, retry=99)
    field.device.settle(12, ask=0)
    assert field.device.answering == 2 and field.device.state.serving is not None
    assert set(field.device.codes()) <= {"release-offered", "refused-untrusted"}


def test_20_nor_does_the_metadata_of_before_it(field: Field) -> None:
    """The broker hands out what was true before the revocation, and the device lost its files of trust."""
    before = dict(field.core.files)
    field.revoke(3)
    field.device.cut_power()
    shutil.rmtree(field.device.folder / "trust")
    field.core.files = before
    field.core.publish_trust()
    field.core.assign(field.shipped[3], field.device.identity, retry=99)
    field.device.boot().settle(14, ask=0)
    assert field.device.answering == 2
    assert "refused-untrusted" in field.device.codes()


def test_20_a_release_on_trial_is_left_when_it_is_revoked(field: Field) -> None:
    field.core.assign(field.core.ship(4), field.device.identity)
    field.device.settle(4)
    assert field.device.state.phase is Phase.PROBATION
    field.revoke(4)
    assert field.device.answering == 3 and field.device.state.phase in (Phase.STEADY, Phase.FETCHING)


def test_20_while_the_broker_keeps_it_back_the_device_cannot_know(field: Field) -> None:
    """The limit, said in docs/security.md: a revocation counts from when it is heard."""
    field.revoke(2, told=False)
    field.breaks()
    assert field.device.answering == 2


def test_20_the_command_takes_the_whole_fleet_off_it(tmp_path: Path) -> None:
    estate = Estate(tmp_path, "press-1", "press-2")
    assert (estate.release(), estate.release()) == (1, 2)
    estate.leave("press-2")
    assert owner.revoke(estate.api, estate.owner, NAME, 2, "bad rows", "test", estate.world.now) == ()
    estate.until_serving(1)
    assert "release-revoked" in estate.core_codes() and "release-revoked" in estate.codes("press-1")
    estate.come_back("press-2")  # it serves release 2 until it hears
    assert estate.serves("press-2") == 2
    estate.until_serving(1)
    release = estate.world.get("/v1/releases")["releases"][0]
    assert (release["number"], release["state"]) == (2, "revoked")
    assert estate.release() == 3, "numbers are not used again, and the fleet goes on"


@pytest.mark.parametrize("write", range(1, 7))
def test_20_a_power_cut_at_any_write_of_a_revocation_leaves_it_revoked(tmp_path: Path, write: int) -> None:
    field, fuse = Field(tmp_path), Fuse()
    field.device.journal_kind = fuse.journal()
    field.device.cut_power()
    field.device.boot().settle(2, ask=0)
    fuse.left = write
    with contextlib.suppress(PowerCut):
        field.revoke(3)
    fuse.left = None
    field.device.cut_power()
    field.device.boot().settle(8, ask=0)
    assert field.device.answering == 2 and 3 not in field.held()
