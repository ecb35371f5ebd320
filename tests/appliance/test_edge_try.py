"""`falaj edge try`: what is printed works as it is printed, in a real shell, and what cannot be tried says why."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from appliance.broker import NoBroker
from appliance.cli.edge_try import FORMATS
from appliance.demo.fleet import free_ports
from appliance.first_hour.lines import publish
from appliance.first_hour.measuring import Measured, Unmeasured, Wish, measure
from appliance.first_hour.node import Enrolled, TryoutNode, look_at, refuse_enrolled, running
from appliance.first_hour.planning import Tryout, Untried, Wishes, model_name, plan
from appliance.first_hour.rhythm import Rhythm
from appliance.processes import PortTaken, listens
from edge.bindings.payloads import read
from sync.bindings import Format
from sync.features import TensorSpec
from sync.link import Message, Publish
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.appliance.running import falaj
from tests.edge import graphs
from tests.waiting import PATIENCE, eventually

WINDOWS = (TensorSpec("window", "FP32", (-1, 4, 2)),)
ROWS = (TensorSpec("features", "FP32", (-1, 4)),)


def rows_model() -> bytes:
    """`features` (n, 4) to `scores` (n, 3)."""
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    node = helper.make_node("MatMul", ["features", "w"], ["scores"])
    return graphs.finish(
        [node], [graphs.value("features", ["n", 4])], [graphs.value("scores", ["n", 3])], [weights]
    )  # fmt: skip


def measured(inputs: tuple[TensorSpec, ...], answer: tuple[int, ...] = (1, 3)) -> Measured:
    asked = {spec.name: tuple(1 if n < 0 else n for n in spec.shape) for spec in inputs}
    outputs = (TensorSpec("scores", "FP32", (-1, *answer[1:])),)
    return Measured(1, 1, 5, 1.0, 1.0, 0.1, 0.2, 100.0, inputs, outputs, asked, {"scores": answer})


def planned(inputs: tuple[TensorSpec, ...] = WINDOWS, wishes: Wishes | None = None) -> Tryout:
    return plan("motion", b"model", measured(inputs), wishes or Wishes("plant/+/vib"))


# --- in a real shell --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tried:
    """One `falaj edge try` that runs: what it printed, and its ports."""

    process: subprocess.Popen[str]
    text: str
    ports: tuple[int, int]

    def line(self, begin: str) -> str:
        """The printed command that begins so, to the next empty line or command."""
        found = re.search(
            rf"^({re.escape(begin)}.*?)(?=\n\n|\nmosquitto|\npython3|\Z)", self.text, re.MULTILINE | re.DOTALL
        )
        assert found is not None, f"no {begin} in\n{self.text}"
        return found[1]


@contextmanager
def tried(tmp_path: Path, model: bytes, *words: str) -> Iterator[Tried]:
    file = tmp_path / "My Model_v2.onnx"
    file.write_bytes(model)
    http, mqtt = free_ports(2)
    places = ["--port", str(http), "--mqtt-port", str(mqtt), "--dir", str(tmp_path / "edge")]
    command = [sys.executable, "-P", "-m", "appliance.cli", "edge", "try", str(file), *places, *words]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        try:
            assert process.poll() is None, "".join(lines)
            yield Tried(process, "".join(lines), (http, mqtt))
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and rest.endswith("ended; nothing is left of it\n"), rest
    assert not listens("127.0.0.1", http) and not listens("127.0.0.1", mqtt)
    assert not list(tmp_path.glob("falaj-try-*"))


def shell(line: str) -> str:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return done.stdout


def predicted(run: Tried, publishing: str) -> tuple[str, dict[str, object]]:
    """Topic and document of what the printed subscriber prints first, while the printed sensor publishes."""
    with subprocess.Popen(
        ["sh", "-c", f"exec {run.line('mosquitto_sub')}"], stdout=subprocess.PIPE, text=True
    ) as listener:  # fmt: skip
        assert listener.stdout is not None
        came = threading.Event()
        first: list[str] = []

        def wait(out: Iterator[str]) -> None:
            first.append(next(out, ""))
            came.set()

        threading.Thread(target=wait, args=(listener.stdout,), daemon=True).start()
        for _ in range(40):  # nobody says when the subscription stands
            shell(publishing)
            if came.wait(0.5):
                break
        listener.terminate()
    topic, _, payload = first[0].partition(" ")
    return topic, json.loads(payload)


@pytest.mark.broker
def test_every_line_that_is_printed_works_as_it_is_printed(tmp_path: Path) -> None:
    with tried(tmp_path, graphs.classifier(), "--bind", "plant/+/vib", "--classes", "rest,walk,run") as run:
        assert "NOT FOR PRODUCTION" in run.text.splitlines()[0]
        answer = json.loads(shell(run.line("curl")))
        assert (answer["model_name"], answer["model_version"]) == ("my-model-v2", "0")
        assert answer["outputs"][0]["shape"] == [1, 3]
        topic, document = predicted(run, run.line("python3"))
        assert topic == "plant/sensor-1/vib/prediction"
        assert (document["quality"], document["value"], document["release"]) == ("ok", "run", 0)
        assert document["classes"] == ["rest", "walk", "run"]
        told = json.loads(shell(run.line("mosquitto_rr")))
        assert told["id"] == 1 and told["prediction"]["value"] == "run"


@pytest.mark.broker
def test_a_model_of_single_rows_answers_every_line_of_csv(tmp_path: Path) -> None:
    with tried(tmp_path, rows_model(), "--bind", "plant/+", "--format", "csv", "--time", "") as run:
        topic, document = predicted(run, run.line("python3"))
        assert topic == "plant/sensor-1/prediction"
        assert (document["quality"], document["classes"]) == ("ok", ["0", "1", "2"])


def test_without_a_binding_no_broker_is_needed(tmp_path: Path) -> None:
    images = graphs.echo(TensorProto.UINT8)
    with tried(tmp_path, images) as run:
        assert "mosquitto" not in run.text
        assert json.loads(shell(run.line("curl")))["outputs"][0]["data"] == [128]


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.parametrize("words", [["--format", "rows"], ["--format", "float32"], ["--rate", "30"], ["--time="],
                                   ["--channels", "a.x,it's", "--time", "m.t"]], ids=" ".join)  # fmt: skip
def test_every_form_of_a_reading_is_predicted(tmp_path: Path, words: list[str]) -> None:
    with tried(tmp_path, graphs.classifier(), "--bind", "plant/{entity}/vib", *words) as run:
        begin = "for" if "float32" in words else "python3"
        _, document = predicted(run, run.line(begin))
        assert document["quality"] == "ok"


# --- what is printed is what the binding reads ------------------------------------------------------------------

NAMED = ("a.x", "it's")
FORMS: list[tuple[Format, str, tuple[str, ...], float | None]] = [
    ("json", "ts", (), None), ("json", "", NAMED, 500.0), ("json", "meta.time", NAMED, None),
    ("rows", "ts", NAMED, None),
    ("rows", "", (), 500.0), ("csv", "ts", (), 500.0), ("csv", "", NAMED, 500.0), ("float32", "ts", (), None),
    ("float32", "ts", NAMED, 9.0),
]  # fmt: skip


@pytest.mark.parametrize(("form", "time", "channels", "rate"), FORMS, ids=str)
def test_the_printed_sensor_publishes_what_the_binding_reads(
    tmp_path: Path, form: Format, time: str, channels: tuple[str, ...], rate: float | None
) -> None:
    tryout = planned(wishes=Wishes("plant/+/vib", (), channels, rate, form, time))
    binding, window = tryout.manifest.bindings[0], tryout.manifest.window
    assert window is not None
    heard = published(tmp_path, publish(tryout, 1883, tmp_path / "my password"))
    messages = [heard] if form == "float32" else heard.splitlines()
    found = [read(message, binding, window.channels) for message in messages]
    rows = sum(len(one.rows) for one in found)
    assert rows == (2 if form == "float32" and rate is None else 1) * window.size
    assert all((one.ts is not None) == binding.timed() for one in found)


def test_the_forms_to_choose_from_are_those_of_bindings() -> None:
    assert get_args(Format) == FORMATS


def test_many_numbers_are_written_in_short(tmp_path: Path) -> None:
    tryout = planned((TensorSpec("features", "FP32", (-1, 561)),))
    line = publish(tryout, 1883, tmp_path / "password")
    assert len(line) < 400
    window = tryout.manifest.window
    assert window is not None
    (row,) = read(published(tmp_path, line), tryout.manifest.bindings[0], window.channels).rows
    assert len(row) == 561


def published(tmp_path: Path, line: str) -> bytes:
    """What a printed line hands to mosquitto_pub, which is another program here."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "my password").write_text("secret")
    (tmp_path / "password").write_text("secret")
    stand_in = programs / "mosquitto_pub"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/words\ncat >> {tmp_path}/heard\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, check=False,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "-p 1883 -u app -P secret -q 1 -t plant/sensor-1/vib" in (tmp_path / "words").read_text()
    return (tmp_path / "heard").read_bytes()


