"""A device's rooms, composed: what is predicted reaches ring, trial and road, and the road ends in the outbox."""

from __future__ import annotations

import base64
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from appliance.edge.rooms import BEHIND, CHECKPOINT, FORGET, SLICE, WAITING, Rooms, open_house, open_rooms
from appliance.edge.state import EdgeFolder
from appliance.keys import TenantKeys
from edge.agent import House, Identity
from edge.agent.ports import Outside
from edge.budget import DAY
from edge.outbox import Outbox
from edge.predictions import AGE, Choice, Predictions, Refusal
from edge.ring import LOT
from edge.road import PAUSE
from edge.routing import Routes
from edge.runtime import load
from edge.serving import Answer, Loaded, Serving
from edge.states import Deployment, Phase
from edge.telemetry import KEEP_EVERY
from edge.trials import LATE
from sync import codec, samples
from sync.manifest import Drift, Uplink
from sync.messages import SAMPLE, Assignment, Gates, Prediction, Record, SampleBatch
from sync.names import DeviceId, Digest, Kind
from sync.remembered import Remembered
from tests.edge import graphs
from tests.edge.graphs import CLASSES, MODEL, TENANT

DEVICE = DeviceId("box-1")
SECRET = X25519PrivateKey.generate()
KEY = base64.b64encode(SECRET.public_key().public_bytes_raw()).decode()
OWN = Identity(TENANT, DEVICE, 1, b"", b"", b"")
START = 1_790_000_000.0
UPLINK = Uplink("labelled")
EVERY = Choice(MODEL, (1,), labelled=False)


@dataclass
class Box:
    """One device without a walker: its rooms, its house, and a release that serves."""

    root: Path
    now: float = START
    ahead: float = 0.0  # seconds by which somebody set the clock
    slept: float = 0.0  # seconds for which the box was suspended
    told: list[str] = field(default_factory=list)

    def open(self) -> Box:
        folder, keys = EdgeFolder(self.root), TenantKeys(TENANT, bytes(32))
        self.rooms: Rooms = open_rooms(
            folder, OWN, keys, lambda: self.now, lambda *_: None, lambda code, text: self.told.append(code),
            ticks=lambda: self.now - self.ahead - self.slept, elapsed=lambda: self.now - self.ahead,
        )  # fmt: skip
        self.house: House = open_house(folder, OWN, Serving(), "boot-1", Outside(), self.rooms)
        self.serve(Phase.STEADY)
        self.house.assignment = Assignment(TENANT, DEVICE, 1, 1, START, START + 1e6, {}, KEY)
        return self

    def serve(self, phase: Phase) -> None:
        slot = graphs.slot(1, of=replace(graphs.manifest(1), uplink=UPLINK, drift=Drift()))
        self.house.deployments[MODEL] = Deployment(MODEL, phase, START, serving=slot)

    def close(self) -> None:
        self.rooms.close()
        self.house.outbox.close()
        self.house.journal.close()

    def predict(self, number: int, label: str | None = CLASSES[0]) -> Prediction:
        window = graphs.windows(1, seed=number)["window"][0]
        value, odds = CLASSES[1], tuple(np.full(len(CLASSES), 1 / len(CLASSES)).tolist())
        said = Prediction(f"{number:032x}", MODEL, START + 100 * number, "ok", value, odds, CLASSES, "w1", 1)
        self.rooms.remember(said, window)
        if label is not None:
            self.rooms.label(said.id, label)
        return said

    def tick(self) -> None:
        self.now += PAUSE
        self.rooms.tick(self.house, self.now)

    def arrived(self) -> list[int]:
        """The predictions in the outbox, as the tenant reads them."""
        found = []
        for kind, _, document in self.house.outbox.pending(1000):
            if kind == SAMPLE:
                batch = codec.decode(SampleBatch, bytes(codec.decode(Record, document).body))
                sealed = base64.b64decode(batch.sealed)
                opened = samples.unseal(sealed, TENANT, DEVICE, SECRET.private_bytes_raw())
                found += [int(one.id, 16) for one in opened.samples]
        return found


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    found = Box(tmp_path / "box").open()
    yield found
    found.close()


