"""Sixteen models on one box: one gets release after release that is really bad, and the other fifteen lose no answer.

Unproven releases run in the proving child, here the real one; on trial the first bad answer sends one home. Meanwhile
two threads ask the others without a pause, and in one case programs over HTTP and MQTT.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge import proving, runtime
from edge.serving import Answer
from edge.states import Phase, Proof, Prove
from sync.manifest import Profile
from sync.messages import SHARES, Arm, Gates, ModelOrder
from sync.names import ModelName
from tests.edge import bad_graphs, graphs
from tests.edge.device import Device, new_device
from tests.edge.on_trial import GOOD, LABELS
from tests.edge.world import CLASSES, MODEL, Core, Shipped, table_of
from tests.outside.asking import asked_from_outside
from tests.waiting import eventually

NAMES = (MODEL, *(ModelName(f"other-{n}") for n in range(15)))
QUESTION = {"i": np.array([0], np.int64)}
NAN = float("nan")
QUICK = Gates(soak_answers=1)

BAD: dict[str, dict[str, object]] = {
    "crash-on-load": {"graph": bad_graphs.crashes(on_load=True)},
    "golden-mismatch": {"golden_table": (2.0, 2.75, 2.25)},
    "slow": {"graph": bad_graphs.spins(5_000, 5_000, 1), "profile": Profile(p99_ms=0.8)},
    "memory-bomb": {"graph": graphs.memory_bomb()},
    "memory-growth": {"graph": bad_graphs.grows(32, at=1), "profile": Profile(rss_mb=8)},
    "nan-on-trial": {"table": (2.0, 2.5, NAN)},
    "wrong-shape-on-trial": {"graph": bad_graphs.changes_shape(), "shape": (1, 3)},
    "crash": {"graph": bad_graphs.crashes(at=1)},
    "crash-on-the-100th-call": {"graph": bad_graphs.crashes_on_call(100)},
    "nan": {"table": (2.0, NAN, 2.25), "golden_table": bad_graphs.TABLE},
    "wrong-shape": {"graph": bad_graphs.changes_shape(), "shape": (3, 1)},
}


@dataclass
class Box:
    """The device and what the core wants of it."""

    core: Core
    device: Device
    wanted: dict[ModelName, Shipped] = field(default_factory=dict)

    def want(self, model: ModelName, shipped: Shipped, gates: Gates) -> None:
        self.wanted[model] = shipped
        orders = {m: self.core.order(s, self.device.identity, gates=gates) for m, s in self.wanted.items()}
        self.core.desire(self.core.assignment(models=orders))

    def split(self, arm: Arm) -> None:
        """The release that is wanted of `MODEL`, and this arm beside it."""
        orders = {m: self.core.order(s, self.device.identity) for m, s in self.wanted.items() if m != MODEL}
        first = self.device.house.deployments[MODEL].serving
        assert first is not None
        own = ModelOrder(first.release.manifest, 1, first.keys, mode="split", arms=(arm,), seed="seed")
        self.core.desire(self.core.assignment(models={**orders, MODEL: own}))

    def settle(self, seconds: int) -> None:
        for _ in range(seconds):
            self.device.settle(1)
            for model, d in self.device.house.deployments.items():
                if d.phase is Phase.PROBATION and model != MODEL:
                    self.device.house.serving.predict(model, QUESTION)

    @contextmanager
    def others_asked(self) -> Iterator[tuple[Counter[str], list[str]]]:
        """(answers by model, everything else that came back), of all models but the one that is renewed."""
        answered: Counter[str] = Counter()
        lost: list[str] = []
        over = threading.Event()

        def ask(names: tuple[ModelName, ...]) -> None:
            while not over.is_set():
                for name in names:
                    try:
                        said = self.device.house.serving.predict(name, QUESTION)
                        if said.outputs["y"][0] == 1.0:
                            answered[name] += 1
                        else:
                            lost.append(f"{name} said {said.outputs}")
                    except runtime.ModelError as error:
                        lost.append(str(error))

        threads = [threading.Thread(target=ask, args=(names,)) for names in (NAMES[1:8], NAMES[8:])]
        for thread in threads:
            thread.start()
        try:
            yield answered, lost
        finally:
            over.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Box:
    core = Core()
    made = Box(core, new_device(core, tmp_path_factory.mktemp("box") / "device").boot())
    made.device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    made.wanted = {name: core.ship(1, table_of(1), model=name) for name in NAMES[1:]}
    made.want(MODEL, core.ship(1), QUICK)
    for _ in range(16 * 6):
        made.settle(1)
        made.device.ask(0)
    phases = {d.phase for d in made.device.house.deployments.values()}
    assert phases == {Phase.STEADY} and len(made.device.house.deployments) == 16
    made.device.prover = _child
    return made


def _child(job: Prove) -> object:
    return proving.prove(job.request, 60.0)


QUICK_ONES = ("crash-on-load", "wrong-shape-on-trial")


@pytest.mark.parametrize("name", [n if n in QUICK_ONES else pytest.param(n, marks=pytest.mark.slow) for n in BAD])
def test_fifteen_models_answer_while_the_sixteenth_gets_a_bad_release(box: Box, name: str) -> None:
    number = 2 + list(BAD).index(name)
    shipped = box.core.ship(number, **({"table": bad_graphs.TABLE} | BAD[name]))  # type: ignore[arg-type]
    serving = box.device.house.serving
    with box.others_asked() as (answered, lost):
        box.want(MODEL, shipped, Gates(soak_answers=10_000))
        box.settle(4)
        if name.endswith("on-trial"):
            assert box.device.state.phase is Phase.PROBATION
            assert box.device.ask(2) is None
        box.settle(2)
    assert not lost and set(answered) == set(NAMES[1:])
    assert box.device.state.phase is Phase.STEADY and serving.models()[MODEL] is not None
    assert shipped.digest in {q.manifest for q in box.device.house.journal.quarantined(MODEL)}
    assert box.device.answering == 1


@pytest.mark.broker
@pytest.mark.parametrize("name", ["crash-on-the-100th-call", pytest.param("nan-on-trial", marks=pytest.mark.slow)])
def test_fifteen_models_answer_over_http_and_mqtt_meanwhile(box: Box, name: str, tmp_path: Path) -> None:
    number = 50 + list(BAD).index(name)
    shipped = box.core.ship(number, **({"table": bad_graphs.TABLE} | BAD[name]))  # type: ignore[arg-type]
    with asked_from_outside(box.device.house.serving, NAMES[1:], 1.0, tmp_path) as outside:
        box.want(MODEL, shipped, Gates(soak_answers=10_000))
        box.settle(4)
        if name.endswith("on-trial"):
            assert box.device.state.phase is Phase.PROBATION and box.device.ask(2) is None
        box.settle(2)
        everybody = {(road, model) for road in ("http", "mqtt") for model in NAMES[1:]}
        eventually(lambda: len(outside.answered) >= len(NAMES[1:]), "each to be asked")
    assert not outside.lost and set(outside.answered) == everybody
    assert shipped.digest in {q.manifest for q in box.device.house.journal.quarantined(MODEL)}
    assert box.device.state.phase is Phase.STEADY and box.device.answering == 1


def test_fifteen_models_answer_while_an_arm_of_the_sixteenth_falls(box: Box) -> None:
    bad = box.core.ship(99, (2.0, 2.5, NAN))
    arm = box.core.order(bad, box.device.identity)
    serving = box.device.house.serving
    with box.others_asked() as (answered, lost):
        box.split(Arm(arm.manifest, 99, arm.keys, 0, SHARES))
        box.settle(8)
        assert box.device.state.phase is Phase.LIVE_SPLIT
        (said,) = serving.predict_each(MODEL, [{"i": np.array([2], np.int64)}], keys=["machine-1"])
        assert isinstance(said, Answer) and said.release.number == 1
        box.settle(2)
    assert not lost and set(answered) == set(NAMES[1:])
    assert box.device.state.phase is Phase.STEADY and box.device.answering == 1
    assert bad.digest in {q.manifest for q in box.device.house.journal.quarantined(MODEL)}


def test_all_sixteen_answer_after_a_restart(box: Box) -> None:
    box.device.cut_power()
    box.device.boot(link=False)
    serving = box.device.house.serving
    assert [serving.predict(name, QUESTION).outputs["y"][0] for name in NAMES] == [1.0] * 16
    box.device.connect()


def test_fifteen_models_answer_after_a_start_that_cannot_read_what_the_sixteenth_was(box: Box) -> None:
    device = box.device
    device.cut_power()
    with closing(sqlite3.connect(device.folder / "journal.db")) as db, db:
        assert db.execute("UPDATE deployment SET document = '{' WHERE model = ?", (MODEL,)).rowcount == 1
    device.boot(link=False)
    serving = device.house.serving
    assert [serving.predict(name, QUESTION).outputs["y"][0] for name in NAMES[1:]] == [1.0] * 15
    assert serving.incumbent(MODEL) is None and device.codes().count("journal-row-unreadable") == 1
    device.connect()
    box.want(MODEL, box.core.ship(200, table_of(200)), QUICK)
    with box.others_asked() as (answered, lost):
        for _ in range(8):
            box.settle(1)
            device.ask(0)
    assert not lost and set(answered) == set(NAMES[1:])
    assert device.state.phase is Phase.STEADY and device.answering == 200


def test_fifteen_models_answer_while_the_sixteenth_always_says_the_same(box: Box) -> None:
    """Nothing breaks, and its golden vectors are as constant as it is: its pairs speak."""
    device = box.device
    box.want(MODEL, box.core.ship(300, says=GOOD), QUICK)
    for _ in range(8):
        box.settle(1)
        device.ask(0)
    assert device.answering == 300
    constant = box.core.ship(301, says=(1, 1, 1))
    with box.others_asked() as (answered, lost):
        box.want(MODEL, constant, LABELS)
        box.settle(4)
        for windows in range(100):
            device.feel(windows % 3, CLASSES[windows % 3])
            box.settle(1)
            if device.state.phase is Phase.STEADY:
                break
    assert not lost and set(answered) == set(NAMES[1:])
    assert device.answering == 300 and device.house.journal.why()[0].criterion == "worse-than-incumbent"
    assert constant.digest in {q.manifest for q in device.house.journal.quarantined(MODEL)}