# --- what the person is told ------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A node in this process, a sensor, and what was said to the person."""

    node: TryoutNode
    sensor: MqttLink
    said: list[str]
    heard: list[Message]

    def send(self, topic: str, reading: object) -> None:
        self.sensor.publish(Publish(topic, json.dumps(reading).encode()))


@contextmanager
def bench(tryout: Tryout, say: Callable[[str], None] | None = None) -> Iterator[Bench]:
    said: list[str] = []
    heard: list[Message] = []
    http, mqtt = free_ports(2)
    with running(tryout, http, mqtt, say or said.append) as node:
        assert node.local is not None
        at = At("127.0.0.1", mqtt, "sensor", user="app", password=node.local.password.read_text())
        link = MqttLink(at)
        link.subscribe("plant/+/vib/prediction")
        link.start(heard.append, lambda up, reason: None)
        try:
            eventually(lambda: bool(link.listening), "the sensor's session")
            yield Bench(node, link, said, heard)
        finally:
            link.stop()


@pytest.mark.broker
def test_readings_that_do_not_fit_are_told_once_with_what_to_type() -> None:
    model = graphs.classifier()
    with bench(plan("m", model, measure(Wish(model)), Wishes("plant/+/vib"))) as it:
        for n in range(3):
            it.send("plant/a/vib", {"ts": 100.0 + n, "ax": 1, "ay": 2})
        it.send("plant/b/vib", {"ts": 100.0, "ax": 1, "ay": 2, "az": 3})
        for n in range(8):  # 50 Hz: the first readings tell
            it.send("plant/c/vib", {"ts": 100 + n * 0.02, "c1": 1, "c2": 2})
        for n in range(10):
            it.send("plant/d/vib", {"ts": 100 + n * 0.5, "c1": 1, "c2": 2})
        eventually(lambda: len(it.said) >= 4, f"four words, there are {it.said}")
        eventually(lambda: len(it.heard) >= 3, "the windows of the sensor whose rhythm was learned")
    a, b, learned, slow = it.said
    assert a.startswith("plant/a/vib: ") and a.endswith("--channels ax,ay, if that is the order of the model's")
    assert "ax, ay, az; name the 2" in b
    assert learned.startswith("readings come every 0.02 s")
    assert slow == "plant/d/vib: readings come every 0.5 s, the windows are cut for 0.02 s: start again with --rate 2"
    ends = [json.loads(m.payload)["ts"] for m in it.heard if "/c/" in m.topic]
    assert ends[:3] == pytest.approx([100.06, 100.10, 100.14])  # none of the first readings was lost


