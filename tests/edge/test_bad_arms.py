"""Each guardrail against a really bad arm of a split: its keys are answered by the incumbent, also the question that
shows what it is; it falls out alone, and the release that serves never stops.

The models are those of `tests.edge.bad_graphs`: they pass their proof, made in the real child, and are bad at index 2.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.processes import memory_meter
from edge import proving, runtime
from edge.deadlines import Deadlines
from edge.health import Growth, grow
from edge.states import Phase, Proof
from sync import codec
from sync.manifest import Manifest, Profile
from sync.messages import Arm, Gates
from sync.names import ModelName
from tests.edge import bad_graphs
from tests.edge.cramped import Cramped
from tests.edge.device import Device, committed, new_device
from tests.edge.guardrails import BAD, NAN, PATIENCE, quarantined, swept
from tests.edge.test_agent_split import Field, arm, begun, feel
from tests.edge.world import CLASSES, MODEL, Core, Shipped

GATES = Gates(soak_answers=3)
KEYS = [f"machine-{n}" for n in range(20)]


@dataclass
class Plant:
    """A device whose release 1 is committed, and arms beside it: number -> (first place, share)."""

    core: Core
    device: Device
    shipped: dict[int, Shipped] = field(default_factory=dict)

    def split(self, arms: dict[int, tuple[int, int]]) -> None:
        made = []
        for number, (first, share) in arms.items():
            order = self.core.order(self.shipped[number], self.device.identity)
            made.append(Arm(order.manifest, number, order.keys, first, share))
        changes = {"mode": "split", "gates": GATES, "arms": tuple(made), "seed": "seed"}
        self.core.assign(self.shipped[1], self.device.identity, **changes)
        self.device.settle(6 * len(arms) + 4)
        assert self.device.state.phase is Phase.LIVE_SPLIT, self.device.state.reason

    def add(self, number: int, **changes: object) -> Shipped:
        self.shipped[number] = self.core.ship(number, **({"table": bad_graphs.TABLE} | changes))  # type: ignore[arg-type]
        return self.shipped[number]

    def key(self, number: int) -> str:
        """A key that this arm answers."""
        routes = self.device.house.serving.routes(MODEL)
        assert routes is not None
        return next(key for n in range(10_000) if routes.release(key := f"machine-{n}") == number)

    def who(self, key: str, index: int = 0) -> int | None:
        """The release that answered, as it says itself; None where none did."""
        asked = {"i": np.array([index], np.int64)}
        (answer,) = self.device.house.serving.predict_each(MODEL, [asked], keys=[key])
        return None if isinstance(answer, runtime.ModelError) else answer.release.number

    def fallen(self) -> list[int]:
        return [lane.slot.release.number for lane in self.device.state.lanes if lane.fallen]


@pytest.fixture
def plant(core: Core, ram: Path) -> Plant:
    made = Plant(core, new_device(core, ram))
    made.device.clock = time.perf_counter
    made.shipped[1] = core.ship(1)
    made.device.boot().commit(made.shipped[1])
    made.device.prover = lambda job: proving.prove(job.request, PATIENCE)
    return made


BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "nan": ({"table": (2.0, 2.5, NAN)}, "not finite"),
    "wrong-shape": ({"graph": bad_graphs.changes_rank()}, "failed answers"),
    "memory-bomb": ({"graph": bad_graphs.grows(1 << 26)}, "failed answers"),
    "never-ends": ({"graph": bad_graphs.ENDLESS}, "failed answers"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_arm_falls_at_the_next_look_and_its_question_is_the_incumbents(plant: Plant, name: str) -> None:
    changes, reason = BROKEN[name]
    plant.device.house.guard.deadlines = Deadlines(time.monotonic)
    bad = plant.add(2, **changes)
    plant.split({2: (0, 5000)})
    key, other = plant.key(2), plant.key(1)
    with swept(plant.device.house.guard.deadlines):
        assert (plant.who(key), plant.who(other)) == (2, 1)
        assert plant.who(key, BAD) == 1, "nothing is lost"
    plant.device.settle(1)
    assert (plant.who(key), plant.who(other)) == (1, 1) and quarantined(plant.device) == {bad.digest}
    (card,) = plant.device.cards()
    assert (card.criterion, card.phase, card.new.number) == ("guardrail", "live_split", 2) and reason in card.text
    assert plant.device.codes().count("arm-fell") == 1


@pytest.mark.parametrize("changes", [
    {"graph": bad_graphs.crashes(on_load=True)},
    {"golden_table": (2.0, 2.75, 2.25)},
    {"graph": bad_graphs.grows(64, at=1), "profile": Profile(rss_mb=16)},
    {"graph": bad_graphs.spins(5_000, 5_000, 1), "profile": Profile(p99_ms=0.8)},
], ids=["crash-on-load", "golden-mismatch", "memory-growth", "slow"])  # fmt: skip
def test_what_its_golden_vectors_show_never_becomes_an_arm(plant: Plant, changes: dict[str, object]) -> None:
    bad, _ = plant.add(2, **changes), plant.add(3, table=(3.0, 3.5, 3.25))
    plant.split({2: (0, 3000), 3: (5000, 3000)})
    assert {plant.who(key) for key in KEYS} == {1, 3} and quarantined(plant.device) == {bad.digest}


def test_an_arm_whose_golden_vectors_come_out_otherwise_where_it_is_loaded_never_answers(plant: Plant) -> None:
    plant.device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)  # the child was deceived
    bad, _ = plant.add(2, golden_table=(7.0, 7.0, 7.0)), plant.add(3, table=(3.0, 3.5, 3.25))
    plant.split({2: (0, 3000), 3: (5000, 3000)})
    assert {plant.who(key) for key in KEYS} == {1, 3} and quarantined(plant.device) == {bad.digest}


def test_an_arm_that_is_slow_on_what_its_proof_never_saw_falls(plant: Plant) -> None:
    bad = plant.add(2, graph=bad_graphs.spins(1, 1, 25_000), profile=Profile(p99_ms=4.0))
    plant.device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)  # this host may be busy: here it is about the arm
    plant.split({2: (0, 5000)})
    key = plant.key(2)
    for _ in range(20):
        assert plant.who(key, BAD) == 2
    for _ in range(100):
        if quarantined(plant.device):
            break
        plant.device.settle(1)
    assert quarantined(plant.device) == {bad.digest} and plant.who(key, BAD) == 1
    assert plant.device.cards()[0].criterion == "too-slow"


def test_an_arm_that_crashes_the_agent_three_times_within_a_day_is_not_loaded_again(plant: Plant) -> None:
    """The process itself dies in `tests/faults/test_05_crash_loop.py`."""
    plant.add(2, graph=bad_graphs.crashes())
    plant.split({2: (0, 5000)})
    key, device = plant.key(2), plant.device
    device.found = frozenset({codec.decode(Manifest, plant.shipped[2].manifest).variants[0].blob.plain})
    for crash in range(1, 4):
        device.cut_power()
        device.boot(link=False)
        assert plant.who(key) == (2 if crash < 3 else 1)
    assert [plant.who(one) for one in KEYS] == [1] * len(KEYS)
    (card,) = device.cards()
    assert (card.criterion, card.new.number) == ("crash-loop", 2) and "3 times within a day" in card.text


def test_whose_answers_are_all_the_same_is_told_by_its_keys_and_judged_by_the_core(ram: Path) -> None:
    """Nothing of it breaks: what its keys were worth goes up, and `tests/core/test_arms.py` has the verdict."""
    field = Field(ram)
    field.shipped[6] = field.core.ship(6, says=(1, 1, 1))
    device = field.device()
    begun(field, device, {6: (0, 5000)})
    who = {key: feel(device, key, n % 3, truth=n % 3) for n, key in enumerate(KEYS)}
    device.settle(2)
    constant = [n for n, key in enumerate(KEYS) if who[key] == 6]
    wrong = sum(CLASSES[n % 3] != CLASSES[1] for n in constant)
    assert wrong and arm(device, 6).losses == (len(constant) - wrong, wrong) and arm(device, 1).losses[1] == 0


# --- memory ---


def test_an_arm_that_really_grows_falls_and_the_older_one_stays(plant: Plant) -> None:
    """By what the operating system says of this very process."""
    plant.device.house.guard.memory = memory_meter()
    plant.add(2, table=(2.0, 2.5, 2.25))
    bad = plant.add(3, graph=bad_graphs.grows(128), profile=Profile(rss_mb=64))
    plant.device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    plant.split({2: (0, 3000), 3: (5000, 3000)})
    key, older = plant.key(3), plant.key(2)
    assert (plant.who(key), plant.who(older)) == (3, 2)
    plant.device.settle(2)
    assert plant.fallen() == []
    assert plant.who(key, BAD) == 3, "it answers, and keeps the memory"
    plant.device.settle(1)
    assert plant.fallen() == [3] and quarantined(plant.device) == {bad.digest}
    assert (plant.who(key), plant.who(older)) == (1, 2)
    (card,) = plant.device.cards()
    assert "has grown by" in card.text and "newest arm" in card.text
    plant.device.settle(3)
    assert plant.fallen() == [3] and plant.device.codes().count("arm-fell") == 1


@pytest.fixture
def held(plant: Plant) -> list[float]:
    """What the process holds, in MiB, as the test says; arms 2 and 3, the newer one, may take 64 each."""
    found = [100.0]
    plant.device.house.guard.memory = lambda: found[0]
    plant.device.prover = lambda job: Proof(True, 0.0, 1.0, 1.0)
    for number in (2, 3):
        plant.add(number, table=(number + 0.0, number + 0.5), profile=Profile(rss_mb=64))
    plant.split({2: (0, 3000), 3: (5000, 3000)})
    plant.device.settle(1)
    return found


def test_growth_is_the_newest_arms_and_then_counts_anew(plant: Plant, held: list[float]) -> None:
    held[0] += 64.0
    plant.device.settle(1)
    assert plant.fallen() == []
    held[0] += 1.0
    plant.device.settle(2)
    assert plant.fallen() == [3] and "grown by 65 MiB" in plant.device.cards()[0].text
    held[0] += 64.0
    plant.device.settle(2)
    assert plant.fallen() == [3], "what was the other one's is not held against it"
    held[0] += 1.0
    plant.device.settle(3)
    assert committed(plant.device, 1), "no arm is left, and who serves never stopped"


def beside(plant: Plant, **changes: object) -> ModelName:
    """Another model of the box, whose first release is ordered."""
    other, device = ModelName("other"), plant.device
    assert device.house.assignment is not None
    order = plant.core.order(plant.core.ship(9, model=other), device.identity, **changes)
    plant.core.desire(plant.core.assignment(models={**device.house.assignment.models, other: order}))
    return other


def test_what_another_model_takes_on_trial_is_not_held_against_an_arm(plant: Plant, held: list[float]) -> None:
    device, trial = plant.device, 0
    other = beside(plant, gates=Gates(soak_answers=9))
    for _ in range(30):
        device.settle(1)
        held[0] += 10.0  # within the other one's share, and in a few looks beyond that of an arm
        trial += device.house.deployments[other].phase is Phase.PROBATION
        if trial == 9:
            break
    assert trial == 9 and plant.fallen() == []
    for _ in range(9):
        device.house.serving.predict(other, {"i": np.array([0], np.int64)})
    device.settle(2)
    assert device.house.deployments[other].phase is Phase.STEADY and plant.fallen() == []
    held[0] += 65.0
    device.settle(2)
    assert plant.fallen() == [3], "what comes after it counts again"


@pytest.fixture
def tried(plant: Plant, held: list[float]) -> ModelName:
    """Another model, on trial for ten seconds, that has taken more than its share while the arms answered."""
    other = beside(plant, gates=Gates(soak_answers=9))
    for _ in range(30):
        plant.device.settle(1)
        if phase(plant, other) is Phase.PROBATION:
            break
    plant.device.settle(10)
    assert phase(plant, other) is Phase.PROBATION
    held[0] += 300.0
    plant.device.settle(1)
    return other


def phase(plant: Plant, model: ModelName) -> Phase:
    return plant.device.house.deployments[model].phase


def comes_again(plant: Plant, model: ModelName) -> None:
    for _ in range(30):
        plant.device.settle(1)
        if phase(plant, model) is Phase.PROBATION:
            return
    raise AssertionError(plant.device.house.deployments[model])


def test_what_grows_on_trial_beside_an_arm_rests_as_long_and_is_refused_the_second_time(
    plant: Plant, held: list[float], tried: ModelName
) -> None:
    device = plant.device
    assert phase(plant, tried) is Phase.NO_MODEL and device.codes().count("memory-unclear") == 1
    assert device.house.journal.quarantined(tried) == () and device.cards() == []
    device.settle(4)
    device.house.blocked.hurry()  # as any new order does
    device.settle(5)
    assert phase(plant, tried) is Phase.NO_MODEL and plant.fallen() == [], "the arms are looked at meanwhile"
    comes_again(plant, tried)
    held[0] += 300.0
    device.settle(9)
    assert phase(plant, tried) is Phase.NO_MODEL and plant.fallen() == []
    (verdict,), (card,) = device.house.journal.quarantined(tried), device.cards()
    assert "has grown by 300 MiB" in verdict.reason and (card.model, card.criterion) == (tried, "guardrail")
    device.settle(30)
    assert phase(plant, tried) is Phase.NO_MODEL and device.codes().count("memory-unclear") == 1


def test_where_the_arm_grew_it_falls_meanwhile_and_who_was_on_trial_passes(
    plant: Plant, held: list[float], tried: ModelName
) -> None:
    device = plant.device
    device.settle(1)
    held[0] += 65.0
    device.settle(2)
    assert plant.fallen() == [3], "it grows on, without the other one"
    comes_again(plant, tried)
    for _ in range(9):
        device.house.serving.predict(tried, {"i": np.array([0], np.int64)})
    device.settle(2)
    assert phase(plant, tried) is Phase.STEADY and device.house.journal.quarantined(tried) == ()
    assert not [name for name in device.house.blocked._waits if name.startswith("grown:")]


def test_what_another_model_takes_when_it_arrives_is_not_held_against_an_arm(plant: Plant, held: list[float]) -> None:
    """A release is opened where its bytes are complete, and then a person's word may be waited for, for weeks."""
    device = plant.device
    device.house.guard.held = lambda: True
    device.house.guard.memory = lambda: held[0] + 100.0 * (phase() is Phase.STAGED)

    def phase() -> Phase:
        return device.house.deployments[other].phase if other in device.house.deployments else Phase.NO_MODEL

    other = ModelName("other")
    beside(plant)
    device.settle(12)
    assert phase() is Phase.STAGED and plant.fallen() == []
    held[0] += 65.0
    device.settle(2)
    assert plant.fallen() == [3], "while it waits, growth counts"


