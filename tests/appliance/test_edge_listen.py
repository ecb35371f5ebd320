"""`falaj edge listen`: what payloads are, which level of a topic names the sensor, and that every suggestion is a
binding that the project file takes and that reads what was heard."""

from __future__ import annotations

import json
import shlex
import struct
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.broker import Broker, local_config, write_passwords
from appliance.cli.heard import lines, tried_by
from appliance.core.project_file import read_project
from appliance.demo.fleet import free_ports
from appliance.first_hour.listening import NoAnswer, overhear
from appliance.first_hour.overheard import LARGEST, Look, look
from appliance.first_hour.planning import Wishes
from appliance.first_hour.suggesting import MOST, Overheard, Suggestion, patterns, suggestions, toml, window_toml
from appliance.screen import visible
from appliance.settings import convert
from edge.bindings.payloads import read
from sync.link import Publish
from sync.manifest import Binding
from sync.mqtt import Broker as At
from sync.mqtt import MqttLink
from tests.appliance.running import falaj
from tests.appliance.test_edge_try import planned

NOW = 1_800_000_000.0

PROJECT = """
[contracts.rows.columns]
who = {{ type = "string" }}
at = {{ type = "float64" }}
label = {{ type = "string" }}
{columns}
[sources.rows]
kind = "files"
path = "*.csv"
contract = "rows"
time = "at"

[views.rows]
source = "rows"
entity = "who"
label = "label"
{window}

[models.my-model]
view = "rows"
gates = {{ min_accuracy = 0.5 }}
rollout = {{ canary = ["a"] }}

{binding}
"""


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"ts": 1800000000.5, "ax": 1, "ok": true, "name": "x"}', Look("json", ("ax",), 0, 1, "ts", 1.0, NOW + 0.5)),
        (b'{"a": {"x": 1, "y": {"z": 2}}}', Look("json", ("a.x", "a.y.z"))),
        (b'{"m": {"when": 1800000000500}, "v": 2}', Look("json", ("v",), 0, 1, "m.when", 1e-3, NOW + 0.5)),
        (b'{"t": 7, "v": 2}', Look("json", ("t", "v"))),  # no time of these days
        (b'[{"ts": 1800000000, "v": 1}, {"ts": 1800000001, "v": 2}]', Look("json", ("v",), 0, 2, "ts", 1.0, NOW + 1)),
        (b"[1, 2, 3]", Look("rows", width=3)),
        (b"[[1800000000, 2], [1800000001, 3]]", Look("rows", (), 1, 2, "0", 1.0, NOW + 1)),
        (b"[[1, 2], [3]]", Look("text")),
        (b"17.5", Look("scalar", width=1)),
        (b"+17.5\n", Look("scalar", width=1)),
        (b"1.5,1800000000,2\n", Look("csv", (), 2, 1, "1", 1.0, NOW)),
        (b"1,2\n3,4\n5,6", Look("csv", width=2, rows=3)),
        (b"1,2\n3", Look("text")),
        (floats(0.0, -1.5, 9.81), Look("float32", width=3)),
        (floats(1e30, 1.0), Look("unreadable")),
        (b"on", Look("text")),
        (b'"on"', Look("text")),
        (b"null", Look("text")),
        (b"[]", Look("text")),
        (b"nan", Look("text")),
        (b"", Look("empty")),
        (b"\xff\xfe\x01", Look("unreadable")),
        (b"1" * (LARGEST + 1), Look("unreadable")),
        (b"[" * 5000, Look("text")),
        (b'{"id": "1", "model": "m", "quality": "ok", "ts": 3}', Look("prediction")),
        (b'{"code": "bad-reading", "text": "t", "model": "m", "topic": "t"}', Look("error")),
    ],
)  # fmt: skip
def test_a_payload_is_what_it_is(payload: bytes, found: Look) -> None:
    assert look(payload, NOW) == found


@pytest.mark.parametrize(
    ("topics", "found"),
    [
        (["plant/a/vib", "plant/b/vib", "plant/c/vib"], {"plant/{entity}/vib": 3}),
        (["plant/hall/vib"], {"plant/{entity}/vib": 1}),
        (["s3/plant/hall"], {"{entity}/plant/hall": 1}),
        (["temperature"], {"{entity}": 1}),
        (["h1/a/t", "h1/b/t", "h2/a/t"], {"h1/{entity}/t": 2, "h2/{entity}/t": 1}),
        (["h1/a/t", "h1/b/t", "h2/a/t", "h2/b/t"], {"h1/{entity}/t": 2, "h2/{entity}/t": 2}),
    ],
)
def test_the_level_that_differs_names_the_sensor(topics: list[str], found: dict[str, int]) -> None:
    assert {pattern: len(them) for pattern, them in patterns(topics)} == found


