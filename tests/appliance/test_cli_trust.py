"""`falaj trust ...` as people type it, against a core that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli import screens
from appliance.core.state import OnlineFiles
from appliance.demo.fleet import Machines
from appliance.keys import tenant_keys
from sync import roles
from sync.errors import Damaged
from sync.names import DEFAULT_TENANT
from tests.appliance.running import RunningCore, falaj

ROOTS, APPROVERS = ("amal", "badr", "carim"), ("dana", "eve")


def test_status_names_profile_holders_and_ends(core: RunningCore) -> None:
    said = core.falaj("trust", "status")
    assert said.returncode == 0, said.stderr
    assert "profile single-owner: keys on this machine" in said.stdout
    assert "releases   1 of owner (" in said.stdout and "days left" in said.stdout and "director (" in said.stdout


def test_a_rotation_says_what_it_did_and_a_stranger_is_told_whose_keys_are_asked(
    core: RunningCore, tmp_path: Path
) -> None:
    before = json.loads(core.falaj("trust", "status", "--json").stdout)
    done = core.falaj("trust", "rotate", "--role", "snapshot", "--keys", str(core.owner_keys), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["lacks"] == []
    after = json.loads(core.falaj("trust", "status", "--json").stdout)
    assert after["root"]["version"] == before["root"]["version"] + 1
    assert falaj("trust", "key", "stranger", "--keys", str(tmp_path)).returncode == 0
    refused = core.falaj("trust", "renew", "--keys", str(tmp_path))
    assert refused.returncode == 1 and "none of your keys is asked for here" in refused.stderr
    unclear = core.falaj("trust", "rotate", "owner", "--keys", str(core.owner_keys))
    assert unclear.returncode == 2 and "give KEY and --with PUB, or --role ROLE alone" in unclear.stderr
    nothing = core.falaj("trust", "sign", "--keys", str(core.owner_keys))
    assert nothing.returncode == 1 and "no change of keys waits" in nothing.stderr


def test_what_the_core_may_release_by_itself_is_said_with_the_way_to_end_it() -> None:
    trust = {"automatic": {"m": {"keyid": "0123456789abcdef", "releases": [2, 3]}}}
    (line,) = screens.automatic_lines(trust)
    assert line == (
        "AUTO       the core releases m by itself (key 0123456789ab); signed automatically: m@2, m@3; "
        "`falaj trust auto m --off` ends it"
    )
    assert screens.releases_by_core(trust) == {("m", 2), ("m", 3)} and screens.automatic_lines({}) == []


def test_nobody_allows_what_no_person_has_released_yet(core: RunningCore) -> None:
    for word, told in (("--on", "people have signed no release of pump yet"), ("--off", "there is nothing to end")):
        done = core.falaj("trust", "auto", "pump", word, "--keys", str(core.owner_keys))
        assert done.returncode == 1 and told in done.stderr
    unclear = falaj("trust", "auto", "pump")
    assert unclear.returncode == 2
    assert "say --on or --off; `falaj trust status` names the models for which it is on" in unclear.stderr


def test_the_key_by_which_the_core_releases_a_model_lies_sealed(tmp_path: Path) -> None:
    """As its other online keys do; a further one takes no place of the one in force."""
    home = tmp_path / "home"
    home.mkdir()
    kept = OnlineFiles(home, tenant_keys(tmp_path / "kek", tmp_path / "wrapped", DEFAULT_TENANT))
    first, second, third = (roles.new_signing_key() for _ in range(3))
    assert kept.held("auto.pump") == ()
    kept.bring("auto.pump", first, b"")
    kept.bring("auto.pump", second, first)
    kept.bring("auto.pump", third, second)
    assert set(kept.held("auto.pump")) == {second, third} and kept.held("auto.valve") == ()
    for path in home.iterdir():
        assert b"PRIVATE KEY" not in path.read_bytes() and path.stat().st_mode & 0o077 == 0


def test_a_key_file_that_was_moved_away_leaves_the_other_in_its_place(tmp_path: Path) -> None:
    """As is advised of one that does not open: the further key goes where none is, and the one in force stays."""
    home = tmp_path / "home"
    home.mkdir()
    kept = OnlineFiles(home, tenant_keys(tmp_path / "kek", tmp_path / "wrapped", DEFAULT_TENANT))
    first, second, third = (roles.new_signing_key() for _ in range(3))
    kept.bring("auto.pump", first, b"")
    kept.bring("auto.pump", second, first)
    (home / "auto.pump").write_bytes(b"")
    with pytest.raises(Damaged, match="put it back from the backup, or move it away"):
        kept.held("auto.pump")
    (home / "auto.pump").rename(tmp_path / "away")
    assert kept.held("auto.pump") == (second,)
    kept.bring("auto.pump", third, second)
    assert set(kept.held("auto.pump")) == {second, third}


@pytest.mark.slow
def test_from_one_owner_to_an_organisation_at_the_command_line(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    try:
        machines.start_core()

        def trust(who: str, *words: str) -> str:
            at = ["--dir", str(machines.core_folder)] if words[0] != "key" else []
            done = falaj("trust", *words, "--keys", str(tmp_path / who), *at)
            assert done.returncode == 0, done.stderr
            return done.stdout

        trust("owner", "init")
        for name in (*ROOTS, *APPROVERS):
            trust(name, "key", name)
        people = [["--root", str(tmp_path / n / f"{n}.pub")] for n in ROOTS]
        people += [["--release", str(tmp_path / n / f"{n}.pub")] for n in APPROVERS]
        told = trust("owner", "harden", "--releases-need", "2", *(word for pair in people for word in pair))
        assert "root: 2 of 3 sign, instead of 1 of 1" in told and "not in force yet" in told
        for name in ("amal", "carim", "dana"):
            assert "not in force yet" in trust(name, "sign", "--yes")
        assert "in force; devices follow by themselves" in trust("eve", "sign", "--yes")
        status = falaj("trust", "status", "--dir", str(machines.core_folder)).stdout
        assert "profile organisation: root needs 2 of 3 keys, a release 2 of 2" in status
    finally:
        machines.stop()
