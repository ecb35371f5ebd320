"""The command as a tired operator meets it: help, one clear message, exit codes, and JSON that parses."""

from __future__ import annotations

import json
import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from appliance import clock
from appliance.cli import COMMANDS, falaj, labels, screens, verdicts
from appliance.demo.fleet import free_ports
from tests.appliance.running import RunningCore
from tests.appliance.running import falaj as run_falaj
from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_JSON = {"edge run", "edge try", "core run", "edge install"}  # they print nothing but words for people

PROJECT = """
[sources.{name}]
kind = "files"
path = "{name}/*.csv"
contract = "imu"
time = "ts"

[contracts.imu.columns]
ts = {{ type = "float64", min = 0 }}
ax = {{ type = "float64", min = -10, max = 10 }}
side = {{ type = "string", values = ["left", "right"] }}
"""
MODEL_TABLES = """
[views.v]
source = "{source}"
entity = "side"
label = "side"
window = {{ size = 4, step = 2, period = 0.02, channels = ["ax"] }}

[models.m]
view = "v"
gates = {{ min_accuracy = 0.9 }}
rollout = {{ evidence = "labels", margin = 0.05, block = 20, canary = ["w-1"] }}
"""
GOOD = "ts,ax,side\n1.0,0.5,left\n2.0,0.25,right\n"


def commands(group: click.Group = falaj, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield f"{path}{name}", command
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


ALL = dict(commands())
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("path", ALL)
def test_every_command_explains_itself(path: str) -> None:
    shown = CliRunner().invoke(falaj, [*path.split(), "--help"])
    assert shown.exit_code == 0
    assert re.search(r"\n\n  [A-Z`].{20,}", shown.output), "a sentence"
    for option in ALL[path].params:
        if isinstance(option, click.Option) and "--help" not in option.opts:
            assert option.help, f"{option.name} has no help"


@pytest.mark.parametrize("path", LEAVES)
def test_every_command_that_prints_data_prints_json_too(path: str) -> None:
    options = {name for option in LEAVES[path].params for name in option.opts}
    assert ("--json" in options) is (path not in WITHOUT_JSON)


def test_the_list_of_commands_is_true() -> None:
    shown = CliRunner().invoke(falaj, ["--help"]).output
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name}\s", shown, re.MULTILINE)
        named = re.search(r": ([a-z, ]+)\.$", text)
        group = ALL[name]
        if isinstance(group, click.Group) and named:
            visible = {n for n in group.list_commands(click.Context(group)) if f"{name} {n}" in ALL}
            assert set(named[1].split(", ")) == visible, f"the help of {name}"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["statsu"], "No such command 'statsu'. Did you mean 'status'?"),
        (["xyz"], "No such command 'xyz'."),
        (["core", "runn"], "Did you mean 'run'?"),
        (["device", "token", "Watch 1"], "'Watch 1' is no device name"),
        (["device", "token", "w", "--minutes", "0"], "0 is not in the range"),
        (["trust", "approve", "exercise"], "write MODEL@NUMBER, for example exercise@1"),
        (["train", "No Model"], "'No Model' is no model name"),
        (["edge", "enrol"], "give the TOKEN, or --token-file"),
        (["candidate", "override", "1", "--reason", "  "], "say why in a few words; it is kept for good"),
        (["candidate", "override", "1"], "Missing option '--reason'"),
        (["rollout", "force", "m", "one", "--reason", "x"], "'one' is not a valid integer"),
        (["rollout", "show", "No Model"], "'No Model' is no model name"),
        (["why", "No Model"], "'No Model' is no model name"),
        (["labels", "Watch 1", __file__], "'Watch 1' is no device name"),
        (["rollout", "aside", "m", "1", "Watch 1", "--reason", "x"], "'Watch 1' is no device name"),
        (["device", "token", "--site", "North 1", "--uses", "2"], "'North 1' is no site name"),
        (["device", "carry", "/tmp", "Watch 1"], "'Watch 1' is no device name"),
        (["trust", "authority", "--finish", "--strand", "Watch 1"], "'Watch 1' is no device name"),
    ],
)
def test_wrong_usage_is_exit_2_with_the_way_out(args: list[str], told: str) -> None:
    shown = CliRunner().invoke(falaj, args)
    assert shown.exit_code == 2
    assert told in shown.output


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["status"],
            "no core answers at {dir}/run/api.sock (No such file or directory): start it with "
            "`falaj core run --dir {dir}`",
        ),
        (["core", "link"], "no core has run in {dir}: start one with `falaj core run --dir {dir}`"),
        (
            ["apply", "nowhere.toml"],
            "there is no project file nowhere.toml: name one, or write it as docs/first-project",
        ),
        (["edge", "run"], "{dir} is not enrolled: run `falaj edge enrol TOKEN --dir {dir}` first"),
        (["edge", "enrol", "nonsense"], "this is no enrolment token: paste it whole"),
        (["edge", "status"], "{dir} is not enrolled: run `falaj edge enrol TOKEN --dir {dir}` first"),
    ],
)
def test_what_is_not_there_is_exit_1_with_the_next_step(tmp_path: Path, args: list[str], told: str) -> None:
    (port,) = free_ports(1)
    done = run_falaj(*args, "--dir", str(tmp_path), FALAJ_EDGE__HTTP_PORT=str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: " + told.format(dir=tmp_path, port=port))
    assert "Traceback" not in done.stderr


def enrolled(folder: Path, device: str) -> None:
    (folder / "identity").mkdir()
    kept = {"tenant": "default", "device": device, "epoch": 1, "uplink_host": "h", "uplink_port": 1}
    (folder / "identity" / "enrolment.json").write_text(json.dumps(kept))


def test_the_status_of_an_agent_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    enrolled(tmp_path, "pump-1")
    (port,) = free_ports(1)
    done = run_falaj("edge", "status", "--dir", str(tmp_path), FALAJ_EDGE__HTTP_PORT=str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no agent answers on port {port}" in done.stderr
    assert f"start it with `falaj edge run --dir {tmp_path}`" in done.stderr


def test_the_status_of_an_agent_is_never_that_of_another_on_its_port(tmp_path: Path) -> None:
    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"tenant": "default", "device": "pump-2"}).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is the command's alone."""

    enrolled(tmp_path, "pump-1")
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        server.timeout = PATIENCE  # of a command that never asks
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        port = server.server_address[1]
        done = run_falaj("edge", "status", "--dir", str(tmp_path), FALAJ_EDGE__HTTP_PORT=str(port))
        thread.join()
    assert (done.returncode, done.stdout) == (1, "")
    assert f"port {port} is answered by pump-2, not by pump-1 of {tmp_path}" in done.stderr


