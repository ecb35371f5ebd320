"""The doctor: each fact is judged alone, and every bad finding says what to do."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import doctor
from appliance.doctor import Facts, examine, worst
from edge.states import CLOCK_FLOOR

FIT = Facts(
    python=(3, 11),
    bits=64,
    libc="glibc 2.36",
    torch="2.13.0+cpu",
    cuda_packages=0,
    gpu=False,
    mosquitto="2.0.11",
    owners={name: frozenset({"falaj"}) for name in doctor.OUR_NAMES},
    now=1.8e9,
    free_mb=50_000,
    disk="/var/lib/falaj",
    open_keys=(),
)


def test_a_clock_was_set_to_the_doctor_when_it_was_to_the_agent() -> None:
    assert doctor.EARLIEST == CLOCK_FLOOR


def test_a_fit_machine_has_nothing_to_do() -> None:
    findings = examine(FIT)
    assert worst(findings) == "ok"
    assert all(f.hint == "" for f in findings)


@pytest.mark.parametrize(
    ("facts", "code", "level"),
    [
        (replace(FIT, python=(3, 10)), "python", "fail"),
        (replace(FIT, bits=32), "python", "fail"),
        (replace(FIT, libc=""), "libc", "fail"),
        (replace(FIT, torch="2.13.0", cuda_packages=18), "torch", "warn"),
        (replace(FIT, mosquitto=None), "mosquitto", "fail"),
        (replace(FIT, mosquitto="1.6.9"), "mosquitto", "fail"),
        (replace(FIT, owners={**FIT.owners, "sync": frozenset({"falaj", "sync"})}), "names", "fail"),
        (replace(FIT, owners={}), "names", "warn"),
        (replace(FIT, now=0.0), "clock", "fail"),
        (replace(FIT, now=5e9), "clock", "fail"),
        (replace(FIT, free_mb=1_000), "disk", "warn"),
        (replace(FIT, free_mb=100), "disk", "fail"),
        (replace(FIT, open_keys=("/k/director.pem",)), "key-files", "fail"),
        (replace(FIT, certificates=(("device.pem", 1.8e9),)), "certificate", "fail"),
        (replace(FIT, certificates=(("device.pem", 1.8e9 + 86_400),)), "certificate", "warn"),
    ],
)
def test_one_bad_fact_gives_one_bad_finding_with_a_way_out(facts: Facts, code: str, level: str) -> None:
    findings = examine(facts)
    assert [(f.code, f.level) for f in findings if f.level != "ok"] == [(code, level)]
    assert all(f.hint for f in findings if f.level != "ok")
    assert worst(findings) == level


@pytest.mark.parametrize(
    "facts",
    [
        replace(FIT, torch=None),
        replace(FIT, torch="2.13.0", cuda_packages=18, gpu=True),
        replace(FIT, torch="2.13.0", cuda_packages=0),
    ],
)
def test_every_sound_pytorch_is_fine(facts: Facts) -> None:
    assert worst(examine(facts)) == "ok"


def test_keys_that_others_may_read_are_found(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    for name, mode in (("good.pem", 0o600), ("open.pem", 0o644), ("group.pem", 0o640)):
        (keys / name).touch()
        os.chmod(keys / name, mode)
    (tmp_path / "kek").touch(mode=0o644)
    (tmp_path / "ca.pem").touch(mode=0o644)
    opened = [str(tmp_path / "kek"), str(keys / "group.pem"), str(keys / "open.pem")]
    assert doctor.open_keys([tmp_path]) == opened
    assert doctor.open_keys([]) == []
    os.chmod(keys, 0o777)
    assert str(keys) in doctor.open_keys([keys])


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    facts = doctor.gather(tmp_path / "not" / "yet", [], now=1.8e9)
    assert facts.bits == 64
    assert facts.free_mb > 0
    assert facts.disk == str(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()
    assert len(examine(facts)) == len(examine(FIT))


def test_the_command_prints_text_or_json_and_its_code_follows_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor.run(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["worst"] == "fail" else 0)
    assert [f["code"] for f in told["findings"]] == [f.code for f in examine(FIT)]
    assert doctor.run(as_json=False) == code
    assert "python" in capsys.readouterr().out


def test_it_looks_into_the_folders_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kek").write_text("secret")
    (tmp_path / "kek").chmod(0o644)
    assert doctor.run(as_json=False, folders=[tmp_path]) == 1
    assert f"chmod go= {tmp_path / 'kek'}" in capsys.readouterr().out