def test_labelled_predictions_reach_the_outbox_once_also_over_a_restart(box: Box) -> None:
    box.predict(1)
    box.predict(2, label=None)
    box.tick()
    box.tick()
    box.close()
    box.open()
    box.tick()
    assert box.arrived() == [1] and box.told == []
    road = box.house.evidence.road(MODEL)
    assert road is not None and (road.policy, road.sent, road.held_back) == ("labelled", 1, 0)


def test_what_the_outbox_did_not_take_goes_later(box: Box) -> None:
    box.predict(1)
    box.house.outbox._db.execute("PRAGMA query_only = ON")
    box.tick()
    box.house.outbox._db.execute("PRAGMA query_only = OFF")
    assert box.arrived() == []
    box.house.disk.works()  # as the walker finds out
    box.tick()
    assert box.arrived() == [1]


class Unreadable(Outbox):
    """An outbox on a medium that does not even give what lies on it."""

    def waiting(self, kind: Kind) -> int:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error


def test_a_disk_that_gives_nothing_keeps_everything_here_and_ends_nothing(box: Box) -> None:
    box.predict(1)
    sound, box.house.outbox = box.house.outbox, Unreadable(box.root / "other.db", 1, "boot-1")
    box.tick()
    assert box.house.disk.reason == "disk I/O error"
    box.house.outbox.close()
    box.house.outbox = sound
    box.tick()
    assert box.arrived() == [], "not before the walker has seen it work"
    box.house.disk.works()
    box.tick()
    assert box.arrived() == [1]


@pytest.mark.parametrize(
    ("phase", "goes"),
    [
        (Phase.STEADY, True),
        (Phase.SHADOW, True),
        (Phase.PROBATION, True),
        (Phase.FETCHING, False),
        (Phase.REVERTING, False),
        (Phase.NO_MODEL, False),
    ],
)
def test_the_road_is_open_while_a_release_serves_in_peace(box: Box, phase: Phase, goes: bool) -> None:
    box.serve(phase)
    box.predict(1)
    box.tick()
    assert box.arrived() == ([1] if goes else [])


def test_nothing_goes_before_an_assignment_names_the_tenants_key(box: Box) -> None:
    box.predict(1)
    known, box.house.assignment = box.house.assignment, None
    box.tick()
    assert known is not None
    box.house.assignment = replace(known, tenant_key="")
    box.tick()
    assert box.arrived() == [] and box.told == []
    box.house.assignment = known
    box.tick()
    assert box.arrived() == [1]


def test_an_outbox_that_nobody_empties_is_not_flooded(box: Box) -> None:
    for number in range(1, 2 * WAITING):
        box.predict(number)
        box.tick()
    assert box.house.outbox.waiting(SAMPLE) == WAITING + 1
    box.house.outbox.acknowledged(SAMPLE, 1, WAITING + 1)
    box.tick()
    assert box.arrived() == list(range(WAITING + 2, 2 * WAITING)), "all that waited, in one batch"