def test_memory_that_is_given_back_is_no_credit(plant: Plant, held: list[float]) -> None:
    held[0] -= 50.0
    plant.device.settle(1)
    held[0] += 65.0
    plant.device.settle(2)
    assert plant.fallen() == [3]


def test_the_first_answers_after_a_start_are_held_against_no_arm(plant: Plant, held: list[float]) -> None:
    plant.device.cut_power()
    plant.device.boot().settle(2)
    plant.device.house.guard.memory = lambda: held[0]
    for _ in range(3):
        held[0] += 70.0
        plant.device.settle(1)
    assert plant.fallen() == []
    while (found := plant.device.house).serving.health(MODEL).answers < GATES.soak_answers:
        plant.device.ask()
    for number in (2, 3):
        while found.serving.health(MODEL, number).answers < GATES.soak_answers:
            plant.who(plant.key(number))
    plant.device.settle(2)
    held[0] += 70.0
    plant.device.settle(2)
    assert plant.fallen() == [3]


def test_an_arm_that_is_never_asked_keeps_growth_from_counting_for_minutes_only(
    plant: Plant, held: list[float]
) -> None:
    plant.device.cut_power()
    plant.device.boot()
    plant.device.house.guard.memory = lambda: held[0]
    plant.device.now += 601.0
    plant.device.settle(2)
    held[0] += 70.0
    plant.device.settle(2)
    assert plant.fallen() == [3]