def heard(*messages: tuple[str, bytes], every: float = 0.02, times: int = 4) -> Overheard:
    all_of_it = Overheard()
    for n in range(times):
        for topic, payload in messages:
            all_of_it.hear(topic, payload, False, NOW + n * every)
    all_of_it.seconds = times * every
    return all_of_it


name = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1, max_size=8)
number = st.floats(-1e6, 1e6, width=32)
level = st.text(st.characters(exclude_characters="+#/{}$", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
objects = st.recursive(number, lambda inner: st.dictionaries(name, inner, min_size=1, max_size=3), max_leaves=6).filter(
    lambda found: isinstance(found, dict)
)
times = st.one_of(st.none(), st.sampled_from([1.0, 1e3, 1e6, 1e9]))


@settings(max_examples=50)
@given(found=objects, clock=name, scale=times)
def test_what_is_suggested_for_any_json_reads_it(found: dict[str, Any], clock: str, scale: float | None) -> None:
    document = {**found, clock: NOW * scale} if scale else found
    check_suggestion(json.dumps(document).encode(), timed=scale is not None)


@settings(max_examples=50)
@given(rows=st.lists(st.lists(number, min_size=2, max_size=2), min_size=1, max_size=3), place=st.integers(-1, 2))
def test_what_is_suggested_for_any_table_reads_it(rows: list[list[float]], place: int) -> None:
    given = [[*row[:place], NOW + n, *row[place:]] if place >= 0 else row for n, row in enumerate(rows)]
    check_suggestion(json.dumps(given).encode(), timed=place >= 0)
    check_suggestion("\n".join(",".join(map(repr, row)) for row in given).encode(), timed=place >= 0)


@settings(max_examples=50)
@given(numbers=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
def test_what_is_suggested_for_plain_numbers_reads_them(numbers: list[float]) -> None:
    check_suggestion(repr(numbers[0]).encode(), timed=False)
    if look(floats(*numbers), NOW).kind == "float32":
        check_suggestion(floats(*numbers), timed=False)


def check_suggestion(payload: bytes, *, timed: bool) -> None:
    """The suggestion's own text, read as TOML, is a binding that reads the payload, and finds its time."""
    for one in suggestions(heard(("plant/a/x", payload), ("plant/b/x", payload))):
        binding = parsed(one)
        assert binding == one.binding
        found = read(payload, binding, one.channels)
        assert (found.ts is not None) == timed == binding.timed()
        assert found.ts is None or all(abs(ts - NOW) < 10 for ts in found.ts)
        for row in found.rows:
            assert len(row) == len(one.channels)


def parsed(one: Suggestion) -> Binding:
    given = tomllib.loads(toml(one, "my-model"))["models"]["my-model"]["bindings"][0]
    return convert(Binding, given, "the suggestion")


MESSAGES = [
    ("plant/press-1/vib", json.dumps({"ts": NOW, "ax": 0.1, "ay": 0.2}).encode()),
    ("site/ä b/imu", json.dumps({"when": NOW * 1000, "accel": {"x": 1}, "it's \"": 2}).encode()),
    ("meter/1/power", b"17.5"),
    ("meter/1/csv", f"1.5,{NOW},2".encode()),
    ("meter/1/rows", b"[[1, 2], [3, 4]]"),
    ("mic/raw", floats(0.1, 0.2)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message[0])
def test_the_project_file_takes_every_suggestion(tmp_path: Path, message: tuple[str, bytes]) -> None:
    (one,) = suggestions(heard(message))
    columns = "\n".join(f'{json.dumps(name)} = {{ type = "float32" }}' for name in one.channels)
    file = tmp_path / "falaj.toml"
    file.write_text(PROJECT.format(columns=columns, window=window_toml(one, 100), binding=toml(one, "my-model")))
    model = read_project(file).models
    (binding,) = next(iter(model.values())).bindings
    assert binding == one.binding
    rows = len(read(message[1], binding, one.channels).rows)
    assert one.period == pytest.approx(0.02 / rows) or binding.timed()


def test_the_line_to_try_it_makes_the_same_binding() -> None:
    """What `falaj edge try` makes of the words is what was suggested."""
    for message in MESSAGES:
        (one,) = suggestions(heard(message))
        words = tried_by(one)
        if not words:
            assert one.binding.units or one.binding.columns
            continue
        given = shlex.split(words)
        said = dict(zip(given[::2], given[1::2], strict=True))
        if said.get("--format") == "scalar":
            continue  # the model of this test takes two numbers
        wishes = Wishes(
            said["--bind"], (), tuple(said["--channels"].split(",")), None, said.get("--format", "json"),  # type: ignore[arg-type]
            said.get("--time", "ts"),
        )  # fmt: skip
        assert planned(wishes=wishes).manifest.bindings == (one.binding,)


@pytest.mark.parametrize("topic", ["falaj/local/x/infer/m", "homeassistant/sensor/a/config", "a/{b}/c", "a//b", "a/b/"])
def test_what_is_no_sensors_topic_is_not_suggested(topic: str) -> None:
    assert not suggestions(heard((topic, b"1.5")))
    kept = Overheard()
    kept.hear("plant/a/vib", b"1.5", True, NOW)
    assert not suggestions(kept)  # it was there before: nobody publishes it now


def test_strangers_fill_neither_the_memory_nor_the_screen() -> None:
    all_of_it = heard(*[(f"t/{n}/x", b'{"\xc2\x9b31mred": 1}') for n in range(MOST + 5)], times=2)
    assert len(all_of_it.topics) == MOST and all_of_it.beyond == 10
    text = "\n".join(lines(all_of_it, suggestions(all_of_it), "here"))
    assert "\x1b" not in text and "\x9b" not in text and "more topics" in text
    assert visible("a\x1b[2J\u202eb") == r"a\x1b[2J\u202eb"


# --- with a real broker -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """An agent's folder whose broker runs, with sensors."""
    root = tmp_path_factory.mktemp("edge")
    (port,) = free_ports(1)
    (root / "edge.toml").write_text(f"[local_broker]\nport = {port}\n")
    write_passwords(root / "broker", ("falaj", "app"))
    broker = Broker(root / "broker", "127.0.0.1", port, "x", outlive=False)
    broker.start(local_config(root / "broker", port))
    sensor = MqttLink(At("127.0.0.1", port, "s", user="app", password=(root / "broker" / "app.password").read_text()))
    sensor.start(lambda message: None, lambda up, reason: None)
    assert sensor.wait_until_up(10)
    sensor.publish(Publish("old/state", b"7", retain=True))
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.02):
            for topic, payload in MESSAGES:
                sensor.publish(Publish(topic, payload))

    thread = threading.Thread(target=publish)
    thread.start()
    yield root, port
    ended.set()
    thread.join()
    sensor.stop()
    broker.stop()


@pytest.mark.broker
def test_what_sensors_publish_is_told_and_suggested(box: tuple[Path, int]) -> None:
    root, port = box
    done = falaj("edge", "listen", "--seconds", "1.5", "--dir", str(root), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["broker"] == f"127.0.0.1:{port}"
    assert document["topics"].keys() == {"old/state", *(topic for topic, _ in MESSAGES)}
    old, vib = document["topics"]["old/state"], document["topics"]["plant/press-1/vib"]
    assert (old["messages"], old["retained"]) == (0, 1)
    assert vib["messages"] >= 3 and vib["fields"] == ["ts", "ax", "ay"]  # their clock is wrong: that is no time
    assert len(document["suggestions"]) == len(MESSAGES)


@pytest.mark.broker
def test_an_early_end_is_no_error_and_filters_hold(box: tuple[Path, int]) -> None:
    root, port = box
    at = At("127.0.0.1", port, "", user="app", password=(root / "broker" / "app.password").read_text())
    ended = threading.Event()
    found: list[Overheard] = []
    listener = threading.Thread(target=lambda: found.append(overhear(at, ("meter/#", "mic/+"), 600.0, ended)))
    listener.start()
    ended.wait(0.5)
    ended.set()
    listener.join(20)
    assert found and 0 < found[0].seconds < 600
    assert all(topic.startswith(("meter/", "mic/")) for topic in found[0].topics)


@pytest.mark.broker
def test_a_broker_that_is_not_there_or_refuses_says_what_to_give(box: tuple[Path, int]) -> None:
    _, port = box
    (free,) = free_ports(1)
    with pytest.raises(NoAnswer, match="falaj edge run") as away:
        overhear(At("127.0.0.1", free, ""), ("#",), 1.0, threading.Event())
    assert str(away.value).count(f"127.0.0.1:{free}") == 1
    with pytest.raises(NoAnswer, match=r"Not authorized; give --user and --password-file"):
        overhear(At("127.0.0.1", port, ""), ("#",), 1.0, threading.Event())
    silent = falaj("edge", "listen", "--seconds", "0.2", "--host", "127.0.0.1", "--port", str(free))
    assert silent.returncode == 1 and silent.stderr.startswith("Error: ")