def test_an_outbox_that_refuses_costs_one_batch_of_the_budget(box: Box) -> None:
    box.predict(1)
    box.house.outbox._db._db.execute("PRAGMA query_only = ON")
    box.tick()
    assert box.house.disk.reason and box.house.outbox.dropped() == 1
    spent = box.rooms.budget.spent(MODEL, int(box.now // DAY))
    for _ in range(5):
        box.tick()
    assert 0 < box.rooms.budget.spent(MODEL, int(box.now // DAY)) == spent


def test_a_label_reaches_ring_and_trial_and_a_typo_neither(box: Box) -> None:
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("labels"), 0)
    said = box.predict(1, label=None)
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and trial.pairs == 1
    assert box.house.evidence.label(said.id, "wlak") is Refusal.UNKNOWN_LABEL
    assert box.house.evidence.label("f" * 32, CLASSES[0]) is Refusal.UNKNOWN_ID
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and trial.labels == 0 and box.house.evidence.labelled(MODEL, 1) is None
    assert box.house.evidence.label(said.id, CLASSES[0]) is None
    trial, ring = box.house.evidence.trials.report(MODEL), box.house.evidence.labelled(MODEL, 1)
    assert trial is not None and trial.labels == 1 and ring is not None and ring.labels == 1


def test_a_label_that_the_ring_forgot_is_still_taken_by_the_trial_that_waits_for_it(box: Box) -> None:
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("labels"), 0)
    said = box.predict(1, label=None)
    box.rooms.predictions._db.execute("DELETE FROM prediction")
    assert box.house.evidence.label(said.id, "wlak") is Refusal.UNKNOWN_ID
    assert box.house.evidence.label(said.id, CLASSES[0]) is None
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and (trial.labels, trial.waiting) == (1, 0)
    assert box.house.evidence.label(said.id, CLASSES[0]) is Refusal.UNKNOWN_ID, "it has it, and nobody else wants it"


def test_whoever_answers_waits_for_no_release_beside_it_and_what_waits_is_bounded(box: Box) -> None:
    calls: list[Callable[[], None]] = []
    box.rooms.later = calls.append
    box.predict(1)
    assert calls == [], "no trial, nothing to do"
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("labels", shadow_share=1.0), 0)  # on a busy machine, too
    for number in range(2, BEHIND + 5):
        box.predict(number)  # labelled at once, faster than it is paired
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and trial.pairs == 0 and len(calls) == BEHIND and box.told == ["trial-behind"]
    for call in calls:
        call()
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and trial.pairs == trial.labels == BEHIND
    box.predict(BEHIND + 5)
    assert len(calls) == BEHIND + 1, "there is room again"


class Meeting(Predictions):
    """A ring in which no label is heard before two threads have come with one, or nobody comes any more."""

    def meet(self) -> None:
        self.together = threading.Barrier(2)

    def hear(self, prediction_id: str, label: str) -> Remembered | Refusal | None:
        self.together.wait(60)
        return super().hear(prediction_id, label)


def test_one_label_from_two_threads_counts_once_for_its_split(box: Box) -> None:
    box.rooms.predictions.close()
    key = TenantKeys(TENANT, bytes(32)).derive("predictions")
    ring = Meeting(EdgeFolder(box.root).predictions, TENANT, key, os.urandom, lambda: box.now, lambda *_: None)
    box.rooms.predictions = ring
    box.rooms.outcomes.open(Digest("5" * 64), Routes(MODEL, "seed", 1), 20, START)
    said = [box.predict(number, label=None) for number in range(1, 6)]
    ring.meet()
    with ThreadPoolExecutor(2) as threads:
        for one in said:
            told = [threads.submit(box.rooms.label, one.id, CLASSES[0]) for _ in range(2)]
            assert [each.result() for each in told] == [None, None]
    books, _ = box.rooms.outcomes.found(MODEL)
    assert (books[1].labels, books[1].right) == (len(said), 0)


def test_what_is_a_day_old_is_forgotten_at_the_start_and_while_nothing_is_asked(box: Box) -> None:
    old, told = box.predict(1, label=None), box.predict(2)
    box.tick()
    box.now += AGE + 1
    box.close()
    box.open()
    new = box.predict(3, label=None)
    box.tick()
    found = [one.prediction.id for one in box.rooms.predictions.said()]
    assert found == [told.id, new.id] and old.id not in found
    box.now += AGE + 1
    box.tick()
    assert [one.prediction.id for one in box.rooms.predictions.said()] == [told.id]


def test_a_clock_that_cannot_be_right_forgets_nothing(box: Box) -> None:
    """Never set, or well behind what was signed last: nobody can tell what is old."""
    said = box.predict(1, label=None)
    box.now = 3 * AGE  # a box without a battery counts from 1970
    during = box.predict(2, label=None)
    box.house.time.signed = START + 3 * AGE  # somebody's folder brought the time: it is still not the machine's
    box.rooms.tick(box.house, box.house.time.at(box.now))
    assert box.house.time.unset and len(box.rooms.predictions.said()) == 2
    box.house.time.unset = False
    box.house.journal.set_counter("signed_time", int(START + 9 * AGE))
    box.rooms.tick(box.house, START + 3 * AGE)
    assert len(box.rooms.predictions.said()) == 2, "it is behind"
    box.rooms.tick(box.house, START + 9 * AGE)
    assert [one.prediction.id for one in box.rooms.predictions.said()] == [during.id], "its day begins now"
    assert box.rooms.predictions.find(said.id) is None


def test_a_clock_that_is_ahead_empties_no_ring(box: Box) -> None:
    said = box.predict(1, label=None)
    box.tick()
    box.now, box.ahead = box.now + 700 * AGE, 700 * AGE
    for _ in range(4):
        box.tick()
        assert box.rooms.predictions.find(said.id) is not None
        box.now += FORGET
    box.now, box.ahead = box.now - 700 * AGE, 0.0
    box.tick()
    assert box.rooms.predictions.find(said.id) is not None
    box.now += AGE + 1
    box.tick()
    assert box.rooms.predictions.find(said.id) is None


def test_a_box_that_was_suspended_knows_what_is_old_and_nothing_was_late_meanwhile(box: Box) -> None:
    said = box.predict(1, label=None)
    box.tick()
    box.now, box.slept = box.now + AGE + 1, AGE + 1
    box.tick()
    assert box.rooms.predictions.find(said.id) is None, "a resume is no jump of the clock"
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("labels"), 0)
    box.rooms.trials._trials[MODEL].asked = box.now - box.ahead - box.slept
    box.now, box.slept = box.now + AGE, box.slept + AGE
    assert box.rooms.trials.health(MODEL).errors == 0, "who was asked had no time to answer"
    box.now += LATE
    assert box.rooms.trials.health(MODEL).errors == 1


