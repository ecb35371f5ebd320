"""Bindings with all that they may declare, from sensor message to publication, over restarts and floods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.bindings import Bindings
from edge.bindings.telling import note_name
from edge.buffers import NOTES, Buffers
from edge.complaints import ALL_BURST, BURST, TOPICS, Complaints
from edge.runtime import load
from edge.serving import Loaded, Serving
from sync import codec
from sync.bindings import Binding, When
from sync.features import Unit, WindowSpec
from sync.link import Publish
from sync.messages import Prediction
from sync.names import DeviceId
from tests.edge import graphs
from tests.edge.graphs import MODEL, TENANT, manifest

DEVICE = DeviceId("box-1")
NOW = 1_800_000_000.0
RESTS, RUNS = (3.0, 0.0), (-3.0, 3.0)  # readings (x, y) that the graph calls so: see graphs.classifier


class Box:
    """A device whose clock the test turns; what it published, in order."""

    def __init__(self, path: Path, *bindings: Binding, live: bool = True) -> None:
        self.path, self.live, self.now = path, live, NOW
        self.release = manifest(4, bindings)
        self.sent: list[Publish] = []
        self.acks = 0
        self.start()

    def start(self) -> None:
        serving = Serving()
        if self.live:
            data = graphs.classifier()
            serving.put(MODEL, Loaded(load(data), graphs.slot(4, data, self.release)))
        self.buffers = Buffers(self.path, TENANT, bytes(32))
        self.bindings = Bindings(TENANT, DEVICE, serving, self.buffers, self.sent.append, lambda: self.now)
        self.bindings.bind(self.release)

    def cut_power(self) -> None:
        self.buffers._db.close()
        self.start()

    def hear(self, payload: bytes, entity: str = "w1") -> None:
        self.bindings.handle(f"site/{entity}/accel", payload, 1, self._ack)

    def _ack(self) -> None:
        self.acks += 1

    def reading(self, ts: float, xy: tuple[float, float], entity: str = "w1") -> None:
        self.hear(json.dumps({"ts": ts, "x": xy[0], "y": xy[1]}).encode(), entity)

    def told(self, topic: str = "site/w1/motion") -> list[Prediction]:
        return [codec.decode(Prediction, one.payload) for one in self.sent if one.topic == topic]

    def errors(self, entity: str = "w1") -> list[dict[str, Any]]:
        return [json.loads(one.payload) for one in self.sent if one.topic == f"site/{entity}/motion/error"]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "buffers.db"


def binding(**more: Any) -> Binding:
    return Binding("site/{entity}/accel", "site/{entity}/motion", **more)


def test_an_alarm_says_when_it_begins_and_ends(path: Path) -> None:
    when = When(0.8, "run", below=0.5, of=2, within=3)
    box = Box(path, binding(emit="when", when=when))
    for ts in range(40):
        box.reading(float(ts), RUNS if 10 <= ts < 24 else RESTS)
    assert [(p.holds, p.value) for p in box.told()] == [(False, "rest"), (True, "run"), (False, "rest")]
    box.buffers.close()


@pytest.mark.parametrize("killed", range(8, 30, 3))
def test_a_restart_changes_nothing_of_what_is_told(tmp_path: Path, killed: int) -> None:
    """Condition and last word lie with the windows: the same stream tells the same, cut at any place."""
    when = When(0.8, "run", of=3, within=4)
    rules = (
        binding(emit="when", when=when, every=15.0),
        Binding("site/{entity}/accel", "x/{entity}", emit="on-change"),
    )
    whole, broken = Box(tmp_path / "a.db", *rules), Box(tmp_path / "b.db", *rules)
    for box in (whole, broken):
        for ts in range(40):
            if box is broken and ts == killed:
                box.bindings.settle(everything=True)
                box.cut_power()
            box.reading(float(ts), RUNS if 9 <= ts < 26 else RESTS)
        box.buffers.close()
    for topic in ("site/w1/motion", "x/w1"):
        assert broken.told(topic) == whole.told(topic) and len(whole.told(topic)) >= 3


def test_the_declared_answer_stands_where_no_model_is(path: Path) -> None:
    box = Box(path, binding(no_model="unknown"), live=False)
    for ts in range(4):
        box.reading(float(ts), RESTS)
    assert [(p.quality, p.value, p.probabilities) for p in box.told()] == [("no_model", "unknown", ())]
    assert box.bindings.predict(None, "w1").value == "unknown"
    box.buffers.close()


def test_raw_numbers_in_the_sensors_units_become_the_models_windows(tmp_path: Path) -> None:
    """Rows by JSON in the model's units, and the same rows raw in the sensor's, lead to the same answers."""
    plain = Box(tmp_path / "a.db", binding())
    raw = Box(tmp_path / "b.db", binding(format="float32", columns=("y", "", "x"), units={"x": Unit(0.5, 1.0)}))
    for ts in range(0, 8, 2):
        sensed = np.array([[ts % 3, 9, ts], [1, 9, ts + 1]], "<f4")
        for i, (y, _, x) in enumerate(sensed.tolist()):
            plain.reading(NOW + ts + i, (x * 0.5 + 1.0, y))
        raw.now = NOW + ts + 1
        raw.hear(sensed.tobytes())
    assert raw.told() == plain.told() and [p.quality for p in raw.told()] == ["ok"] * 3
    for box in (plain, raw):
        box.buffers.close()


def test_a_clock_that_is_put_back_does_not_silence_what_arrival_times(path: Path) -> None:
    """A box that once believed itself to be years ahead must not drop every reading until then."""
    box = Box(path, binding(format="float32"))
    for years in (3, 0):
        box.now = NOW + years * 31_536_000
        for _ in range(4):
            box.now += 1
            box.hear(np.array([RESTS], "<f4").tobytes())
        box.cut_power() if years else None
    assert [p.quality for p in box.told()] == ["ok", "ok"] and box.told()[1].ts == box.now
    box.buffers.close()


def test_complaints_about_one_sensor_are_limited_and_the_rest_is_counted(path: Path) -> None:
    box = Box(path, binding())
    for _ in range(1000):
        box.hear(b"junk")
    assert len(box.errors()) == BURST and box.acks == 1000, "each is acknowledged all the same"
    box.reading(0.0, RESTS, "w2")
    box.hear(b"junk", "w2")
    assert len(box.errors("w2")) == 1, "another sensor is heard"
    box.now += 60
    box.hear(b"junk")
    assert box.errors()[-1]["suppressed"] == 1000 - BURST
    assert all(error["suppressed"] == 0 for error in box.errors()[:-1])
    box.buffers.close()


def test_no_byte_of_a_payload_is_on_the_error_topic(path: Path) -> None:
    box = Box(path, binding())
    for secret in (b"canary-7", b'{"ts": "canary-7"}', b'{"ts": 1, "x": "canary-7"}', b'{"canary-7": [1,'):
        box.hear(secret)
    assert len(box.errors()) == 4 and not any(b"canary-7" in one.payload for one in box.sent)
    box.buffers.close()


def test_whoever_invents_sensors_does_not_flood_the_error_topics() -> None:
    complaints = Complaints()
    admitted = sum(complaints.admit(f"site/{i}/error", NOW) is not None for i in range(10 * TOPICS))
    assert admitted == ALL_BURST and len(complaints._topics) == TOPICS
    assert complaints.admit("site/w1/error", NOW + 60) == 0
    assert complaints.admit("site/w1/error", 5.0) == 0, "a clock that was put back silences nobody"


def test_notes_of_an_entity_are_few_and_go_with_its_windows(path: Path) -> None:
    box = Box(path, binding())
    box.reading(0.0, RESTS)
    for i in range(NOTES + 5):
        box.buffers.put_note(MODEL, "w1", str(i), b"x")
    assert box.buffers.note(MODEL, "w1", "0") is None and box.buffers.note(MODEL, "w1", str(NOTES + 4)) == b"x"
    box.buffers.checkpoint()
    box.cut_power()
    assert box.buffers.note(MODEL, "w1", "20") is None, "not before the entity is heard again"
    box.reading(1.0, RESTS)
    assert box.buffers.note(MODEL, "w1", str(NOTES + 4)) == b"x"
    box.buffers.restart(MODEL, "w1")
    box.reading(2.0, RESTS)
    assert box.buffers.note(MODEL, "w1", str(NOTES + 4)) is None
    box.buffers.close()


def test_bindings_with_one_output_and_two_rules_do_not_undo_each_other(path: Path) -> None:
    """Else each sees the other's last word, takes it for a change, and tells every prediction."""
    changes, alarm = binding(emit="on-change"), binding(emit="when", when=When(0.8, "run"))
    box = Box(path, changes, alarm)
    for ts in range(40):
        box.reading(float(ts), RUNS if 10 <= ts < 24 else RESTS)
    alone = {}
    for name, one in (("changes", changes), ("alarm", alarm)):
        single = Box(path.with_name(name), one)
        for ts in range(40):
            single.reading(float(ts), RUNS if 10 <= ts < 24 else RESTS)
        alone[name] = single.told()
        single.buffers.close()
    assert sorted(box.told(), key=repr) == sorted([*alone["changes"], *alone["alarm"]], key=repr)
    box.buffers.close()


