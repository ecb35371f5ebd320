"""Each guardrail against a really bad model: where it is caught, what is said of it, and who answers meanwhile.

What shows itself on the golden vectors dies in the real proving child. The rest passes its proof and shows itself at
index 2, as a model does on inputs that nobody thought of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.processes import memory_meter
from edge.deadlines import Deadlines
from edge.lifecycle import AT_REST
from edge.runtime import LEAST_S, Overdue, RunFailed, WrongShape, load
from edge.states import Phase, Proof
from sync.manifest import Profile
from sync.messages import Gates
from tests.edge import bad_graphs, graphs
from tests.edge.device import Device, committed, new_device
from tests.edge.guardrails import BAD, NAN, PATIENCE, in_the_child, index, quarantined, swept
from tests.edge.on_trial import GOOD, LABELS, Field
from tests.edge.world import CLASSES, MODEL, Core

LONG = Gates(soak_answers=10_000)


# --- caught by the proof: nobody was ever answered by it ---

SLOW = bad_graphs.spins(5_000, 5_000, 1)
AT_PROOF: dict[str, tuple[dict[str, object], str]] = {
    "crash-on-load": ({"graph": bad_graphs.crashes(on_load=True)}, "prove-crashed"),
    "crash": ({"graph": bad_graphs.crashes(at=1)}, "prove-crashed"),
    "crash-on-the-100th-call": ({"graph": bad_graphs.crashes_on_call(100)}, "prove-crashed"),
    "golden-mismatch": ({"golden_table": (2.0, 2.75, 2.25)}, "golden-mismatch"),
    "nan": ({"table": (2.0, NAN, 2.25), "golden_table": bad_graphs.TABLE}, "golden-mismatch"),
    "slow": ({"graph": SLOW}, "profile-exceeded"),
    "memory-growth": ({"graph": bad_graphs.grows(64), "profile": Profile(rss_mb=16)}, "profile-exceeded"),
    "memory-bomb": ({"graph": graphs.memory_bomb()}, "prove-crashed"),
    "wrong-shape": ({"graph": bad_graphs.changes_shape(), "shape": (3, 1)}, "golden-mismatch"),
}


@pytest.mark.parametrize("name", AT_PROOF)
def test_what_its_golden_vectors_show_costs_no_answer(device: Device, name: str) -> None:
    changes, code = AT_PROOF[name]
    if name == "memory-growth":  # at an index of the golden vectors
        changes = changes | {"graph": bad_graphs.grows(64, at=1)}
    if name == "slow":
        changes = changes | {"profile": Profile(p99_ms=_least_ms(SLOW) / 10)}
    shipped = device.core.ship(2, **({"table": bad_graphs.TABLE} | changes))  # type: ignore[arg-type]
    device.prover = in_the_child  # type: ignore[assignment]
    device.core.assign(shipped, device.identity)
    answered = []
    for _ in range(6):
        device.settle(1)
        answered.append(device.answering)
    assert answered == [1] * 6
    assert quarantined(device) == {shipped.digest} and committed(device, 1)
    assert device.codes()[-2:] == [code, "returned"]
    assert device.house.journal.why()[-1].criterion == code


def _least_ms(graph: bytes) -> float:
    """What the quickest of some runs takes the processor here: no proof on this machine can take a tenth of it."""
    session, spent = load(graph), []
    for _ in range(10):
        begun = time.thread_time()
        session.run(index(0))
        spent.append(1000 * (time.thread_time() - begun))
    return min(spent)


# --- caught on trial: at its first bad answer ---


def on_trial(device: Device, gates: Gates = LONG, **changes: object) -> str:
    """Release 2 has passed its proof, made in the real child, and answers."""
    shipped = device.core.ship(2, **({"table": bad_graphs.TABLE} | changes))  # type: ignore[arg-type]
    device.prover = in_the_child  # type: ignore[assignment]
    device.core.assign(shipped, device.identity, gates=gates)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION, device.state.reason
    device.ask(0)
    return shipped.digest


ON_TRIAL: dict[str, tuple[dict[str, object], str]] = {
    "nan": ({"table": (2.0, 2.5, NAN)}, "not finite"),
    "wrong-shape": ({"graph": bad_graphs.changes_shape(), "shape": (1, 3)}, "failed answers"),
    "memory-bomb": ({"graph": bad_graphs.grows(1 << 26)}, "failed answers"),
}


@pytest.mark.parametrize("name", ON_TRIAL)
def test_the_first_bad_answer_on_trial_brings_the_previous_back(device: Device, name: str) -> None:
    changes, said = ON_TRIAL[name]
    digest = on_trial(device, **changes)
    assert device.ask(BAD) is None, "a bad answer is none"
    device.settle(1)
    assert committed(device, 1) and quarantined(device) == {digest}
    assert said in device.state.reason and device.codes()[-2:] == ["guardrail", "returned"]


def test_a_model_that_never_ends_is_stopped_and_leaves(device: Device) -> None:
    device.house.guard.deadlines = Deadlines(time.monotonic)
    digest = on_trial(device, graph=bad_graphs.ENDLESS)
    asked = threading.Thread(target=device.ask, args=(BAD,))
    with swept(device.house.guard.deadlines):
        asked.start()
        asked.join(PATIENCE)
    assert not asked.is_alive()
    device.settle(1)
    assert committed(device, 1) and quarantined(device) == {digest}


def test_a_single_long_operator_is_a_failure_while_it_goes_on(device: Device) -> None:
    """onnxruntime stops between operators alone: the verdict does not wait for that."""
    now = [0.0]
    device.house.guard.deadlines = Deadlines(lambda: now[0])
    digest = on_trial(device)
    live = device.house.serving.incumbent(MODEL)
    assert live is not None
    device.house.guard.deadlines.begin(_Flag(), live.session, b"a" * 64, 1.0)
    device.settle(1)
    assert device.state.phase is Phase.PROBATION
    now[0] = 1.0
    device.settle(1)
    assert committed(device, 1) and quarantined(device) == {digest}


class _Flag:
    terminate = False


def test_a_model_that_takes_more_than_its_share_of_memory_leaves(device: Device) -> None:
    held = [100.0]
    device.house.guard.memory = lambda: held[0]
    digest = on_trial(device, profile=Profile(rss_mb=64))
    held[0] += 64.0
    device.settle(1)
    assert device.state.phase is Phase.PROBATION
    held[0] += 1.0
    device.settle(1)
    assert committed(device, 1) and quarantined(device) == {digest}
    assert "grown by 65 MiB" in device.state.reason


def test_a_model_that_would_leave_no_room_for_the_others_waits_without_a_verdict(device: Device) -> None:
    device.house.guard.room_mb = 10.0
    device.prover = lambda job: Proof(True, 0.0, 1.0, 11.0)
    device.core.assign(device.core.ship(2), device.identity)
    device.settle(4)
    assert device.state.phase is Phase.STAGED and device.answering == 1 and quarantined(device) == set()
    assert device.codes()[-1] == "no-room"
    device.house.guard.room_mb = 11.0
    device.settle(10, ask=0)
    assert committed(device, 2)


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.PROBATION])
def test_a_model_that_really_grows_on_trial_leaves(ram: Path, phase: Phase) -> None:
    """By what the operating system says of this very process."""
    field = Field(ram)
    device = field.device()
    device.house.guard.memory = memory_meter()
    greedy = bad_graphs.by_window(bad_graphs.grows(128))
    shipped = field.core.ship(4, bad_graphs.TABLE, says=GOOD, graph=greedy, profile=Profile(rss_mb=64))
    mode = "shadow" if phase is Phase.SHADOW else "live"
    field.core.assign(shipped, device.identity, mode=mode, gates=LONG)
    device.settle(4)
    device.feel(0)
    device.settle(1)
    assert device.state.phase is phase, device.state.reason
    said = device.feel(BAD)
    assert said is not None and said.release == (1 if phase is Phase.SHADOW else 4)
    device.settle(1)
    assert committed(device, 1) and quarantined(device) == {shipped.digest}
    assert "has grown by" in device.state.reason


def test_a_model_that_is_slow_on_what_its_proof_never_saw_goes_home(ram: Path) -> None:
    """Ten times what its profile allows, by a real clock: put to the release before, the question that took too long
    shows whose fault it is. The golden vectors would not."""
    core = Core()
    device = new_device(core, ram)
    device.clock = time.perf_counter
    device.boot().commit(core.ship(1))
    slow = core.ship(2, bad_graphs.TABLE, graph=bad_graphs.spins(1, 1, 25_000), profile=Profile(p99_ms=4.0))
    core.assign(slow, device.identity, gates=LONG)
    device.settle(4)
    assert device.state.phase is Phase.PROBATION
    for _ in range(20):
        assert device.ask(BAD) is not None
    for _ in range(100):  # on a busy host more runs of each are looked at before anybody is held to be slow
        if device.state.phase is not Phase.PROBATION:
            break
        device.settle(1)
    assert committed(device, 1) and quarantined(device) == {slow.digest}
    assert device.house.journal.why()[-1].criterion == "too-slow"


IN_SHADOW: dict[str, tuple[dict[str, object], str]] = {
    "nan": ({"table": (2.0, 2.5, NAN)}, "not finite"),
    "wrong-shape": ({"graph": bad_graphs.by_window(bad_graphs.changes_rank())}, "failed answers"),
    "memory-bomb": ({"graph": bad_graphs.by_window(bad_graphs.grows(1 << 26))}, "failed answers"),
    "never-ends": ({"graph": bad_graphs.by_window(bad_graphs.ENDLESS)}, "failed answers"),
}


@pytest.mark.parametrize("name", IN_SHADOW)
def test_the_first_bad_answer_in_shadow_ends_it_and_nobody_heard_it(ram: Path, name: str) -> None:
    changes, reason = IN_SHADOW[name]
    field = Field(ram)
    device = field.device()
    device.house.guard.deadlines = Deadlines(time.monotonic)
    shipped = field.core.ship(4, **({"table": bad_graphs.TABLE, "says": GOOD} | changes))  # type: ignore[arg-type]
    device.prover = in_the_child  # type: ignore[assignment]
    field.core.assign(shipped, device.identity, mode="shadow", gates=LONG)
    device.settle(4)
    with swept(device.house.guard.deadlines):
        for index in (0, BAD):
            assert device.state.phase is Phase.SHADOW, device.state.reason
            said = device.feel(index)
            assert said is not None and (said.release, said.quality) == (1, "ok")
            device.settle(1)
    assert committed(device, 1) and quarantined(device) == {shipped.digest}
    assert reason in device.state.reason


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
