"""Topic bindings from sensor message to prediction document, with a real graph and real buffers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_bytes

import numpy as np
import pytest

from edge.bindings import BadReading, Bindings, conclude, entity_of, prediction_id, read
from edge.bindings.payloads import Readings
from edge.buffers import UNACKED_S, UNWRITTEN_S, Buffers
from edge.runtime import load
from edge.states import CLOCK_FLOOR
from sync.features import WindowSpec
from sync.link import Publish
from sync.manifest import Binding
from tests.edge import graphs
from tests.edge.bound import BINDING, DEVICE, Box
from tests.edge.graphs import MODEL, TENANT, manifest


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "buffers.db")
    yield box
    box.buffers.close()


def test_windows_become_predictions_with_class_probabilities_and_release(box: Box) -> None:
    box.go_live(manifest(4, (BINDING,)))
    for ts in range(6):
        box.send(float(ts))
    first, second = box.predictions()
    assert (first.ts, second.ts) == (3.0, 5.0)
    assert (first.quality, first.release, first.entity, first.classes) == ("ok", 4, "w1", graphs.CLASSES)
    rows = np.array([[np.sin(t), np.cos(t)] for t in range(4)], np.float32)
    expected = load(graphs.classifier()).run({"window": rows[np.newaxis]})["probabilities"][0]
    assert first.probabilities == tuple(expected.tolist())
    assert first.value == graphs.CLASSES[int(expected.argmax())]


def test_a_batch_of_readings_gives_the_same_documents_as_one_by_one(tmp_path: Path) -> None:
    singly, batched = Box(tmp_path / "a.db"), Box(tmp_path / "b.db")
    readings = [{"ts": float(t), "x": float(np.sin(t)), "y": float(np.cos(t))} for t in range(9)]
    for box in (singly, batched):
        box.go_live(manifest(1, (BINDING,)))
    for reading in readings:
        singly.send(reading["ts"], payload=json.dumps(reading).encode())
    for part in (readings[:1], readings[1:7], readings[7:]):
        batched.send(part[-1]["ts"], payload=json.dumps(part).encode())
    assert batched.predictions() == singly.predictions() and len(singly.predictions()) == 3
    batched.send(9.0, payload=json.dumps([{"ts": 9.0, "x": 1.0, "y": 1.0}, {"ts": 10.0}]).encode())
    assert len(batched.errors()) == 1  # whole or not at all
    batched.send(9.0, payload=b"[]")
    assert "1 to 1000" in batched.errors()[1]["text"]


def test_nothing_is_checkpointed_before_the_broker_has_every_prediction(tmp_path: Path) -> None:
    """A kill in between must leave a checkpoint that does not know the rows: the window comes out again."""
    box = Box(tmp_path / "buffers.db")
    heard = False
    box.bindings = Bindings(TENANT, DEVICE, box.serving, box.buffers, box._publish, settled=lambda: heard)
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(4):
        box.send(float(ts))
    assert [what for what, _ in box.log] == ["site/w1/motion"], "published, not acknowledged"
    box.bindings.settle()
    assert len(box.log) == 1
    lost = Box(tmp_path / "buffers.db")
    lost.go_live(manifest(1, (BINDING,)))
    for ts in range(4):
        lost.send(float(ts))
    assert [p.id for p in lost.predictions()] == [p.id for p in box.predictions()]
    heard = True
    box.bindings.settle()
    assert [what for what, _ in box.log] == ["site/w1/motion", "ack", "ack", "ack", "ack"]


def test_a_stream_that_falls_silent_is_acknowledged(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    box.send(0.0)
    assert box.log == []
    box.bindings.settle(everything=True)
    assert box.log == [("ack", 0.0)]


def test_looks_four_times_a_second_write_a_stream_every_few_seconds(tmp_path: Path) -> None:
    """A checkpoint writes the whole ring, and flash wears out: here one row a second, and windows that do not end."""
    box, seconds = Box(tmp_path / "buffers.db"), 0.0
    nonces: list[bytes] = []

    def fresh(length: int) -> bytes:
        nonces.append(token_bytes(length))
        return nonces[-1]

    box.buffers.close()
    box.buffers = Buffers(box.path, TENANT, bytes(32), nonces=fresh, ticks=lambda: seconds)
    box.bindings = Bindings(TENANT, DEVICE, box.serving, box.buffers, box._publish)
    box.go_live(manifest(1, (BINDING,), window=WindowSpec(1_000, 1_000, 1.0, ("x", "y"), 2.0)))
    for look in range(4 * 60):
        seconds = look / 4
        if not look % 4:
            box.send(seconds)
        box.bindings.settle()
    assert len(nonces) == 60 // (UNACKED_S + 1), "one write for all that wait"
    assert len(box.log) >= 60 - UNACKED_S, "and nobody waits for longer"
    seconds += UNACKED_S
    box.bindings.settle()
    assert [ts for _, ts in box.log] == [float(ts) for ts in range(60)]


def test_rows_nobody_waits_for_are_written_too(tmp_path: Path) -> None:
    box, seconds = Box(tmp_path / "buffers.db"), 0.0
    box.buffers.close()
    box.buffers = Buffers(box.path, TENANT, bytes(32), ticks=lambda: seconds)
    box.bindings = Bindings(TENANT, DEVICE, box.serving, box.buffers, box._publish)
    box.go_live(manifest(1, (BINDING,)))
    box.send(0.0, qos=0)
    for later, written in ((0.0, 0), (UNWRITTEN_S - 1, 0), (UNWRITTEN_S, 1)):
        seconds = later
        box.bindings.settle()
        assert box.buffers._db.execute("SELECT count(*) FROM checkpoints").fetchone()[0] == written
    box.buffers.close()


def test_a_question_waits_for_no_message(tmp_path: Path) -> None:
    """HTTP asks on its one loop: a message that takes long, or a broker that does, must not hold up every door."""
    box, stuck, go_on = Box(tmp_path / "buffers.db"), threading.Event(), threading.Event()

    def publish(message: Publish) -> None:
        stuck.set()
        assert go_on.wait(60)

    box.bindings = Bindings(TENANT, DEVICE, box.serving, box.buffers, publish)
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(3):
        box.send(float(ts))
    with ThreadPoolExecutor() as others:
        message = others.submit(box.send, 3.0)
        assert stuck.wait(60)
        asked = others.submit(box.bindings.predict, None, "w1")
        try:
            assert asked.result(30).quality == "ok"
        finally:
            go_on.set()
        message.result(60)
    box.buffers.close()


def test_the_order_is_publish_then_checkpoint_then_acknowledge(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(4):
        box.send(float(ts))
    assert [what for what, _ in box.log] == ["site/w1/motion", "ack", "ack", "ack", "ack"]


@pytest.mark.parametrize("killed_after", range(1, 10))
def test_a_kill_and_redelivery_repeat_predictions_under_the_same_ids(tmp_path: Path, killed_after: int) -> None:
    whole = Box(tmp_path / "whole.db")
    broken = Box(tmp_path / "broken.db")
    for box in (whole, broken):
        box.go_live(manifest(1, (BINDING,)))
    for ts in range(10):
        whole.send(float(ts))
    for ts in range(killed_after):
        broken.send(float(ts))
    broken.buffers._db.close()
    broken.start()
    broken.bindings.bind(manifest(1, (BINDING,)))
    acked = {ts for what, ts in broken.log if what == "ack"}
    for ts in range(10):
        if ts not in acked:
            broken.send(float(ts))
    assert {p.id: p for p in broken.predictions()} == {p.id: p for p in whole.predictions()}
    for box in (whole, broken):
        box.buffers.close()


def test_a_kill_between_publishing_and_checkpoint_repeats_the_same_document(tmp_path: Path) -> None:
    box = Box(tmp_path / "b.db")
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(3):
        box.send(float(ts))
    box.buffers._db.execute("PRAGMA query_only = ON")  # the last instant before a kill: published, not written
    box.send(3.0)
    box.buffers._db.close()
    box.start()
    box.bindings.bind(manifest(1, (BINDING,)))
    for ts in range(4):
        box.send(float(ts))
    first, again = box.predictions()
    assert first == again
    box.buffers.close()


def test_a_window_with_a_hole_is_warming(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    for ts in (0.0, 1.0, 3.0):
        box.send(ts)
    (only,) = box.predictions()
    assert (only.quality, only.value, only.probabilities, only.release) == ("warming", None, (), None)


def test_without_a_live_model_the_stream_goes_on_and_says_so(box: Box) -> None:
    box.bindings.bind(manifest(1, (BINDING,)))
    for ts in range(4):
        box.send(float(ts))
    assert [p.quality for p in box.predictions()] == ["no_model"]
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(4, 6):
        box.send(float(ts))
    assert [p.quality for p in box.predictions()] == ["no_model", "ok"]


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"junk", b"[1]", b"\xff", b"{}", b'{"ts": 1, "x": 1}', b'{"ts": "1", "x": 1, "y": 1}',
        b'{"ts": 1, "x": true, "y": 1}', b'{"ts": 1, "x": null, "y": 1}', b'{"ts": 1, "x": 1e39, "y": 1}',
        b'{"ts": 1, "x": NaN, "y": 1}', b'{"ts": 1e999, "x": 1, "y": 1}', b'{"a":' * 5000, b" " * 70_000,
    ],
)  # fmt: skip
def test_a_bad_payload_is_answered_acknowledged_and_forgotten(box: Box, payload: bytes) -> None:
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(2):
        box.send(float(ts))
    box.send(99.0, payload=payload)
    for ts in range(2, 4):
        box.send(float(ts))
    (error,) = box.errors()
    assert (error["code"], error["entity"], error["topic"]) == ("bad-reading", "w1", "site/w1/accel")
    assert [p.quality for p in box.predictions()] == ["ok"]
    assert [topic for topic, _ in box.log[:2]] == ["site/w1/motion/error", "site/w1/motion"]
    assert box.log[2:] == [("ack", ts) for ts in (0.0, 1.0, 99.0, 2.0, 3.0)], "in the order in which they came"


def test_a_bad_payload_before_which_nothing_waits_is_acknowledged_at_once(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    box.send(99.0, payload=b"junk")
    assert box.log[-1] == ("ack", 99.0)


def test_a_question_is_acknowledged_after_the_readings_before_it(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    box.send(0.0)
    box.bindings.follow(lambda: box.log.append(("ack", "question")))
    assert box.log == []
    for ts in range(1, 4):
        box.send(float(ts))
    assert [what for topic, what in box.log if topic == "ack"] == [0.0, "question", 1.0, 2.0, 3.0]
    box.bindings.follow(lambda: box.log.append(("ack", "another")))
    assert box.log[-1] == ("ack", "another")


def test_a_model_that_fails_abstains_and_says_why(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,), classes=("a", "b")))  # the graph gives three numbers
    for ts in range(4):
        box.send(float(ts))
    assert [p.quality for p in box.predictions()] == ["abstain"]
    assert [e["code"] for e in box.errors()] == ["bad-output"]
    assert box.errors()[0]["ts"] == 3.0


def test_entities_have_windows_of_their_own(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    for ts in range(4):
        box.send(float(ts), "a")
        box.send(float(ts) + 0.5, "b")
    assert {(p.entity, p.ts) for p in box.predictions()} == {("a", 3.0), ("b", 3.5)}


def test_on_change_keeps_quiet_while_nothing_changes(box: Box) -> None:
    box.go_live(manifest(1, (Binding(BINDING.topic, BINDING.output, emit="on-change"),)))
    for ts in range(20):
        payload = json.dumps({"ts": ts, "x": 1.0 if ts < 12 else -5.0, "y": 0.0}).encode()
        box.send(float(ts), payload=payload)
    values = [p.value for p in box.predictions()]
    assert len(values) == 2 and len(set(values)) == 2


def test_two_bindings_on_one_topic_share_the_window_and_both_answer(box: Box) -> None:
    box.go_live(manifest(1, (BINDING, Binding(BINDING.topic, "copy/{entity}/motion"))))
    for ts in range(4):
        box.send(float(ts))
    assert [topic for topic, _ in box.log[:2]] == ["site/w1/motion", "copy/w1/motion"]
    assert box.log[0][1] == box.log[1][1]


def test_qos_0_is_acknowledged_at_once(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    box.send(0.0, qos=0)
    assert box.log == [("ack", 0.0)]


def test_topics_of_nobody_are_acknowledged_and_ignored(box: Box) -> None:
    box.bindings.handle("other/topic", b"{}", 1, lambda: box.log.append(("ack", 0)))
    assert box.log == [("ack", 0)]


def test_subscriptions_are_filters_each_once(box: Box) -> None:
    other = Binding("b/+/{entity}", "o")
    box.bindings.bind(manifest(1, (BINDING, Binding(BINDING.topic, "x"), other)))
    assert box.bindings.subscriptions() == ("b/+/+", "site/+/accel")
    box.bindings.unbind(MODEL)
    assert box.bindings.subscriptions() == ()
    box.bindings.bind(manifest(1, (BINDING,), window=None))
    assert box.bindings.subscriptions() == ()


def test_a_reading_from_the_far_future_is_refused_if_the_clock_is_set(tmp_path: Path) -> None:
    built = CLOCK_FLOOR - 2.5 * 365 * 86_400.0  # a box without a battery wakes when its system was built, not in 1970
    for now, refused in ((CLOCK_FLOOR + 1.0, True), (built, False), (5.0, False)):
        box = Box(tmp_path / f"{now}.db", now)
        box.go_live(manifest(1, (BINDING,)))
        box.send(4_000_000_000.0)
        assert bool(box.errors()) is refused
        box.buffers.close()


def test_an_entity_name_has_a_limit(box: Box) -> None:
    box.go_live(manifest(1, (BINDING,)))
    box.send(0.0, "e" * 200)
    assert "128" in box.errors()[0]["text"]


def test_pure_parts() -> None:
    assert entity_of("a/{entity}/b", "a/x/b") == "x"
    assert entity_of("a/{entity}/b", "a/x/c") is None
    assert entity_of("a/{entity}", "a/x/y") is None
    assert read(b"""{"t": 5, "x": 1, "y": 2.5}""", Binding("a", "b", "t"), ("x", "y")) == Readings([5.0], [(1.0, 2.5)])
    with pytest.raises(BadReading, match="'y'"):
        read(b"""{"t": 5, "x": 1}""", Binding("a", "b", "t"), ("x", "y"))
    number = prediction_id(TENANT, DEVICE, MODEL, "w1", 3.0)
    assert len(number) == 32 and number == prediction_id(TENANT, DEVICE, MODEL, "w1", 3.0)
    assert number != prediction_id(TENANT, DEVICE, MODEL, "w2", 3.0)
    assert conclude({"y": np.array([[0.25]], np.float32)}, ()) == (0.25, ())
    assert conclude({"y": np.array([[1, 3, 3]])}, ("a", "b", "c")) == ("b", (1.0, 3.0, 3.0))


def test_nobody_waits_for_an_answer_to_settle_what_others_led_to(box: Box) -> None:
    """The walker settles too: a release that hangs on a message must not keep it from judging that release."""
    box.go_live(manifest(4, (BINDING,)))
    box.send(0.0)
    said = []

    def publish(message: Publish) -> None:  # in the middle of answering
        walker = threading.Thread(target=box.bindings.settle, kwargs={"everything": True}, daemon=True)
        walker.start()
        walker.join(30)
        said.append(walker.is_alive())

    box.bindings = Bindings(TENANT, DEVICE, box.serving, box.buffers, publish)
    box.bindings.bind(manifest(4, (BINDING,)))
    for ts in range(1, 4):
        box.send(float(ts))
    assert said == [False]
    assert ("ack", 0.0) in box.log, "and whoever answered settled after it"