def test_bindings_with_one_output_and_one_rule_tell_a_change_once(path: Path) -> None:
    """Two topics of a sensor, one word about it."""
    box = Box(path, binding(emit="on-change"), Binding("site/{entity}/+", "site/{entity}/motion", emit="on-change"))
    for ts in range(8):
        box.reading(float(ts), RESTS)
    assert len(box.told()) == 1
    box.buffers.close()


def test_what_another_version_noted_makes_an_entity_new_and_breaks_nothing(path: Path) -> None:
    changes = binding(emit="on-change")
    box = Box(path, changes)
    for ts in range(4):
        box.reading(float(ts), RESTS)
    box.buffers.put_note(MODEL, "w1", note_name(changes), b"\xc1")
    for ts in range(4, 8):
        box.reading(float(ts), RESTS)
    assert [p.ts for p in box.told()] == [3.0, 5.0]
    box.buffers.forget(MODEL)
    box.buffers.put_note(MODEL, "w1", "late", b"x")
    box.buffers.close()


def test_a_long_topic_is_not_repeated_at_length(path: Path) -> None:
    box = Box(path, Binding("site/{entity}/+", "site/{entity}/motion"))
    box.bindings.handle("site/w1/" + "x" * 60_000, b"junk", 1, lambda: None)
    assert len(box.errors()[0]["topic"]) == 512
    box.buffers.close()