def test_a_start_with_a_clock_beyond_all_that_was_signed_forgets_nothing(box: Box) -> None:
    said = box.predict(1, label=None)
    assert box.house.assignment is not None
    box.close()
    box.now = box.house.assignment.expires + 1
    box.open()
    box.tick()
    assert box.rooms.predictions.find(said.id) is not None


def test_a_full_ring_is_forgotten_a_lot_a_tick(box: Box) -> None:
    for number in range(1, LOT + 3):
        box.predict(number, label=None)
    box.tick()
    box.now += AGE + 1
    box.tick()
    assert box.rooms.predictions.count(EVERY) == 2
    box.tick()
    assert box.rooms.predictions.count(EVERY) == 0


def test_what_was_asked_with_several_inputs_is_labelled_and_neither_paired_nor_sent(box: Box) -> None:
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("agreement"), 0)
    box.rooms.outcomes.open(Digest("5" * 64), Routes(MODEL, "seed", 1), 20, START)
    asked = {**graphs.windows(1), "machine": np.ones((1, 2), np.float32)}
    said = box.rooms.recorder.record(asked, Answer(old.session.run(graphs.windows(1)), old.slot, "panel-1"))
    other = box.rooms.recorder.record(asked, Answer({"map": np.ones((1, 9), np.float32)}, old.slot, "panel-2"))
    box.tick()
    assert box.rooms.label(said, CLASSES[0]) is None and box.rooms.label(other, CLASSES[0]) is Refusal.UNKNOWN_LABEL
    box.tick()
    trial, (books, _) = box.house.evidence.trials.report(MODEL), box.rooms.outcomes.found(MODEL)
    assert trial is not None and trial.pairs == 0 and box.arrived() == [] and box.told == []
    assert (books[1].keys, books[1].labels) == (1, 1), "who was told no class has no outcome"


