"""Each guardrail against a really bad model: where it is caught, what is said of it, and who answers meanwhile.

What shows itself on the golden vectors dies in the real proving child. The rest passes its proof and shows itself at
index 2, as a model does on inputs that nobody thought of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge import proving
from edge.deadlines import Deadlines
from edge.lifecycle import AT_REST
from edge.runtime import LEAST_S, Overdue, RunFailed, WrongShape, load
from edge.states import Phase, Proof, Prove
from sync.manifest import Profile
from sync.messages import Gates
from tests.edge import bad_graphs, graphs
from tests.edge.device import Device, committed, new_device
from tests.edge.test_agent_trial import LABELS, Field
from tests.edge.world import CLASSES, MODEL, Core

PATIENCE = 60.0
LONG = Gates(soak_answers=10_000)
BAD = 2  # the index where they show what they are
NAN = float("nan")


@pytest.fixture
def served(ram: Path) -> Device:
    """Release 1 is committed."""
    core = Core()
    device = new_device(core, ram).boot()
    core.assign(core.ship(1), device.identity)
    device.settle(7, ask=0)
    assert committed(device, 1)
    device.acknowledge(99)
    return device


def quarantined(device: Device) -> set[str]:
    return {q.manifest for q in device.house.journal.quarantined(MODEL)}


def in_the_child(job: Prove) -> object:
    return proving.prove(job.request, PATIENCE)


def index(i: int) -> dict[str, np.ndarray]:
    return {"i": np.array([i], np.int64)}


@contextmanager
def swept(deadlines: Deadlines) -> Iterator[None]:
    """A thread that ends late runs, as the agent has one."""
    over = threading.Event()

    def sweep() -> None:
        while not over.wait(0.02):
            deadlines.sweep()

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# --- caught by the proof: nobody was ever answered by it ---

SLOW = Profile(p99_ms=0.8)  # a tenth of what it takes
AT_PROOF: dict[str, tuple[dict[str, object], str]] = {
    "crash-on-load": ({"graph": bad_graphs.crashes(on_load=True)}, "prove-crashed"),
    "golden-mismatch": ({"golden_table": (2.0, 2.75, 2.25)}, "golden-mismatch"),
    "nan": ({"table": (2.0, NAN, 2.25), "golden_table": bad_graphs.TABLE}, "golden-mismatch"),
    "slow": ({"graph": bad_graphs.spins(5_000, 5_000, 1), "profile": SLOW}, "profile-exceeded"),
    "memory-growth": ({"graph": bad_graphs.grows(64), "profile": Profile(rss_mb=16)}, "profile-exceeded"),
    "memory-bomb": ({"graph": graphs.memory_bomb()}, "prove-crashed"),
    "wrong-shape": ({"graph": bad_graphs.changes_shape(), "shape": (3, 1)}, "golden-mismatch"),
}


@pytest.mark.parametrize("name", AT_PROOF)
def test_what_its_golden_vectors_show_costs_no_answer(served: Device, name: str) -> None:
    changes, code = AT_PROOF[name]
    if name == "memory-growth":  # at an index of the golden vectors
        changes = changes | {"graph": bad_graphs.grows(64, at=1)}
    shipped = served.core.ship(2, **({"table": bad_graphs.TABLE} | changes))  # type: ignore[arg-type]
    served.prover = in_the_child  # type: ignore[assignment]
    served.core.assign(shipped, served.identity)
    answered = []
    for _ in range(6):
        served.settle(1)
        answered.append(served.answering)
    assert answered == [1] * 6
    assert quarantined(served) == {shipped.digest} and committed(served, 1)
    assert served.codes()[-2:] == [code, "returned"]
    assert served.house.journal.why()[-1].criterion == code


# --- caught on trial: at its first bad answer ---


def on_trial(served: Device, gates: Gates = LONG, **changes: object) -> str:
    """Release 2 has passed its proof, made in the real child, and answers."""
    shipped = served.core.ship(2, **({"table": bad_graphs.TABLE} | changes))  # type: ignore[arg-type]
    served.prover = in_the_child  # type: ignore[assignment]
    served.core.assign(shipped, served.identity, gates=gates)
    served.settle(4)
    assert served.state.phase is Phase.PROBATION, served.state.reason
    served.ask(0)
    return shipped.digest


ON_TRIAL: dict[str, tuple[dict[str, object], str]] = {
    "nan": ({"table": (2.0, 2.5, NAN)}, "not finite"),
    "wrong-shape": ({"graph": bad_graphs.changes_shape(), "shape": (1, 3)}, "failed answers"),
    "memory-bomb": ({"graph": bad_graphs.grows(1 << 26)}, "failed answers"),
}


@pytest.mark.parametrize("name", ON_TRIAL)
def test_the_first_bad_answer_on_trial_brings_the_previous_back(served: Device, name: str) -> None:
    changes, said = ON_TRIAL[name]
    digest = on_trial(served, **changes)
    assert served.ask(BAD) is None, "a bad answer is none"
    served.settle(1)
    assert committed(served, 1) and quarantined(served) == {digest}
    assert said in served.state.reason and served.codes()[-2:] == ["guardrail", "returned"]


def test_a_model_that_never_ends_is_stopped_and_leaves(served: Device) -> None:
    served.house.deadlines = Deadlines(time.monotonic)
    digest = on_trial(served, graph=bad_graphs.ENDLESS)
    asked = threading.Thread(target=served.ask, args=(BAD,))
    with swept(served.house.deadlines):
        asked.start()
        asked.join(PATIENCE)
    assert not asked.is_alive()
    served.settle(1)
    assert committed(served, 1) and quarantined(served) == {digest}


def test_a_single_long_operator_is_a_failure_while_it_goes_on(served: Device) -> None:
    """onnxruntime stops between operators alone: the verdict does not wait for that."""
    now = [0.0]
    served.house.deadlines = Deadlines(lambda: now[0])
    digest = on_trial(served)
    live = served.house.serving.incumbent(MODEL)
    assert live is not None
    served.house.deadlines.begin(_Flag(), live.session, b"a" * 64, 1.0)
    served.settle(1)
    assert served.state.phase is Phase.PROBATION
    now[0] = 1.0
    served.settle(1)
    assert committed(served, 1) and quarantined(served) == {digest}


class _Flag:
    terminate = False


def test_a_model_that_takes_more_than_its_share_of_memory_leaves(served: Device) -> None:
    held = [100.0]
    served.house.memory = lambda: held[0]
    digest = on_trial(served, profile=Profile(rss_mb=64))
    held[0] += 64.0
    served.settle(1)
    assert served.state.phase is Phase.PROBATION
    held[0] += 1.0
    served.settle(1)
    assert committed(served, 1) and quarantined(served) == {digest}
    assert "grown by 65 MiB" in served.state.reason


def test_a_model_that_would_leave_no_room_for_the_others_waits_without_a_verdict(served: Device) -> None:
    served.house.room_mb = 10.0
    served.prover = lambda job: Proof(True, 0.0, 1.0, 11.0)
    served.core.assign(served.core.ship(2), served.identity)
    served.settle(4)
    assert served.state.phase is Phase.STAGED and served.answering == 1 and quarantined(served) == set()
    assert served.codes()[-1] == "no-room"
    served.house.room_mb = 11.0
    served.settle(10, ask=0)
    assert committed(served, 2)


# --- caught by its pairs: one answer to everything ---


@pytest.mark.parametrize("mode", ["shadow", "live"])
def test_a_model_that_always_says_the_same_is_seen_by_its_pairs_alone(ram: Path, mode: str) -> None:
    """Its golden vectors were made with it, so they are as constant as it is; no answer breaks or is no number."""
    field = Field(ram)
    device = field.device()
    constant = field.core.ship(4, says=(1, 1, 1))
    field.core.assign(constant, device.identity, mode=mode, gates=LABELS)
    device.settle(4)
    windows = 0
    while device.state.phase not in AT_REST:
        device.feel(windows % 3, CLASSES[windows % 3])
        device.settle(1)
        windows += 1
        assert windows < 100, "its pairs never spoke"
    assert committed(device, 1) and quarantined(device) == {constant.digest}
    (card,) = device.house.journal.why()
    assert card.criterion == "worse-than-incumbent" and card.phase == ("shadow" if mode == "shadow" else "probation")


# --- the run itself ---


def test_a_run_that_is_late_is_stopped_and_the_next_one_is_not() -> None:
    deadlines = Deadlines(time.monotonic)
    session = load(bad_graphs.ENDLESS, deadlines=deadlines, profile=Profile(p99_ms=1.0))
    with swept(deadlines), pytest.raises(Overdue, match="was stopped"):
        session.run(index(BAD))
    assert session.run(index(0))["y"][0] == 2.0
    assert session.late() == 0 and deadlines.overdue() == 0.0


def test_how_long_an_answer_may_take() -> None:
    quick = load(bad_graphs.spins(1, 1, 1), profile=Profile(p99_ms=1.0))
    slow = load(bad_graphs.spins(1, 1, 1), profile=Profile(p99_ms=500.0))
    assert quick.allowed(1) == pytest.approx(LEAST_S + 0.001)
    assert slow.allowed(1) == pytest.approx(10.5) and slow.allowed(64) == pytest.approx(42.0)
    assert slow.allowed(10**6) == 60.0


def test_an_output_of_another_shape_than_the_graph_says_is_no_answer() -> None:
    session = load(bad_graphs.changes_shape())
    assert session.run(index(0))["y"].shape == (1, 3)
    with pytest.raises(WrongShape, match=r"\[3, 1\]"):
        session.run(index(BAD))


@pytest.mark.parametrize("ask", [lambda: load(bad_graphs.grows(1 << 26)).run(index(BAD))])
def test_a_tensor_that_no_machine_has_room_for_is_a_failed_run(ask: Callable[[], object]) -> None:
    with pytest.raises(RunFailed):
        ask()