@pytest.mark.parametrize("far", [-1e308, 1e308])
def test_a_reading_from_the_end_of_time_does_not_end_the_stream(path: Path, far: float) -> None:
    box = Box(path, binding())
    box.release = manifest(4, (binding(),), window=WindowSpec(4, 2, 0.5, ("x", "y"), 2.0))
    box.bindings.bind(box.release)
    box.now = 5.0  # a clock that was never set refuses nothing
    for ts in (0.0, far):
        box.reading(ts, RESTS, "bad")
    for ts in range(4):
        box.reading(ts / 2, RESTS)
    assert [p.quality for p in box.told()] == ["ok"]
    box.bindings.settle(everything=True)
    assert box.acks == 6
    box.buffers.close()


def test_a_message_full_of_gaps_is_refused_with_a_word(path: Path) -> None:
    box = Box(path, binding())
    box.release = manifest(4, (binding(),), window=WindowSpec(4, 1, 1.0, ("x", "y"), 60.0))
    box.bindings.bind(box.release)
    box.hear(json.dumps([{"ts": ts * 50.0, "x": 1, "y": 1} for ts in range(1000)]).encode())
    (error,) = box.errors()
    assert error["code"] == "bad-reading" and "windows" in error["text"]
    assert not box.told() and box.acks == 1
    box.buffers.close()