def test_a_mistake_of_ours_is_exit_70_with_all_there_is_to_know(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "enrolment.json").write_text("{}")
    done = run_falaj("edge", "run", "--dir", str(tmp_path))
    assert done.returncode == 70
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: this is a mistake of ours, please report the lines above")


def test_settings_with_a_typo_end_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "core.toml").write_text("[ports]\nuplnk = 1\n")
    done = run_falaj("core", "run", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"Error: {tmp_path}/core.toml: unknown key 'uplnk' in [ports]; did you mean 'uplink'?\n"
    assert [p.name for p in tmp_path.iterdir()] == ["core.toml"]


# --- against a real core ----------------------------------------------------------------------------------------


def declare(core: RunningCore, folder: Path, **files: str) -> str:
    """Applies a project with one source of its own; returns the source's name."""
    name = re.sub(r"[\W_]", "-", folder.name)
    (folder / name).mkdir()
    for file, content in files.items():
        (folder / name / f"{file}.csv").write_text(content)
    (folder / "falaj.toml").write_text(PROJECT.format(name=name))
    done = core.falaj("apply", str(folder / "falaj.toml"))
    assert done.returncode == 0, done.stderr
    assert f"sources {name}" in done.stdout
    return name


def rows(core: RunningCore, source: str) -> Any:
    return core.api.get("/v1/status")["sources"].get(source, {"files": 0, "rows": 0, "rejections": 0})


@pytest.mark.broker
def test_rows_that_fit_land_once(core: RunningCore, tmp_path: Path) -> None:
    source = declare(core, tmp_path, good=GOOD)
    first = core.falaj("ingest", source)
    assert (first.returncode, first.stdout) == (0, "2 rows landed, 0 rows or files turned away\n")
    again = json.loads(core.falaj("ingest", source, "--json").stdout)
    assert again == {"files": 0, "rejections": 0, "rows": 0}
    assert core.falaj("ingest", source).stdout == f"nothing new in {source}: every file was read before\n"
    assert rows(core, source) == {"files": 1, "rows": 2, "rejections": 0}


@pytest.mark.broker
def test_a_bad_file_is_one_clear_message_and_nothing_of_it_lands(core: RunningCore, tmp_path: Path) -> None:
    bad = {
        "empty": ("", "the file is empty"),
        "renamed": (GOOD.replace("ax", "acc_x"), "column 'acc_x' is not in the contract"),
        "truncated": (GOOD[:-4], "the last line is incomplete"),
        "typed": (GOOD.replace("0.5", "half"), "column 'ax', row 1: 'half' is no double"),
    }
    source = declare(core, tmp_path, **{name: content for name, (content, _) in bad.items()})
    lake = {p for p in core.folder.lake.rglob("*") if p.is_file()}
    done = core.falaj("ingest", source)
    assert done.returncode == 1
    first, *lines = done.stdout.splitlines()
    assert first == "0 rows landed, 4 rows or files turned away"
    for line, (name, (_, told)) in zip(sorted(lines), bad.items(), strict=True):
        assert line.startswith(f"  {source}/{name}.csv: {told}")
    assert {p for p in core.folder.lake.rglob("*") if p.is_file()} == lake
    assert rows(core, source) == {"files": 0, "rows": 0, "rejections": 4}
    status = core.falaj("status").stdout
    assert f"{source}: 0 rows in 0 files of the lake, 4 turned away" in status
    assert all(told in status for _, told in bad.values())
    found = core.api.get(f"/v1/quarantine?source={source}")["rejections"]
    assert {r["origin"] for r in found} == {f"{source}/{name}.csv" for name in bad}


@pytest.mark.broker
def test_a_bad_row_does_not_take_the_good_ones_with_it(core: RunningCore, tmp_path: Path) -> None:
    source = declare(core, tmp_path, mixed=GOOD + "3.0,99,left\n")
    done = core.falaj("ingest", source)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "2 rows landed, 1 rows or files turned away"
    assert f"{source}/mixed.csv row 2: ax" in done.stdout


@pytest.mark.broker
def test_a_source_without_files_is_one_message(core: RunningCore, tmp_path: Path) -> None:
    source = declare(core, tmp_path)
    done = core.falaj("ingest", source)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: ingest of {source}: no file matches '{source}/*.csv' in {tmp_path}; check" in done.stderr
    assert "Traceback" not in done.stderr
    assert "job-failed" in core.falaj("status").stdout


@pytest.mark.broker
def test_a_typo_in_the_project_names_the_nearest_key_and_changes_nothing(core: RunningCore, tmp_path: Path) -> None:
    declare(core, tmp_path, good=GOOD)
    file = tmp_path / "falaj.toml"
    file.write_text(file.read_text().replace("contract =", "contrat ="))
    events = core.api.get("/v1/events?limit=1")["events"]
    done = core.falaj("apply", str(file))
    assert done.returncode == 1
    assert re.search(r"falaj.toml: unknown key 'contrat' in \[sources\.\S+\]; did you mean 'contract'\?", done.stderr)
    assert core.api.get("/v1/events?limit=1")["events"] == events


@pytest.mark.broker
def test_orders_that_cannot_be_done_say_what_to_do(core: RunningCore, tmp_path: Path) -> None:
    source = declare(core, tmp_path, good=GOOD)
    unknown = core.falaj("ingest", "watchs")
    assert unknown.returncode == 1
    assert f"no source 'watchs'; declared: {source}" in unknown.stderr
    again = core.falaj("trust", "init", "--keys", str(tmp_path / "keys"))
    see = f"see `falaj trust status --dir {core.machines.core_folder}`"
    assert f"this tenant has a root already\n  {see}" in again.stderr
    missing = core.falaj("trust", "approve", "exercise@9", "--keys", str(core.owner_keys))
    assert "there is no release exercise 9" in missing.stderr
    nobody = core.falaj("why", "nosuch")
    assert nobody.returncode == 1 and "the project has no model nosuch; it has " in nobody.stderr
    for done in (unknown, again, missing, nobody):
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


@pytest.mark.broker
@pytest.mark.parametrize(
    "args",
    [
        ["status"],
        ["device", "list"],
        ["device", "metrics"],
        ["trust", "status"],
        ["core", "link"],
        ["device", "token", "json"],
        ["candidate", "list"],
        ["rollout", "show"],
        ["why"],
    ],
    ids=str,
)
def test_json_is_one_document_and_nothing_else(core: RunningCore, args: list[str]) -> None:
    done = core.falaj(*args, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) is not None


@pytest.mark.broker
def test_doctor_prints_json(core: RunningCore) -> None:
    assert "worst" in json.loads(run_falaj("doctor", "--json").stdout)


@pytest.mark.broker
def test_a_token_by_file_is_a_token(core: RunningCore, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(core.falaj("device", "token", "by-file").stdout)
    folder = str(tmp_path / "edge")
    done = run_falaj("edge", "enrol", "--token-file", str(tmp_path / "token"), "--dir", folder)
    assert (done.returncode, done.stdout) == (
        0,
        f"by-file joined tenant default; start it with `falaj edge run --dir {folder}`\n",
    )
    metrics = core.falaj("device", "metrics", "by-file", "--model", "exercise", "--json")
    assert (metrics.returncode, metrics.stderr) == (0, "")
    assert json.loads(metrics.stdout) is not None
    again = run_falaj("edge", "enrol", "--token-file", str(tmp_path / "token"), "--dir", folder)
    assert again.returncode == 1
    assert "is enrolled already as by-file: use another --dir" in again.stderr


@pytest.mark.broker
def test_the_status_screen_has_its_parts_in_order(core: RunningCore) -> None:
    lines = core.falaj("status").stdout.splitlines()
    assert re.fullmatch(r"Falaj core, tenant default \(falaj \S+, protocol 1\)", lines[0])
    titles = [line for line in lines[1:] if line and not line.startswith(" ")]
    wanted = ["releases", "trust", "last events"]
    assert [t for t in titles if t in wanted] == wanted
    assert titles[0] in ("needs you", "nothing needs you")
    assert titles[1].startswith("devices: ")
    assert not re.search(r"[{}]|None", "\n".join(lines)), "a screen for people, not a document"
    assert any(re.match(r"  timestamp  version \d+ +until 20\d\d-\d\d-\d\d \(\d+ days left\)", line) for line in lines)


@pytest.mark.broker
def test_a_plan_says_what_would_change_and_changes_nothing(core: RunningCore, tmp_path: Path) -> None:
    source = declare(core, tmp_path, good=GOOD)
    same = core.falaj("plan", str(tmp_path / "falaj.toml"))
    assert (same.returncode, same.stdout.strip()) == (0, "the same as the project that was applied last")
    file = tmp_path / "falaj.toml"
    file.write_text(file.read_text().replace("max = 10", "max = 20") + MODEL_TABLES.format(source=source))
    events = core.api.get("/v1/events?limit=1")["events"]
    done = core.falaj("plan", str(file))
    assert done.returncode == 0, done.stderr
    for line in ("  contracts: changed imu", "  views: added v", "  models: added m"):
        assert line in done.stdout.splitlines()
    assert "m: labels at a margin of 5.0% need " in done.stdout
    assert "blocks of 20 input windows" in done.stdout
    assert f"take it in: `falaj apply {file} --dir" in done.stdout
    document = json.loads(core.falaj("plan", str(file), "--json").stdout)
    assert document["changes"]["models"] == {"added": ["m"], "changed": [], "removed": []}
    assert document["models"]["m"]["needs"]["windows"] == 20 * document["models"]["m"]["needs"]["blocks"]
    assert core.api.get("/v1/events?limit=1")["events"] == events


def test_a_plan_without_a_core_looks_at_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "falaj.toml").write_text(PROJECT.format(name="s"))
    done = run_falaj("plan", str(tmp_path / "falaj.toml"), "--dir", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith("compared with nothing: no core answers at")


def test_a_plan_says_in_time_how_often_drift_is_cried_in_vain(tmp_path: Path) -> None:
    demo = Path(__file__).parents[2] / "appliance" / "demo" / "falaj.toml"
    done = run_falaj("plan", str(demo), "--dir", str(tmp_path))
    told = "exercise: drift is watched after 16.0 minutes of readings; while nothing changes at most one alarm in "
    assert f"{told}115.7 days of them, on average, on each device" in done.stdout.splitlines()
    file = tmp_path / "falaj.toml"
    file.write_text(PROJECT.format(name="s") + MODEL_TABLES.format(source="s"))
    assert "m: drift is not watched" in run_falaj("plan", str(file), "--dir", str(tmp_path)).stdout.splitlines()


@pytest.mark.broker
def test_a_person_who_overrules_or_labels_nothing_is_told_what_there_is(core: RunningCore, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("prediction,label\np1,walk\n")
    for args, told in (
        (["candidate", "override", "99", "--reason", "x"], "there is no candidate 99\n  `falaj candidate list --dir "),
        (["rollout", "force", "ghost", "1", "--reason", "x"], "there is no release 1 of ghost"),
        (["rollout", "show", "ghost"], "no release of ghost was ever rolled out: `falaj trust approve ghost@NUMBER"),
        (["labels", "ghost", str(tmp_path / "labels.csv")], "ghost"),
    ):
        done = core.falaj(*args)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert "Traceback" not in done.stderr


# --- labels -----------------------------------------------------------------------------------------------------


def test_labels_are_read_in_the_order_of_the_file_and_cut_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    rows = [f"p{n},walk" for n in range(1201)]
    file.write_text("\ufefflabel,who,prediction\n" + "".join(f"walk,me,{row[:-5]}\n" for row in rows))
    found = labels.read_file(file)
    assert list(found)[:2] == ["p0", "p1"]
    assert [len(part) for part in labels.chunks(found)] == [500, 500, 201]
    assert {key: value for part in labels.chunks(found) for key, value in part.items()} == found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "column 'prediction' is missing; the first line is `prediction,label`"),
        ("prediction,lable\np1,walk\n", "column 'label' is missing"),
        ("prediction,label\n", "has no labels"),
        ("prediction,label\np1,walk\np2,\n", "line 3: prediction or label is empty; correct it, nothing was sent"),
        ("prediction,label\np1\n", "line 2: prediction or label is empty"),
        ("prediction,label\np1,walk,run\n", "line 2: more cells than columns"),
        ("prediction,label\np1,walk\np1,run\n", "line 3: p1 is 'run' here and 'walk' above; keep one"),
        ('prediction,label\np1,"walk\n', "line 2: unexpected end of data"),
        ("prediction,label\np1,\udcff\n", "cannot be read"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(tmp_path: Path, content: str, told: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(labels.BadLabels, match=re.escape(told)):
        labels.read_file(file)


def test_the_file_is_read_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("prediction,label\np1,\n")
    done = run_falaj("labels", "watch-1", str(tmp_path / "bad.csv"), "--dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "bad.csv, line 2: prediction or label is empty" in done.stderr
    assert "no core answers" not in done.stderr


def test_the_same_label_twice_is_one() -> None:
    assert labels.read(["prediction,label", "p1,walk", "p1,walk"], "f") == {"p1": "walk"}


# --- the screens, on documents ----------------------------------------------------------------------------------

SERVING = {"number": 2, "manifest": "m", "artifact": "a"}
MODEL = {"phase": "steady", "serving": SERVING, "validated": {"artifact": "a"}, "answers": 7, "errors": 1, "reason": ""}


TRIAL = {"pairs": 220, "agreed": 150, "labels": 100, "right": 97, "right_before": 61, "waiting": 3}
EVIDENCE = {
    "decision": "hold", "decided": False, "plus": 1, "zero": 16, "minus": 3, "log_harm": -0.72, "harm_at": 4.605,
    "log_safe": 0.64, "safe_at": 2.996, "needed": 37, "devices": {"w-1": TRIAL},
}  # fmt: skip
ROLLOUT = {
    "model": "m", "number": 3, "state": "shadow", "since": 0.0, "reason": "", "canary": ["w-1"], "assigned": ["w-1"],
    "forced": "", "previous": 2, "gates": {"evidence": "labels", "block": 20}, "evidence": EVIDENCE,
}  # fmt: skip
SIDE = {"number": 3, "accuracy": 0.31, "answers": 300, "errors": 2, "p99_ms": 2.9}
CARD = {
    "device": "w-1", "model": "m", "ts": 0.0, "phase": "probation", "criterion": "worse-than-incumbent", "text": "why",
    "new": SIDE, "old": None, "log_harm": 5.93, "harm_at": 4.605, "log_safe": None, "safe_at": None,
}  # fmt: skip


def test_a_rollout_says_its_evidence_with_both_thresholds() -> None:
    text = "\n".join(verdicts.rollout_lines(ROLLOUT))
    assert "m@3  shadow since 1970-01-01 00:00:00Z" in text
    assert "worse in 1, equal in 16, better in 3 of 20 blocks of 20 input windows" in text
    assert "harm   -0.72, decides at 4.61" in text
    assert "safe    0.64, decides at 3.00, at best 37 more blocks" in text
    told = "w-1: 220 pairs, the same answer in 150; right in 97.0 % of 100 labels, before 61.0 %; 3 wait for a label"
    assert told in text
    assert "FORCED past the shadow by cli:amal: x" in "\n".join(
        verdicts.rollout_lines({**ROLLOUT, "forced": "cli:amal: x"})
    )
    first = {**ROLLOUT, "evidence": None, "previous": None}
    assert verdicts.evidence_lines(first) == ["judged by labels: it has no release to be compared with"]
    never = {**ROLLOUT, "evidence": {**EVIDENCE, "needed": None}}
    assert "no number of equal blocks reaches" in "\n".join(verdicts.evidence_lines(never))


def test_a_why_card_says_both_sides_and_who_answers() -> None:
    text = "\n".join(verdicts.why_lines(CARD))
    assert "w-1 refused m@3 in probation, 1970-01-01 00:00:00Z\n  worse-than-incumbent: why" in text
    assert "new: release 3, right in 31.0 %, 300 answers, 2 errors, p99 2.9 ms" in text
    assert "harm    5.93, decides at 4.61" in text
    assert text.endswith("old: none\n  harm    5.93, decides at 4.61\n  nobody answers there now")
    back = verdicts.why_lines({**CARD, "old": {**SIDE, "number": 2, "accuracy": None, "p99_ms": 0.0}})
    assert "  old: release 2, 300 answers, 2 errors" in back
    assert back[-1] == "  returned to release 2"


def test_candidates_show_what_refused_them_and_the_way_past() -> None:
    card = {"scores": [{"precision": "fp32", "accuracy": 0.61}], "chosen": "fp32", "rows": 266}
    verdict = {"gate": "quality", "outcome": "fail", "text": "accuracy 0.61, wanted 0.9"}
    row = {"id": 4, "model": "m", "accepted": False, "ts": 0.0, "scorecard": card, "verdicts": [verdict]}
    assert verdicts.candidate_lines([row], {}) == [
        "   4  m  refused   1970-01-01 00:00:00Z  accuracy 0.610 of 266 rows",
        "      quality: accuracy 0.61, wanted 0.9",
        "      stage it all the same: `falaj candidate override 4 --reason TEXT`",
    ]
    assert verdicts.candidate_lines([row], {row["id"]: 7})[-1].endswith("staged all the same, as release m@7")
    assert verdicts.candidate_lines([{**row, "accepted": True}], {})[0].startswith("   4  m  accepted")
    signed = verdicts.candidate_lines([{**row, "accepted": True}], {row["id"]: 7}, {("m", 7)})
    assert signed[1:] == ["      signed automatically, as release m@7"]


def test_candidates_say_whether_they_are_calibrated_and_how_honest_they_are() -> None:
    score = {"precision": "fp32", "accuracy": 0.95, "ece": 0.012, "ece_before": 0.041}
    card = {"scores": [score], "chosen": "fp32", "rows": 266}
    row = {"id": 4, "model": "m", "accepted": True, "ts": 0.0, "verdicts": []}
    for temperature, reason, said in (
        (1.8, "calibrated: it helps", "calibrated: it helps; calibration error 0.041 before, 0.012 on the gate rows"),
        (1.0, "not calibrated: why", "not calibrated: why; calibration error 0.012 on the gate rows"),
    ):
        found = {"temperature": temperature, "rows": 400, "reason": reason}
        lines = verdicts.candidate_lines([{**row, "scorecard": {**card, "calibration": found}}], {})
        assert lines[1:] == [f"      {said}"]


def test_drift_and_the_reason_are_one_line_a_model() -> None:
    drifted = {"report": {"models": {"m": {"drift": {"since": 60.0}}, "n": {"drift": None}}}, "device": "w-2"}
    odd = {"report": {"models": {"m": {"drift": {"since": 1e300}}}}, "device": "w-3"}
    silent = {"report": None, "device": "w-1"}
    retraining = {"m": {"kind": "none", "reason": "140 of 200 labelled samples are here"}, "o": {"reason": "no road"}}
    assert verdicts.learning_lines(retraining, [silent, drifted, odd]) == [
        "m: drifted: w-2 since 1970-01-01 00:01:00Z, w-3 since second 1e+300; 140 of 200 labelled samples are here",
        "o: no road",
    ]
    assert verdicts.learning_lines({}, [silent]) == []


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ({"report": None, "status": ""}, "w  never seen  nothing reported yet"),
        (
            {"report": {"models": {}}, "status": "offline", "status_ts": 60.0},
            "w  offline     since 1970-01-01 00:01:00Z; no model assigned",
        ),
        (
            {"report": {"models": {"m": MODEL}}, "status": "online"},
            "w  online      m: steady, release 2 validated, 7 answers, 1 errors",
        ),
        (
            {"report": {"models": {"m": {**MODEL, "validated": None, "reason": "why"}}}, "status": "online"},
            "w  online      m: steady, release 2, not validated, 7 answers, 1 errors (why)",
        ),
        (
            {"report": {"models": {"m": {**MODEL, "serving": None, "phase": "fetching"}}}, "status": "online"},
            "w  online      m: fetching, no model serves, 7 answers, 1 errors",
        ),
    ],
)
def test_a_device_is_one_line(row: dict[str, Any], line: str) -> None:
    assert screens.device_lines([{"device": "w", **row}]) == [line]


def test_the_status_screen_begins_with_what_needs_a_person_and_what_to_do() -> None:
    status = {
        "tenant": "t", "versions": {"falaj": "1", "protocol": 1}, "trust": {"initialised": False}, "skew": [],
        "counts": {"devices": 0, "online": 0, "validated": 0}, "sources": {},
    }  # fmt: skip
    lists = ("devices", "releases", "rollouts", "rejections", "events")
    document = {"status": status, "retraining": {}, **dict.fromkeys(lists, ())}
    gone = {"level": "alarm", "subject": "w-1", "text": "went offline 20 min ago", "next": "Check its power"}
    waits = {"level": "notice", "subject": "release m 2", "text": "waits", "next": ""}
    shown = screens.core({**document, "concerns": [gone, waits]}, 0.0)
    assert shown[1:7] == [
        "", "needs you", "  ALARM   w-1 went offline 20 min ago", "          Check its power",
        "  notice  release m 2 waits", "",
    ]  # fmt: skip
    assert screens.core({**document, "concerns": []}, 0.0)[1:3] == ["", "nothing needs you"]


def test_events_stand_in_columns_whatever_their_codes() -> None:
    event = {"ts": 0.0, "severity": "info", "source": "core", "code": "short", "model": None, "text": "one"}
    odd = {**event, "source": "a-device-of-long-name", "code": "worse-than-incumbent", "text": "two"}
    lines = screens.event_lines([event, odd])
    assert lines[0].index("one") == lines[1].index("two") and lines[0].startswith("1970-01-01 00:00:00Z  info")


@pytest.mark.parametrize("path", [path for path, command in ALL.items() if isinstance(command, click.Group)])
def test_the_list_of_a_group_cuts_no_sentence_off(path: str) -> None:
    shown = CliRunner().invoke(falaj, [*path.split(), "--help"], terminal_width=80).output
    listed = shown.partition("Commands:")[2]
    assert listed and "..." not in listed


def test_trust_that_is_not_set_up_or_has_ended_says_so() -> None:
    assert screens.trust_lines({"initialised": False}, 0.0) == [screens.NO_TRUST]
    now = clock.now()
    ended = {"version": 1, "expires": now - 10}
    state = {"initialised": True, "profile": "p", "badge": "b", "root": ended, "targets": None, "timestamp": None}
    assert "EXPIRED: no device installs anything new until it is renewed" in screens.trust_lines(state, now)[1]


def test_every_exit_code_of_the_papers_is_the_codes(tmp_path: Path) -> None:
    stability = " ".join((ROOT / "docs" / "stability.md").read_text().split())
    codes = "2 wrong usage, 3 something is missing on this machine, 4 `falaj replay` found a difference"
    assert f"0 done, 1 it failed, {codes}, 70 a mistake of ours" in stability
    empty = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    assert run_falaj("demo", "--dir", str(tmp_path / "d"), **empty).returncode == 3, "the recordings are not here"
    assert run_falaj("--version").returncode == 0
    assert not (tmp_path / "d").exists()


# --- why did it say that ---


def test_a_box_whose_agent_does_not_start_gives_what_can_be_seen_from_outside(tmp_path: Path) -> None:
    enrolled(tmp_path, "pump-1")
    (tmp_path / "edge.toml").write_text("http_port = 'eight'\n")
    (tmp_path / "identity" / "device.key").write_text("a-secret-of-this-box")
    done = run_falaj("edge", "bundle", "--dir", str(tmp_path), "--out", str(tmp_path / "out.tar.gz"), "--json")
    assert done.returncode == 0, done
    assert "no agent runs here, and none could be started" in json.loads(done.stdout)["trouble"]
    with tarfile.open(tmp_path / "out.tar.gz") as packed:
        inside = {entry.name: packed.extractfile(entry).read() for entry in packed}  # type: ignore[union-attr]
    everything = b"".join(inside.values())
    assert b"http_port" in inside["falaj-support/settings.json"] and b"identity/device.key" in everything
    assert b"a-secret-of-this-box" not in everything
    missing = run_falaj("edge", "bundle", "--dir", str(tmp_path / "none"))
    assert missing.returncode == 1 and "there is no agent in" in missing.stderr


@pytest.mark.broker
def test_a_device_that_is_away_is_said_to_be_and_the_question_may_wait(core: RunningCore) -> None:
    core.falaj("device", "token", "away-1")
    ask = ("device", "predictions", "away-1", "--at", "03:12")
    nobody = core.falaj(*ask)
    assert nobody.returncode == 1 and "no device away-1 is enrolled here" in nobody.stderr
    token = core.falaj("device", "token", "away-1").stdout.strip()
    box = core.machines.home / "away-1"
    assert run_falaj("edge", "enrol", token, "--dir", str(box)).returncode == 0
    away = core.falaj(*ask)
    assert away.returncode == 1 and "away-1 is" in away.stderr and "with --wait the question is left" in away.stderr
    wrong = core.falaj("device", "predictions", "away-1", "--at", "noon")
    assert wrong.returncode == 1 and "'noon' is no time: say 03:12" in wrong.stderr


@pytest.mark.broker
def test_a_file_that_is_none_is_refused_with_a_code(core: RunningCore, tmp_path: Path) -> None:
    file = tmp_path / "x.sealed"
    file.write_bytes(b"not a file of ours")
    done = core.falaj("replay", str(file))
    assert done.returncode == 1 and "refused-malformed" in done.stderr and done.stdout == ""