def test_an_arm_that_lacks_memory_at_the_boot_waits_and_what_it_waited_for_is_forgotten_with_it(
    plant: Plant, held: list[float]
) -> None:
    device, large = plant.device, {plant.device.state.lanes[1].slot.manifest.variants[0].blob.sealed}
    device.artifacts_kind = lambda folder: Cramped(folder, large)
    device.cut_power()
    device.boot().settle(4)
    arm, place = plant.key(3), f"{MODEL}/3"
    assert plant.who(arm) == 1 and plant.fallen() == []
    assert device.codes().count("no-memory") == 1 and device.house.blocked.times(place) == 1
    large.clear()
    device.settle(5)
    assert plant.who(arm) == 3 and device.house.blocked.times(place) == 0
    device.house.blocked.put_off(place, "no-memory", device.now)
    plant.core.assign(plant.shipped[1], device.identity, gates=GATES)
    device.settle(3)
    assert committed(device, 1) and device.house.blocked.times(place) == 0


def test_an_arm_that_comes_again_begins_from_nought(plant: Plant, held: list[float]) -> None:
    held[0] += 40.0
    plant.device.settle(1)
    plant.core.assign(plant.shipped[1], plant.device.identity, gates=GATES)
    plant.device.settle(3)
    assert committed(plant.device, 1)
    plant.split({2: (0, 3000), 3: (5000, 3000)})
    held[0] += 40.0
    plant.device.settle(2)
    assert plant.fallen() == []


LOOKS = st.lists(st.tuples(st.booleans(), st.integers(-100, 100)), max_size=40)


@given(LOOKS)
def test_growth_is_at_most_what_was_seen_in_peace_and_at_least_its_sum(looks: list[tuple[bool, int]]) -> None:
    arms, growth, held = [(MODEL, 2)], Growth(), 1000.0
    growth = grow(growth, arms, "still", held)
    calm = [0.0]
    before = True
    for still, more in looks:
        held += more
        growth = grow(growth, arms, "still" if still else object(), held)
        if still and before:
            calm.append(float(more))
        before = still
    assert sum(calm) <= growth.grown_mb <= sum(more for more in calm if more > 0)


@given(st.lists(st.sets(st.sampled_from([(MODEL, n) for n in range(4)])), max_size=20))
def test_the_newest_arm_is_the_one_that_was_seen_last(sets: list[set[tuple[ModelName, int]]]) -> None:
    growth, first = Growth(), dict[tuple[ModelName, int], int]()
    for at, arms in enumerate(sets):
        growth = grow(growth, arms, None, 0.0)
        first = {arm: first.get(arm, at) for arm in arms}
        assert list(growth.arms) == sorted(arms, key=lambda arm: (first[arm], arm))