@pytest.mark.broker
def test_a_message_on_which_the_code_breaks_is_told_and_the_session_goes_on() -> None:
    """Whoever takes what is said breaks once, on the link's own thread, as the agent's code might."""
    model, said = graphs.classifier(), list[str]()

    def say(text: str) -> None:
        if text.startswith("readings come every") and not any("let go" in one for one in said):
            raise ArithmeticError("nobody thought of that")
        said.append(text)

    with bench(plan("m", model, measure(Wish(model)), Wishes("plant/+/vib")), say) as it:
        for n in range(40):
            it.send("plant/c/vib", {"ts": 100 + n * 0.02, "c1": 1, "c2": 2})
        eventually(lambda: len(it.heard) >= 3, "answers after it")
    (told,) = (one for one in said if "let go" in one)
    assert told.startswith("plant/c/vib: a message was let go: ArithmeticError in test_edge_try.py")
    assert "nobody thought" not in told and "goes on" in told


@pytest.mark.broker
def test_a_person_who_stopped_reading_ends_nothing() -> None:
    """As where the output goes into `head`."""
    model = graphs.classifier()

    def say(text: str) -> None:
        raise BrokenPipeError

    with bench(plan("m", model, measure(Wish(model)), Wishes("plant/+/vib")), say) as it:
        it.send("plant/a/vib", {"ts": 100.0, "ax": 1, "ay": 2})
        for n in range(40):
            it.send("plant/c/vib", {"ts": 100 + n * 0.02, "c1": 1, "c2": 2})
        eventually(lambda: len(it.heard) >= 3, "answers all the same")


def test_the_rhythm_of_a_topic_is_that_of_its_newest_readings() -> None:
    rhythm = Rhythm(most=1)
    for n in range(8):
        rhythm.see("a", 10.0 + n)
        rhythm.see("b", 10.0 + n)
    assert rhythm.period("a") == 1.0 and rhythm.period("b") is None  # of one topic at most
    for n in range(20):
        rhythm.see("a", 18 + n * 0.1)
        rhythm.see("a", 5.0)  # from the past
    assert rhythm.period("a") == pytest.approx(0.1)
    batches = Rhythm()
    batches.see("a", 1.0, 50)
    assert batches.period("a") is None
    batches.see("a", 2.0, 50)
    assert batches.period("a") == 0.02