def test_a_trial_is_written_down_now_and_then_and_at_the_end(box: Box) -> None:
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("labels"), 0)
    for number in (1, 2):
        box.predict(number)
        if number == 1:
            box.now += CHECKPOINT
            box.rooms.tick(box.house, box.now)
            assert (box.root / "trials" / MODEL).exists()
    box.close()
    box.open()
    box.rooms.trials.open(MODEL, new, old, Gates("labels"), 0)
    trial = box.house.evidence.trials.report(MODEL)
    assert trial is not None and (trial.pairs, trial.labels) == (2, 2)


def test_a_tick_writes_down_in_slices_and_nobody_who_waits_for_it_rests(box: Box) -> None:
    model = graphs.classifier()
    slot, session = graphs.slot(1, model), load(model)
    kept: list[int] = []  # of what was answered, known to the ring at each rest

    def ask(count: int) -> list[str]:
        inputs = graphs.windows(1)
        return [box.rooms.recorder.record(inputs, Answer(session.run(inputs), slot)) for _ in range(count)]

    box.rooms.rest = lambda: kept.append(box.rooms.predictions.count(EVERY))
    ask(2 * SLICE + 1)
    box.rooms.write_down()
    assert kept == [] and box.rooms.predictions.count(EVERY) == 2 * SLICE + 1
    ask(2 * SLICE + 1)
    box.tick()
    assert kept[:2] == [2 * SLICE + 1] * 2, "one transaction all the same"
    assert box.rooms.predictions.count(EVERY) == 4 * SLICE + 2


def test_detectors_are_written_down_now_and_then(box: Box) -> None:
    box.rooms.watch(box.house)
    streams = graphs.windows(1)["window"].shape[-1]
    rows = np.random.default_rng(1).normal(size=(KEEP_EVERY * Drift().window, streams)).astype(np.float32)
    box.tick()
    box.rooms.telemetry.observe(MODEL, START, rows)
    box.now += CHECKPOINT / 2
    box.rooms.tick(box.house, box.now)
    assert not (box.root / "drift" / MODEL).exists()
    box.now += CHECKPOINT / 2
    box.rooms.tick(box.house, box.now)
    assert (box.root / "drift" / MODEL).exists()


def test_drift_is_watched_from_the_commit_on(box: Box) -> None:
    box.serve(Phase.PROBATION)
    box.rooms.watch(box.house)
    assert box.house.evidence.drift(MODEL) is None
    box.serve(Phase.STEADY)
    box.rooms.watch(box.house)
    drift = box.house.evidence.drift(MODEL)
    assert drift is not None and drift.since is None


def test_without_rooms_a_house_stands_too(tmp_path: Path) -> None:
    house = open_house(EdgeFolder(tmp_path / "bare"), OWN, Serving(), "boot-1", Outside())
    assert house.evidence.road(MODEL) is None and house.evidence.label("a", "b") is None
    house.outbox.close()
    house.journal.close()


def test_what_http_was_answered_is_labelled_paired_and_sent_like_what_a_binding_said(box: Box) -> None:
    model = graphs.classifier()
    new, old = (Loaded(load(model), graphs.slot(number, model)) for number in (2, 1))
    box.rooms.trials.open(MODEL, new, old, Gates("agreement"), 0)
    asked = graphs.windows(1)
    said = box.rooms.recorder.record(asked, Answer(old.session.run(asked), old.slot))
    assert box.rooms.predictions.find(said) is None, "nobody waited for the disk"
    assert box.rooms.label(said, CLASSES[0]) is None, "its label may be faster than the disk"
    trial, ring = box.house.evidence.trials.report(MODEL), box.house.evidence.labelled(MODEL, 1)
    assert trial is not None and (trial.pairs, trial.agreed) == (1, 1) and ring is not None and ring.labels == 1
    second = box.rooms.recorder.record(asked, Answer(old.session.run(asked), old.slot))
    box.tick()
    kept = box.rooms.predictions.find(second)
    assert kept is not None and kept.window == asked["window"].tobytes() and kept.prediction.entity == ""
    assert box.arrived() == [int(said, 16)]
