"""Settings: nothing guessed, nothing ignored, and every refusal says where and what to write instead."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from appliance.core.project_file import read_project
from appliance.settings import (
    BadSettings,
    CoreSettings,
    EdgeSettings,
    LocalBroker,
    Ports,
    convert,
    load,
    owner_folder,
    state_folder,
)

CORE, EDGE = "FALAJ_CORE__", "FALAJ_EDGE__"
DEMO = Path(__file__).resolve().parents[2] / "appliance" / "demo" / "falaj.toml"


def core(tmp_path: Path, text: str, **environment: str) -> CoreSettings:
    file = tmp_path / "core.toml"
    file.write_text(text)
    return load(CoreSettings, file, CORE, environment)


def edge(tmp_path: Path, text: str, **environment: str) -> EdgeSettings:
    file = tmp_path / "edge.toml"
    file.write_text(text)
    return load(EdgeSettings, file, EDGE, environment)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load(CoreSettings, tmp_path / "core.toml", CORE, {}) == CoreSettings()
    assert load(EdgeSettings, tmp_path / "edge.toml", EDGE, {}) == EdgeSettings()


def test_a_file_says_what_differs(tmp_path: Path) -> None:
    found = core(tmp_path, 'tenant = "acme"\nhost = "core.local"\n[ports]\nuplink = 1234\n')
    assert found == CoreSettings(tenant="acme", host="core.local", ports=Ports(uplink=1234))  # type: ignore[arg-type]
    assert edge(tmp_path, "[local_broker]\nmanaged = false\nport = 1884") == EdgeSettings(
        local_broker=LocalBroker(managed=False, port=1884)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tennant = 'x'", "core.toml: unknown key 'tennant'; did you mean 'tenant'?"),
        ("[ports]\nuplnk = 1", "core.toml: unknown key 'uplnk' in [ports]; did you mean 'uplink'?"),
        ("[ports]\nzzz = 1", "unknown key 'zzz' in [ports]; known are: uplink, enrol, console"),
        ("[ports]\nuplink = 'x'", "core.toml: Expected `int`, got `str` - at `ports.uplink`"),
        ("[ports]\nuplink = 70000", "Expected `int` <= 65535 - at `ports.uplink`"),
        ("[ports]\nuplink = 0", "Expected `int` >= 1 - at `ports.uplink`"),
        ("[ports]\nuplink = 9\nenrol = 9", "uplink, enrol and console need three different ports"),
        ("tenant = 'Ac me'", "'Ac me' is no tenant name: it must be 1 to 63 of a-z, 0-9 and '-'"),
        ("a = 1\nhost = = 2", "core.toml: Invalid value (at line 2, column 8)"),
    ],
)
def test_a_mistake_in_core_toml_is_named_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadSettings) as refused:
        core(tmp_path, text)
    assert told in str(refused.value)


def test_a_mistake_in_edge_toml_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"unknown key 'pasword_file' in \[local_broker\]; did you mean 'password_f"):
        edge(tmp_path, "[local_broker]\npasword_file = 'x'")


def test_a_key_that_is_retired_keeps_no_updated_device_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert edge(tmp_path, "threads = 2\nhttp_port = 8001") == EdgeSettings(http_port=8001)
    assert edge(tmp_path, "", FALAJ_EDGE__THREADS="2") == EdgeSettings()
    assert [record.getMessage() for record in caplog.records] == [
        "edge.toml: 'threads' means nothing any more; remove it",
        "edge.toml: 'threads' means nothing any more; remove it",
    ]
    with pytest.raises(BadSettings, match="unknown key 'threads'"):
        core(tmp_path, "threads = 2")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    found = core(
        tmp_path,
        "[ports]\nuplink = 1\nenrol = 2\n",
        FALAJ_CORE__PORTS__UPLINK="8884",
        FALAJ_CORE__HOST="10.0.0.7",
        FALAJ_CORE__TENANT="acme",
        FALAJ_CORE_DIR="/not/a/setting",
        FALAJ_EDGE__HTTP_PORT="1",
    )
    assert found == CoreSettings(tenant="acme", host="10.0.0.7", ports=Ports(uplink=8884, enrol=2))  # type: ignore[arg-type]
    assert edge(tmp_path, "", FALAJ_EDGE__LOCAL_BROKER__MANAGED="false").local_broker.managed is False


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"FALAJ_CORE__PORTS__UPLNK: unknown key 'uplnk' in \[ports\]; did you mean"):
        core(tmp_path, "", FALAJ_CORE__PORTS__UPLNK="1")
    with pytest.raises(BadSettings, match="FALAJ_CORE__HOST__X: 'host' is a value, not a table"):
        core(tmp_path, "host = 'h'", FALAJ_CORE__HOST__X="1")


def test_a_file_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"there is no project file .*falaj.toml: name one, or write it as docs"):
        read_project(tmp_path / "falaj.toml")
    with pytest.raises(BadSettings, match=r"cannot be read: Is a directory"):
        read_project(tmp_path)
    (tmp_path / "falaj.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(BadSettings, match=r"falaj.toml: 'utf-8' codec can't decode"):
        read_project(tmp_path / "falaj.toml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "min_accuracy",
            "min_acuracy",
            r"unknown key 'min_acuracy' in [models.exercise.gates]; did you mean 'min_accuracy'?",
        ),
        ("contract =", "contarct =", r"unknown key 'contarct' in [sources.watches]; did you mean 'contract'?"),
        ("output =", "outptu =", r"unknown key 'outptu' in [models.exercise.bindings.0]; did you mean 'output'?"),
        ("max_gap", "maxgap", r"unknown key 'maxgap' in [views.imu.window]; did you mean 'max_gap'?"),
        ("ax = { type", "ax = { typ", r"unknown key 'typ' in [contracts.imu.columns.ax]; did you mean 'type'?"),
        (
            "soak_answers",
            "soakanswers",
            r"unknown key 'soakanswers' in [models.exercise.rollout]; did you mean 'soak_answers'?",
        ),
        ("[models.exercise]", "[modles.exercise]", "unknown key 'modles'; did you mean 'models'?"),
        ('view = "imu"', 'view = "imo"', "models.exercise.view: 'imo' is not declared; declared are: imu"),
        ('time = "ts"', 'time = "tss"', "sources.watches.time: 'tss' is not declared; declared are: "),
        ("gate = [0.8, 1.0]", "gate = [0.7, 1.0]", "fit and gate overlap"),
        ('canary = ["watch-1"]', 'canary = ["Watch 1"]', "'Watch 1' is no device name"),
        ('canary = ["watch-1"]', 'canary = ["Watch 1"]', "at `models.exercise.rollout.canary[0]`"),
        ("[models.exercise]", "[models.Exercise]", "'Exercise' is no model name: it must be 1 to 63"),
        ("[models.exercise]", "[models.Exercise]", "at `models.Exercise`"),
        ('kind = "files"', 'kind = "kafka"', "'kafka'; known are: files, samples - at `sources.watches.kind`"),
        ("size = 100", "size = '100'", "Expected `int`, got `str` - at `views.imu.window.size`"),
        ("size = 100", "size = 0", "1 <= step <= size <= 1,000,000 - at `views.imu.window`"),
        ("step = 50, ", "", "table missing required field `step` - at `views.imu.window`"),
        ("fit = [0.0, 0.8]", "fit = [0.0]", "Expected `array` of length 2, got 1 - at `models.exercise.fit`"),
        ('topic = "watch', 'topic = 3 #"', "Expected `str`, got `int` - at `models.exercise.bindings[0].topic`"),
    ],
)
def test_a_mistake_in_the_project_file_is_named_with_its_place(tmp_path: Path, old: str, new: str, told: str) -> None:
    text = DEMO.read_text()
    assert old in text
    file = tmp_path / "falaj.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BadSettings) as refused:
        read_project(file)
    assert told in str(refused.value)


def test_the_demos_project_file_is_without_fault() -> None:
    assert list(read_project(DEMO).models) == ["exercise"]


def test_state_and_keys_have_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "FALAJ_OWNER_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder("core") == tmp_path / ".local" / "state" / "falaj" / "core"
    assert owner_folder() == tmp_path / ".config" / "falaj" / "keys"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/falaj-edge:/other")
    assert state_folder("edge") == Path("/var/lib/falaj-edge")
    assert state_folder("edge", tmp_path / "given") == tmp_path / "given"
    monkeypatch.setenv("FALAJ_OWNER_KEYS", str(tmp_path / "usb"))
    assert owner_folder() == tmp_path / "usb"


def test_a_setting_of_a_type_that_no_file_can_hold_is_the_code_s_fault_and_no_complaint_to_a_person() -> None:
    class Odd(msgspec.Struct):
        phase: complex

    with pytest.raises(RuntimeError, match=r"no complex$"):
        convert(Odd, {"phase": 1}, "odd.toml")