# --- what cannot be tried ---------------------------------------------------------------------------------------


def test_a_box_that_joined_a_core_is_refused(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "enrolment.json").write_text("{}")
    file = tmp_path / "m.onnx"
    file.write_bytes(graphs.classifier())
    done = falaj("edge", "try", str(file), "--dir", str(tmp_path))
    assert done.returncode == 1 and "runs signed releases alone" in done.stderr
    (tmp_path / "joining" / "asking").mkdir(parents=True)
    with pytest.raises(Enrolled):
        refuse_enrolled(tmp_path / "joining")
    refuse_enrolled(tmp_path / "none", tmp_path / "bin")


def sequences() -> bytes:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return graphs.finish([node], [graphs.value("x", ["n"])], [output])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (b"hello", "cannot load this model: .* Export it as an ONNX file first"),
        (sequences(), r"'y' is seq\(tensor\(float\)\), which is not served; export it as one of"),
        (graphs.breaks_on_run()[:-20], "cannot load this model"),
    ],
    ids=["no ONNX", "unsupported", "cut"],
)
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, model: bytes, words: str) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(model)
    with pytest.raises(Unmeasured, match=f"m.onnx: .*{words}") as refused:
        look_at(file, Wishes())
    assert refused.value.exit_code == 1
    with pytest.raises(Unmeasured, match="cannot be read"):
        look_at(tmp_path / "none.onnx", Wishes())


@pytest.mark.parametrize(
    ("inputs", "wishes", "words"),
    [
        (WINDOWS, Wishes("plant/vib"), "exactly one level of the topic is +"),
        (WINDOWS, Wishes("+/+/vib"), "exactly one level"),
        (WINDOWS, Wishes("plant/+/#"), "none is #"),
        (WINDOWS, Wishes("a/+", classes=("a", "b")), "names 2, but the first output, 'scores', has 3 numbers"),
        (WINDOWS, Wishes("a/+", channels=("x",)), "the model takes 2 numbers of a reading"),
        (WINDOWS, Wishes("a/+", channels=("x", "x")), "the model takes 2 numbers of a reading"),
        (WINDOWS, Wishes("a/+", format="scalar"), "one number in a reading, the model takes 2"),
        (
            WINDOWS + ROWS,
            Wishes("a/+"),
            "this one takes window .*, features .*: try it without --bind",
        ),
        ((TensorSpec("x", "INT64", (-1, 4)),), Wishes("a/+"), "INT64.* without --bind"),
        ((TensorSpec("image", "FP32", (-1, 3, 8, 8)),), Wishes("a/+"), "without --bind"),
        ((TensorSpec("x", "FP32", (8, 4)),), Wishes("a/+"), "without --bind"),
        ((TensorSpec("x", "FP32", (-1, -1, 4)),), Wishes("a/+"), "export it with a fixed size"),
    ],
)
def test_a_wish_that_does_not_fit_the_model_says_what_to_change(
    inputs: tuple[TensorSpec, ...], wishes: Wishes, words: str
) -> None:
    with pytest.raises(Untried, match=words):
        planned(inputs, wishes)


@pytest.mark.broker
def test_a_port_that_is_taken_names_the_option_and_nothing_stays(tmp_path: Path) -> None:
    http, mqtt = free_ports(2)
    tryout = planned_real()
    with running(tryout, http, mqtt, lambda text: None):
        other, again = free_ports(2)
        for ports, option in (((http, again), "--port"), ((other, mqtt), "--mqtt-port")):
            with pytest.raises(PortTaken, match=f"set {option}$"), running(tryout, *ports, lambda text: None):
                raise AssertionError("it began")
            assert not listens("127.0.0.1", other)


def test_a_missing_mosquitto_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    http, mqtt = free_ports(2)
    with (
        pytest.raises(NoBroker, match="sudo apt-get install mosquitto") as refused,
        running(planned_real(), http, mqtt, lambda text: None),
    ):
        raise AssertionError("it began")
    assert refused.value.exit_code == 3 and not listens("127.0.0.1", http)


def planned_real() -> Tryout:
    model = graphs.classifier()
    return plan("motion", model, measured(WINDOWS), Wishes("plant/+/vib"))


@pytest.mark.parametrize(
    ("stem", "name"), [("Pump Fault_v2", "pump-fault-v2"), ("__", "model"), ("x" * 80, "x" * 63), ("Ünï", "n")]
)
def test_a_files_name_becomes_a_models_name(stem: str, name: str) -> None:
    assert model_name(stem) == name
